"""gguf_blocks_oracle.py FILE: blocks "TYPE.n.blocks" decoded with numpy, with the gguf package and with llama.cpp's own functions (where they are installed) equal "TYPE.n.values" bit for bit."""
import collections
import ctypes
import sys

import gguf
import numpy as np
from safetensors.numpy import load_file

import gguf_decoders
import llama_cpp

library = llama_cpp.library()
tensors = load_file(sys.argv[1])
counts = collections.Counter()


def llama_cpp_values(name, blocks, size):
    function = getattr(library, "dequantize_row_" + name.replace("Q", "q", 1).replace("T", "t"))
    function.argtypes, function.restype = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64], None
    blocks, out = np.ascontiguousarray(blocks), np.empty(size, np.float32)
    function(blocks.ctypes.data, out.ctypes.data, size)
    return out


def check(source, found, want, name):
    same = (found.view(np.uint32) == want.view(np.uint32)) | (found == want) | (np.isnan(found) & np.isnan(want))
    assert same.all(), (source, name, found[~same][:4], want[~same][:4])
    counts[source, name.split(".")[0]] += 1


with np.errstate(all="ignore"):
    for name in (key.removesuffix(".blocks") for key in tensors if key.endswith(".blocks")):
        blocks, want = tensors[name + ".blocks"], tensors[name + ".values"]
        kind = name.split(".")[0]
        check("numpy", gguf_decoders.decode(kind, blocks), want, name)
        if kind != "Q2_0" and kind != "Q1_0":
            check("gguf", gguf.quants.dequantize(blocks, gguf.GGMLQuantizationType[kind]), want, name)
        if library and kind not in ("F32", "F16", "BF16"):
            check("llama.cpp", llama_cpp_values(kind, blocks, want.size).reshape(want.shape), want, name)
for source in ("numpy", "gguf", "llama.cpp"):
    found = {kind: count for (which, kind), count in sorted(counts.items()) if which == source}
    print(f"{source}: {sum(found.values())} cases of {len(found)} types")
assert len(gguf_decoders.DECODERS) >= 17

"""gguf_dense_oracle.py GGUF HF: the values of a GGUF directory, decoded with numpy and rounded as our reader rounds them, are the dense directory's."""
import json
import pathlib
import re
import sys

import numpy as np

import gguf_decoders
import gguf_reader
from gguf_names import NAMES, OUTSIDE
from safetensors_numpy import equal, load

path, dense = next(pathlib.Path(sys.argv[1]).glob("*.gguf")), load(sys.argv[2])
config = json.loads((pathlib.Path(sys.argv[2]) / "config.json").read_text())
file, seen = gguf_reader.File(path), set()
for tensor, (block, shape, offset) in file.tensors.items():
    module, kind = tensor.rsplit(".", 1)
    found = re.fullmatch(r"blk\.(\d+)\.(\w+)", module)
    name = f"model.layers.{found[1]}.{NAMES[found[2]]}.{kind}" if found else f"{OUTSIDE[module]}.{kind}"
    want = dense[name]
    if file.keys["general.architecture"] == "llama" and found and found[2] in ("attn_q", "attn_k"):
        heads = config["num_attention_heads" if found[2] == "attn_q" else "num_key_value_heads"]
        want = want.reshape(heads, 2, len(want) // heads // 2, -1).swapaxes(1, 2).reshape(want.shape)
    weights, size, _ = gguf_decoders.DECODERS[block]
    data = np.frombuffer(file.data, np.uint8, want.size // weights * size, offset).reshape(*shape[:-1], -1)
    assert equal(gguf_decoders.decode(block, data).reshape(shape), want), name
    seen.add(name)
assert seen == set(dense), seen ^ set(dense)
print(f"{len(seen)} tensors")

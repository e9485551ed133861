"""gguf_dense_oracle.py GGUF HF: the values of a GGUF directory, decoded with numpy and rounded as our reader rounds them, are the dense directory's."""
import json
import pathlib
import sys

import numpy as np

import gguf_decoders
import gguf_reader
from gguf_names import placed
from safetensors_numpy import equal, load

path, dense = next(pathlib.Path(sys.argv[1]).glob("*.gguf")), load(sys.argv[2])
config = json.loads((pathlib.Path(sys.argv[2]) / "config.json").read_text())
file, seen = gguf_reader.File(path), set()
for tensor, (block, shape, offset) in file.tensors.items():
    name, want = placed(tensor, dense, file.keys["general.architecture"], config)
    weights, size, _ = gguf_decoders.DECODERS[block]
    data = np.frombuffer(file.data, np.uint8, want.size // weights * size, offset).reshape(*shape[:-1], -1)
    assert equal(gguf_decoders.decode(block, data).reshape(shape), want), name
    seen.add(name)
assert seen == set(dense), seen ^ set(dense)
print(f"{len(seen)} tensors")

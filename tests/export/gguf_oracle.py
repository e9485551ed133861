"""gguf_oracle.py (FILE REFERENCE)...: each GGUF file read and decoded with numpy has the fp32 values of a Hugging Face directory bit for bit, and the gguf package reads the same from it (unless it has the type Q2_0, which that does not know)."""
import json
import pathlib
import sys

import gguf
import numpy as np
from safetensors.numpy import load_file

import gguf_decoders
import gguf_reader
from gguf_names import placed


def check(path, reference):
    want = load_file(pathlib.Path(reference) / "model.safetensors")
    config = json.loads((pathlib.Path(reference) / "config.json").read_text())
    file = gguf_reader.File(path)
    keys = file.keys
    architecture = keys["general.architecture"]
    assert keys["general.quantization_version"] == 2
    assert keys[f"{architecture}.embedding_length"] == config["hidden_size"]
    assert keys[f"{architecture}.block_count"] == config["num_hidden_layers"]
    seen = set()
    blocks = {}
    for tensor, (kind_of_block, shape, offset) in file.tensors.items():
        name, rows = placed(tensor, want, architecture, config)
        assert shape == list(rows.shape), (name, shape)
        weights, size, _ = gguf_decoders.DECODERS[kind_of_block]
        assert offset % 32 == 0 and shape[-1] % weights == 0 and len(tensor) < 64
        blocks[tensor] = np.frombuffer(file.data, np.uint8, rows.size // weights * size, offset)
        values = gguf_decoders.decode(kind_of_block, blocks[tensor].reshape(*shape[:-1], -1)).reshape(shape)
        assert ((values.view(np.uint32) == rows.view(np.uint32)) | (values == rows)).all(), name
        seen.add(name)
    assert seen == set(want), seen ^ set(want)
    tokens = json.loads((pathlib.Path(reference) / "tokenizer.json").read_text())
    listed = keys["tokenizer.ggml.tokens"]
    assert len(listed) == config["vocab_size"] == len(keys["tokenizer.ggml.token_type"])
    for token, index in tokens["model"]["vocab"].items():
        assert listed[index] == token
    for token in tokens["added_tokens"]:
        assert listed[token["id"]] == token["content"] and keys["tokenizer.ggml.token_type"][token["id"]] == (3 if token["special"] else 4)
    assert [m.split(" ") for m in keys["tokenizer.ggml.merges"]] == [m if isinstance(m, list) else m.split(" ") for m in tokens["model"]["merges"]]
    if "Q2_0" not in {kind for kind, _, _ in file.tensors.values()}:
        reader = gguf.GGUFReader(path)
        assert [t.name for t in reader.tensors] == list(file.tensors)
        for tensor in reader.tensors:
            assert (np.ascontiguousarray(tensor.data).view(np.uint8).ravel() == blocks[tensor.name]).all(), tensor.name
        for name, value in keys.items():
            assert reader.fields[name].contents() == value, name
    print(f"{len(seen)} tensors")


for path, reference in zip(sys.argv[1::2], sys.argv[2::2]):
    check(path, reference)

"""awq_oracle.py AWQ HF: an AWQ gemm directory unpacked nibble by nibble, as its format is published, equals the dense directory bit for bit."""
import json
import pathlib
import sys

import numpy as np

from safetensors_numpy import equal, load

ORDER = (0, 2, 4, 6, 1, 3, 5, 7)  # which of eight outputs each nibble of a word holds


def unpack(words):
    out = np.zeros((words.shape[0], words.shape[1] * 8), np.int64)
    for nibble, output in enumerate(ORDER):
        out[:, output::8] = words.view(np.uint32) >> np.uint32(4 * nibble) & np.uint32(15)
    return out


packed, dense = load(sys.argv[1]), load(sys.argv[2])
settings = json.loads((pathlib.Path(sys.argv[1]) / "config.json").read_text())["quantization_config"]
assert settings["quant_method"] == "awq" and settings["version"] == "gemm" and settings["bits"] == 4 and settings["zero_point"] is True, settings
num_modules = 0
for name, words in packed.items():
    if not name.endswith(".qweight"):
        continue
    module = name.removesuffix(".qweight")
    want = dense[module + ".weight"]
    num_rows, num_columns = want.shape
    group = settings["group_size"] if settings["group_size"] > 0 else num_columns
    qzeros, scales = (packed[f"{module}.{part}"] for part in ("qzeros", "scales"))
    assert words.dtype == np.int32 and words.shape == (num_columns, num_rows // 8), words.shape
    assert qzeros.dtype == np.int32 and qzeros.shape == (num_columns // group, num_rows // 8), qzeros.shape
    assert scales.dtype == np.float16 and scales.shape == (num_columns // group, num_rows), scales.shape
    of_column = np.arange(num_columns) // group
    product = scales.astype(np.float64)[of_column] * (unpack(words) - unpack(qzeros)[of_column])  # exact
    assert equal(product.T, want), module
    num_modules += 1
for name, values in dense.items():
    assert name.removesuffix(".weight") + ".qweight" in packed or (packed[name] == values).all(), name
print(f"{num_modules} modules, group {settings['group_size']}")

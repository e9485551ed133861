"""compressed_tensors_oracle.py CT HF: a compressed-tensors directory unpacked bit by bit, as its format is published, equals the dense
directory bit for bit."""
import json
import pathlib
import re
import sys

import numpy as np

from safetensors_numpy import equal, load, unpack, widen

packed, dense = load(sys.argv[1]), load(sys.argv[2])
settings = json.loads((pathlib.Path(sys.argv[1]) / "config.json").read_text())["quantization_config"]
assert settings["quant_method"] == "compressed-tensors" and settings["quantization_status"] == "compressed", settings


def weights_of(module):
    for group in settings["config_groups"].values():
        for target in group["targets"]:
            if target in (module, "Linear") or target.startswith("re:") and re.match(target[3:], module):
                return group["weights"]
    raise AssertionError(f"no group targets {module}")


num_modules = 0
for name, want in dense.items():
    module = name.removesuffix(".weight")
    if name in packed and module + ".weight_scale" not in packed:
        assert (packed[name] == want).all(), name
        continue
    weights, (num_rows, num_columns) = weights_of(module), want.shape
    bits, scale = weights["num_bits"], packed[module + ".weight_scale"]
    group = weights["group_size"] if weights["strategy"] == "group" else num_columns
    if name in packed:  # int-quantized
        codes, zeros = packed[name].view(np.int8).astype(np.int64), 0
    else:
        assert packed[module + ".weight_shape"].tolist() == [num_rows, num_columns]
        codes, zeros = unpack(packed[module + ".weight_packed"], bits, num_columns), 2 ** (bits - 1)
    if not weights["symmetric"]:
        zeros = unpack(np.ascontiguousarray(packed[module + ".weight_zero_point"].T), bits, num_rows).T
        zeros = np.repeat(zeros, group, 1)
    product = np.repeat(widen(scale).astype(np.float64), group, 1) * (codes - zeros)
    assert equal(product, want), module
    num_modules += 1
print(f"{num_modules} modules")

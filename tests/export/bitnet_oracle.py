"""bitnet_oracle.py BITNET HF: a BitNet directory unpacked by two bits, as its format is published (autobitlinear: levels times the scale), equals the dense
directory bit for bit."""
import json
import pathlib
import sys

import numpy as np

from safetensors_numpy import equal, load, widen

packed, dense = load(sys.argv[1]), load(sys.argv[2])
settings = json.loads((pathlib.Path(sys.argv[1]) / "config.json").read_text())["quantization_config"]
assert settings["quant_method"] == "bitnet" and settings["linear_class"] == "autobitlinear" and settings["quantization_mode"] == "offline", settings
num_modules = 0
for name, want in dense.items():
    scale = packed.get(name.removesuffix(".weight") + ".weight_scale")
    if scale is None:
        assert (packed[name] == want).all(), name
        continue
    levels = np.concatenate([(packed[name] >> 2 * i) & 3 for i in range(4)]).astype(np.int64) - 1
    assert np.abs(levels).max() <= 1 and scale.shape == (1,)
    assert equal(widen(scale).astype(np.float64) * levels, want), name
    num_modules += 1
print(f"{num_modules} modules")

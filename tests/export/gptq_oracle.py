"""gptq_oracle.py GPTQ HF: a GPTQ directory unpacked bit by bit, as its format is published, equals the dense directory bit for bit."""
import json
import pathlib
import sys

import numpy as np

from safetensors_numpy import equal, load, unpack

packed, dense = load(sys.argv[1]), load(sys.argv[2])
config = json.loads((pathlib.Path(sys.argv[1]) / "config.json").read_text())
beside = json.loads((pathlib.Path(sys.argv[1]) / "quantize_config.json").read_text())
settings = config["quantization_config"]
assert settings == beside
assert settings["quant_method"] == "gptq" and settings["pack_dtype"] == "int32", settings
assert settings["desc_act"] is False and settings["lm_head"] is False and settings["meta"]["quantizer"], settings
bits, version = settings["bits"], {"gptq": 1, "gptq_v2": 2}[settings["checkpoint_format"]]
KNOWN = {(1, 2): 0x55555555, (1, 4): 0x77777777, (1, 8): 0x7F7F7F7F, (2, 2): 0xAAAAAAAA, (2, 4): 0x88888888, (2, 8): 0x80808080}
num_modules = 0
for name, words in packed.items():
    if not name.endswith(".qweight"):
        continue
    module = name.removesuffix(".qweight")
    want = dense[module + ".weight"]
    num_rows, num_columns = want.shape
    group = settings["group_size"] if settings["group_size"] > 0 else num_columns
    qzeros, scales, g_idx = (packed[f"{module}.{part}"] for part in ("qzeros", "scales", "g_idx"))
    assert words.dtype == np.int32 and words.shape == (num_columns * bits // 32, num_rows), words.shape
    assert qzeros.dtype == np.int32 and qzeros.shape == (num_columns // group, num_rows * bits // 32), qzeros.shape
    assert scales.dtype == np.float16 and scales.shape == (num_columns // group, num_rows), scales.shape
    assert g_idx.dtype == np.int32 and (g_idx == np.arange(num_columns) // group).all()
    if settings["sym"] and (version, bits) in KNOWN:
        assert (qzeros.view(np.uint32) == KNOWN[version, bits]).all(), hex(qzeros.view(np.uint32)[0, 0])
    codes, zeros = unpack(np.ascontiguousarray(words.T), bits).T, unpack(qzeros, bits) + (version == 1)
    product = scales.astype(np.float64)[g_idx] * (codes - zeros[g_idx])  # exact
    assert (product.astype(np.float32) == product).all()
    assert equal(product.T, want), module
    num_modules += 1
for name, values in dense.items():
    assert name.removesuffix(".weight") + ".qweight" in packed or (packed[name] == values).all(), name
print(f"{num_modules} modules, {bits} bits, version {version}, sym {settings['sym']}")

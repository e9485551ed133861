"""hf_oracle.py CHECKPOINT HF: the dense export is what the published formulas make of the checkpoint's master weights and learned scales,
bit for bit (but for LWC's sigmoid, where scales may differ by their last digit: then a value in a thousand)."""
import json
import pathlib
import sys

import numpy as np

from safetensors_numpy import bfloat16, load, widen

F = np.float32


def rounded(values):
    return widen(bfloat16(values))


def dequantized(scheme, w, scale, zero, clip_high, clip_low):
    """w [N, G, g], the rest [N, G, 1] (fp32): scale * level, exact in fp64."""
    method, bits = scheme["method"], scheme["bits"]
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    top = F(2**bits - 1)
    extreme = [np.minimum(w.min(-1, keepdims=True), 0), np.maximum(w.max(-1, keepdims=True), 0)]
    floor = F(1e-5)
    if method == "lwc":
        extreme = [e / (1 + np.exp(-c)) for e, c in zip(extreme, (clip_low, clip_high))]
    if method in ("minmax_asymmetric", "lwc"):
        scale = rounded(np.maximum((extreme[1] - extreme[0]) / top, floor))
        zero = np.rint(np.clip(-extreme[0] / scale, 0, top))
    elif method == "minmax_symmetric":
        scale = np.maximum(-extreme[0], extreme[1]) / (top / 2)
    elif method == "bitnet":
        scale = np.full_like(scale if scale is not None else w[:, :1, :1], F(np.abs(w.astype(np.float64)).mean()))
    scale = np.maximum(scale, floor)
    if method == "seq":
        s = rounded(scale * F(0.25))
        return s.astype(np.float64) * (2 * np.rint(2 * np.clip(w / (s * 4), F(-0.99), F(0.99)) - F(0.5)) + 1)
    if method == "ternary":
        s = rounded(scale * F(2 / 3))
        return s.astype(np.float64) * np.rint(F(1.5) * np.clip(w / (s * F(1.5)), F(-0.99), F(0.99)))
    s = rounded(scale)
    if method in ("binary", "onebit"):
        return s.astype(np.float64) * np.where(w < 0, -1, 1)
    if method == "bitnet":
        return s.astype(np.float64) * np.rint(np.clip(w / s, -1, 1))
    if method in ("lsq_asymmetric", "minmax_asymmetric", "lwc"):
        z = np.rint(np.clip(zero, 0, top))
        return s.astype(np.float64) * np.rint(np.clip(w / s, -z, top - z))
    return s.astype(np.float64) * np.rint(np.clip(w / s, low, high))


checkpoint, dense = load(sys.argv[1]), load(sys.argv[2])
schemes = json.loads((pathlib.Path(sys.argv[1]) / "satin.json").read_text())["schemes"]
for name, want in dense.items():
    module = name.removesuffix(".weight")
    scheme, w = schemes.get(module), checkpoint[name]
    if scheme is None:
        assert (bfloat16(w) == want).all() or (w == want).all(), name
        continue
    num_rows, num_columns = w.shape
    group = scheme["group_size"] if scheme["group_size"] > 0 else num_columns
    parts = [checkpoint.get(f"{module}.weight_{part}") for part in ("scale", "zero_point", "clip_high", "clip_low")]
    parts = [None if p is None else np.broadcast_to(p, (num_rows, num_columns // group))[..., None] for p in parts]
    found = dequantized(scheme, w.reshape(num_rows, -1, group), *parts).reshape(w.shape)
    differ = (bfloat16(found.astype(F)) != want) & ~((found == 0) & (want & 0x7FFF == 0))
    assert differ.mean() <= (1e-3 if scheme["method"] == "lwc" else 0), f"{module}: {differ.sum()} of {differ.size} values differ"
print(f"{len(schemes)} modules")

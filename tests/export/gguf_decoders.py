"""Every GGUF block type decoded with numpy, one weight at a time as the formats are published: shares nothing with the writer."""
import numpy as np


def half(blocks, at):
    return np.ascontiguousarray(blocks[:, at : at + 2]).view(np.float16).astype(np.float32)


def bits(data, width):
    """[n, bytes] -> [n, bytes, 8 / width]: the parts of each byte, the lowest first."""
    return (data[:, :, None] >> np.arange(0, 8, width, dtype=np.uint8)) & (2**width - 1)


def planes(data, width, run):
    """Runs of `run` bytes hold 8 / width runs of weights, the first in the lowest bits."""
    n = len(data)
    return bits(data, width).reshape(n, -1, run, 8 // width).transpose(0, 1, 3, 2).reshape(n, -1).astype(np.int32)


def six_bits(packed):
    """The 12 bytes of Q4_K and Q5_K: 8 factors and 8 minima."""
    p = packed.astype(np.int32)
    low, high = p[:, 8:12] & 15, p[:, 8:12] >> 4
    factor = np.concatenate([p[:, :4] & 63, low | (p[:, :4] >> 6) << 4], 1)
    minimum = np.concatenate([p[:, 4:8] & 63, high | (p[:, 4:8] >> 6) << 4], 1)
    return factor.astype(np.float32), minimum.astype(np.float32)


def k_quant(d, factor, q, m=None, minimum=None):
    n, parts = factor.shape
    scaled = (d * factor)[:, :, None] * q.reshape(n, parts, -1).astype(np.float32)
    if m is not None:
        scaled = scaled - (m * minimum)[:, :, None]
    return scaled.reshape(n, -1)


def q3_k(b):
    packed = b[:, 96:108].astype(np.int32)
    factor = np.zeros((len(b), 16), np.int32)
    for i in range(16):
        low = packed[:, i % 8] >> (4 * (i // 8)) & 15
        factor[:, i] = (low | (packed[:, 8 + i % 4] >> (2 * (i // 4)) & 3) << 4) - 32
    q = planes(b[:, 32:96], 2, 32) + 4 * planes(b[:, :32], 1, 32) - 4
    return k_quant(half(b, 108), factor.astype(np.float32), q)


def q6_k(b):
    factor = np.ascontiguousarray(b[:, 192:208]).view(np.int8).astype(np.float32)
    return k_quant(half(b, 208), factor, planes(b[:, :128], 4, 64) + 16 * planes(b[:, 128:192], 2, 32) - 32)


def q4_k(b):
    factor, minimum = six_bits(b[:, 4:16])
    return k_quant(half(b, 0), factor, planes(b[:, 16:], 4, 32), half(b, 2), minimum)


def q5_k(b):
    factor, minimum = six_bits(b[:, 4:16])
    q = planes(b[:, 48:], 4, 32) + 16 * planes(b[:, 16:48], 1, 32)
    return k_quant(half(b, 0), factor, q, half(b, 2), minimum)


def q2_k(b):
    scales = b[:, :16]
    return k_quant(half(b, 80), (scales & 15).astype(np.float32), planes(b[:, 16:80], 2, 32), half(b, 82), (scales >> 4).astype(np.float32))


def tq1_0(b):
    out = []
    for first, run, digits in ((0, 32, 5), (32, 16, 5), (48, 4, 4)):
        group = b[:, first : first + run].astype(np.int32)
        out += [((group * 3**n & 255) * 3) >> 8 for n in range(digits)]
    return half(b, 52) * (np.concatenate(out, 1) - 1).astype(np.float32)


def levels(at, decode):
    return lambda b: half(b, at) * decode(b).astype(np.float32)


def fifth(b, at):
    return bits(b[:, at : at + 4], 1).reshape(len(b), 32).astype(np.int32) * 16


# name: (weights, bytes, decoder of [n, bytes])
DECODERS = {
    "F32": (1, 4, lambda b: b.view(np.float32)),
    "F16": (1, 2, lambda b: b.view(np.float16).astype(np.float32)),
    "BF16": (1, 2, lambda b: (b.view(np.uint16).astype(np.uint32) << 16).view(np.float32)),
    "Q8_0": (32, 34, levels(0, lambda b: np.ascontiguousarray(b[:, 2:]).view(np.int8))),
    "Q4_0": (32, 18, levels(0, lambda b: planes(b[:, 2:], 4, 16) - 8)),
    "Q5_0": (32, 22, levels(0, lambda b: (planes(b[:, 6:], 4, 16) | fifth(b, 2)) - 16)),
    "Q4_1": (32, 20, lambda b: half(b, 0) * planes(b[:, 4:], 4, 16).astype(np.float32) + half(b, 2)),
    "Q5_1": (32, 24, lambda b: half(b, 0) * (planes(b[:, 8:], 4, 16) | fifth(b, 4)).astype(np.float32) + half(b, 2)),
    "Q1_0": (128, 18, levels(0, lambda b: bits(b[:, 2:], 1).reshape(len(b), 128).astype(np.int32) * 2 - 1)),
    "Q2_0": (64, 18, levels(0, lambda b: bits(b[:, 2:], 2).reshape(len(b), 64).astype(np.int32) - 1)),
    "TQ1_0": (256, 54, tq1_0),
    "TQ2_0": (256, 66, levels(64, lambda b: planes(b[:, :64], 2, 32) - 1)),
    "Q2_K": (256, 84, q2_k),
    "Q3_K": (256, 110, q3_k),
    "Q4_K": (256, 144, q4_k),
    "Q5_K": (256, 176, q5_k),
    "Q6_K": (256, 210, q6_k),
}


def decode(name, data):
    """Bytes [..., row bytes] -> fp32 [..., weights]."""
    weights, size, decoder = DECODERS[name]
    blocks = np.ascontiguousarray(data).reshape(-1, size)
    return decoder(blocks).reshape(*data.shape[:-1], data.shape[-1] // size * weights)

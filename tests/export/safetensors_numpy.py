"""Reading safetensors with numpy alone, and comparing exact products with stored 16-bit weights."""
import json
import pathlib

import numpy as np

DTYPES = {"BF16": np.uint16, "F16": np.float16, "F32": np.float32, "I32": np.int32, "I64": np.int64, "U8": np.uint8, "I8": np.int8}


def load(directory):
    raw = (pathlib.Path(directory) / "model.safetensors").read_bytes()
    size = int.from_bytes(raw[:8], "little")
    tensors = {}
    for name, info in json.loads(raw[8 : 8 + size]).items():
        if name != "__metadata__":
            begin, end = (8 + size + offset for offset in info["data_offsets"])
            tensors[name] = np.frombuffer(raw[begin:end], DTYPES[info["dtype"]]).reshape(info["shape"])
    return tensors


def unpack(words, bits, count=None):
    """[R, W] -> [R, count] (32 W / bits when left out): code i is bits i * bits and up of the row's words, the lowest bit first."""
    stream = ((words.view(np.uint32)[..., None] >> np.arange(32, dtype=np.uint32)) & 1).reshape(len(words), -1)
    count = stream.shape[1] // bits if count is None else count
    return (stream[:, : count * bits].reshape(len(words), count, bits) << np.arange(bits)).sum(-1).astype(np.int64)


def widen(values):
    """Stored 16-bit numbers (bfloat16 as its bits) or wider -> float32."""
    return (values.astype(np.uint32) << 16).view(np.float32) if values.dtype == np.uint16 else values.astype(np.float32)


def bfloat16(values):
    """fp32 -> the bits of the nearest bfloat16, ties to even."""
    bits = values.astype(np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def equal(product, want):
    """Whether exact products, rounded once to want's 16 bits, are the stored ones. A product of 0 has the sign of its
    factors: compared as numbers there, as bits everywhere else."""
    found = product.astype(np.float32)
    assert (found == product).all()
    found = found.astype(np.float16).view(np.uint16) if want.dtype == np.float16 else bfloat16(found)
    return ((found == want.view(np.uint16)) | (product == 0) & (want.view(np.uint16) & 0x7FFF == 0)).all()

"""Random codes of 2 to 8 bits and what compressed-tensors packs them to. Codes are stored with their offset, 0 .. 2^bits - 1."""
import sys

import torch
from compressed_tensors.compressors.pack_quantized.helpers import pack_to_int32
from safetensors.torch import save_file

torch.manual_seed(0)
out = {}
for bits in range(2, 9):
    for columns in (32, 64, 33, 100):
        codes = torch.randint(0, 2**bits, (5, columns))
        signed = (codes - 2 ** (bits - 1)).to(torch.int8)
        out[f"codes.{bits}.{columns}"] = codes.to(torch.uint8)
        out[f"packed.{bits}.{columns}"] = pack_to_int32(signed, bits)
save_file(out, sys.argv[1])

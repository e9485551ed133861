"""compare_with_transformers.py HF CT: both directories load in transformers, with bit-equal weights and logits."""
import sys

import torch
from transformers import AutoModelForCausalLM

dense = AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=torch.bfloat16)
packed = AutoModelForCausalLM.from_pretrained(sys.argv[2], dtype=torch.bfloat16)
ids = torch.arange(30)[None]
with torch.no_grad():
    a, b = dense(ids).logits, packed(ids).logits
assert torch.equal(a, b), (a - b).abs().max()
print("logits equal bit for bit")

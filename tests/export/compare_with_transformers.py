"""compare_with_transformers.py (HF CT)...: both directories of each pair load in transformers, with bit-equal weights and logits."""
import sys

import torch
from transformers import AutoModelForCausalLM

ids = torch.arange(30)[None]
for hf, ct in zip(sys.argv[1::2], sys.argv[2::2]):
    dense = AutoModelForCausalLM.from_pretrained(hf, dtype=torch.bfloat16)
    packed = AutoModelForCausalLM.from_pretrained(ct, dtype=torch.bfloat16)
    with torch.no_grad():
        a, b = dense(ids).logits, packed(ids).logits
    assert torch.equal(a, b), (ct, (a - b).abs().max())
print("logits equal bit for bit")

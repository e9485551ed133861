"""What transformers makes of a student beside its teacher: comparison_oracle.py ROLES.json OUT.json

ROLES: student, teacher (directories), dtype, tokens, length (of a window), num_tokens (ids that are candidates), roots
(as dumped), special_ids, seed (of the perturbations).
"""
import json
import sys

import robustness_oracle
import smoothness_oracle
import torch
from transformers import AutoModelForCausalLM

torch.set_num_threads(1)  # small matrices; other programs may want the cores
roles = json.load(open(sys.argv[1]))
model = {n: AutoModelForCausalLM.from_pretrained(roles[n], dtype=getattr(torch, roles["dtype"])).eval() for n in ("student", "teacher")}
json.dump({oracle.__name__[:-7]: oracle.measure(model, roles) for oracle in (smoothness_oracle, robustness_oracle)}, open(sys.argv[2], "w"))

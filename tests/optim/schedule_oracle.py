"""Learning-rate factors: transformers' schedules where their warm-up agrees, else the formulas. schedule_oracle.py OUT.json"""
import json
import math
import sys

import torch
from transformers import optimization

cases = []
for total, ratio in [(100, 0.05), (1000, 0.1), (50, 0.05), (70, 0.05), (10, 0.0), (1, 0.05), (2, 0.9), (3, 1.0)]:
    warm = max(1, round(ratio * total))
    # transformers warms up from step / warm; here the first step already has a learning rate, (step + 1) / warm.
    for kind in ("cosine", "linear", "constant"):
        optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
        make = {"cosine": optimization.get_cosine_schedule_with_warmup, "linear": optimization.get_linear_schedule_with_warmup,
                "constant": optimization.get_constant_schedule_with_warmup}[kind]
        arguments = dict(num_warmup_steps=warm)
        if kind != "constant":
            arguments["num_training_steps"] = total
        factor = make(optimizer, **arguments).lr_lambdas[0]
        values = [(step + 1) / warm if step < warm else factor(step) for step in range(total)]
        cases.append(dict(total=total, warmup_ratio=ratio, schedule=kind, floor=0.0, values=values))
        if kind == "cosine":
            reference = [(s + 1) / warm if s < warm else 0.5 * (1 + math.cos(math.pi * (s - warm) / max(1, total - warm)))
                         for s in range(total)]
            assert all(abs(a - b) < 1e-12 for a, b in zip(values, reference)), (total, ratio)
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    factor = optimization.get_cosine_with_min_lr_schedule_with_warmup(
        optimizer, num_warmup_steps=warm, num_training_steps=total, min_lr_rate=0.1).lr_lambdas[0]
    values = [(step + 1) / warm if step < warm else factor(step) for step in range(total)]
    cases.append(dict(total=total, warmup_ratio=ratio, schedule="cosine", floor=0.1, values=values))
json.dump(cases, open(sys.argv[1], "w"))

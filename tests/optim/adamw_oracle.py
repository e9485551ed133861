"""Several steps of torch.optim.AdamW and clip_grad_norm_ in double: adamw_oracle.py OUT.json"""
import json
import sys

import torch

torch.manual_seed(0)
options = dict(learning_rate=3e-2, scale_learning_rate=7e-3, zero_point_learning_rate=2e-1, weight_decay=0.13,
               beta1=0.9, beta2=0.95, epsilon=1e-8)
shapes = {"a.weight": ("weight", [5, 7]), "b.weight": ("weight", [3, 70]), "embed.weight": ("embedding", [11, 4]),
          "norm.weight": ("norm", [9]), "a.bias": ("bias", [5]), "a.weight_scale": ("scale", [5, 2]),
          "b.weight_scale": ("scale", [3, 1]), "a.weight_zero_point": ("zero_point", [5, 2])}
parameters = {n: torch.randn(s, dtype=torch.float64, requires_grad=True) for n, (_, s) in shapes.items()}
rate = {"scale": options["scale_learning_rate"], "zero_point": options["zero_point_learning_rate"]}
groups = [dict(params=[parameters[n]], lr=rate.get(role, options["learning_rate"]),
               weight_decay=options["weight_decay"] if role == "weight" else 0.0) for n, (role, _) in shapes.items()]
optimizer = torch.optim.AdamW(groups, betas=(options["beta1"], options["beta2"]), eps=options["epsilon"],
                              foreach=False, fused=False)
base = [g["lr"] for g in optimizer.param_groups]
flat = lambda t: t.detach().flatten().tolist()
out = dict(options=options, max_norm=1.0,
           parameters={n: dict(role=r, shape=s, initial=flat(parameters[n])) for n, (r, s) in shapes.items()}, steps=[])
quantizer = {n for n, (r, _) in shapes.items() if r in rate}
for step in range(8):
    multiplier = [0.5, 1.0, 0.93, 0.7, 0.41, 0.2, 0.07, 0.01][step]
    gradients = {}
    for name, p in parameters.items():
        # Two parameters have no gradient on some steps; the sizes reach both sides of the clipping norm.
        if (name == "b.weight" and step in (0, 3)) or (name == "b.weight_scale" and step % 2):
            p.grad = None
            continue
        p.grad = torch.randn(p.shape, dtype=torch.float64) * (0.02 if step % 3 == 2 else 1.7)
        gradients[name] = flat(p.grad)
    norms = [torch.nn.utils.clip_grad_norm_([p for n, p in parameters.items() if (n in quantizer) == q], 1.0).item()
             for q in (False, True)]
    clipped = {n: flat(p.grad) for n, p in parameters.items() if p.grad is not None}
    for g, lr in zip(optimizer.param_groups, base):
        g["lr"] = lr * multiplier
    optimizer.step()
    out["steps"].append(dict(multiplier=multiplier, gradients=gradients, norms=norms, clipped=clipped,
                             values={n: flat(p) for n, p in parameters.items()}))
out["state"] = {n: {k: flat(v) for k, v in optimizer.state[p].items()} for n, p in parameters.items()}
json.dump(out, open(sys.argv[1], "w"))

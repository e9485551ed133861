#!/usr/bin/env python3
"""The tables of results/README.md from `satin bench fake_quant --json FILE`: microseconds and share of the floor."""
import json
import re
import sys

NAME = re.compile(r"(?P<what>.+) (?P<dtype>bfloat16|float32)(?P<shape> \[.+\])? (?P<direction>forward|backward)$")
COLUMNS = [(d, w) for d in ("bfloat16", "float32") for w in ("forward", "backward")]

cells, models = {}, {}
for m in json.load(open(sys.argv[1]))["measurements"]:
    found = NAME.match(m["name"])
    if not found or found["what"].startswith("torch"):
        continue
    key = (found["dtype"], found["direction"])
    if found["shape"]:
        cells.setdefault(found["shape"].strip(), {}).setdefault(found["what"], {})[key] = m
    else:
        models.setdefault((found["what"].split()[3], found["dtype"]), {})[found["direction"]] = m

print("| | bf16 master, forward | backward | fp32 master, forward | backward |\n|---|---|---|---|---|")
for shape, rows in cells.items():
    print(f"| **{shape}** | | | | |")
    for what, row in rows.items():
        print(f"| {what} | " + " | ".join(f"{row[c]['us']:.1f} ({100 * row[c]['fraction_of_floor']:.0f} %)" for c in COLUMNS) + " |")
print("\n| | forward | backward | forward, all bytes | backward, all bytes |\n|---|---|---|---|---|")
for (model, dtype), row in models.items():
    over = [1 / row[d]["fraction_of_floor"] for d in ("forward", "backward")]
    over += [100 / float(re.search(r"zero points ([\d.]+) %", row[d]["note"])[1]) for d in ("forward", "backward")]
    print(f"| {model} {dtype} | " + " | ".join(f"{x:.2f}" for x in over) + " |")

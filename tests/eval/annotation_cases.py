"""Random strings over the characters that matter, and where Python's re finds group 1."""
import json
import random
import re
import sys

random.seed(1)
cases = []
for _ in range(3000):
    text = "".join(random.choice("<><>==12") for _ in range(random.randrange(3, 24)))
    cases.append({"text": text, "ranges": [m.span(1) for m in re.finditer(r"<<[^=<>]*=([^<>]*)>>", text)]})
json.dump(cases, open(sys.argv[1], "w"))

"""The texts of a .jsonl file read with errors="replace", as one JSON list."""
import json
import sys

with open(sys.argv[1], encoding="utf-8", errors="replace") as lines:
    print(json.dumps([json.loads(line)["text"] for line in lines]))

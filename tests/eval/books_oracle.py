"""Mean loss of the first windows of a text by transformers in fp32: books_oracle.py MODEL JSONL WINDOWS LENGTH OUT"""
import json
import sys

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

path, text, num_windows, length, out = sys.argv[1:]
num_windows, length = int(num_windows), int(length)
tokenizer, model = AutoTokenizer.from_pretrained(path), AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
stream = []
for line in open(text):
    record = json.loads(line)
    document = f"Question: {record['question']}\nAnswer: {record['answer']}"
    stream += [0] + tokenizer(document, add_special_tokens=False).input_ids + [1]
    if len(stream) >= num_windows * length:
        break
windows = torch.tensor(stream[: num_windows * length]).view(num_windows, length)
with torch.no_grad():
    logits = model(windows).logits[:, :-1]
nll = torch.nn.functional.cross_entropy(logits.flatten(0, 1), windows[:, 1:].flatten()).item()
json.dump({"nll": nll}, open(out, "w"))

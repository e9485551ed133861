"""BOS + ids + EOS of each document of a file, by the tokenizers library, as raw uint16.

tokenise.py MODEL_DIR FILE OUTPUT.bin    .jsonl: "text", or "question" and "answer" as GSM8K is written; .txt: one document
"""
import json
import sys

import numpy
from tokenizers import Tokenizer

model, path, output = sys.argv[1:]
tokenizer = Tokenizer.from_file(model + "/tokenizer.json")
if path.endswith(".txt"):
    documents = [open(path, encoding="utf-8").read()]
else:
    records = [json.loads(line) for line in open(path, encoding="utf-8")]
    documents = [r["text"] if "text" in r else f"Question: {r['question']}\nAnswer: {r['answer']}" for r in records]
bos, eos = (tokenizer.token_to_id(t) for t in ("<|begin_of_text|>", "<|end_of_text|>"))
ids = [[bos, *e.ids, eos] for e in tokenizer.encode_batch(documents, add_special_tokens=False)]
numpy.array(sum(ids, []), dtype="<u2").tofile(output)

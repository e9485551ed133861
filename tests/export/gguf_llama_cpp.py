"""gguf_llama_cpp.py JOB.json: what llama.cpp makes of a GGUF file, as one line of JSON. Job: {file, logits: FILE (tensors tokens and logits), texts: FILE (lines of JSON: text, ids), tokens: [...] (perplexity in windows of 512), prompt: [...], count}."""
import json
import sys

import numpy as np
from safetensors.numpy import load_file

import llama_cpp

job = json.load(open(sys.argv[1]))
model = llama_cpp.Model(job["file"])
result = {}
if "logits" in job:
    want = load_file(job["logits"])
    found = model.logits(want["tokens"])
    result["largest_difference"] = float(np.abs(found - want["logits"]).max())
    result["largest_logit"] = float(np.abs(want["logits"]).max())
    softmax = lambda x: x - np.log(np.exp(x - x.max(-1, keepdims=True)).sum(-1, keepdims=True)) - x.max(-1, keepdims=True)
    a, b = softmax(found.astype(np.float64)), softmax(want["logits"].astype(np.float64))
    result["mean_log_probability_difference"] = float((np.exp(b) * np.abs(a - b)).sum(-1).mean())
if "texts" in job:
    result["texts"], result["different"] = 0, []
    for line in open(job["texts"], encoding="utf-8"):
        text, ids = (lambda o: (o["text"], o["ids"]))(json.loads(line))
        result["texts"] += 1
        if model.tokenize(text) != ids:
            result["different"].append(text[:80])
    result["bos"] = model.tokenize("a", special=True)[0]
if "tokens" in job:
    result["perplexity"], result["predictions"] = model.perplexity(job["tokens"], 512)
if "prompt" in job:
    result["greedy"] = model.greedy(job["prompt"], job["count"])
    result["text"] = model.text(result["greedy"][1:])
print(json.dumps(result))

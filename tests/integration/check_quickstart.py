"""Checks what scripts/quickstart left in runs/quickstart: the table, the claim, and that a real client loads the export.

The client is transformers with compressed-tensors on the CPU: same greedy tokens and the perplexity of `satin eval`.
"""
import json
import math
import pathlib
import subprocess
import sys

root = pathlib.Path(sys.argv[1])
quick = root / "runs/quickstart"
rows = {r["name"]: r for r in json.load(open(quick / "summary.json"))["rows"]}
assert list(rows) == ["full-precision", "rtn", "qat", "qat-smoothness"], list(rows)
full, rtn = math.log(rows["full-precision"]["perplexity"]), math.log(rows["rtn"]["perplexity"])
for name in ("qat", "qat-smoothness"):
    closed = (rtn - math.log(rows[name]["perplexity"])) / (rtn - full)
    print(f"{name}: {100 * closed:.1f} % of round-to-nearest's gap in log-perplexity removed")
    assert closed >= 0.8, closed
    assert rows[name]["bits"] == 2 and 2 < rows[name]["effective_bits"] < 2.5
    assert rows[name]["size_bytes"] < rows["full-precision"]["size_bytes"]
assert (quick / "report.html").stat().st_size > 10000

try:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, CompressedTensorsConfig
    import compressed_tensors  # noqa: F401
except ImportError as missing:
    print(f"SKIPPED the real client: {missing} (scripts/setup --tests)")
    sys.exit(0)

path = root / rows["qat-smoothness"]["path"]
model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.bfloat16, quantization_config=CompressedTensorsConfig(run_compressed=False))
model = torch.nn.Module.float(model)  # the library decompresses to bf16 numbers; arithmetic as satin's on the CPU is fp32
tokenizer = AutoTokenizer.from_pretrained(path)
prompt = "My dear Watson,"
ids = tokenizer(prompt, return_tensors="pt").input_ids
greedy = model.generate(ids, max_new_tokens=40, do_sample=False)
want = tokenizer.decode(greedy[0], skip_special_tokens=True)
got = subprocess.run([root / "build/release/satin", "generate", "--model", path, "--prompt", prompt, "--max-new-tokens", "40",
                      "--device", "cpu"], check=True, capture_output=True, text=True).stdout.rstrip("\n")
assert got == want.rstrip("\n"), f"greedy text differs:\n{got!r}\n{want!r}"

stream = []
for line in open(root / "configs/quickstart/text/valid.jsonl"):
    stream += [0] + tokenizer(json.loads(line)["text"], add_special_tokens=False).input_ids + [1]
windows = torch.tensor(stream[: len(stream) // 256 * 256]).view(-1, 256)
nll = []
with torch.no_grad():
    for batch in windows.split(16):
        logits = model(batch).logits[:, :-1]
        nll.append(torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten(), reduction="none"))
perplexity = torch.cat(nll).mean().exp().item()
ours = rows["qat-smoothness"]["perplexity"]
print(f"perplexity: transformers + compressed-tensors {perplexity:.6f}, satin {ours:.6f}; 40 greedy tokens equal")
assert abs(perplexity / ours - 1) < 1e-4

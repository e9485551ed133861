#!/usr/bin/env python3
"""Quality of 2-bit QAT by loss: perplexity on several texts and annotation accuracy, mean and deviation over seeds.

  quality_study.py --satin build/release/satin --model books-29m --train train.bin \
      --eval books-valid=books-valid.bin --eval wikitext2=wikitext2.bin --annotations gsm8k-test.jsonl \
      --losses "ce kd kd+smoothness0.5 kd+neighbourhood0.15" --seeds 0,1,2 --tokens 24e6 --output out/

A loss is ce or kd, then optionally +smoothnessW (top-k KL of weight W, on from half of training) and +neighbourhoodR or
+randomR (rate R). --schemes "lsq:3 lsq:4:activations=int8" trains each of them with each loss. Rows also without training: full precision and round-to-nearest (the best of four starts on the first
text). Every perplexity: fp32 arithmetic on the model as it is shipped, windows of 1,024. One JSON of everything at
--output/study.json after each run, a table last. --budget-s: no run starts that would end later.
"""
import argparse
import json
import math
import os
import re
import shutil
import statistics
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
START = time.time()


def parse():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--satin", required=True)
    ap.add_argument("--model", required=True)
    ap.add_argument("--train", required=True)
    ap.add_argument("--eval", action="append", default=[], metavar="NAME=FILE")
    ap.add_argument("--annotations", metavar="JSONL")
    ap.add_argument("--losses", default="ce kd kd+smoothness0.5 kd+neighbourhood0.15")
    ap.add_argument("--schemes", default="", help="METHOD:BITS[:KEY=VALUE,...] ..., each with every loss; the config's when left out")
    ap.add_argument("--seeds", default="0,1,2")
    ap.add_argument("--tokens", type=float, default=24e6)
    ap.add_argument("--output", required=True)
    ap.add_argument("--budget-s", type=float, default=1e9)
    ap.add_argument("--skip-untrained", action="store_true")
    ap.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="further config overrides")
    return ap.parse_args()


def loss_overrides(text):
    match = re.fullmatch(r"(ce|kd)(?:\+smoothness([\d.]+))?(?:\+(neighbourhood|random)([\d.]+))?", text)
    if not match:
        sys.exit(f"not a loss: {text}")
    kind, smoothness, source, rate = match.groups()
    out = [f"loss.ce.weight={int(kind == 'ce')}", f"loss.kd.weight={int(kind == 'kd')}", f"loss.smoothness.weight={smoothness or 0}",
           f"loss.neighbourhood.rate={rate or 0}", "loss.neighbourhood.temperature=2", "loss.neighbourhood.depth=1"]
    return out + (["loss.neighbourhood.source=random"] if source == "random" else [])


def call(command):
    result = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if result.returncode:
        raise RuntimeError(f"{' '.join(command)}\n{result.stdout[-3000:]}")
    return result.stdout


def evaluate(args, model):
    row, out = {}, f"{args.output}/eval.json"
    command = [args.satin, "eval", "--model", model, "--compute-dtype", "float32", "--json", out]
    for item in args.eval:
        name, path = item.split("=", 1)
        command += ["--data", path, "--name", name]
    call(command)
    found = json.load(open(out))
    for item in args.eval:
        name = item.split("=", 1)[0]
        row[name] = (found if "perplexity" in found else found[name]["perplexity"])["perplexity"]
    if args.annotations:
        call([args.satin, "eval", "--model", model, "--compute-dtype", "float32", "--tasks", "annotations", "--data", args.annotations,
              "--template", "Question: {question}\\nAnswer: {answer}", "--json", out])
        row["annotations"] = 100 * json.load(open(out))["accuracy"]
    return row


def scheme_overrides(text):
    if not text:
        return []
    method, bits, *more = text.split(":")
    out = [f"quantization.default.method={method}", f"quantization.default.bits={bits}"]
    for item in more[0].split(",") if more else []:
        out.append(item if item.startswith("quantization.") else f"quantization.default.{item}")
    return out


def train(args, scheme, loss, seed):
    run = f"{args.output}/run"
    shutil.rmtree(run, ignore_errors=True)
    start = time.time()
    call([args.satin, "train", f"{HERE}/quality_study.yaml", f"model.path={args.model}", f"data.train.0.path={args.train}",
          f"data.cache_dir={args.output}/cache", f"train.output_dir={run}", f"train.seed={seed}", f"train.max_tokens={int(args.tokens)}",
          *scheme_overrides(scheme), *loss_overrides(loss), *args.set])
    seconds = time.time() - start
    last = [entry for entry in map(json.loads, open(f"{run}/metrics.jsonl")) if "loss" in entry][-1]
    checkpoint = f"{run}/checkpoints/" + open(f"{run}/checkpoints/latest").read().strip()
    row = evaluate(args, checkpoint)
    row.update(tokens_per_second=last["tokens_per_second"], seconds=seconds, memory_gib=last["memory"] / 2**30)
    return row


def table(study, columns):
    lines = [f"{'':26}" + "".join(f"{c:>22}" for c in columns)]
    for name, rows in study["rows"].items():
        cells = []
        for column in columns:
            values = [r[column] for r in rows if column in r]
            if not values:
                cells.append("")
                continue
            deviation = f" +-{statistics.stdev(values):.3f}" if len(values) > 1 else ""
            cells.append(f"{statistics.mean(values):.3f}{deviation}")
        lines.append(f"{name:26}" + "".join(f"{c:>22}" for c in cells) + f"  n={len(rows)}")
    return "\n".join(lines)


def main():
    args = parse()
    os.makedirs(args.output, exist_ok=True)
    study = {"command": sys.argv, "tokens": args.tokens, "rows": {}, "failed": {}, "skipped": []}
    study["version"] = call([args.satin, "--version"]).strip()
    study["doctor"] = json.loads(call([args.satin, "doctor", "--json"]))

    def note(name, row):
        study["rows"].setdefault(name, []).append(row)
        json.dump(study, open(f"{args.output}/study.json", "w"), indent=1)
        print(f"[{time.time() - START:6.1f}s] {name}", {k: round(v, 3) for k, v in row.items()}, flush=True)

    if not args.skip_untrained:
        note("full-precision", evaluate(args, args.model))
        first = args.eval[0].split("=", 1)[0]
        best = None
        for method, init in (("minmax_symmetric", "data"), ("minmax_asymmetric", "data"), ("lsq", "mse"), ("lsq_asymmetric", "mse")):
            run = f"{args.output}/run"
            shutil.rmtree(run, ignore_errors=True)
            call([args.satin, "quantize", f"{HERE}/quality_study.yaml", f"model.path={args.model}", f"data.train.0.path={args.train}",
                  f"train.output_dir={run}", f"quantization.default.method={method}", f"quantization.default.init={init}"])
            row = evaluate(args, f"{run}/checkpoints/step-0")
            if best is None or row[first] < best[1][first]:
                best = (method, row)
        note(f"rtn ({best[0]})", best[1])
    longest = 0
    for seed in (int(s) for s in args.seeds.split(",")):
        for scheme, loss in [(s, l) for s in args.schemes.split() or [""] for l in args.losses.split()]:
            name = f"{scheme} {loss}".strip()
            if time.time() - START + longest * 1.05 > args.budget_s:
                study["skipped"].append(f"{name}:{seed}")
                continue
            start = time.time()
            try:
                note(name, train(args, scheme, loss, seed))
            except Exception as error:
                study["failed"][f"{name}:{seed}"] = str(error)
                print(f"FAILED {name}:{seed}: {error}", flush=True)
            longest = max(longest, time.time() - start)
    json.dump(study, open(f"{args.output}/study.json", "w"), indent=1)
    columns = [e.split("=", 1)[0] for e in args.eval] + (["annotations"] if args.annotations else []) + ["tokens_per_second"]
    print(f"\n{study['version']}; {next((f['text'] for f in study['doctor']['findings'] if f['name'].startswith('gpu')), 'CPU')}; {args.tokens:.0f} tokens a run")
    print(table(study, columns))
    if study["skipped"] or study["failed"]:
        print("skipped:", study["skipped"], "failed:", list(study["failed"]))


main()

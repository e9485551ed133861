#!/usr/bin/env python3
"""Post-training quantization by method, alone and as the start of QAT: mean and deviation over calibration seeds.

  ptq_methods.py --satin build/release/satin --model books-29m --tokens train.bin \
      --texts books=books-valid.jsonl wikitext2=wikitext2-raw-test.txt gsm8k=gsm8k-test.jsonl --annotations gsm8k-test.jsonl --output out/

For 2 bits in groups of 64 and 128 and 3 bits in groups of 128: rtn, gptq, lwc, lwc+lgp, lwc-block, lwc-block+lgp and block-ap on 128 sequences that a seed
chooses; each result is measured, then trained for --qat-tokens by KD and measured again. Kept of every model: perplexity of each text
(fp32, windows of 1,024), exact matches of annotations, and beside the full-precision model on the first text the ratio of C_avg at x0 and at x1
and the slope of D_k. A text with questions and answers (gsm8k) is read by --template. rtn's calibration chooses nothing: its seeds are QAT's.
One JSON line a model in --output/ptq_methods.jsonl, whose lines a later call does not measure again; a table last.
--quick: one setting, one seed, 8 short sequences, 4 steps: whether everything runs (on a CPU, minutes).
"""
import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
SETTINGS = [(2, 64), (2, 128), (3, 128)]
METHODS = {
    "rtn": [],
    "gptq": ["ptq.method=gptq"],
    "lwc": ["ptq.method=lwc"],
    "lwc+lgp": ["ptq.method=lwc", "ptq.gradient_ratio=1"],
    "lwc-block": ["ptq.method=lwc", "ptq.objective=block"],
    "lwc-block+lgp": ["ptq.method=lwc", "ptq.objective=block", "ptq.gradient_ratio=1"],
    "block-ap": ["ptq.method=block_ap"],
}
WEIGHT_RATE = {2: 2e-5, 3: 1e-5}  # of Block-AP, as published


def parse():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--satin", required=True)
    ap.add_argument("--model", required=True)
    ap.add_argument("--tokens", required=True, metavar="FILE", help="training text: a token file, .jsonl or .txt")
    ap.add_argument("--texts", nargs="+", required=True, metavar="NAME=FILE")
    ap.add_argument("--annotations", metavar="JSONL", help="questions and annotated answers")
    ap.add_argument("--template", default="Question: {question}\\nAnswer: {answer}")
    ap.add_argument("--templated", default="gsm8k", help="names of texts that --template reads, comma-separated")
    ap.add_argument("--methods", default=" ".join(METHODS))
    ap.add_argument("--seeds", default="0,1,2")
    ap.add_argument("--qat-tokens", type=float, default=24e6)
    ap.add_argument("--output", required=True)
    ap.add_argument("--quick", action="store_true")
    return ap.parse_args()


def call(command):
    result = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if result.returncode:
        raise RuntimeError(f"{' '.join(command)}\n{result.stdout[-3000:]}")


class Study:
    def __init__(self, args):
        self.args = args
        self.path = f"{args.output}/ptq_methods.jsonl"
        self.rows = [json.loads(line) for line in open(self.path)] if os.path.exists(self.path) else []
        self.short = ["--sequence-length", "128", "--limit", "2"] if args.quick else []

    def done(self, key):
        return any(all(row[k] == v for k, v in key.items()) for row in self.rows)

    def note(self, key, row):
        self.rows.append({**key, **row})
        with open(self.path, "a") as file:
            file.write(json.dumps(self.rows[-1]) + "\n")
        print({k: round(v, 4) if isinstance(v, float) else v for k, v in self.rows[-1].items() if k != "cosines"}, flush=True)

    def eval(self, model, *arguments):
        out = f"{self.args.output}/eval.json"
        call([self.args.satin, "eval", "--model", model, "--json", out, *arguments])
        return json.load(open(out))

    def measure(self, model):
        args, row = self.args, {}
        for item in args.texts:
            name, path = item.split("=", 1)
            template = ["--template", args.template] if name in args.templated.split(",") else []
            row[name] = self.eval(model, "--data", path, *template, "--compute-dtype", "float32", *self.short)["perplexity"]
        if args.annotations:
            limit = ["--limit", "4"] if args.quick else []
            row["annotations"] = 100 * self.eval(model, "--tasks", "annotations", "--data", args.annotations, "--template", args.template, *limit)["accuracy"]
        length = self.short or ["--sequence-length", "256", "--limit", "128"]
        smooth = self.eval(model, "--teacher", args.model, "--tasks", "smoothness", "--roots", "0", "--compute-dtype", "float32",
                           "--data", args.texts[0].split("=", 1)[1], *length)
        for at in ("x0", "x1"):
            row[f"C_avg {at}"] = smooth["gradient_norm"][at]["C_avg"]["ratio"]
        row["D_k slope"] = smooth["neighbour_nll"]["slope"]["student"]
        return row

    def overrides(self, bits, group, seed, run):
        args = self.args
        quick = ["train.sequence_length=128", "train.micro_batch_size=4", "train.gradient_accumulation_steps=1", "quantization.calibration_sequences=8",
                 "ptq.epochs=2", "ptq.steps=10", "ptq.batch_size=2"] if args.quick else []
        return [f"model.path={args.model}", f"data.train.0.path={args.tokens}", f"data.cache_dir={args.output}/cache", f"train.output_dir={run}",
                f"train.seed={seed}", f"quantization.default.bits={bits}", f"quantization.default.group_size={group}", *quick]

    def one(self, bits, group, method, seed):
        args, config = self.args, f"{HERE}/ptq_methods.yaml"
        key = {"bits": bits, "group": group, "method": method, "seed": seed}
        if self.done({**key, "stage": "ptq"}) and self.done({**key, "stage": "qat"}):
            return
        found, trained = f"{args.output}/ptq", f"{args.output}/qat"
        for run in (found, trained):
            shutil.rmtree(run, ignore_errors=True)
        start = time.time()
        more = METHODS[method] + ([f"ptq.weight_learning_rate={WEIGHT_RATE[bits]}"] if method == "block-ap" else [])
        call([args.satin, "quantize", config, *self.overrides(bits, group, seed, found), *more])
        seconds = time.time() - start
        checkpoint = f"{found}/checkpoints/step-0"
        if not self.done({**key, "stage": "ptq"}):
            layers = [layer for line in map(json.loads, open(f"{found}/layers.jsonl")) for layer in line["layers"].values()]
            cosines = {name: statistics.mean(layer[name] for layer in layers) for name in ("forward_cosine", "gradient_cosine")}
            self.note({**key, "stage": "ptq"}, {**self.measure(checkpoint), **cosines, "seconds": seconds})
        start = time.time()
        steps = ["train.max_steps=4"] if args.quick else [f"train.max_tokens={int(args.qat_tokens)}"]
        call([args.satin, "train", config, *self.overrides(bits, group, seed, trained), f"model.quantized={checkpoint}", *steps])
        seconds = time.time() - start
        latest = open(f"{trained}/checkpoints/latest").read().strip()
        self.note({**key, "stage": "qat"}, {**self.measure(f"{trained}/checkpoints/{latest}"), "seconds": seconds})

    def table(self):
        columns = [item.split("=", 1)[0] for item in self.args.texts] + (["annotations"] if self.args.annotations else [])
        columns += ["C_avg x0", "C_avg x1", "D_k slope", "forward_cosine", "gradient_cosine", "seconds"]
        groups = {}
        for row in self.rows:
            groups.setdefault((row["bits"], row["group"], row["stage"], row["method"]), []).append(row)
        print(f"{'':34}" + "".join(f"{c:>18}" for c in columns))
        for (bits, group, stage, method), rows in sorted(groups.items()):
            cells = []
            for column in columns:
                values = [row[column] for row in rows if column in row]
                spread = f" +-{statistics.stdev(values):.3f}" if len(values) > 1 else ""
                cells.append(f"{statistics.mean(values):.3f}{spread}" if values else "")
            name = method if bits == 16 else f"{bits} bits g{group} {stage} {method}"
            print(f"{name:34}" + "".join(f"{c:>18}" for c in cells) + f"  n={len(rows)}")


def main():
    args = parse()
    unknown = [m for m in args.methods.split() if m not in METHODS]
    if unknown:
        sys.exit(f"unknown methods {unknown}; known: {' '.join(METHODS)}")
    os.makedirs(args.output, exist_ok=True)
    study = Study(args)
    full = {"bits": 16, "group": 0, "method": "full precision", "seed": 0, "stage": ""}
    if not study.done(full):
        study.note(full, study.measure(args.model))
    for seed in [0] if args.quick else [int(s) for s in args.seeds.split(",")]:
        for bits, group in SETTINGS[:1] if args.quick else SETTINGS:
            for method in args.methods.split():
                study.one(bits, group, method, seed)
    study.table()


main()

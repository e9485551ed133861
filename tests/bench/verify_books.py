#!/usr/bin/env python3
"""Satin's figures for books-29m beside transformers' (reference.json): perplexities within 0.1 % in fp32 (1 % in bf16),
annotation accuracy within 3 of 4,282 (fp32), golden greedy text equal (fp32).

  verify_books.py --satin build/release/satin --model ../shared/models/books-29m --reference reference.json --device cpu \
      --data books-valid=books-valid.jsonl --data wikitext2-raw-test=wikitext2.txt --data gsm8k-test=gsm8k-test.jsonl

A .jsonl text named gsm8k-test is read by its template; token files (.bin) serve as well, annotations need the .jsonl
(--annotations FILE). Exit code 1 when a bound does not hold.
"""
import argparse
import json
import subprocess
import sys
import tempfile
import time

from studies import TEMPLATE


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--satin", required=True)
    ap.add_argument("--model", required=True)
    ap.add_argument("--reference", required=True)
    ap.add_argument("--data", action="append", default=[], metavar="NAME=FILE")
    ap.add_argument("--annotations")
    ap.add_argument("--device", default="auto")
    ap.add_argument("--compute-dtype", default="float32")
    ap.add_argument("--limit", type=int, default=0)
    args = ap.parse_args()
    reference = json.load(open(args.reference))
    out = tempfile.NamedTemporaryFile(suffix=".json").name
    bound = 1e-3 if args.compute_dtype == "float32" else 1e-2
    failures = 0

    def evaluate(data, *more):
        start = time.time()
        command = [args.satin, "eval", "--model", args.model, "--device", args.device, "--compute-dtype", args.compute_dtype,
                   "--data", data, "--json", out, "--limit", str(args.limit), *more]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        return json.load(open(out)), time.time() - start

    for item in args.data:
        name, path = item.split("=", 1)
        found, seconds = evaluate(path, *(["--template", TEMPLATE] if name.startswith("gsm8k") and path.endswith(".jsonl") else []))
        want = reference[name]["ppl"]
        error = found["perplexity"] / want - 1
        good = args.limit > 0 or (abs(error) <= bound and found["tokens"] == reference[name]["tokens_scored"])
        failures += not good
        print(f"{'ok ' if good else 'BAD'} {name:20} perplexity {found['perplexity']:.6f}, transformers {want:.6f} ({100 * error:+.5f} %), "
              f"{found['tokens']} predictions, {seconds:.1f} s", flush=True)
    if args.annotations:
        found, seconds = evaluate(args.annotations, "--tasks", "annotations", "--template", TEMPLATE)
        want = reference["gsm8k-test-annotations"]
        good = args.limit > 0 or args.compute_dtype != "float32" or (found["total"] == want["total"] and abs(found["exact"] - want["exact"]) <= 3)
        failures += not good
        print(f"{'ok ' if good else 'BAD'} annotations          exact {found['exact']} of {found['total']}, transformers {want['exact']} of {want['total']}, "
              f"{seconds:.1f} s", flush=True)
    version = subprocess.run([args.satin, "--version"], capture_output=True, text=True).stdout.strip()
    print(f"{version}, {args.device}, {args.compute_dtype}: {failures} bounds broken")
    return 1 if failures else 0


sys.exit(main())

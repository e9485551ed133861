#!/usr/bin/env python3
"""int8 products in training against fake quantization of the same scheme: the loss of short runs, several seeds, one table.

  low_bit_loss.py --satin build/release/satin --model books-29m --tokens train.bin --text books-valid.bin --output out/
                  [--steps 500] [--seeds 3] [--workers 3]

2 bits (lsq, groups of 128) with 8-bit integers for activations, distilled: once with train.low_bit_matmul=auto and once with
never, for each seed (of the order of the text). Printed: the mean loss of the last 100 steps, the text's perplexity (fake
quantization in fp32 for both), and the difference of the means beside the spread of the
reference's seeds. Hopper alone has the kernels.
"""
import argparse
import json
import os
import shutil
import statistics
from concurrent.futures import ThreadPoolExecutor

from studies import call, latest

HERE = os.path.dirname(os.path.abspath(__file__))
SCHEME = ["method=lsq", "bits=2", "group_size=128", "activations=int8"]


def run(args, products, seed):
    folder = os.path.abspath(f"{args.output}/{products}-{seed}")
    shutil.rmtree(folder, ignore_errors=True)
    log = call(args, None, "train", f"{HERE}/smoothness_study.yaml", f"model.path={args.model}", f"data.train.0.path={args.tokens}",
               f"data.cache_dir={folder}/cache", *(f"quantization.default.{key}" for key in SCHEME), f"train.seed={seed}",
               f"train.low_bit_matmul={products}", "train.max_tokens=0", f"train.max_steps={args.steps}", "train.micro_batch_size=48",
               "optimizer.learning_rate=2e-4", "logging.every_n_steps=10", f"train.output_dir={folder}/run")
    if (products == "auto") != ("int8 codes times packed weights" in log):
        raise SystemExit(f"low_bit_matmul={products} was not what ran:\n{log[-2000:]}")
    losses = [line["loss"] for line in map(json.loads, open(f"{folder}/run/metrics.jsonl")) if "loss" in line]
    call(args, None, "eval", "--model", latest(f"{folder}/run"), "--tasks", "perplexity", "--data", args.text,
         "--compute-dtype", "float32", "--json", f"{folder}/eval.json")
    found = statistics.mean(losses[-10:]), json.load(open(f"{folder}/eval.json"))["perplexity"]
    shutil.rmtree(folder)
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for required in ("--satin", "--model", "--tokens", "--text", "--output"):
        parser.add_argument(required, required=True)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=1, help="runs at a time")
    args = parser.parse_args()
    for name in ("satin", "model", "tokens", "text"):
        setattr(args, name, os.path.abspath(getattr(args, name)))
    print(call(args, None, "--version").splitlines()[0])
    jobs = [(products, seed) for seed in range(args.seeds) for products in ("auto", "never")]
    with ThreadPoolExecutor(args.workers) as pool:
        results = dict(zip(jobs, pool.map(lambda job: run(args, *job), jobs)))
    print(f"{' '.join(SCHEME)}; {args.steps} steps\n\n| low_bit_matmul | seed | loss of the last 100 steps | perplexity |\n|---|---|---|---|")
    for (products, seed), (loss, perplexity) in sorted(results.items()):
        print(f"| {products} | {seed} | {loss:.5f} | {perplexity:.4f} |")
    for i, name in enumerate(("loss", "perplexity")):
        of = {products: [results[products, seed][i] for seed in range(args.seeds)] for products in ("auto", "never")}
        gap = statistics.mean(of["auto"]) - statistics.mean(of["never"])
        print(f"{name}: auto - never {gap:+.5f}; seeds of never spread over {max(of['never']) - min(of['never']):.5f}")


if __name__ == "__main__":
    main()

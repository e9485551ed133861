#!/usr/bin/env python3
"""Mixed precision by TASA against its controls at the same effective bits, after GPTQ and after training from it: one table.

  allocation_study.py --satin build/release/satin --model books-29m --tokens train.bin --texts books-valid.bin wikitext2.bin gsm8k-test.bin
                      --annotations gsm8k-test.jsonl --questions gsm8k-train.jsonl --output out/ [--gpus 0,1] [--workers 2] [--quick] [--table]

satin allocate chooses bits of each layer for 3.5, 3.0 and 2.5 bits a weight, scales and zero points (groups of 128) included:
"tasa" by perplexity and the answers of QUESTIONS, "perplexity" by perplexity alone, "random" one draw a seed; "uniform" has
3 or 2 bits everywhere, the next budget below. Each is quantized by GPTQ, then trained on 24M tokens by distillation, 3 seeds
(of the calibration text, of the draws and of the order of training). Evaluated as ptq_methods.py does. Also printed: Kendall's
tau of the two sensitivities' orders, and the lists. A run whose line is in OUTPUT/results.jsonl is not made again.
"""
import json
import os
import shutil
import sys
import threading

from studies import TEMPLATE, call, cell, columns_of, evaluate, latest, parse, print_table, read, run_all

HERE = os.path.dirname(os.path.abspath(__file__))
GROUP = 128
BUDGETS = (3.5, 3.0, 2.5)
LISTS = {"tasa": "allocation", "perplexity": "perplexity-only", "random": "random-0"}
LOCKS = {}  # by seed
CALIBRATION = ["train.sequence_length=512", "train.micro_batch_size=32", "quantization.calibration_sequences=128"]


def code_bits(effective):
    """Mean bits of codes: a scale of 16 bits and a zero point of as many bits as a code for each group."""
    return (effective - 16 / GROUP) / (1 + 1 / GROUP)


def allocate(args, budget, seed, base, small, env):
    """The folder of satin allocate's lists, made once for all that need it; sensitivities, which no budget changes, once a seed."""
    folder, shared = (f"{args.output}/bits-{seed}-{name}" for name in (budget, "sensitivity.jsonl"))
    with LOCKS.setdefault(seed, threading.Lock()):
        if os.path.exists(f"{folder}/allocation.json"):
            return folder
        shutil.rmtree(folder, ignore_errors=True)
        os.makedirs(folder)
        if os.path.exists(shared):
            shutil.copy(shared, f"{folder}/sensitivity.jsonl")
        call(args, env, "allocate", *base, f"allocate.average_bits={code_bits(budget)}", "allocate.pareto_points=0",
             f"allocate.reasoning.0.path={args.questions}", f'allocate.reasoning.0.template="{TEMPLATE}"', "train.sequence_length=512",
             f"train.output_dir={folder}", *small, *(["allocate.samples=2"] if args.quick else []), "--resume", "auto")
        shutil.copy(f"{folder}/sensitivity.jsonl", shared)
    return folder


def make(args, job, folder, env):
    """The two lines of a job: after GPTQ, and after training from it."""
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(folder)
    base = [f"{HERE}/smoothness_study.yaml", f"model.path={args.model}", f"data.train.0.path={args.tokens}", f"data.cache_dir={folder}/cache",
            f"train.seed={job['seed']}", f"quantization.default.group_size={GROUP}", f"train.device={args.device}"]
    small = ["quantization.calibration_sequences=4", "train.sequence_length=64", "train.micro_batch_size=2"] if args.quick else []
    found = {}
    if job["list"] == "uniform":
        bits = [f"quantization.default.bits={int(job['budget'])}"]
        found["effective_bits"] = int(job["budget"]) * (1 + 1 / GROUP) + 16 / GROUP
    else:
        lists = allocate(args, job["budget"], job["seed"], base, small, env)
        result = json.load(open(f"{lists}/allocation.json"))
        chosen = result["lists"][LISTS[job["list"]]]
        found = {"effective_bits": chosen["effective_bits"], "bits": chosen["bits"], "kendall_tau": result["kendall_tau"],
                 "nearest_perplexity": chosen["perplexity"], "nearest_answers": chosen["answers"]}
        bits = [f"quantization.overrides_from={lists}/{LISTS[job['list']]}.yaml"]
    call(args, env, "quantize", *base, *bits, *CALIBRATION, "ptq.method=gptq", f"train.output_dir={folder}/ptq", *small)
    yield dict(found, stage="gptq", **evaluate(args, latest(f"{folder}/ptq"), folder, env))
    length = ["train.max_tokens=256"] if args.quick else [f"train.max_tokens={int(args.train_tokens)}"]
    call(args, env, "train", *base, *bits, *small, *length, f"model.quantized={latest(f'{folder}/ptq')}", f"train.output_dir={folder}/run")
    yield dict(found, stage="then trained", **evaluate(args, latest(f"{folder}/run"), folder, env))


def jobs_of(args):
    return [{"budget": budget, "list": name, "seed": seed} for seed in range(1 if args.quick else args.seeds)
            for budget in BUDGETS[:1 if args.quick else None]
            for name in (*LISTS, *(["uniform"] if budget != 3.0 else []))]


def table(args):
    rows = read(f"{args.output}/results.jsonl")
    columns = [("bits a weight", lambda r: r["effective_bits"], 3)] + columns_of(args.texts)
    names = ("budget", "list", "stage")
    print_table(names, {of: [r for r in rows if tuple(r[name] for name in names) == of]
                        for of in ((budget, name, stage) for budget in BUDGETS for stage in ("gptq", "then trained")
                                   for name in (*LISTS, "uniform"))}, columns)
    taus = [r["kendall_tau"] for r in rows if r["list"] == "tasa" and r["stage"] == "gptq" and r["budget"] == BUDGETS[0]]
    for bits in taus[0] if taus else []:
        print(f"Kendall's tau of the layers' orders by perplexity and by answers, {bits} bits: {cell([tau[bits] for tau in taus], 2)}")
    for row in rows:
        if row["list"] != "uniform" and row["stage"] == "gptq":
            print(f"{row['budget']} {row['list']} seed {row['seed']}: {' '.join(map(str, row['bits']))}")


def main():
    args = parse(__doc__, lambda parser: parser.add_argument("--questions", required=True, help="JSONL whose answers count in the allocation"))
    complete = args.table or run_all(args, jobs_of(args), make)
    table(args)
    sys.exit(0 if complete else 1)


if __name__ == "__main__":
    main()

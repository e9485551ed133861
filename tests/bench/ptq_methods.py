#!/usr/bin/env python3
"""Post-training quantization alone and as the start of training: every method, several calibration seeds, one table.

  ptq_methods.py --satin build/release/satin --model books-29m --tokens train.bin --texts books-valid.bin wikitext2.bin gsm8k-test.bin
                 --annotations gsm8k-test.jsonl --output out/ [--gpus 0,1] [--workers 2] [--quick] [--table]

For 2 bits in groups of 64 and of 128, and 3 bits in groups of 128: rtn, gptq, lwc, lwc with LGP, block_ap, each with 3 seeds
(the calibration sequences and the order of training follow from the seed), evaluated as it is and after distillation on 24M
tokens that starts from it; and `none`, training from the quantizers' own start. Evaluated: perplexity of the texts in fp32,
annotations, and beside MODEL C_avg at x0 and x1 (ratio) and the slope of D_k (excess) on the first text. A run whose line is in
OUTPUT/results.jsonl is not made again. --quick is a check of the script: tiny runs of one scheme and seed. --table prints
what is there.
"""
import argparse
import json
import os
import queue
import shutil
import statistics
import subprocess
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
TEMPLATE = "Question: {question}\\nAnswer: {answer}"
SCHEMES = {"2 bits g64": (2, 64), "2 bits g128": (2, 128), "3 bits g128": (3, 128)}
LGP = ["ptq.gradient_ratio=1"]
METHODS = {"rtn": [], "gptq": ["ptq.method=gptq"], "lwc": ["ptq.method=lwc"], "lwc+lgp": ["ptq.method=lwc", *LGP],
           "block_ap": ["ptq.method=block_ap"]}
WEIGHT_RATE = {2: "2e-5", 3: "1e-5"}  # of Block-AP, as published
CALIBRATION = ["train.sequence_length=512", "train.micro_batch_size=32", "quantization.calibration_sequences=128", "ptq.gradient_cosines=true"]


def call(args, env, *words):
    result = subprocess.run([args.satin, *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=env)
    if result.returncode:
        raise RuntimeError(f"satin {' '.join(words)}\n{result.stdout[-1000:]}")


def latest(run):
    return f"{run}/checkpoints/" + open(f"{run}/checkpoints/latest").read().strip()


def evaluate(args, model, folder, env):
    def run(tasks, data, *more):
        out = f"{folder}/eval.json"
        limit = ["--limit", "2"] if args.quick else []
        call(args, env, "eval", "--model", model, "--tasks", tasks, "--json", out, *data, "--device", args.device, *more, *limit)
        return json.load(open(out))
    data = [word for text in args.texts for word in ("--data", text, "--name", name_of(text))]
    found = run("perplexity", data, "--compute-dtype", "float32")
    by_text = [found] if len(args.texts) == 1 else [found[name_of(text)]["perplexity"] for text in args.texts]
    row = {"perplexity": [result["perplexity"] for result in by_text]}
    if args.annotations:
        row["annotations"] = 100 * run("annotations", ["--data", args.annotations, "--template", TEMPLATE])["accuracy"]
    few = ["--roots", "0"] if args.quick else ["--limit", "128"]
    smooth = run("smoothness", data[:4], "--teacher", args.model, "--sequence-length", "256", *few)
    for place in ("x0", "x1"):
        row[f"C_avg {place}"] = smooth["gradient_norm"][place]["C_avg"]["ratio"]
    row["slope of D_k"] = smooth["neighbour_nll"]["slope"]["excess"]
    return row


def name_of(text):
    return os.path.splitext(os.path.basename(text))[0]


def cosines(run):
    """Means over the layers of a run of satin quantize."""
    layers = [layer for line in open(f"{run}/layers.jsonl") for layer in json.loads(line)["layers"].values()]
    return {key: statistics.mean(layer[key] for layer in layers) for key in ("forward_cosine", "gradient_cosine")}


def make(args, job, folder, env):
    """The two lines of a job: what the method gives, and what training makes of it."""
    scheme, method, seed = job
    bits, group = SCHEMES[scheme]
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(folder)
    base = [f"{HERE}/smoothness_study.yaml", f"model.path={args.model}", f"data.train.0.path={args.tokens}", f"data.cache_dir={folder}/cache",
            f"train.seed={seed}", f"quantization.default.bits={bits}", f"quantization.default.group_size={group}", f"train.device={args.device}"]
    small = ["quantization.calibration_sequences=4", "train.sequence_length=64", "train.micro_batch_size=2", "ptq.epochs=1", "ptq.steps=3"] if args.quick else []
    line = {"scheme": scheme, "method": method, "seed": seed}
    start = []
    if method != "none":
        begin = time.time()
        call(args, env, "quantize", *base, *CALIBRATION, *METHODS[method], f"ptq.weight_learning_rate={WEIGHT_RATE[bits]}",
             f"train.output_dir={folder}/ptq", *small)
        seconds = time.time() - begin
        start = [f"model.quantized={latest(f'{folder}/ptq')}"]
        yield dict(line, stage="alone", seconds=seconds, **cosines(f"{folder}/ptq"), **evaluate(args, latest(f"{folder}/ptq"), folder, env))
    begin = time.time()
    length = ["train.max_tokens=256", *small] if args.quick else [f"train.max_tokens={int(args.train_tokens)}"]
    call(args, env, "train", *base, *start, f"train.output_dir={folder}/run", *length)
    seconds = time.time() - begin
    yield dict(line, stage="then trained", seconds=seconds, **evaluate(args, latest(f"{folder}/run"), folder, env))


def read(path):
    return [json.loads(line) for line in open(path)] if os.path.exists(path) else []


def run_all(args):
    results = f"{args.output}/results.jsonl"
    done = {(r["scheme"], r["method"], r["seed"]) for r in read(results) if r["stage"] == "then trained"}
    todo = queue.Queue()
    for seed in range(1 if args.quick else args.seeds):
        for scheme in list(SCHEMES)[:1 if args.quick else None]:
            for method in (*METHODS, "none"):
                if (scheme, method, seed) not in done:
                    todo.put((scheme, method, seed))
    lock = threading.Lock()

    def work(gpu, worker):
        env = dict(os.environ)
        if args.device != "cpu":
            env.update(CUDA_VISIBLE_DEVICES=gpu, OMP_NUM_THREADS="4")
        while True:
            try:
                job = todo.get_nowait()
            except queue.Empty:
                return
            try:
                lines = list(make(args, job, f"{args.output}/worker-{gpu}-{worker}", env))
                with lock, open(results, "a") as file:  # both stages or none
                    file.writelines(json.dumps(line) + "\n" for line in lines)
                print(*job, *(f"{line['stage']} {line['perplexity'][0]:.3f}" for line in lines), flush=True)
            except (RuntimeError, OSError, KeyError) as error:
                print(f"FAILED {job}: {error!r}", flush=True)

    threads = [threading.Thread(target=work, args=(gpu, worker)) for worker in range(args.workers) for gpu in args.gpus.split(",")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def cell(values, digits):
    values = [v for v in values if v is not None]
    if not values:
        return ""
    mean = f"{statistics.mean(values):.{digits}f}"
    return mean if len(values) < 2 else f"{mean} ± {statistics.stdev(values):.{digits}f}"


def table(args):
    rows = read(f"{args.output}/results.jsonl")
    texts = [name_of(text) for text in args.texts]
    columns = [(text, lambda r, i=i: r["perplexity"][i], 2) for i, text in enumerate(texts)]
    columns += [(name, lambda r, name=name: r.get(name), digits) for name, digits in
                (("annotations", 1), ("C_avg x0", 3), ("C_avg x1", 3), ("slope of D_k", 3), ("forward_cosine", 4), ("gradient_cosine", 4), ("seconds", 0))]
    print("\n| scheme | method | stage | seeds | " + " | ".join(name for name, _, _ in columns) + " |\n|" + "---|" * (len(columns) + 4))
    for scheme in SCHEMES:
        for stage in ("alone", "then trained"):
            for method in (*METHODS, "none"):
                found = [r for r in rows if (r["scheme"], r["method"], r["stage"]) == (scheme, method, stage)]
                if found:
                    print(f"| {scheme} | {method} | {stage} | {len(found)} | " + " | ".join(cell([get(r) for r in found], d) for _, get, d in columns) + " |")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for required in ("--satin", "--model", "--tokens", "--output"):
        parser.add_argument(required, required=True)
    parser.add_argument("--texts", nargs="+", required=True, help="the first one's smoothness is measured")
    parser.add_argument("--annotations", help="JSONL with question and answer")
    parser.add_argument("--train-tokens", type=float, default=24e6)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--gpus", default="0")
    parser.add_argument("--workers", type=int, default=1, help="a GPU")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--table", action="store_true", help="only print the table")
    args = parser.parse_args()
    for name in ("satin", "model", "tokens", "output", "annotations"):
        if getattr(args, name):
            setattr(args, name, os.path.abspath(getattr(args, name)))
    args.texts = [os.path.abspath(text) for text in args.texts]
    os.makedirs(args.output, exist_ok=True)
    if not args.table:
        run_all(args)
    table(args)


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""What smoothness costs and gains: trains small models many times, evaluates each, and keeps one line a run.

  smoothness_study.py run --satin build/release/satin --model MODEL --data DATA --sets "screening main" --output out/
  smoothness_study.py list --sets main                  the runs, without running them
  smoothness_study.py table results.jsonl [--plots DIR] tables in Markdown, plots as SVG (needs matplotlib)

DATA holds train.bin (token ids of MODEL's tokenizer), books-valid.bin, wikitext2.bin, gsm8k-test.bin, gsm8k-test.jsonl,
blimp.jsonl; the set "once" also books-once.tokens and gsm8k-train.jsonl. Each run is trained from smoothness_study.yaml with the
overrides of its setting, then evaluated: perplexities in fp32, annotations, minimal pairs, smoothness and robustness beside
MODEL. --workers processes share each GPU; a run whose line is in --output/results.jsonl or in --done FILE is not made
again, and none starts after --budget-s. Several of these may share an output: each run is claimed by a folder there (remove
--output/claims to make failed runs again). Sets, settings and seeds are in runs_of() below.
"""
import argparse
import json
import os
import queue
import shutil
import statistics
import sys
import threading
import time

from studies import TEMPLATE, call, cell, identity, in_workers, latest

HERE = os.path.dirname(os.path.abspath(__file__))
START = time.time()

CE, KD = ["loss.ce.weight=1", "loss.kd.weight=0"], []


def near(rate, temperature=2, depth=1, **keys):
    keys = dict(rate=rate, temperature=temperature, depth=depth, **keys)
    return [f"loss.neighbourhood.{k}={v}" for k, v in keys.items()]


def top_k(weight):
    return [f"loss.smoothness.weight={weight}"]


def lgr(ratio):
    return [f"loss.lgr.gradient_ratio={ratio}", "loss.lgr.every_n_steps=8"]


def scheme(method, bits, group=64):
    return [f"quantization.default.method={method}", f"quantization.default.bits={bits}", f"quantization.default.group_size={group}"]


SCHEMES = {"2 bits g64": scheme("lsq_asymmetric", 2), "ternary g64": scheme("ternary", 1.58), "1 bit g64": scheme("binary", 1),
           "3 bits per row": scheme("lsq", 3, -1)}
TWO_BITS = SCHEMES["2 bits g64"]

SCREENING = {
    "ce": CE, "kd": KD,
    "near .05": near(.05), "near .15": near(.15), "near .3": near(.3), "near .5": near(.5),
    "near .15 k 10": near(.15, top_k=10), "near .15 k 160": near(.15, top_k=160),
    "near .15 tau 1": near(.15, temperature=1), "near .15 tau 4": near(.15, temperature=4),
    "near .15 depth 2": near(.15, depth=2), "near .15 depth 4": near(.15, depth=4),
    "near .3 half random": near(.3, random_share=.5), "near .3 ramp": near(.3, ramp=1),
    "near .15 on-policy": near(.15, source="student"), "branch": near(1, placement="branch"),
    "random .15": near(.15, source="random"), "random .3": near(.3, source="random"),
    "ce + top-k .5": CE + top_k(.5), "top-k .1": top_k(.1), "top-k .5": top_k(.5), "top-k 1": top_k(1),
    "near .3 tau 4": near(.3, temperature=4), "near .15 tau 4 depth 2": near(.15, temperature=4, depth=2),
    "near .15 tau 4 depth 4": near(.15, temperature=4, depth=4), "near .3 tau 4 depth 2": near(.3, temperature=4, depth=2),
    "lgr .03": lgr(.03), "lgr .1": lgr(.1), "lgr .3": lgr(.3), "near .3 lgr .1": near(.3) + lgr(.1),
}
SEEDS = {"kd": 3, "near .15": 3, "near .3 tau 4": 2, "near .15 tau 4 depth 2": 2}  # of screening; 1 where not named
MAIN = {"kd": KD, "near .3": near(.3), "near .15": near(.15), "random .3": near(.3, source="random"), "ce": CE, "top-k .5": top_k(.5),
        "lgr .1": lgr(.1), "near .15 tau 4 depth 2": near(.15, temperature=4, depth=2)}
ONCE = {k: MAIN[k] for k in ("kd", "near .3", "random .3")}
SCRATCH_BASE = ["model.init=random", "optimizer.learning_rate=1.5e-3", "optimizer.weight_decay=0.1", "optimizer.warmup_ratio=0.1"] + CE
B158 = scheme("bitnet", 1.58, 0) + ["quantization.default.activations=int8"]
SCRATCH = {"bf16": ["quantization=null"], "b158": B158, "b158 + lgr .1": B158 + lgr(.1),
           "b158 + lgr .9 often": B158 + ["loss.lgr.gradient_ratio=0.9", "loss.lgr.every_n_steps=4", "loss.lgr.sequences=24", "loss.lgr.start=0.25"]}


def runs_of(name):
    """(set, scheme, setting, seed, tokens, overrides) of a set."""
    if name == "screening":
        for seed in range(3):
            for setting, overrides in SCREENING.items():
                if seed < SEEDS.get(setting, 1):
                    yield name, "2 bits g64", setting, seed, 24e6, TWO_BITS + overrides
    elif name == "main":
        for seed in range(3):
            for which, base in SCHEMES.items():
                for setting, overrides in MAIN.items():
                    yield name, which, setting, seed, 60e6, base + overrides
    elif name == "once":
        data = ["data.train.0.path=DATA/books-once.tokens", "data.train.0.weight=0.965", "data.train.1.path=DATA/gsm8k-train.jsonl",
                f'data.train.1.template="{TEMPLATE}"', "data.train.1.weight=0.035"]
        for seed in range(3):
            for setting, overrides in ONCE.items():
                yield name, "2 bits g64", setting, seed, 40e6, TWO_BITS + overrides + data
    elif name == "scratch":
        for seed in range(3):
            for setting, overrides in SCRATCH.items():
                yield name, "from random weights", setting, seed, 40e6, SCRATCH_BASE + overrides
    else:
        sys.exit(f"no set {name}: screening, main, once, scratch")


def key(run):
    return run["set"], run["scheme"], run["setting"], run["seed"], run["tokens"]


def compact(result):
    """Without paths and histograms, numbers to seven digits."""
    if isinstance(result, dict):
        return {k: compact(v) for k, v in result.items() if k not in ("model", "histogram_log10", "kind") and not (k == "teacher" and isinstance(v, str))}
    if isinstance(result, list):
        return [compact(v) for v in result]
    return float(f"{result:.7g}") if isinstance(result, float) else result


def evaluate(args, model, folder, env):
    """Everything that is kept of a model."""
    def run(tasks, data, *more):
        out = f"{folder}/eval.json"
        call(args, env, "eval", "--model", model, "--tasks", tasks, "--json", out, *data, *more)
        return json.load(open(out))
    texts = ("books-valid", "wikitext2", "gsm8k-test")
    data = [x for t in texts for x in ("--data", f"{args.data}/{t}.bin", "--name", t)]
    found = run("perplexity", data, "--compute-dtype", "float32")
    row = {t: found[t]["perplexity"]["perplexity"] for t in texts}
    row["annotations"] = 100 * run("annotations", ["--data", f"{args.data}/gsm8k-test.jsonl", "--template", TEMPLATE])["accuracy"]
    row["pairs"] = 100 * run("choice", ["--data", f"{args.data}/blimp.jsonl"])["accuracy"]
    both = run("smoothness,robustness", ["--data", f"{args.data}/books-valid.bin"], "--teacher", args.model, "--sequence-length", "256", "--limit", "128")
    row.update(next(iter(both.values())))
    return compact(row)


def train(args, run, gpu, folder):
    env = dict(os.environ, CUDA_VISIBLE_DEVICES=str(gpu), OMP_NUM_THREADS="4")
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(folder)
    start = time.time()
    if run["setting"] == "teacher":
        return dict(run, **evaluate(args, args.model, folder, env), seconds=time.time() - start)
    overrides = [x.replace("DATA", args.data) for x in run["overrides"]]
    call(args, env, "train", f"{HERE}/smoothness_study.yaml", f"model.path={args.model}", f"data.train.0.path={args.data}/train.bin",
         f"data.cache_dir={folder}/cache", f"train.output_dir={folder}/run", f"train.seed={run['seed']}",
         f"train.max_tokens={int(run['tokens'])}", *overrides)
    seconds = time.time() - start
    last = [entry for entry in map(json.loads, open(f"{folder}/run/metrics.jsonl")) if "loss" in entry][-1]
    row = evaluate(args, latest(f"{folder}/run"), folder, env)
    return dict(run, **row, tokens_per_second=last["tokens_per_second"], memory_gib=last["memory"] / 2**30,
                seconds=seconds, seconds_with_eval=time.time() - start, loss=last["loss"],
                **{k: last[k] for k in ("lgr", "lgr_weight", "lgr_ratio") if k in last})


def wanted(args):
    runs = []
    for name in args.sets.split():
        runs += [dict(zip(("set", "scheme", "setting", "seed", "tokens", "overrides"), run)) for run in runs_of(name)]
    if args.seeds:
        runs = [r for r in runs if r["seed"] in {int(s) for s in args.seeds.split(",")}]
    if args.settings:
        order = args.settings.split(",")
        runs = sorted((r for r in runs if r["setting"] in order), key=lambda r: order.index(r["setting"]))
    if args.schemes:
        runs = [r for r in runs if r["scheme"] in args.schemes.split(",")]
    if args.tokens:
        for run in runs:
            run["tokens"] = args.tokens
    if args.teacher:
        runs.insert(0, {"set": "teacher", "scheme": "full precision", "setting": "teacher", "seed": 0, "tokens": 0, "overrides": []})
    return runs


def read(paths):
    return [json.loads(line) for path in paths if os.path.exists(path) for line in open(path)]


def main_run(args):
    os.makedirs(args.output, exist_ok=True)
    results = f"{args.output}/results.jsonl"
    done = {key(r) for r in read([results] + args.done)}
    todo = queue.Queue()
    for run in wanted(args):
        if key(run) not in done:
            todo.put(run)
    version, device = identity(args.satin)
    print(f"{version}; {device}; {todo.qsize()} runs, {len(done)} done before", flush=True)
    lock, seconds_a_token = threading.Lock(), []

    os.makedirs(f"{args.output}/claims", exist_ok=True)

    def claim(run):
        try:
            os.mkdir(f"{args.output}/claims/" + "-".join(str(part) for part in key(run)).replace(" ", "_"))
            return True
        except FileExistsError:
            return False

    def work(gpu, worker):
        while True:
            try:
                run = todo.get_nowait()
            except queue.Empty:
                return
            expected = 1.1 * statistics.median(seconds_a_token) * run["tokens"] if seconds_a_token else 0
            if expected > args.budget_s - (time.time() - START):
                print(f"no time left for {key(run)}", flush=True)
                continue
            if not claim(run):
                continue
            try:
                begin = time.time()
                row = dict(train(args, run, gpu, f"{args.output}/worker-{gpu}-{worker}"), version=version, device=device)
                with lock:
                    if run["tokens"]:
                        seconds_a_token.append((time.time() - begin) / run["tokens"])
                    with open(results, "a") as file:
                        file.write(json.dumps(row) + "\n")
                    print(f"[{time.time() - START:6.1f}s] {key(run)} {row['books-valid']:.3f} {row['wikitext2']:.1f} {row['gsm8k-test']:.2f} "
                          f"{row['annotations']:.1f} {row.get('seconds', 0):.0f}s {time.time() - begin:.0f}s", flush=True)
            except Exception as error:
                print(f"FAILED {key(run)}: {error}", flush=True)

    in_workers(args, work)


QUALITY = [("books-valid", "books-valid", 3), ("wikitext2", "wikitext2", 1), ("gsm8k-test", "gsm8k", 2), ("annotations", "annotations %", 1),
           ("pairs", "pairs %", 1)]
GRADIENT = "smoothness.gradient_norm."
SMOOTHNESS = [(GRADIENT + "x0.C_avg.ratio", "C_avg x0", 3), (GRADIENT + "x1.C_avg.ratio", "C_avg x1", 3), (GRADIENT + "x1.C_lower.ratio", "C_lower x1", 2),
              (GRADIENT + "x0.p99.ratio", "p99 x0", 3), ("smoothness.neighbour_nll.D_1.excess", "D_1 excess", 3),
              ("smoothness.neighbour_nll.D_40.excess", "D_40 excess", 3), ("smoothness.neighbour_nll.slope.excess", "slope excess", 3),
              ("smoothness.effective_candidates.1e-2.ratio", "effective 1e-2", 3), ("smoothness.entropy.excess", "entropy excess", 3),
              ("smoothness.mass_on_teacher_top_40.ratio", "mass on top 40", 3),
              ("smoothness.decoding_tree.depth_8.mean_log1p_size.excess", "tree ln(1+N_8) excess", 2),
              ("robustness.flips_after_one_token.ratio", "flips", 2), ("robustness.token_substitution.2.over_clean.ratio", "15 % wrong tokens", 3),
              ("robustness.embedding_noise.2.over_clean.ratio", "noise .2", 4)]


def pick(row, path):
    """A value by dotted keys; "1e-2" is one key and "2" an index."""
    for part in path.split("."):
        if isinstance(row, list):
            row = row[int(part)]
        else:
            row = row.get(part) if isinstance(row, dict) else None
    return row


def grouped(rows):
    """{(set, scheme): {setting: rows}} without the teacher's, and those."""
    groups = {}
    for row in rows:
        if row["setting"] != "teacher":
            groups.setdefault((row["set"], row["scheme"]), {}).setdefault(row["setting"], []).append(row)
    for (name, which), settings in groups.items():  # as they stand in runs_of(), not as they ended
        order = [run[2] for run in runs_of(name)]
        groups[name, which] = {s: sorted(settings[s], key=lambda r: r["seed"]) for s in sorted(settings, key=order.index)}
    return groups, [r for r in rows if r["setting"] == "teacher"]


def main_table(args):
    groups, teacher = grouped(read(args.files))
    for (name, which), settings in groups.items():
        tokens = {r["tokens"] for rows in settings.values() for r in rows}
        print(f"\n### {name}: {which}, {'/'.join(f'{t / 1e6:.0f}M' for t in sorted(tokens))} tokens")
        for columns, extra in ((QUALITY, [("full precision", teacher)] * bool(teacher)), (SMOOTHNESS, [])):
            print("\n| run | seeds | " + " | ".join(title for _, title, _ in columns) + " |\n|" + "---|" * (len(columns) + 2))
            for setting, rows in extra + list(settings.items()):
                print(f"| {setting} | {len(rows)} | " + " | ".join(cell([pick(r, path) for r in rows], digits) for path, _, digits in columns) + " |")
    if args.plots:
        import smoothness_plots
        smoothness_plots.draw(groups, teacher, args.plots)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("run", "list"):
        sub = commands.add_parser(name)
        sub.add_argument("--sets", default="screening main once scratch")
        sub.add_argument("--seeds", default="")
        sub.add_argument("--settings", default="", help="only these, comma-separated, in this order")
        sub.add_argument("--schemes", default="")
        sub.add_argument("--tokens", type=float, default=0, help="instead of the set's")
        sub.add_argument("--teacher", action="store_true", help="also the teacher beside itself")
        if name == "run":
            for required in ("--satin", "--model", "--data", "--output"):
                sub.add_argument(required, required=True)
            sub.add_argument("--gpus", default="0")
            sub.add_argument("--workers", type=int, default=2, help="a GPU")
            sub.add_argument("--done", action="append", default=[], metavar="JSONL")
            sub.add_argument("--budget-s", type=float, default=1e9)
    table = commands.add_parser("table")
    table.add_argument("files", nargs="+")
    table.add_argument("--plots")
    args = parser.parse_args()
    if args.command == "list":
        for run in wanted(args):
            print(*key(run), f"{run['tokens']:.0f}", *run["overrides"])
    elif args.command == "run":
        for name in ("model", "data", "output", "satin"):
            setattr(args, name, os.path.abspath(getattr(args, name)))
        main_run(args)
    else:
        main_table(args)


if __name__ == "__main__":
    main()

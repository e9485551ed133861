"""What studies of small models share: runs of satin, their evaluation, workers, results in a file, cells of tables."""
import argparse
import json
import os
import queue
import statistics
import subprocess
import threading

TEMPLATE = "Question: {question}\\nAnswer: {answer}"


def call(args, env, *words):
    """What satin printed."""
    result = subprocess.run([args.satin, *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=env)
    if result.returncode:
        raise RuntimeError(f"satin {' '.join(words)}\n{result.stdout[-3000:]}")
    return result.stdout


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


def read(path):
    return [json.loads(line) for line in open(path)] if os.path.exists(path) else []


def identity(satin):
    """Version of satin and name of the device."""
    version = subprocess.run([satin, "--version"], stdout=subprocess.PIPE, text=True).stdout.strip()
    doctor = json.loads(subprocess.run([satin, "doctor", "--json"], stdout=subprocess.PIPE, text=True).stdout)
    return version, next((f["text"].split(",")[0] for f in doctor["findings"] if f["name"].startswith("gpu")), "CPU")


def in_workers(args, work):
    """work(gpu, worker) in args.workers threads for each of args.gpus."""
    threads = [threading.Thread(target=work, args=(gpu, worker)) for worker in range(args.workers) for gpu in args.gpus.split(",")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def run_all(args, jobs, make):
    """The lines that make(args, job, folder, env) yields for each job (a dict) that args.output/results.jsonl lacks: all or none of a job's.
    Whether all were made."""
    results = f"{args.output}/results.jsonl"
    done = [{key: row.get(key) for key in jobs[0]} for row in read(results)]
    todo = queue.Queue()
    for job in jobs:
        if job not in done:
            todo.put(job)
    version, device = identity(args.satin)
    print(f"{version}; {device}; {todo.qsize()} of {len(jobs)} runs", flush=True)
    lock = threading.Lock()
    failed = []

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
                with lock, open(results, "a") as file:
                    file.writelines(json.dumps(dict(job, **line, version=version, device=device)) + "\n" for line in lines)
                print(*job.values(), *(f"{line['stage']} {line['perplexity'][0]:.3f}" for line in lines), flush=True)
            except Exception as error:  # the other jobs go on
                failed.append(job)
                print(f"FAILED {job}: {error!r}", flush=True)

    in_workers(args, work)
    return not failed


def cell(values, digits):
    """Mean and standard deviation of those that are there."""
    values = [v for v in values if v is not None]
    if not values:
        return ""
    mean = f"{statistics.mean(values):.{digits}f}"
    return mean if len(values) < 2 else f"{mean} ± {statistics.stdev(values):.{digits}f}"


def print_table(names, groups, columns):
    """A row for each of `groups` that has results: {(value of each of `names`): results}. Columns: name, reader of a result, digits."""
    print(f"\n| {' | '.join(names)} | seeds | " + " | ".join(name for name, _, _ in columns) + " |\n|" + "---|" * (len(names) + 1 + len(columns)))
    for values, found in groups.items():
        if found:
            cells = (cell([get(row) for row in found], digits) for _, get, digits in columns)
            print(f"| {' | '.join(map(str, values))} | {len(found)} | " + " | ".join(cells) + " |")


def columns_of(texts):
    """Name, reader of a result's line, and digits of each column that evaluate() fills."""
    columns = [(name_of(text), lambda r, i=i: r["perplexity"][i], 2) for i, text in enumerate(texts)]
    return columns + [(name, lambda r, name=name: r.get(name), digits)
                      for name, digits in (("annotations", 1), ("C_avg x0", 3), ("C_avg x1", 3), ("slope of D_k", 3))]


def parse(doc, add):
    """Arguments that every study has, with those of add(parser)."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    for required in ("--satin", "--model", "--tokens", "--output"):
        parser.add_argument(required, required=True)
    parser.add_argument("--texts", nargs="+", required=True, help="the first one's smoothness is measured")
    parser.add_argument("--annotations", help="JSONL with question and answer")
    parser.add_argument("--train-tokens", type=float, default=24e6)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--gpus", default="0")
    parser.add_argument("--workers", type=int, default=1, help="a GPU")
    parser.add_argument("--quick", action="store_true", help="a check of the script: tiny runs of one seed")
    parser.add_argument("--table", action="store_true", help="only print the table")
    add(parser)
    args = parser.parse_args()
    args.texts = [os.path.abspath(text) for text in args.texts]
    for name, value in vars(args).items():
        if name in ("satin", "model", "tokens", "output", "annotations", "questions") and value:
            setattr(args, name, os.path.abspath(value))
    os.makedirs(args.output, exist_ok=True)
    return args

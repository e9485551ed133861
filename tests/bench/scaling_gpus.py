#!/usr/bin/env python3
"""One job on all GPUs of this host against as many one-GPU jobs at the same time: speed, waiting, memory beside its prediction.

  scaling_gpus.py --satin build/release/satin --work DIR [--shape 1b] [--sequences 4,8] [--strategies ddp,fsdp] [--output FILE.json]

Random weights of the shape (made once in DIR), 2 bits in groups of 64 with learned scales and zero points, KD + top-k smoothness with a
teacher of the same shape, sequences of 2,048 tokens, bf16 sums of gradients; the same samples a GPU and step in every job. Each
repetition runs the one-GPU jobs, then each strategy. A job is ended as soon as its last step is logged.
  ms/step     mean over steps --warm-up to --steps: computing, standing still for other processes, waiting for data (metrics.jsonl)
  speed-up    GPUs x the mean ms/step of the one-GPU jobs of the same repetition / ms/step
  with save   the same of tokens/s over the last 50 steps with a checkpoint, written while training goes on, in them
  memory      most bytes that tensors took on one GPU, beside satin train --dry-run --world-size
"""
import argparse
import json
import os
import pathlib
import platform
import shutil
import signal
import statistics
import subprocess
import sys
import time

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parents[2]
QUICKSTART = ROOT / "configs/quickstart"
# hidden, layers, heads, key and value heads, intermediate, vocabulary, tied embeddings: Llama-3.2-1B, Llama-2-7B, and one
# to try the script with
SHAPES = {"1b": (2048, 16, 32, 8, 8192, 128256, True), "7b": (4096, 32, 32, 32, 11008, 32000, False),
          "tiny": (64, 2, 4, 2, 192, 8192, True)}
LENGTH = 2048


def make_model(directory, shape):
    """bf16 numbers of N(0, .02): one draw, read from other places for each tensor."""
    hidden, layers, heads, kv_heads, intermediate, vocabulary, tied = SHAPES[shape]
    directory.mkdir(parents=True)
    config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": vocabulary, "hidden_size": hidden,
              "intermediate_size": intermediate, "num_hidden_layers": layers, "num_attention_heads": heads,
              "num_key_value_heads": kv_heads, "max_position_embeddings": 8192, "rms_norm_eps": 1e-5, "rope_theta": 500000.0,
              "hidden_act": "silu", "tie_word_embeddings": tied, "dtype": "bfloat16"}
    (directory / "config.json").write_text(json.dumps(config))
    shutil.copy(QUICKSTART / "teacher/tokenizer.json", directory)
    head_dim = hidden // heads
    shapes = {"model.embed_tokens": (vocabulary, hidden), "model.norm": (hidden,)}
    if not tied:
        shapes["lm_head"] = (vocabulary, hidden)
    for i in range(layers):
        layer = f"model.layers.{i}."
        shapes |= {layer + "input_layernorm": (hidden,), layer + "post_attention_layernorm": (hidden,),
                   layer + "self_attn.q_proj": (hidden, hidden), layer + "self_attn.o_proj": (hidden, hidden),
                   layer + "self_attn.k_proj": (kv_heads * head_dim, hidden),
                   layer + "self_attn.v_proj": (kv_heads * head_dim, hidden),
                   layer + "mlp.gate_proj": (intermediate, hidden), layer + "mlp.up_proj": (intermediate, hidden),
                   layer + "mlp.down_proj": (hidden, intermediate)}
    header, at = {}, 0
    for name, dims in shapes.items():
        size = 2 * int(np.prod(dims))
        header[name + ".weight"] = {"dtype": "BF16", "shape": list(dims), "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    draws = np.random.default_rng(0).standard_normal(1 << 24, dtype=np.float32) * np.float32(0.02)
    numbers = (draws.view(np.uint32) >> 16).astype(np.uint16)
    ones = np.full(hidden, 0x3F80, np.uint16)
    with open(directory / "model.safetensors", "wb") as out:
        out.write(len(text).to_bytes(8, "little") + text)
        for i, dims in enumerate(shapes.values()):
            if len(dims) == 1:
                out.write(ones.tobytes())
                continue
            left, start = int(np.prod(dims)), (i * 7919 * 64) % len(numbers)
            while left > 0:
                part = numbers[start:start + left]
                out.write(part.tobytes())
                left, start = left - len(part), 0


class Bench:
    def __init__(self, args):
        self.args = args
        self.model = args.work / args.shape
        if not (self.model / "model.safetensors").exists():
            shutil.rmtree(self.model, ignore_errors=True)
            make_model(self.model, args.shape)

    def config(self, name, gpus, sequences, strategy):
        args = self.args
        output = args.work / "runs" / name
        shutil.rmtree(output, ignore_errors=True)
        forwards = max(1, sequences // args.most_in_forward)
        config = {
            "model": {"path": str(self.model)},
            "quantization": {"default": {"method": "lsq_asymmetric", "bits": 2, "group_size": 64}},
            "loss": {"kd": {"weight": 1}, "smoothness": {"weight": 0.1, "start": 0}, "neighbourhood": {"rate": 0}},
            "data": {"train": str(QUICKSTART / "text/train.jsonl"), "cache_dir": str(args.work / "tokens")},
            "train": {"output_dir": str(output), "max_steps": 10 * args.steps, "sequence_length": LENGTH,
                      "micro_batch_size": sequences // forwards, "gradient_accumulation_steps": gpus * forwards,
                      "activation_checkpointing": args.activation_checkpointing},
            "optimizer": {"learning_rate": 1e-5},
            "parallel": {"strategy": strategy, "reduce_dtype": "bfloat16", "teacher": args.teacher},
            "checkpoint": {"every_n_steps": 0 if args.no_save else args.steps - 20, "keep": 1},
            "logging": {"every_n_steps": args.log_every, "tensorboard": False}}
        path = args.work / f"{name}.yaml"
        path.write_text(json.dumps(config))  # JSON is YAML
        return path, output

    def start(self, config, gpus, environment):
        log = open(config.with_suffix(".log"), "w")
        return subprocess.Popen([str(self.args.satin), "train", str(config), "--gpus", str(gpus)], stdout=log,
                                stderr=subprocess.STDOUT, env=os.environ | environment, start_new_session=True)

    def finish(self, process, config, output):
        """Reads metrics.jsonl until the last step is there, then ends the job."""
        deadline = time.time() + self.args.limit_s
        entries = []
        while not entries or entries[-1]["step"] < self.args.steps:
            ended = process.poll() is not None
            time.sleep(0.1)
            if (output / "metrics.jsonl").exists():
                lines = (output / "metrics.jsonl").read_text().split("\n")[:-1]
                entries = [json.loads(line) for line in lines]
            if (ended or time.time() > deadline) and (not entries or entries[-1]["step"] < self.args.steps):
                self.kill(process)
                sys.exit(f"{config.name}: {'ended' if ended else 'not done'} at step "
                         f"{entries[-1]['step'] if entries else 0}\n{config.with_suffix('.log').read_text()[-3000:]}")
        self.kill(process)
        shutil.rmtree(output, ignore_errors=True)
        steady = [entry for entry in entries if entry["step"] > self.args.warm_up]
        kinds = {kind: statistics.fmean(entry[kind] for entry in steady)
                 for kind in ("compute_ms", "communication_ms", "data_ms")}
        return kinds | {"step_ms": sum(kinds.values()), "tokens_per_second": entries[-1]["tokens_per_second"],
                        "memory": entries[-1]["memory"], "mfu": entries[-1].get("mfu"), "loss": entries[-1]["loss"]}

    @staticmethod
    def kill(process):
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        process.wait()
        time.sleep(1)  # the driver takes the memory back

    def alone(self, sequences):
        jobs = []
        for gpu in range(self.args.gpus):
            config, output = self.config(f"alone{gpu}", 1, sequences, "ddp")
            jobs.append((self.start(config, 1, {"CUDA_VISIBLE_DEVICES": str(gpu)}), config, output))
        return [self.finish(*job) for job in jobs]

    def together(self, sequences, strategy):
        config, output = self.config(strategy, self.args.gpus, sequences, strategy)
        return self.finish(self.start(config, self.args.gpus, {}), config, output)

    def predicted(self, gpus, sequences, strategy):
        config, _ = self.config("plan", gpus, sequences, strategy)
        found = config.with_suffix(".json")
        subprocess.run([self.args.satin, "train", config, "--dry-run", "--world-size", str(gpus), "--hosts-gpus", str(gpus),
                        "--json", found], check=True, stdout=subprocess.DEVNULL)
        plan = json.loads(found.read_text())
        return next(row for row in plan["strategies"] if row["strategy"] == strategy)


def spread(values, decimals):
    return f"{statistics.fmean(values):.{decimals}f} ({min(values):.{decimals}f} to {max(values):.{decimals}f})"


def table(rows, args):
    lines = ["| tokens a GPU and step | job | ms/step | computing | standing still for others | data | speed-up | with save |"
             " memory, GiB | predicted | deviation |", "|---|---|---|---|---|---|---|---|---|---|---|"]
    for row in rows:
        runs = row["runs"]
        of = lambda key: [run[key] for run in runs]  # noqa: E731
        memory = max(of("memory")) / 2**30
        predicted = row["predicted"]["total_bytes"] / 2**30
        speed = spread(row["speed_up"], 3) if "speed_up" in row else ""
        saved = spread(row["speed_up_with_save"], 3) if "speed_up_with_save" in row and not args.no_save else ""
        lines.append(f"| {row['sequences'] * LENGTH:,} | {row['job']} | {spread(of('step_ms'), 1)} |"
                     f" {statistics.fmean(of('compute_ms')):.1f} | {spread(of('communication_ms'), 2)} |"
                     f" {statistics.fmean(of('data_ms')):.2f} | {speed} | {saved} | {memory:.2f} | {predicted:.2f} |"
                     f" {100 * (predicted / memory - 1):+.1f} % |")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--satin", type=pathlib.Path, default=ROOT / "build/release/satin")
    parser.add_argument("--work", type=pathlib.Path, required=True)
    parser.add_argument("--shape", choices=SHAPES, default="1b")
    parser.add_argument("--gpus", type=int, default=len(subprocess.run(
        ["nvidia-smi", "-L"], capture_output=True, text=True, check=False).stdout.splitlines()))
    parser.add_argument("--sequences", default="4,8", help="of 2,048 tokens, a GPU and step")
    parser.add_argument("--most-in-forward", type=int, default=8)
    parser.add_argument("--strategies", default="ddp,fsdp")
    parser.add_argument("--teacher", default="auto", help="parallel.teacher")
    parser.add_argument("--activation-checkpointing", action="store_true")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--warm-up", type=int, default=10)
    parser.add_argument("--log-every", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--no-save", action="store_true", help="no checkpoint among the steps")
    parser.add_argument("--not-alone", action="store_true", help="only the job on all GPUs: one GPU cannot hold it")
    parser.add_argument("--limit-s", type=float, default=120, help="of a job")
    parser.add_argument("--output", type=pathlib.Path, help="all numbers, as JSON")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    bench = Bench(args)
    device = subprocess.run(["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"], capture_output=True, text=True,
                            check=True).stdout.splitlines()[0]
    version = subprocess.run([args.satin, "--version"], capture_output=True, text=True, check=False).stdout.strip()
    rows = []
    for sequences in map(int, args.sequences.split(",")):
        of = {}
        jobs = ([] if args.not_alone else ["one GPU"]) + args.strategies.split(",")
        for job in jobs:
            gpus, strategy = (1, "ddp") if job == "one GPU" else (args.gpus, job)
            of[job] = {"sequences": sequences, "job": job if gpus == 1 else f"{job} on {gpus}", "gpus": gpus,
                       "predicted": bench.predicted(gpus, sequences, strategy), "runs": []}
            if gpus > 1 and not args.not_alone:
                of[job] |= {"speed_up": [], "speed_up_with_save": []}
        for _ in range(args.repeats):
            if not args.not_alone:
                alone = bench.alone(sequences)
                of["one GPU"]["runs"] += alone
                step_ms = statistics.fmean(run["step_ms"] for run in alone)
                rate = statistics.fmean(run["tokens_per_second"] for run in alone)
            for strategy in args.strategies.split(","):
                run = bench.together(sequences, strategy)
                of[strategy]["runs"].append(run)
                if not args.not_alone:
                    of[strategy]["speed_up"].append(args.gpus * step_ms / run["step_ms"])
                    of[strategy]["speed_up_with_save"].append(run["tokens_per_second"] / rate)
        rows += of.values()
        result = {"device": f"{args.gpus} x {device}", "version": version, "host": platform.machine(),
                  "command": " ".join(sys.argv[1:]), "rows": rows}
        if args.output:
            args.output.write_text(json.dumps(result, indent=1) + "\n")
        print(f"{args.shape} on {args.gpus} x {device}; {version}; {args.repeats} repetitions: mean (least to most)", flush=True)
        print(table(rows, args), flush=True)


if __name__ == "__main__":
    main()

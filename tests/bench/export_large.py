#!/usr/bin/env python3
"""Wall time and memory of exporting a 1.2b-shape checkpoint (Llama-3.2-1B's: 16 layers of 2048, tied; fp32 masters, 5 GB).

  export_large.py --satin build/release/satin --work large/ [--formats compressed-tensors,hf] [--layers 16]

The checkpoint is random weights through `satin quantize`, made once and kept in --work (about 5 GB there, 6 GB more for the
exports, 12 GB of memory while it is made). Each export is verified by the program itself; memory is sampled: anonymous pages
apart from those of mapped files, which the system may drop.
"""
import argparse
import json
import os
import pathlib
import shutil
import subprocess
import sys
import time

CONFIG = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 128256, "hidden_size": 2048,
    "intermediate_size": 8192, "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 64,
    "max_position_embeddings": 2048, "rms_norm_eps": 1e-5, "rope_theta": 500000.0, "hidden_act": "silu",
    "tie_word_embeddings": True, "dtype": "bfloat16", "initializer_range": 0.02, "bos_token_id": 0, "eos_token_id": 1,
}


def run(command, log):
    """Seconds, and peaks in MiB: everything, anonymous, of mapped files."""
    start, peaks = time.time(), [0, 0, 0]
    process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
    while process.poll() is None:
        try:
            status = dict(line.split(":", 1) for line in open(f"/proc/{process.pid}/status"))
            for i, key in enumerate(("VmHWM", "RssAnon", "RssFile")):
                peaks[i] = max(peaks[i], int(status[key].split()[0]) / 1024)
        except (OSError, KeyError, ValueError):
            pass
        time.sleep(0.02)
    if process.returncode:
        sys.exit(f"{' '.join(map(str, command))}: exit {process.returncode}, see {log.name}")
    return time.time() - start, peaks


def make_checkpoint(args, log):
    found = sorted((args.work / "run/checkpoints").glob("step-*"))
    if found:
        return found[-1]
    model = args.work / "model"
    model.mkdir(parents=True, exist_ok=True)
    (model / "config.json").write_text(json.dumps(CONFIG | {"num_hidden_layers": args.layers}))
    shutil.copy(args.tokenizer, model / "tokenizer.json")
    config = {
        "model": {"path": str(model), "init": "random"},
        "quantization": {"default": {"method": args.method, "bits": args.bits, "group_size": args.group_size, "init": "data",
                                     "scale_dtype": args.scale_dtype}},
        "train": {"output_dir": str(args.work / "run"), "device": "cpu"},
        "export": {"formats": []},
    }
    (args.work / "large.yaml").write_text(json.dumps(config))  # JSON is YAML
    print("making the checkpoint: %.0f s" % run([args.satin, "quantize", args.work / "large.yaml"], log)[0], flush=True)
    return sorted((args.work / "run/checkpoints").glob("step-*"))[-1]


def main():
    root = pathlib.Path(__file__).resolve().parents[2]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--satin", default=root / "build/release/satin")
    parser.add_argument("--work", type=pathlib.Path, required=True)
    parser.add_argument("--formats", default="compressed-tensors,gptq,awq,hf")
    parser.add_argument("--tokenizer", default=root / "configs/quickstart/teacher/tokenizer.json")
    parser.add_argument("--layers", type=int, default=16)
    parser.add_argument("--method", default="lsq_asymmetric")
    parser.add_argument("--bits", type=float, default=2)
    parser.add_argument("--group-size", type=int, default=64)
    parser.add_argument("--scale-dtype", default="bfloat16")
    parser.add_argument("--repeat", type=int, default=1)
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    log = open(args.work / "log.txt", "w")
    checkpoint = make_checkpoint(args, log)
    size = sum(file.stat().st_size for file in checkpoint.iterdir())
    print(f"{pathlib.Path(checkpoint).name}: {size / 1e9:.2f} GB; {os.cpu_count()} cores")
    print(f"{'format':<20} {'wall s':>7} {'peak MiB':>9} {'anonymous':>9} {'mapped':>7} {'out MB':>7}  load average")
    for name in args.formats.split(",") * args.repeat:
        output = args.work / ("export-" + name)
        shutil.rmtree(output, ignore_errors=True)
        seconds, (total, anonymous, mapped) = run(
            [args.satin, "export", "--checkpoint", checkpoint, "--format", name, "--output", output], log)
        out = sum(file.stat().st_size for file in output.iterdir()) / 1e6
        print(f"{name:<20} {seconds:7.1f} {total:9.0f} {anonymous:9.0f} {mapped:7.0f} {out:7.0f}  {os.getloadavg()[0]:.1f}",
              flush=True)
        shutil.rmtree(output)


main()

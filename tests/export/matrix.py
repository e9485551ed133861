#!/usr/bin/env python3
"""What every format does with every scheme, tried: a table of "exact", "lossy" with what it costs, "larger" or "refused".

  tests/export/matrix.py --satin build/release/satin --output out/ [--only TEXT] [--jobs N]

A small random model is quantized by each scheme (`satin quantize`) and exported to each format. An export that ends well
has been read back by satin and compared bit for bit; here a reader that shares no code with the writer compares it again
with the dense export (ORACLES below), and the dense export with the published formulas (hf_oracle.py). A refusal must
name formats that hold the model exactly (those, and only those, that do), and --lossy must then write the nearest.
Exit status 1 when any of this fails.
"""
import argparse
import concurrent.futures
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
TEACHER = HERE.parent.parent / "configs/quickstart/teacher"
FORMATS = ("hf", "compressed-tensors", "gptq", "awq", "gguf", "bitnet")
SCHEMES = [("lsq", 2, 64), ("lsq", 3, 32), ("lsq", 3, 256), ("lsq", 4, 128), ("minmax_symmetric", 4, -1), ("minmax_symmetric", 8, -1),
           ("lsq_asymmetric", 2, 64), ("lsq_asymmetric", 2, 256), ("lsq_asymmetric", 3, 128), ("lsq_asymmetric", 4, 128), ("lwc", 3, 128),
           ("seq", 2, 64), ("seq", 2, 256), ("ternary", 1.58, -1), ("ternary", 1.58, 256), ("binary", 1, 128), ("bitnet", 1.58, 0), ("onebit", 1, -1)]
# Run with the format's directory (hf: the checkpoint) and the dense directory: exit status 0 when they are the same model.
ORACLES = {"hf": "hf_oracle.py", "compressed-tensors": "compressed_tensors_oracle.py", "gptq": "gptq_oracle.py", "awq": "awq_oracle.py",
           "gguf": "gguf_dense_oracle.py", "bitnet": "bitnet_oracle.py"}


def run(*command):
    result = subprocess.run([str(x) for x in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    return result.returncode, result.stdout


def make_model(directory):
    """Two Llama layers whose rows take every group size, with the quickstart's tokenizer."""
    directory.mkdir(parents=True)
    config = json.loads((TEACHER / "config.json").read_text())
    config.update(hidden_size=256, intermediate_size=512, num_hidden_layers=2, head_dim=64, initializer_range=0.2)
    (directory / "config.json").write_text(json.dumps(config))
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(TEACHER / name, directory)


def label(scheme):
    method, bits, group = scheme
    return f"{method} {bits:g} " + {-1: "row", 0: "tensor"}.get(group, f"g{group}")


def quantize(args, scheme, folder):
    method, bits, group = scheme
    config = {"model": {"path": str(args.output / "model"), "init": "random"}, "train": {"output_dir": str(folder / "run"), "seed": 1},
              "quantization": {"default": {"method": method, "bits": bits, "group_size": group}}}
    if method == "bitnet":
        config["quantization"]["default"]["activations"] = "int8"
    folder.mkdir(parents=True)
    (folder / "quantize.yaml").write_text(json.dumps(config))  # JSON is YAML
    status, text = run(args.satin, "quantize", folder / "quantize.yaml")
    assert status == 0, text
    checkpoints = folder / "run/checkpoints"
    return checkpoints / (checkpoints / "latest").read_text().strip()


def claimed_exact(text):
    """The formats that a refusal names, or None."""
    found = re.search(r"Formats that hold this model exactly: ([a-z, -]+)", text)
    return found and {name.strip() for name in found[1].split(",")} - {"none"}


def lossy(args, checkpoint, name, folder):
    status, text = run(args.satin, "export", "--checkpoint", checkpoint, "--format", name, "--output", folder / f"{name}-lossy", "--lossy")
    if status == 2:
        return "refused"
    assert status == 0, text
    worst = max((float(found[1]) for found in re.finditer(r"(?m)^\S+ +\d+ of \d+ +\S+ +(\S+)$", text)), default=0)
    return f"lossy {100 * worst:.2g} %" if worst else "larger"


def try_scheme(args, scheme):
    """{format: (cell, problem)} of one scheme."""
    folder = args.output / label(scheme).replace(" ", "-")
    checkpoint = quantize(args, scheme, folder)
    cells, claims = {}, {}
    for name in FORMATS:
        status, text = run(args.satin, "export", "--checkpoint", checkpoint, "--format", name, "--output", folder / name)
        if status == 0:
            cells[name] = (f"exact, {re.search(r'([0-9.]+) effective bits', text)[1]}" if "effective bits" in text else "exact", "")
        elif status == 2:
            claims[name] = claimed_exact(text)
            cells[name] = (lossy(args, checkpoint, name, folder), "")
        else:
            cells[name] = ("failed", text)
    exact = {name for name, (cell, _) in cells.items() if cell.startswith("exact")}
    for name, claimed in claims.items():
        if claimed != exact:
            cells[name] = (cells[name][0], f"the refusal names {claimed} as exact, exact are {exact}")
    dense = folder / ("hf" if "hf" in exact else "hf-lossy")  # which has the values in any case
    for name in exact:
        status, text = run(sys.executable, HERE / ORACLES[name], checkpoint if name == "hf" else folder / name, dense)
        if status:
            cells[name] = ("WRONG", text)
    return cells


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--satin", required=True, type=pathlib.Path)
    parser.add_argument("--output", required=True, type=pathlib.Path)
    parser.add_argument("--only", default="", help="schemes whose label contains this")
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    args = parser.parse_args()
    args.satin = args.satin.resolve()
    shutil.rmtree(args.output, ignore_errors=True)
    make_model(args.output / "model")
    schemes = [scheme for scheme in SCHEMES if args.only in label(scheme)]
    print(run(args.satin, "--version")[1].strip(), flush=True)
    print(f"\n| scheme | {' | '.join(FORMATS)} |\n|{'---|' * (len(FORMATS) + 1)}")
    problems, counts = [], {}
    with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
        for scheme, cells in zip(schemes, pool.map(lambda scheme: try_scheme(args, scheme), schemes)):
            print(f"| {label(scheme)} | {' | '.join(cells[name][0] for name in FORMATS)} |", flush=True)
            for name, (cell, problem) in cells.items():
                kind = re.match(r"\w+", cell)[0]
                counts[kind] = counts.get(kind, 0) + 1
                if problem:
                    problems.append(f"{label(scheme)}, {name}: {problem}")
    print(f"\n{sum(counts.values())} cells: " + ", ".join(f"{count} {cell}" for cell, count in sorted(counts.items())))
    print("exact: read back by satin and by a reader that shares no code with the writer, bit for bit, with the stored bits a weight. All other cells\n"
          "are refused, naming the formats that are exact; then with --lossy: larger, no value is lost in a grid of more bits; lossy, the largest relative\n"
          "error (root mean square) of a kind of layer; refused again.")
    for problem in problems:
        print(f"\n{problem}")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())

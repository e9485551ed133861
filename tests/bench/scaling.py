#!/usr/bin/env python3
"""Tables of the scaling model (csrc/train/scaling_model.h) for 8, 64 and 512 H100, and how far it is from measured steps.

    tests/bench/scaling.py [--satin build/release/satin] [--measured results/scaling-measured.jsonl] [--output FILE.md]

The numbers are those of `satin train --dry-run --world-size N --json FILE`. A line of the measured file is a JSON object:
shape (1b, 8b, 70b), gpus, strategy, loss (ce, kd), sequences (of a step), micro_batch, sequence_length, step_ms and where
it was measured (device, source); gpus_per_host, memory_gib, host_bus_gb_s and network_gbit_s where they are known.
"""
import argparse
import json
import pathlib
import subprocess
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
QUICKSTART = ROOT / "configs/quickstart"
RESULTS = ROOT / "tests/bench/results"
# hidden, layers, heads, key and value heads, intermediate, tied embeddings: Llama-3.2-1B, 3.1-8B, 3.1-70B
SHAPES = {
    "1b": (2048, 16, 32, 8, 8192, True),
    "8b": (4096, 32, 32, 8, 14336, False),
    "70b": (8192, 80, 64, 8, 28672, False),
}
VOCABULARY = 128256
# In the tables: sequences a GPU a step and in a forward, their length, the loss. The 70b's teacher would take 131 GiB of every
# GPU; from a stored teacher a step lasts as long as with cross-entropy (results/README.md).
BATCHES = {"1b": (8, 8, 2048, "kd"), "8b": (4, 2, 2048, "kd"), "70b": (4, 1, 1024, "ce")}


def write_model(directory, shape):
    hidden, layers, heads, kv_heads, intermediate, tied = SHAPES[shape]
    directory.mkdir()
    (directory / "config.json").write_text(json.dumps({
        "model_type": "llama", "vocab_size": VOCABULARY, "hidden_size": hidden, "num_hidden_layers": layers,
        "num_attention_heads": heads, "num_key_value_heads": kv_heads, "intermediate_size": intermediate,
        "max_position_embeddings": 8192, "rms_norm_eps": 1e-5, "tie_word_embeddings": tied}))
    (directory / "tokenizer.json").symlink_to(QUICKSTART / "teacher/tokenizer.json")


class Planner:
    def __init__(self, satin, scratch):
        self.satin, self.scratch = satin, scratch
        for shape in SHAPES:
            write_model(scratch / shape, shape)

    def __call__(self, shape, gpus, sequences, micro_batch, sequence_length, loss="kd", gpus_per_host=8,
                 host_bus_gb_s=None, network_gbit_s=None):
        if sequences % micro_batch:
            raise SystemExit(f"{sequences} sequences a step are not whole micro-batches of {micro_batch}")
        config = self.scratch / "config.yaml"
        config.write_text(json.dumps({  # JSON is YAML
            "model": {"path": str(self.scratch / shape)},
            "quantization": {"default": {"method": "lsq_asymmetric", "bits": 2, "group_size": 64}},
            "loss": {"kd": {"weight": int(loss == "kd")}, "ce": {"weight": int(loss == "ce")}, "neighbourhood": {"rate": 0}},
            "data": {"train": str(QUICKSTART / "text/train.jsonl")},
            "train": {"output_dir": str(self.scratch / "run"), "max_steps": 100, "sequence_length": sequence_length,
                      "micro_batch_size": micro_batch, "gradient_accumulation_steps": sequences // micro_batch}}))
        found = self.scratch / "plan.json"
        command = [self.satin, "train", config, "--dry-run", "--world-size", gpus, "--hosts-gpus", gpus_per_host,
                   "--device-memory-gib", 80, "--json", found]
        if host_bus_gb_s:
            command += ["--host-bus", host_bus_gb_s]
        if network_gbit_s:
            command += ["--network", network_gbit_s]
        subprocess.run([str(part) for part in command], check=True, stdout=subprocess.DEVNULL)
        return json.loads(found.read_text())


def model_tables(plan):
    lines = []
    for shape, (sequences, micro_batch, length, loss) in BATCHES.items():
        teacher = "a teacher of the same shape" if loss == "kd" else "no teacher in memory (stored, or cross-entropy)"
        lines += [f"## {shape}",
                  f"{sequences} sequences of {length:,} tokens a GPU and step, {micro_batch} in a forward; {teacher}.", "",
                  "| GPUs | strategy | memory a GPU, GiB | fits 80 | tokens/s | a GPU | of one GPU | step, ms | student + teacher |"
                  " update | exposed | gathers | sent by a GPU, GB, gathering weights | codes | tokens/s a GPU, gathering weights | codes |",
                  "|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|"]
        alone = plan(shape, 1, sequences, micro_batch, length, loss)["strategies"][0]["time"]["tokens_per_second"]
        for gpus in (8, 64, 512):
            found = plan(shape, gpus, sequences * gpus, micro_batch, length, loss)
            for row in found["strategies"]:
                time, weights, codes = row["time"], row["gathering_weights"], row["gathering_codes"]
                rate = time["tokens_per_second"] / gpus
                name = row["strategy"] + (" (auto)" if row["strategy"] == found["strategy"] and row["fits"] else "")
                lines.append(
                    f"| {gpus} | {name} | {row['total_bytes'] / 2**30:.1f} | {'yes' if row['fits'] else 'no'} |"
                    f" {time['tokens_per_second']:,.0f} | {rate:,.0f} | {100 * rate / alone:.1f} % |"
                    f" {1e3 * time['step_s']:.0f} | {1e3 * (time['student_s'] + time['teacher_s']):.0f} |"
                    f" {1e3 * time['update_s']:.1f} | {1e3 * time['exposed_s']:.1f} | {row['gathers']} |"
                    f" {weights['sent_bytes'] / 1e9:.2f} | {codes['sent_bytes'] / 1e9:.2f} |"
                    f" {weights['tokens_per_second'] / gpus:,.0f} | {codes['tokens_per_second'] / gpus:,.0f} |")
        lines.append("")
    return lines


def measured_table(plan, path):
    lines = ["## Measured", f"`{path.name}`, one line a step that was measured, beside the model's.", "",
             "| shape | GPUs | strategy | loss | batch | device | ms, measured | model | deviation | GiB, measured | model |"
             " deviation | source |", "|---|---|---|---|---|---|---|---|---|---|---|---|---|"]
    entries = [json.loads(line) for line in path.read_text().splitlines() if line.strip()] if path.exists() else []
    several = 0
    for entry in entries:
        optional = {key: entry[key] for key in ("gpus_per_host", "host_bus_gb_s", "network_gbit_s") if key in entry}
        found = plan(entry["shape"], entry["gpus"], entry["sequences"], entry["micro_batch"], entry["sequence_length"],
                     entry["loss"], **optional)
        row = next(row for row in found["strategies"] if row["strategy"] == entry["strategy"])
        cells = [entry["shape"], entry["gpus"], entry["strategy"], entry["loss"],
                 f"{entry['sequences']} x {entry['sequence_length']:,}", entry["device"]]
        for key, model, decimals in (("step_ms", 1e3 * row["time"]["step_s"], 1),
                                     ("memory_gib", row["total_bytes"] / 2**30, 2)):
            if entry.get(key) is None:
                cells += ["", f"{model:.{decimals}f}", ""]
            else:
                cells += [f"{entry[key]:.{decimals}f}", f"{model:.{decimals}f}", f"{100 * (model / entry[key] - 1):+.1f} %"]
        lines.append("| " + " | ".join(str(cell) for cell in cells + [entry["source"]]) + " |")
        several += entry["gpus"] > 1
    if several == 0:
        lines += ["", "No step of several GPUs has been measured yet."]
    return lines


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--satin", default=ROOT / "build/release/satin")
    parser.add_argument("--measured", type=pathlib.Path, default=RESULTS / "scaling-measured.jsonl")
    parser.add_argument("--output", type=pathlib.Path, default=RESULTS / "scaling-model.md")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        plan = Planner(arguments.satin, pathlib.Path(scratch))
        lines = ["# Many GPUs, by the model",
                 "**A model, not a measurement**, written by `tests/bench/scaling.py`. Formulas, constants and their sources:"
                 " `csrc/train/scaling_model.h`; memory: `csrc/train/memory_estimate.h`. Hosts of eight H100, 400 Gb/s a GPU;"
                 " 2 bits, groups of 64. \"auto\": what `parallel.strategy: auto`"
                 " takes. \"of one GPU\": of its tokens/s if its memory were enough (above 100 %: processes share the update). \"gathers\": what quantized weights"
                 " travel as, codes and scales (2.28 bits a weight instead of 16) where zero and fsdp cross hosts; both are shown.", ""]
        lines += model_tables(plan) + measured_table(plan, arguments.measured)
    arguments.output.write_text("\n".join(lines) + "\n")
    print(f"wrote {arguments.output}")


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""Satin's low-bit products and public peers' on the same shapes, on one GPU in one run: one table.

  low_bit_peers.py --satin build/release/satin --peers PATH/kernels.py [--output FILE.json] [--repeats 3]
  low_bit_peers.py --from-satin FILE.txt [--from-peers FILE.json]      the table of saved outputs

--satin runs `satin bench packed_linear --only peers` once before the peers and the other times after them. --peers is a program that is
not in this repository: `kernels.py --out FILE` writes {"meta": ..., "records": [...]}, a record of kind "matmul" for each peer, bits, M,
N and K with its microseconds and rel_err, its norm ratio to the product in fp32. Where it is absent, Satin's times are printed alone.
  best peer   least time of those with the same bits and a right result (rel_err up to .02, with 8-bit inputs up to .1)
  ratio       its time over Satin's: above 1 Satin is faster
"""
import argparse
import json
import math
import os
import pathlib
import re
import statistics
import subprocess
import sys
import tempfile

from studies import call

BITS = ["1", "1.58", "2", "3", "4", "8"]
# 1.58 bits stay out of the means: the one peer has a single scale a tensor and int8 inputs.
MEANS = [[bits] for bits in BITS] + [["2", "3", "4", "8"], ["1", "2", "3", "4", "8"]]
FEW, MANY = (1, 16), (256, 4096)
SLOWER = .98
RUN = re.compile(r"satin \S+ \(.*\) on .+")
CELL = re.compile(r"peers (?P<bits>dense|[\d.]+).* \[(?P<n>\d+), (?P<k>\d+)\] rows (?P<m>\d+) +(?P<us>[\d.]+) us "
                  r".*?(?:floor (?P<floor>[\d.]+) us|$)")


def read_satin(text):
    """The line of version and device, and of each (N, K, bits, M) all runs' medians and the bytes' floor."""
    device, cells = "unknown", {}
    for line in text.splitlines():
        device = line if RUN.match(line) else device
        if found := CELL.match(line):
            cell = cells.setdefault((int(found["n"]), int(found["k"]), found["bits"], int(found["m"])), {"runs": []})
            cell["runs"].append(float(found["us"]))
            cell["floor_us"] = float(found["floor"] or 0)
    for cell in cells.values():
        cell |= {"us": statistics.median(cell["runs"]), "least_us": min(cell["runs"]), "most_us": max(cell["runs"])}
    return device, cells


def peer_name(record):
    inputs = "" if record["dtype"] == "bf16" else record["dtype"]
    return " ".join(filter(None, (record["peer"], inputs, record.get("mode"))))


def read_peers(peers):
    """Of each (N, K, bits, M) the best record; and what was left out, a line each."""
    best, left_out = {}, []
    for record in peers["records"]:
        if record["kind"] in ("error", "skipped"):
            where = " ".join(f"{key}={record[key]}" for key in ("stage", "bits", "dtype", "M", "N", "K") if key in record)
            left_out.append(f"{record['peer']} {where}: {' '.join(record['error'].split())[:150]}")
        if record["kind"] != "matmul":
            continue
        bits = "dense" if record["peer"] == "torch.mm" else f"{record['bits']:g}"
        key = (record["N"], record["K"], bits, record["M"])
        error = record["rel_err"]
        if error is None or error > (.02 if record["dtype"] == "bf16" else .1):
            left_out.append(f"{peer_name(record)} {bits} bits [{key[0]}, {key[1]}] rows {key[3]}: wrong result, rel_err {error}")
        elif key not in best or record["us"] < best[key]["us"]:
            best[key] = record
    return best, left_out


def compare(cells, best):
    for key, cell in cells.items():
        if key in best:
            cell |= {"peer": peer_name(best[key]), "peer_us": best[key]["us"], "ratio": best[key]["us"] / cell["us"]}


def means(cells):
    """Geometric means of the ratios: {bits, rows, mean, cells}; mean None where there is nothing to compare."""
    found = []
    for bits in MEANS:
        for rows in (FEW, MANY):
            ratios = [cell["ratio"] for (_, _, of, m), cell in cells.items() if of in bits and m in rows and "ratio" in cell]
            mean = math.exp(statistics.fmean(map(math.log, ratios))) if ratios else None
            found.append({"bits": bits, "rows": rows, "cells": len(ratios), "mean": mean})
    return found


def is_slower(key, cell):
    return key[2] != "dense" and cell.get("ratio", 1) < SLOWER


def shown(us):
    return f"{us:.{2 if us < 100 else 1}f}"


def shown_cell(key, cell):
    if cell is None:
        return ""
    text = f"{shown(cell['us'])} ({shown(cell['least_us'])} to {shown(cell['most_us'])})"
    if "ratio" in cell:
        text += f"; {shown(cell['peer_us'])} {cell['peer']}; {cell['ratio']:.2f}{' slower' if is_slower(key, cell) else ''}"
    return text


def tables(cells, with_peers):
    shapes = list(dict.fromkeys(key[:2] for key in cells))
    for n, k in shapes:
        yield f"\n[{n}, {k}]: us, median of the runs (least to most)" + ("; best peer; ratio\n" if with_peers else "\n")
        yield "| bits |" + "".join(f" M = {m} |" for m in FEW + MANY) + "\n" + "|---" * 5 + "|"
        for bits in ["dense"] + BITS:
            row = [shown_cell(key, cells.get(key)) for key in ((n, k, bits, m) for m in FEW + MANY)]
            if any(row):
                yield f"| {bits} | " + " | ".join(row) + " |"
    yield "\nOne row against the floor of its bytes (codes and scales at a plain copy's bandwidth), and sixteen rows against one\n"
    yield "| shape | bits | M = 1, us | floor, us | over it, us | over it, times | M = 16 / M = 1 |\n" + "|---" * 7 + "|"
    for (n, k, bits, m), one in cells.items():
        if m != 1 or not one["floor_us"]:
            continue
        sixteen = cells.get((n, k, bits, 16))
        times = f"{sixteen['us'] / one['us']:.2f}" if sixteen else ""
        yield (f"| [{n}, {k}] | {bits} | {shown(one['us'])} | {shown(one['floor_us'])} | {one['us'] - one['floor_us']:.2f} |"
               f" {one['us'] / one['floor_us']:.2f} | {times} |")
    if not with_peers:
        return
    yield "\nBest peer's time over Satin's, geometric means (cells)\n\n| bits | M = 1 and 16 | M = 256 and 4096 |\n|---|---|---|"
    of = [f"{row['mean']:.3f} ({row['cells']})" if row["cells"] else "none" for row in means(cells)]
    for i, bits in enumerate(MEANS):
        yield f"| {', '.join(bits)} | {of[2 * i]} | {of[2 * i + 1]} |"
    slower = [f"{bits} bits [{n}, {k}] rows {m}: {shown_cell((n, k, bits, m), cell)}" for (n, k, bits, m), cell in cells.items()
              if is_slower((n, k, bits, m), cell)]
    yield f"\nCells with a ratio below {SLOWER}: {len(slower)}"
    yield from slower


def run_peers(script):
    with tempfile.TemporaryDirectory() as folder:
        out = f"{folder}/peers.json"
        # What it prints is in the records too.
        command = [sys.executable, script, "--roles", "torch,humming,gemlite", "--out", out]
        if code := subprocess.run(command, stdout=subprocess.DEVNULL).returncode:
            print(f"{script}: exit {code}", file=sys.stderr)
        return json.load(open(out)) if os.path.exists(out) else None


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--satin", help="the program")
    parser.add_argument("--peers", type=pathlib.Path, help="the peers' script")
    parser.add_argument("--from-satin", type=pathlib.Path, help="instead of --satin: what it printed, any number of runs")
    parser.add_argument("--from-peers", type=pathlib.Path, help="instead of --peers: what it wrote")
    parser.add_argument("--repeats", type=int, default=3, help="runs of Satin's")
    parser.add_argument("--output", type=pathlib.Path, help="all numbers, and both programs' own outputs, as JSON")
    args = parser.parse_args()
    if bool(args.satin) == bool(args.from_satin):
        parser.error("expected --satin or --from-satin")
    if args.peers and not args.peers.exists():
        parser.error(f"--peers: {args.peers} does not exist")
    bench = lambda: call(args, None, "bench", "packed_linear", "--only", "peers")  # noqa: E731
    text = args.from_satin.read_text() if args.from_satin else bench()
    peers = json.loads(args.from_peers.read_text()) if args.from_peers else run_peers(args.peers) if args.peers else None
    if args.satin:
        text = "\n".join([text] + [bench() for _ in range(args.repeats - 1)])

    device, cells = read_satin(text)
    if not cells:
        sys.exit("Satin measured no cell \"peers ...\": they are for a GPU")
    best, left_out = read_peers(peers) if peers else ({}, [])
    compare(cells, best)
    if args.output:
        rows = [dict(zip(("N", "K", "bits", "M"), key)) | cell for key, cell in cells.items()]
        args.output.write_text(json.dumps({"device": device, "cells": rows, "means": means(cells), "left_out": left_out,
                                           "satin": text.splitlines(), "peers": peers}, indent=1) + "\n")
    print(device)
    if peers:
        meta = peers["meta"]
        print("peers: " + ", ".join(f"{name} {meta.get(name)}" for name in ("device", "torch", "triton", "humming-kernels", "gemlite")))
    else:
        print("No peers' times (--peers): Satin's alone.")
    print("M bfloat16 rows of normal numbers times weights quantized from normal numbers in groups of 128, each program by its own rule:\n"
          "Satin's without zero points, int4pack's and GemLite's with; 1.58 bits: Satin's three levels with a scale a group, GemLite's with\n"
          "one scale and int8 inputs. CUDA graphs over copies beyond the caches; "
          f"{max(len(cell['runs']) for cell in cells.values())} runs of Satin.")
    print("\n".join(tables(cells, bool(peers))))
    if left_out:
        print("\n".join([f"\nPeers' cells that were left out: {len(left_out)}", *left_out]))


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""low_bit_peers.py on outputs made by hand: what is compared, and its means against numbers worked out by hand."""
import json
import pathlib
import subprocess
import sys
import tempfile

SCRIPT = pathlib.Path(__file__).with_name("low_bit_peers.py")
HEAD = "satin 0.1.0 (torch 2.11.0, CUDA 13.0) on A GPU\n== packed_linear: low-bit weights as codes: a few rows times a matrix\n"


def run_of_satin(factor):
    """Times of the middle run where factor is 1."""
    rows = [("1 bits group 128", 16, 4, 2), ("1.58 bits group 128", 1, 5, 2), ("2 bits group 128", 1, 4, 3), ("2 bits group 128", 16, 6, 3),
            ("2 bits group 128", 256, 50, 3), ("2 bits group 128", 4096, 100, 3), ("4 bits group 128", 1, 5, 4), ("dense bfloat16", 1, 30, 20)]
    return HEAD + "".join(f"peers {name} [8192, 4096] rows {m}      {us * factor:.2f} us  (1.00 .. 999.9)  floor {floor:.2f} us, 50.0 %  9 GB/s\n"
                          for name, m, us, floor in rows)


def record(peer, bits, m, us, rel_err=.002, dtype="bf16", **more):
    return {"kind": "matmul", "peer": peer, "bits": bits, "dtype": dtype, "M": m, "N": 8192, "K": 4096, "us": us, "rel_err": rel_err} | more


PEERS = {"meta": {"device": "A GPU", "torch": "2.11.0"}, "records": [
    {"kind": "copy", "peer": "torch", "gbs": 4000.0},
    record("torch.mm", 16, 1, 33), record("gemlite", 1, 16, 128), record("gemlite", 1.58, 1, 10, .009, "int8"),
    record("gemlite", 2, 1, 1, .03), record("gemlite", 2, 1, 2, None, mode="kernel caching"),  # fast, but wrong
    record("humming", 2, 1, 8), record("gemlite", 2, 1, 9),
    record("gemlite", 2, 16, 3, .05, "fp8"), record("humming", 2, 16, 7),  # 8-bit inputs may be off by more
    record("humming", 2, 256, 49.5), record("humming", 2, 4096, 225), record("torch int4pack", 4, 1, 40),
    {"kind": "error", "peer": "humming", "stage": "measure", "bits": 8, "error": "no such\nkernel"}]}


def main():
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        (folder / "satin.txt").write_text("$ a command\n" + "".join(map(run_of_satin, (1, 1.5, .5))))
        (folder / "peers.json").write_text(json.dumps(PEERS))
        command = [sys.executable, SCRIPT, "--from-satin", folder / "satin.txt"]
        printed = subprocess.run([*command, "--from-peers", folder / "peers.json", "--output", folder / "out.json"],
                                 check=True, capture_output=True, text=True).stdout
        found = json.loads((folder / "out.json").read_text())
        alone = subprocess.run(command, check=True, capture_output=True, text=True).stdout

    cells = {(cell["bits"], cell["M"]): cell for cell in found["cells"]}
    assert len(cells) == 8 and cells["2", 1]["runs"] == [4, 6, 2]
    assert (cells["2", 1]["us"], cells["2", 1]["least_us"], cells["2", 1]["most_us"], cells["2", 1]["floor_us"]) == (4, 2, 6, 3)
    peers = {key: (cell["peer"], cell["ratio"]) for key, cell in cells.items()}
    assert peers == {("1", 16): ("gemlite", 32), ("1.58", 1): ("gemlite int8", 2), ("2", 1): ("humming", 2), ("2", 16): ("gemlite fp8", .5),
                     ("2", 256): ("humming", .99), ("2", 4096): ("humming", 2.25), ("4", 1): ("torch int4pack", 8),
                     ("dense", 1): ("torch.mm", 1.1)}, peers

    means = {(" ".join(row["bits"]), row["rows"][0]): (row["mean"], row["cells"]) for row in found["means"]}
    for key, mean, count in ((("1", 1), 32, 1), (("1.58", 1), 2, 1), (("2", 1), 1, 2), (("2", 256), 1.4924811557, 2),  # sqrt(.99 * 2.25)
                             (("2 3 4 8", 1), 2, 3), (("1 2 3 4 8", 1), 4, 4), (("1 2 3 4 8", 256), 1.4924811557, 2)):
        assert abs(means[key][0] - mean) < 1e-9 and means[key][1] == count, (key, means[key])
    assert means["8", 1] == (None, 0)

    for line in ("Cells with a ratio below 0.98: 1\n2 bits [8192, 4096] rows 16: 6.00 (3.00 to 9.00); 3.00 gemlite fp8; 0.50 slower\n",
                 "| [8192, 4096] | 2 | 4.00 | 3.00 | 1.00 | 1.33 | 1.50 |", "| 2, 3, 4, 8 | 2.000 (3) | 1.492 (2) |",
                 "left out: 3\n", "gemlite kernel caching 2 bits [8192, 4096] rows 1: wrong result, rel_err None",
                 "humming stage=measure bits=8: no such kernel", "3 runs of Satin"):
        assert line in printed, (line, printed)
    assert "Satin's alone" in alone and "4.00 (2.00 to 6.00) |" in alone and "ratio" not in alone.split("\n\n", 1)[1], alone


main()

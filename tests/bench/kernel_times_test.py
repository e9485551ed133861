#!/usr/bin/env python3
"""kernel_times.py on kernels made by hand: which group repeats, and its times against numbers worked out by hand."""
import contextlib
import io

import kernel_times

LAYER = ["norm", "product", "product"]
STEP = ["dequantize_kernel"] + 4 * LAYER + ["product", "most_likely"]


def main():
    blocks = {"norm": 1, "product": 64, "most_likely": 8, "dequantize_kernel": 2}
    kernels = [(name, blocks[name]) for name in STEP]
    assert kernel_times.repeated_group(kernels) == (1, 3, 4), kernel_times.repeated_group(kernels)
    assert kernel_times.repeated_group([("a", 1), ("b", 1)]) == (0, 2, 1)
    # Each kernel ends 2 us after the one before, and begins 1 us before that one ends.
    rows = [(2000 * i - 1000, 2000 * (i + 1), blocks[name], name) for i, name in enumerate(50 * STEP)]
    steps = kernel_times.steps_of(rows, "dequantize_kernel")
    assert [len(found) for found in steps.values()] == [49 - kernel_times.SKIPPED_STEPS], steps
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        for key, found in steps.items():
            kernel_times.print_steps(rows, list(key), found)
    lines = [line.split() for line in printed.getvalue().strip().splitlines()]
    assert lines[0] == "29 steps of 15 kernels, 30.0 us each".split(), lines[0]
    assert [line[0] for line in lines[1:]] == ["dequantize_kernel", "4", "4", "4", "product", "most_likely"], lines
    assert all(line[-4:] == ["2.00", "us", "(own", "3.00)"] for line in lines[1:]), lines


main()

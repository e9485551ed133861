#!/usr/bin/env python3
"""Where the time of a decoding step goes: each kernel of a command's CUDA graphs, as the GPU's own clock has it.

  kernel_times.py [--first NAME] -- build/release/satin bench decode --only "W2, sequences 1"

--first: part of the name of the kernel that a step begins with. A step's time from one kernel's end to the next one's
end is what that kernel costs; its own is longer where it begins while the kernel before it runs. Means over all steps
of the same kernels but the first 20, of a repeated group of kernels (a layer) over all of its repetitions too. Needs
CUPTI, of the CUDA toolkit or of PyTorch's packages, and a C++ compiler. Tracing makes a token .2 to 2 % slower.
"""
import argparse
import collections
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

SKIPPED_STEPS, LONGEST_GROUP = 20, 12


def find_cupti():
    """Include directories and the library."""
    nvcc = shutil.which("nvcc")
    toolkit = pathlib.Path(nvcc).resolve().parents[1] if nvcc else pathlib.Path("/usr/local/cuda")
    roots = [pathlib.Path(p) / "nvidia/cu13" for p in sys.path] + [toolkit / "extras/CUPTI", toolkit]
    for root in roots:
        library = next((p for part in ("lib", "lib64") for p in (root / part).glob("libcupti.so*")), None)
        if library and (root / "include/cupti.h").exists():
            return [root / "include", toolkit / "include"], library
    sys.exit(f"kernel_times: expected CUPTI (cupti.h and libcupti.so) in one of {', '.join(map(str, roots))}")


def record(command, folder):
    includes, library = find_cupti()
    recorder, lines = folder / "librecorder.so", folder / "kernels.tsv"
    source = pathlib.Path(__file__).with_suffix(".cpp")
    subprocess.run(["c++", "-O2", "-shared", "-fPIC", *(f"-I{path}" for path in includes), str(source), "-o",
                    str(recorder), f"-L{library.parent}", f"-l:{library.name}", f"-Wl,-rpath,{library.parent}"], check=True)
    environment = os.environ | {"CUDA_INJECTION64_PATH": str(recorder), "SATIN_KERNEL_TIMES": str(lines)}
    subprocess.run(command, check=True, env=environment)
    rows = [line.split("\t") for line in lines.read_text().splitlines()]
    return sorted((int(begin), int(end), int(blocks), name) for begin, end, blocks, name in rows)


def read_names(rows):
    """Mangled name -> the function's."""
    mangled = sorted({row[3] for row in rows})
    plain = subprocess.run(["c++filt"], input="\n".join(mangled), capture_output=True, text=True, check=True).stdout
    functions = [re.search(r"(\w+)(?=[<(])", name.replace("(anonymous namespace)::", "")) for name in plain.splitlines()]
    return {name: found[1] if found else name[:32] for name, found in zip(mangled, functions)}


def repeated_group(kernels):
    """(first, length, repetitions) of the group that covers most of the list; all of it, once, where none repeats."""
    def repetitions(first, length):
        count = 1
        while kernels[first:first + length] == kernels[first + count * length:first + (count + 1) * length]:
            count += 1
        return count

    groups = [(first, length, repetitions(first, length)) for length in range(1, LONGEST_GROUP + 1)
              for first in range(len(kernels) - 2 * length + 1)]
    repeated = [group for group in groups if group[2] > 1]
    return max(repeated, key=lambda group: group[1] * group[2], default=(0, len(kernels), 1))


def steps_of(rows, first_kernel):
    """The steps of each list of kernels: [(index of its first row, of the next step's)]."""
    begins = [i for i, row in enumerate(rows) if first_kernel in row[3]]
    names, steps = read_names(rows), collections.OrderedDict()
    for begin, end in zip(begins, begins[1:]):
        key = tuple((names[row[3]], row[2]) for row in rows[begin:end])
        steps.setdefault(key, []).append((begin, end))
    return {key: found[SKIPPED_STEPS:] for key, found in steps.items() if len(found) > 2 * SKIPPED_STEPS}


def print_steps(rows, kernels, steps):
    costs, own = [0.] * len(kernels), [0.] * len(kernels)
    for begin, _ in steps:
        for i in range(len(kernels)):
            row = rows[begin + i]
            costs[i] += (row[1] - rows[begin + i - 1][1]) * 1e-3 / len(steps)
            own[i] += (row[1] - row[0]) * 1e-3 / len(steps)
    print(f"\n{len(steps)} steps of {len(kernels)} kernels, {sum(costs):.1f} us each")
    first, length, count = repeated_group(kernels)

    def line(places, mark):
        name, blocks = kernels[places[0]]
        mean = [sum(of[i] for i in places) / len(places) for of in (costs, own)]
        print(f"{mark:>5} {name:32} {blocks:5} blocks {mean[0]:7.2f} us (own {mean[1]:.2f})")

    for i in range(first):
        line([i], "")
    for i in range(first, first + length):
        line([i + repetition * length for repetition in range(count)], f"{count} x" if count > 1 else "")
    for i in range(first + length * count, len(kernels)):
        line([i], "")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--first", default="dequantize_kernel")
    parser.add_argument("command", nargs="+")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = record(options.command, pathlib.Path(folder))
    steps = steps_of(rows, options.first)
    if not steps:
        sys.exit(f"kernel_times: expected more than {2 * SKIPPED_STEPS} steps that begin with a kernel named "
                 f"{options.first}, found none among {len(rows)} kernels")
    for kernels, found in steps.items():
        print_steps(rows, kernels, found)


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""Whether the kernels of a decoding step ask for weights, keys and values before they wait for the kernel before them:
in machine code, as the assembler once moved all of these loads behind the wait.

  early_loads_test.py DIRECTORY    of object files: cached_attention.cu.o, packed_decode.cu.o, ...
Skips (code 77) where cuobjdump and nvdisasm are not found, on the path or in the Triton that comes with PyTorch.
"""
import importlib.util
import pathlib
import re
import shutil
import subprocess
import sys

LEAST = {"cached_attention": ("attention_kernel", 8), "packed_decode": ("decode_kernel", 8),
         "packed_few": ("decode_kernel", 12), "packed_skinny": ("skinny_kernel", 4)}  # loads of each kernel
SKIPPED = 77


def find_tool():
    """cuobjdump, with nvdisasm beside it."""
    places = [shutil.which("cuobjdump")]
    if spec := importlib.util.find_spec("triton"):
        places.append(pathlib.Path(spec.origin).parent / "backends/nvidia/bin/cuobjdump")
    for place in filter(None, places):
        if pathlib.Path(place).with_name("nvdisasm").exists() and pathlib.Path(place).exists():
            return place
    return None


def loads_before_wait(assembly):
    """Of each kernel that waits (griddepcontrol.wait): its loads from global memory above that place."""
    found, name, loads = {}, None, 0
    for line in assembly.splitlines():
        if match := re.search(r"Function : (\S+)", line):
            name, loads = match[1], 0
        elif re.search(r"\bLDG\b", line):
            loads += 1
        elif re.search(r"\bACQBULK\b", line) and name not in found:
            found[name] = loads
    return found


def main():
    tool = find_tool()
    if not tool:
        print("SKIPPED: cuobjdump and nvdisasm are not on the path, nor is Triton installed")
        return SKIPPED

    def count(stem):
        path = pathlib.Path(sys.argv[1]) / f"{stem}.cu.o"
        run = subprocess.run([tool, "-sass", path], capture_output=True, text=True)
        if run.returncode:
            sys.exit(f"{tool} -sass {path}: {run.stderr.strip()}")
        return loads_before_wait(run.stdout)

    failures = []
    for stem, (kernel, least) in LEAST.items():
        counts = {name: loads for name, loads in count(stem).items() if kernel in name}
        print(f"{stem}: {len(counts)} kernels, {min(counts.values(), default=0)} loads and more before the wait")
        if not counts:
            failures.append(f"{stem}: expected kernels named {kernel} that wait, found none")
        failures += [f"{stem}: expected {least} loads before the wait at least, found {loads} in {name}"
                     for name, loads in counts.items() if loads < least]
    ends = count("step_ends")  # these have nothing to ask for: the same count sees it
    if not ends or any(ends.values()):
        failures.append(f"step_ends: expected kernels without loads before the wait, found {ends}")
    print("\n".join(failures))
    return 1 if failures else 0


sys.exit(main())

#!/usr/bin/env python3
"""Whether the kernels of a decoding step ask for weights, keys and values before they wait for the kernel before them:
in machine code, as the assembler once moved all of these loads behind the wait. And whether those that copy weights to
shared memory ask for x after the wait before they ask for more of them: it once moved these before x.

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
LEAST_COPIES = 3  # of a kernel that copies
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
    """Of each kernel that waits (griddepcontrol.wait): its loads from global memory above that place, its copies to
    shared memory there, and whether the first of both below is a load."""
    found, name, counts, waited = {}, None, [0, 0], False
    for line in assembly.splitlines():
        if match := re.search(r"Function : (\S+)", line):
            name, counts, waited = match[1], [0, 0], False
        elif match := re.search(r"\b(LDG|LDGSTS)\b", line):
            is_copy = match[1] == "LDGSTS"
            if not waited:
                counts[is_copy] += 1
            elif found[name][2] is None:
                found[name][2] = not is_copy
        elif re.search(r"\bACQBULK\b", line) and not waited:
            found[name], waited = [*counts, None], True
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
        counts = {name: found for name, found in count(stem).items() if kernel in name}
        loading = {name: loads for name, (loads, copies, _) in counts.items() if not copies}
        copying = {name: found for name, found in counts.items() if found[1]}
        print(f"{stem}: {len(loading)} kernels, {min(loading.values(), default=0)} loads and more before the wait; "
              f"{len(copying)} that copy")
        if not loading:
            failures.append(f"{stem}: expected kernels named {kernel} that wait, found none")
        failures += [f"{stem}: expected {least} loads before the wait at least, found {loads} in {name}"
                     for name, loads in loading.items() if loads < least]
        failures += [f"{stem}: expected {LEAST_COPIES} copies before the wait at least, found {copies} in {name}"
                     for name, (_, copies, _) in copying.items() if copies < LEAST_COPIES]
        failures += [f"{stem}: expected a load of x after the wait, then more copies, found a copy first in {name}"
                     for name, (_, _, is_load) in copying.items() if not is_load]
        if stem == "packed_decode" and not copying:
            failures.append(f"{stem}: expected kernels that copy weights to shared memory, found none")
    ends = count("step_ends")  # these have nothing to ask for: the same count sees it
    if not ends or any(loads or copies for loads, copies, _ in ends.values()):
        failures.append(f"step_ends: expected kernels without loads before the wait, found {ends}")
    print("\n".join(failures))
    return 1 if failures else 0


sys.exit(main())

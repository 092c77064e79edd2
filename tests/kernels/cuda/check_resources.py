#!/usr/bin/env python3
"""Compiles every CUDA source for every target and holds what ptxas says of each kernel to a committed table.

  check_resources.py SOURCE_DIR NVCC [--write]

The table (tests/kernels/cuda/resources.tsv) has, for each kernel and target, registers of a thread and bytes spilled.
With the compiler that it was made with, every figure must be the same or better; with another one, a kernel may use
other registers but must not begin to spill. Kernels without a row, and rows without a kernel, are failures. --write
makes the table anew. Exit code 0 says that all holds.
"""

import concurrent.futures
import os
import pathlib
import re
import subprocess
import sys
import tempfile

TARGETS = ["arch=compute_80,code=sm_80", "arch=compute_90a,code=sm_90a", "arch=compute_90,code=compute_90"]
PER_FILE = {"kernels/sampling/cuda.cu": ["-fmad=false"], "kernels/rope/cuda.cu": ["-fmad=false"]}  # as kernels/CMakeLists.txt


def compile_one(root, nvcc, source, out):
    flags = [f"-gencode={target}" for target in TARGETS]
    command = [nvcc, "-std=c++20", "--expt-relaxed-constexpr", "--diag-suppress=2810", f"-I{root}", "-Xptxas", "-v", *flags,
               *PER_FILE.get(source, []), "-c", str(root / source), "-o", str(out / (source.replace("/", "_") + ".o"))]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{source}: does not compile\n{done.stdout}{done.stderr}")
    return done.stdout + done.stderr


def demangle(names):
    done = subprocess.run(["c++filt"], input="\n".join(names), capture_output=True, text=True, check=True)
    short = []
    for name in done.stdout.splitlines():
        name = re.sub(r"quire::cuda::|quire::|void ", "", name)
        name = re.sub(r"^Entry<(.*)>\(.*$", r"\1", name).strip()
        short.append(name.replace("(int)", ""))
    return short


def parse(text):
    """{(mangled kernel, target): (registers, spilled bytes)}"""
    found, key, spilled = {}, None, 0
    for line in text.splitlines():
        if match := re.search(r"Compiling entry function '(\S+)' for '(\S+)'", line):
            key = match.groups()
        elif match := re.search(r"(\d+) bytes spill stores, (\d+) bytes spill loads", line):
            spilled = int(match[1]) + int(match[2])
        elif (match := re.search(r"Used (\d+) registers", line)) and key:
            found[key], key = (int(match[1]), spilled), None
    return found


def main():
    root, nvcc, write = pathlib.Path(sys.argv[1]).resolve(), sys.argv[2], "--write" in sys.argv[3:]
    table = root / "tests/kernels/cuda/resources.tsv"
    version = re.search(r"release \S+, V(\S+)", subprocess.run([nvcc, "--version"], capture_output=True, text=True).stdout)[1]
    sources = sorted(str(path.relative_to(root)) for path in (root / "kernels").rglob("*.cu"))
    with tempfile.TemporaryDirectory() as out, concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        texts = pool.map(lambda source: compile_one(root, nvcc, source, pathlib.Path(out)), sources)
        found = {}
        for text in texts:
            found.update(parse(text))
    keys = list(found)
    rows = dict(zip(zip(demangle([key[0] for key in keys]), (key[1] for key in keys)), (found[key] for key in keys)))

    if write:
        lines = [f"# nvcc {version}", "# kernel\ttarget\tregisters\tspilled bytes"]
        lines += [f"{name}\t{target}\t{registers}\t{spilled}" for (name, target), (registers, spilled) in sorted(rows.items())]
        table.write_text("\n".join(lines) + "\n")
        return print(f"{len(rows)} rows written")

    lines = table.read_text().splitlines()
    same_compiler = lines[0] == f"# nvcc {version}"
    expected = {}
    for line in lines[2:]:
        name, target, registers, spilled = line.split("\t")
        expected[name, target] = (int(registers), int(spilled))
    faults = [f"{key}: not in the table" for key in rows if key not in expected]
    faults += [f"{key}: in the table, but no such kernel" for key in expected if key not in rows]
    for key in rows.keys() & expected.keys():
        (registers, spilled), (max_registers, max_spilled) = rows[key], expected[key]
        if same_compiler and (registers > max_registers or spilled > max_spilled):
            faults.append(f"{key}: {registers} registers, {spilled} bytes spilled; the table allows {max_registers}, {max_spilled}")
        elif spilled > 0 and max_spilled == 0:
            faults.append(f"{key}: spills {spilled} bytes; the table has none")
    if faults:
        sys.exit("\n".join(faults))
    print(f"{len(rows)} kernels and targets are as the table says")


if __name__ == "__main__":
    main()

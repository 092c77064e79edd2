#!/usr/bin/env python3
"""Compiles every CUDA source for every target and holds what ptxas says of each kernel to a committed table.

  check_resources.py SOURCE_DIR NVCC [--write]

The table (tests/kernels/cuda/resources.tsv) has, for each kernel and target, registers of a thread, bytes spilled, and
bytes of shared memory of a CTA (which stand in the kernel's name, Entry<Kernel, bytes>).
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
    if "C7510" in done.stdout + done.stderr:
        sys.exit(f"{source}: ptxas waits after every wgmma\n{done.stdout}{done.stderr}")
    return done.stdout + done.stderr


def demangle(names):
    done = subprocess.run(["c++filt"], input="\n".join(names), capture_output=True, text=True, check=True)
    short = []
    for name in done.stdout.splitlines():
        name = re.sub(r"quire::cuda::|quire::|void ", "", name)
        match = re.match(r"^Entry<(.*), (\d+)>\(.*$", name.replace("(int)", ""))
        short.append((match[1].strip(), int(match[2])))
    return short


def parse(text):
    """{(mangled kernel, target): (registers, spilled bytes, bytes of shared memory that is not in the name)}"""
    found, key, spilled = {}, None, 0
    for line in text.splitlines():
        if match := re.search(r"Compiling entry function '(\S+)' for '(\S+)'", line):
            key = match.groups()
        elif match := re.search(r"(\d+) bytes spill stores, (\d+) bytes spill loads", line):
            spilled = int(match[1]) + int(match[2])
        elif (match := re.search(r"Used (\d+) registers", line)) and key:
            static = re.search(r"(\d+) bytes smem", line)
            found[key], key = (int(match[1]), spilled, int(static[1]) if static else 0), None
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
    rows = {}
    for (kernel, dynamic), key in zip(demangle([key[0] for key in keys]), keys):
        registers, spilled, static = found[key]
        rows[kernel, key[1]] = (registers, spilled, dynamic + static)

    if write:
        lines = [f"# nvcc {version}", "# kernel\ttarget\tregisters\tspilled bytes\tshared bytes"]
        lines += [f"{name}\t{target}\t{registers}\t{spilled}\t{shared}" for (name, target), (registers, spilled, shared) in sorted(rows.items())]
        table.write_text("\n".join(lines) + "\n")
        return print(f"{len(rows)} rows written")

    lines = table.read_text().splitlines()
    same_compiler = lines[0] == f"# nvcc {version}"
    expected = {}
    for line in lines[2:]:
        name, target, *figures = line.split("\t")
        expected[name, target] = tuple(int(figure) for figure in figures)
    faults = [f"{key}: not in the table" for key in rows if key not in expected]
    faults += [f"{key}: in the table, but no such kernel" for key in expected if key not in rows]
    for key in rows.keys() & expected.keys():
        (registers, spilled, shared), (max_registers, max_spilled, expected_shared) = rows[key], expected[key]
        if shared != expected_shared:
            faults.append(f"{key}: {shared} bytes of shared memory; the table says {expected_shared}")
        if same_compiler and (registers > max_registers or spilled > max_spilled):
            faults.append(f"{key}: {registers} registers, {spilled} bytes spilled; the table allows {max_registers}, {max_spilled}")
        elif spilled > 0 and max_spilled == 0:
            faults.append(f"{key}: spills {spilled} bytes; the table has none")
    if faults:
        sys.exit("\n".join(faults))
    print(f"{len(rows)} kernels and targets are as the table says")


if __name__ == "__main__":
    main()

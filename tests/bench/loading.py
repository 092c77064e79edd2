#!/usr/bin/env python3
"""Loading beside `dd`: how fast quired gets a model from its files to the ready line, and how much memory it takes for it.

    tests/bench/loading.py MODEL [--rounds 3] [-- more flags of quired]

MODEL is a directory with safetensors or a .gguf file. Each round: dd and quired, both cold (the files' pages dropped from the page cache)
and both warm. A fraction is quired's bytes of files per second of start to ready over dd's. Standard library only.
"""
import argparse
import os
import pathlib
import subprocess
import time

BIN = pathlib.Path(__file__).resolve().parents[2] / "build/release/bin/quired"


def drop(files):
    for file in files:
        fd = os.open(file, os.O_RDONLY)
        os.fsync(fd)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(fd)


def dd(files):
    begin = time.monotonic()
    for file in files:
        subprocess.run(["dd", f"if={file}", "of=/dev/null", "bs=1M"], stderr=subprocess.DEVNULL, check=True)
    return time.monotonic() - begin


def quired(args):
    """Seconds to the ready line, processor seconds, and the peak of resident memory less pages of the files, in bytes."""
    command = [args.quired, "--model", args.model, "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--kv-cache-memory", "64MiB", *args.flags]
    begin = time.monotonic()
    daemon = subprocess.Popen([str(c) for c in command], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    ready = daemon.stdout.readline()
    seconds = time.monotonic() - begin
    assert "ready" in ready, "quired did not start"
    status = dict(line.split(":", 1) for line in pathlib.Path(f"/proc/{daemon.pid}/status").read_text().splitlines())
    processor = sum(map(int, pathlib.Path(f"/proc/{daemon.pid}/stat").read_text().split()[13:15])) / os.sysconf("SC_CLK_TCK")
    daemon.terminate()
    daemon.wait()
    return seconds, processor, int(status["VmHWM"].split()[0]) * 1024


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=pathlib.Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quired", type=pathlib.Path, default=BIN)
    parser.add_argument("flags", nargs="*")
    args = parser.parse_args()
    files = sorted(args.model.glob("*.safetensors")) if args.model.is_dir() else [args.model]
    size = sum(file.stat().st_size for file in files)
    for _ in range(args.rounds):
        for state in ("cold", "warm"):
            if state == "cold":
                drop(files)
            read = dd(files)
            if state == "cold":
                drop(files)
            seconds, processor, peak = quired(args)
            print(f"{state}: dd {size / read / 1e6:.0f} MB/s, quired {size / seconds / 1e6:.0f} MB/s ({seconds:.2f} s, {processor:.2f} of processors), "
                  f"fraction {read / seconds:.2f}; peak {peak / size:.2f} x the files", flush=True)


if __name__ == "__main__":
    main()

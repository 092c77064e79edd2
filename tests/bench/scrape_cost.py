#!/usr/bin/env python3
"""What a scrape of /metrics every 50 ms costs, as the llm-d endpoint picker does it: CPU of an idle daemon with and without.

    scrape_cost.py build/release/bin/quired [seconds]
"""

import http.client
import os
import pathlib
import re
import subprocess
import sys
import time

MODEL = pathlib.Path(__file__).resolve().parents[2] / "deploy/models/tales-5m"
INTERVAL = 0.05


def cpu_seconds(pid):
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main(program, seconds=20.0):
    daemon = subprocess.Popen(
        [program, "--model", MODEL, "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--kv-cache-memory", "64MiB", "--log-level", "error"],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        admin = re.search(r"admin=(\S+)", daemon.stdout.readline())[1]
        connection = http.client.HTTPConnection(admin)
        time.sleep(1)  # the start's own work
        used = cpu_seconds(daemon.pid)
        time.sleep(seconds)
        idle = cpu_seconds(daemon.pid) - used
        latencies, size = [], 0
        used, begin = cpu_seconds(daemon.pid), time.monotonic()
        while time.monotonic() < begin + seconds:
            sent = time.monotonic()
            connection.request("GET", "/metrics")
            size = len(connection.getresponse().read())
            latencies.append(time.monotonic() - sent)
            time.sleep(max(0, INTERVAL - latencies[-1]))
        busy = cpu_seconds(daemon.pid) - used
    finally:
        daemon.terminate()
        daemon.wait()
    latencies.sort()
    print(f"{len(latencies)} scrapes of {size} bytes in {seconds:g} s: {100 * (busy - idle) / seconds:.2f} % of a core "
          f"({1e3 * (busy - idle) / len(latencies):.2f} ms each); median {1e3 * latencies[len(latencies) // 2]:.2f} ms, "
          f"longest {1e3 * latencies[-1]:.2f} ms; idle {100 * idle / seconds:.2f} %")


if __name__ == "__main__":
    main(sys.argv[1], *map(float, sys.argv[2:]))

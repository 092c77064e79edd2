#!/usr/bin/env python3
"""Dashboard and alerts name only metrics that the daemon exports; promtool takes the alerts.

    observability_test.py SOURCE QUIRED FOLDER

FOLDER: where promtool is unpacked from Debian's package, without installing it, if it is not on the path.
"""

import json
import pathlib
import re
import shutil
import subprocess
import sys
import urllib.request

import yaml

KNOWN = {"up"}  # Prometheus' own


def exported(source, quired):
    """The names at /metrics of a daemon, series of histograms included."""
    model = source / "deploy/models/tales-5m"
    daemon = subprocess.Popen(
        [quired, "--model", model, "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--kv-cache-memory", "16MiB", "--log-level", "error"],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        admin = re.search(r"admin=(\S+)", daemon.stdout.readline())[1]
        with urllib.request.urlopen(f"http://{admin}/metrics", timeout=10) as reply:
            text = reply.read().decode()
    finally:
        daemon.terminate()
        daemon.wait()
    return set(re.findall(r"^([a-zA-Z_:][a-zA-Z0-9_:]*)", text, re.M))


def named(expression):
    """The metrics in an expression: words that are no function, label, keyword or number."""
    bare = re.sub(r"\{[^}]*\}|\[[^\]]*\]|\"[^\"]*\"", "", expression)
    bare = re.sub(r"\b(?:by|without|on|ignoring)\s*\([^)]*\)", "", bare)
    words = re.findall(r"[a-zA-Z_][a-zA-Z0-9_:]*(?!\w*\s*\()", bare)
    return {w for w in words if ("_" in w or ":" in w or w in KNOWN) and not re.search(rf"\b{re.escape(w)}\s*\(", bare)}


def find_promtool(folder):
    """promtool's path; None where neither it nor Debian's archive is to be had."""
    folder = pathlib.Path(folder)
    unpacked = folder / "usr/bin/promtool"
    if found := shutil.which("promtool"):
        return found
    if not unpacked.exists():
        folder.mkdir(parents=True, exist_ok=True)
        download = subprocess.run(["apt-get", "download", "-q", "prometheus"], cwd=folder, capture_output=True)
        packages = list(folder.glob("prometheus_*.deb"))
        if download.returncode != 0 or not packages:
            return None
        subprocess.run(["dpkg", "-x", packages[0], folder], check=True)
    return unpacked


def main(source, quired, scratch):
    source = pathlib.Path(source)
    folder = source / "deploy/observability"
    have = exported(source, quired) | KNOWN
    expressions = [r["expr"] for g in yaml.safe_load((folder / "alerts.yaml").read_text())["groups"] for r in g["rules"]]
    dashboard = json.loads((folder / "dashboard.json").read_text())
    expressions += [t["expr"] for p in dashboard["panels"] for t in p["targets"]]
    assert len(expressions) > 30, "the dashboard is not what it was"
    unknown = {name for e in expressions for name in named(e)} - have
    assert not unknown, f"not exported by quired: {sorted(unknown)}"
    before = (folder / "dashboard.json").read_bytes()
    subprocess.run([sys.executable, folder / "make_dashboard.py"], check=True)
    assert (folder / "dashboard.json").read_bytes() == before, "dashboard.json is not what make_dashboard.py writes"
    if promtool := find_promtool(scratch):
        subprocess.run([promtool, "check", "rules", folder / "alerts.yaml"], check=True)
    print(f"{len(expressions)} expressions over {len({n for e in expressions for n in named(e)})} metrics; promtool: {promtool or 'not to be had'}")


if __name__ == "__main__":
    main(*sys.argv[1:])

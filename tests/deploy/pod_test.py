#!/usr/bin/env python3
"""Runs the container of deploy/kubernetes/rendered/cpu.yaml as a kubelet would, without a cluster.

    pod_test.py SOURCE BUILD

Reads the Deployment: its command, environment (from the ConfigMap, the container's resources), user, read-only root, volumes, probes
and grace period. Runs the command in the image's file system (deploy/container/rootfs.sh) in namespaces of its own, follows the startup,
readiness and liveness probes, streams with `quire` through the named port, sends SIGTERM while a stream runs, and wants the stream
whole and exit code 0 within the grace period. Exit code 77 where namespaces are not allowed. Needs PyYAML.
"""

import os
import pathlib
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

import yaml

SECRET = "pod-test-token"


def load(path):
    with open(path, encoding="utf-8") as f:
        documents = [d for d in yaml.safe_load_all(f) if d]
    return {(d["kind"], d["metadata"]["name"]): d for d in documents}


def only(objects, kind):
    found = [d for (k, _), d in objects.items() if k == kind]
    assert len(found) == 1, f"{len(found)} objects of kind {kind}"
    return found[0]


def environment(container, objects):
    """The variables of a container: envFrom, then env."""
    variables = {}
    for source in container.get("envFrom", []):
        variables.update(objects["ConfigMap", source["configMapRef"]["name"]]["data"])
    for entry in container.get("env", []):
        if "value" in entry:
            variables[entry["name"]] = entry["value"]
        else:
            kind, resource = entry["valueFrom"]["resourceFieldRef"]["resource"].split(".")
            variables[entry["name"]] = str(container["resources"][kind][resource])
    return variables


def get(port, path, timeout):
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=timeout) as reply:
            return reply.status
    except urllib.error.HTTPError as e:
        return e.code
    except OSError:
        return None


class Pod:
    """The container's process, in the image's file system."""

    def __init__(self, root, work, deployment, objects):
        spec = deployment["spec"]["template"]["spec"]
        (self.container,) = spec["containers"]
        self.ports = {p["name"]: p["containerPort"] for p in self.container["ports"]}
        self.grace = spec["terminationGracePeriodSeconds"]
        user, security = spec["securityContext"], self.container["securityContext"]
        assert user["runAsNonRoot"] and user["runAsUser"] != 0, "the pod runs as root"
        assert security["readOnlyRootFilesystem"] and not security["allowPrivilegeEscalation"], "the container may change itself"
        mounts = []
        for mount in self.container["volumeMounts"]:
            volume = next(v for v in spec["volumes"] if v["name"] == mount["name"])
            (root / mount["mountPath"].lstrip("/")).mkdir(parents=True, exist_ok=True)
            if "secret" in volume:
                folder = work / mount["name"]
                folder.mkdir()
                (folder / "tokens").write_text(SECRET + "\n")
                (folder / "tokens").chmod(0o444)
                mounts.append(f"mount --bind {folder} {root}{mount['mountPath']}")
            else:
                assert "emptyDir" in volume, f"volume {volume} is not known to this test"
                mounts.append(f"mount -t tmpfs -o mode=1777 tmpfs {root}{mount['mountPath']}")
        arguments = self.container["command"] + self.container.get("args", [])
        script = "\n".join(
            ["set -e", f"mount --bind {root} {root}", f"mount -t proc proc {root}/proc", f"mount -o remount,bind,ro {root}", *mounts,
             f"exec chroot --userspec={user['runAsUser']}:{user['runAsGroup']} {root} \"$@\""]
        )
        self.process = subprocess.Popen(
            ["unshare", "--mount", "--pid", "--fork", "--kill-child", "bash", "-c", script, "-", *arguments],
            env={"PATH": os.environ["PATH"]} | environment(self.container, objects),
            stdout=subprocess.DEVNULL,
            stderr=open(work / "log", "w"),
            start_new_session=True,
        )

    def probe(self, name):
        probe = self.container[name]
        port = probe["httpGet"]["port"]
        return get(self.ports.get(port, port), probe["httpGet"]["path"], probe["timeoutSeconds"])

    def await_startup(self):
        probe = self.container["startupProbe"]
        for _ in range(probe["failureThreshold"]):
            if self.process.poll() is not None:
                return False
            if self.probe("startupProbe") == 200:
                return True
            time.sleep(min(probe["periodSeconds"], 0.2))
        return False

    def quired(self):
        """The daemon itself: the child of unshare, which has its own PID namespace."""
        children = pathlib.Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return int(children[0])


def main(source, build):
    source, build = pathlib.Path(source), pathlib.Path(build)
    if subprocess.run(["unshare", "--mount", "--pid", "--fork", "true"], stderr=subprocess.DEVNULL).returncode != 0:
        print("skipped: no permission for namespaces")
        return 77
    for port in (50051, 9400):
        with socket.socket() as s:
            if s.connect_ex(("127.0.0.1", port)) == 0:
                print(f"skipped: port {port}, which the manifest names, is taken on this machine")
                return 77
    objects = load(source / "deploy/kubernetes/rendered/cpu.yaml")
    deployment = only(objects, "Deployment")
    with tempfile.TemporaryDirectory() as folder:
        work = pathlib.Path(folder)
        os.chmod(work, 0o755)
        root = work / "root"
        subprocess.run([source / "deploy/container/rootfs.sh", build, root], check=True, stderr=subprocess.DEVNULL)
        pod = Pod(root, work, deployment, objects)
        try:
            assert pod.await_startup(), "the startup probe never succeeds: " + (work / "log").read_text()[-2000:]
            assert pod.probe("readinessProbe") == 200, "not ready after the startup probe"
            assert pod.probe("livenessProbe") == 200, "not alive after the startup probe"
            service = objects["Service", "quire"]["spec"]["ports"][0]
            target = f"127.0.0.1:{pod.ports[service['targetPort']]}"
            token = work / "client-token"
            token.write_text(SECRET)
            quire = [build / "bin/quire", "generate", "--target", target, "--prompt", "Once upon a time", "--ignore-eos", "--temperature", "0"]
            refused = subprocess.run([*quire, "--max-tokens", "1"], capture_output=True, text=True)
            assert refused.returncode == 2 and "UNAUTHENTICATED" in refused.stderr, f"without a token: {refused}"
            stream = subprocess.Popen([*quire, "--token-file", token, "--max-tokens", "900"], stdout=subprocess.PIPE, bufsize=0)
            stream.stdout.read(1)
            begin = time.monotonic()
            os.kill(pod.quired(), signal.SIGTERM)
            while pod.probe("readinessProbe") == 200:
                assert time.monotonic() < begin + 5, "ready 5 s after SIGTERM"
            rest = stream.communicate(timeout=60)[0]
            assert stream.returncode == 0 and len(rest) > 1500, f"the running stream was cut: {stream.returncode}, {rest!r}"
            code = pod.process.wait(timeout=pod.grace)
            assert code == 0, f"exit code {code}"
            print(f"drained {time.monotonic() - begin:.1f} s after SIGTERM; the grace period is {pod.grace} s")
        finally:
            if pod.process.poll() is None:
                os.killpg(pod.process.pid, signal.SIGKILL)
                pod.process.wait()
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

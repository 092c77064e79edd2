#!/usr/bin/env python3
"""Two replicas behind the gateway SMG, used by an OpenAI client: chat and completions, streamed or not, cancelled; then one replica is
killed and one is drained while requests run. No request is lost that had not begun, and what had begun on the killed one ends in a
clear error.

Needs PyPI, and so is not part of ctest:

    python3 -m venv /tmp/gateway && /tmp/gateway/bin/pip install smg openai
    /tmp/gateway/bin/python tests/deploy/gateway_test.py build/release/bin/quired [path of smg]
"""

import asyncio
import collections
import contextlib
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request

import openai

SOURCE = pathlib.Path(__file__).resolve().parents[2]
MODEL = SOURCE / "deploy/models/tales-5m"
PROMPT = "Once upon a time there was a little"
TEMPLATE = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}assistant:"


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Replica:
    """A quired on a port that stays the same over restarts."""

    def __init__(self, program):
        self.program, self.port = program, free_port()
        self.start()

    def start(self):
        self.process = subprocess.Popen(
            [self.program, "--model", MODEL, "--listen", f"127.0.0.1:{self.port}", "--admin-listen", "127.0.0.1:0", "--kv-cache-memory", "64MiB",
             "--drain-delay", "3s", "--kv-events", "--threads", "1", "--log-level", "error"],
            stdout=subprocess.PIPE,
            text=True,
        )
        self.admin = re.search(r"admin=(\S+)", self.process.stdout.readline())[1]

    def metric(self, series):
        with urllib.request.urlopen(f"http://{self.admin}/metrics", timeout=5) as reply:
            return float(re.search(rf"^{re.escape(series)}\S* (\S+)$", reply.read().decode(), re.M)[1])

    def stop(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


@contextlib.contextmanager
def gateway(smg, replicas, policy, folder):
    """The base URL of a gateway for these replicas."""
    template = pathlib.Path(folder, "chat.jinja")
    template.write_text(TEMPLATE)
    port = free_port()
    with open(pathlib.Path(folder, f"smg-{policy}.log"), "w") as log:
        process = subprocess.Popen(
            [smg, "launch", "--host", "127.0.0.1", "--port", str(port), "--prometheus-host", "127.0.0.1", "--prometheus-port", str(free_port()),
             "--policy", policy, "--worker-urls", *[f"grpc://127.0.0.1:{r.port}" for r in replicas], "--model-path", MODEL, "--chat-template", template,
             "--worker-startup-timeout-secs", "60", "--worker-startup-check-interval", "1",
             "--health-check-interval-secs", "1", "--health-failure-threshold", "1", "--health-success-threshold", "1"],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, env=os.environ | {"HF_HUB_OFFLINE": "1"},
        )
        try:
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


async def until(what, condition, within=60):
    """Waits until the condition, which may fail, holds."""
    end = time.monotonic() + within
    while True:
        with contextlib.suppress(OSError, openai.APIError):
            if await condition():
                return
        assert time.monotonic() < end, f"{within} s and still not: {what}"
        await asyncio.sleep(0.2)


class Outcome:
    """What became of one request."""

    def __init__(self):
        self.begun, self.text, self.error = False, "", None


async def complete(client, name, max_tokens, stream):
    """One completion. What fails before it begins is not tried again here: that is the gateway's part."""
    outcome = Outcome()
    body = dict(model=name, prompt=PROMPT, max_tokens=max_tokens, temperature=0, extra_body={"ignore_eos": True})
    try:
        if stream:
            async for event in await client.completions.create(stream=True, **body):
                for choice in event.choices:
                    outcome.text += choice.text
                    outcome.begun = True
        else:
            outcome.text = (await client.completions.create(**body)).choices[0].text
    except Exception as e:  # whatever the client library raises is the outcome
        outcome.error = e
    return outcome


class Load:
    """Streams that follow each other until it is told to stop."""

    def __init__(self, client, name, max_tokens, width=8):
        self.outcomes, self.stopped = [], False

        async def worker(i):
            while not self.stopped:
                self.outcomes.append(await complete(client, name, max_tokens, stream=i % 4 != 0))

        self.workers = [asyncio.create_task(worker(i)) for i in range(width)]

    async def stop(self):
        self.stopped = True
        await asyncio.gather(*self.workers)
        return self.outcomes


def judge(outcomes, wanted):
    """Every request is whole, or had begun and says what happened. Returns counts."""
    counts = collections.Counter()
    for outcome in outcomes:
        if outcome.error is None and outcome.text == wanted:
            counts["whole"] += 1
        elif outcome.error is None:
            raise AssertionError(f"cut without an error: {outcome.text[-40:]!r} ({len(outcome.text)} of {len(wanted)} characters)")
        elif outcome.begun and str(outcome.error):
            counts["had begun: " + str(outcome.error)[:120]] += 1
        else:
            raise AssertionError(f"lost although it had not begun: {outcome.error!r}")
    return dict(counts)


async def uses(client, name, wanted):
    """Completion and chat, streamed and not, and what they count."""
    reply = await client.completions.create(model=name, prompt=PROMPT, max_tokens=64, temperature=0, extra_body={"ignore_eos": True})
    assert reply.choices[0].text == wanted, (reply.choices[0].text, wanted)
    assert reply.usage.completion_tokens == 64 and reply.choices[0].finish_reason == "length", reply
    streamed = await complete(client, name, 64, stream=True)
    assert streamed.error is None and streamed.text == wanted, streamed.error
    chat = dict(model=name, messages=[{"role": "user", "content": "Tell me a tale."}], max_tokens=24, temperature=0)
    whole = (await client.chat.completions.create(**chat)).choices[0].message.content
    parts = [c.delta.content or "" async for event in await client.chat.completions.create(stream=True, **chat) for c in event.choices]
    assert whole and "".join(parts) == whole, (whole, parts)


async def cancel(client, name, replicas):
    """A client that goes away in the middle of a stream has its request cancelled, and its blocks are free."""

    def total(series):
        return sum(r.metric(series) for r in replicas)

    before = total('quire_requests_total{ending="cancelled"}')
    stream = await client.completions.create(
        model=name, prompt=PROMPT, max_tokens=900, temperature=0, stream=True, extra_body={"ignore_eos": True})
    async for _ in stream:
        break
    await stream.close()

    async def gone():
        return total('quire_requests_total{ending="cancelled"}') > before and total('quire_kv_blocks{state="held"}') == 0

    await until("the request is cancelled and its blocks are free", gone, within=20)


async def run(program, smg):
    replicas = [Replica(program), Replica(program)]
    try:
        with tempfile.TemporaryDirectory() as folder:
            with gateway(smg, replicas, "round_robin", folder) as url:
                await faults(url, replicas)
            with gateway(smg, replicas, "cache_aware", folder) as url:
                client = openai.AsyncOpenAI(base_url=url, api_key="none", max_retries=0)
                await until("the gateway serves", lambda: serves(client, replicas))
                await uses(client, MODEL.name, (await complete(client, MODEL.name, 64, stream=False)).text)
                log = pathlib.Path(folder, "smg-cache_aware.log").read_text()
                assert "does not implement SubscribeKvEvents" not in log, "the gateway found no KV events"
                print("cache_aware: served, KV events", "subscribed" if "KV event stream connected" in log else "not mentioned in the gateway's log")
    finally:
        for replica in replicas:
            replica.stop()


async def serves(client, replicas):
    """Both replicas answer through the gateway."""
    before = [r.metric("vllm:generation_tokens_total") for r in replicas]
    for _ in range(8):
        await client.completions.create(model=MODEL.name, prompt=f"{time.monotonic()}", max_tokens=1)
    return all(r.metric("vllm:generation_tokens_total") > b for r, b in zip(replicas, before)) or "cache_aware" in str(client.base_url)


async def faults(url, replicas):
    name = MODEL.name
    client = openai.AsyncOpenAI(base_url=url, api_key="none", max_retries=0, timeout=60)
    await until("both replicas serve", lambda: serves(client, replicas), within=90)
    wanted = (await complete(client, name, 64, stream=False)).text
    await uses(client, name, wanted)
    await cancel(client, name, replicas)
    print("used and cancelled")

    long = (await complete(client, name, 400, stream=False)).text
    load = Load(client, name, 400)
    await asyncio.sleep(2)
    replicas[1].process.kill()
    replicas[1].process.wait()
    await asyncio.sleep(4)
    print("killed:", judge(await load.stop(), long))

    replicas[1].start()
    await until("the killed replica serves again", lambda: serves(client, replicas), within=90)
    load = Load(client, name, 400)
    await asyncio.sleep(2)
    replicas[0].process.send_signal(signal.SIGTERM)
    code = await asyncio.to_thread(replicas[0].process.wait, 60)
    await asyncio.sleep(1)
    counts = judge(await load.stop(), long)
    assert code == 0 and list(counts) == ["whole"], f"a drain lost requests: exit code {code}, {counts}"
    print("drained:", counts)
    replicas[0].start()
    await until("the drained replica serves again", lambda: serves(client, replicas), within=90)


if __name__ == "__main__":
    beside = pathlib.Path(sys.executable).with_name("smg")
    asyncio.run(run(sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else (beside if beside.exists() else shutil.which("smg"))))

#!/usr/bin/env python3
"""Measures quire beside llama.cpp and vLLM on the same weights, in one run, interleaved.

    peers.py --model DIR [--gguf FILE --llama-bench PROGRAM] [--vllm-url URL --vllm-model NAME] [--rounds 3] [--threads 2]

DIR is a Hugging Face directory, FILE the same weights as GGUF in the same precision. quired and quire come from build/release/bin.
With --llama-bench: single-stream decode speed (64 tokens after a short prompt), llama-bench's tg64 against quire's time per output token.
With --vllm-url (a server that runs already, nothing else on the machine): 16 streams, 32 requests of 256 tokens in and 64 out, output
tokens per second and median time to first token. Rounds alternate between the engines; every round has its own prompts. Prints each
round and the median ratios. Standard library only.
"""

import argparse
import concurrent.futures
import http.client
import json
import random
import re
import statistics
import subprocess
import tempfile
import time
import urllib.parse

BIN = "build/release/bin/"


class Quired:
    """A running quired that serves `model`, with its threads pinned."""

    def __init__(self, model, threads, *flags):
        binding = ",".join(map(str, range(threads)))
        begin = time.perf_counter()
        self.process = subprocess.Popen(
            [BIN + "quired", "--model", model, "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--threads", str(threads)]
            + ["--cpu-bind", binding, "--max-num-seqs", "16", "--max-model-len", "1024", "--prefault=start", *flags],
            stdout=subprocess.PIPE,
            text=True,
        )
        line = self.process.stdout.readline()
        self.ready_s = time.perf_counter() - begin
        found = re.match(r"quired ready grpc=(\S+)", line)
        if not found:
            raise SystemExit(f"quired did not start: {line!r}")
        self.target = found[1]

    def load(self, *flags):
        """The JSON of one `quire load`."""
        with tempfile.TemporaryDirectory() as folder:
            command = [BIN + "quire", "load", "--target", self.target, "--dataset-name", "random", "--ignore-eos", *map(str, flags)]
            subprocess.run(
                command + ["--save-result", "--result-dir", folder, "--result-filename", "r.json"], check=True, capture_output=True
            )
            with open(folder + "/r.json", encoding="utf-8") as f:
                return json.load(f)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait()


def llama_decode(program, gguf, threads):
    """Tokens per second of llama-bench's tg64."""
    out = subprocess.run(
        [program, "-m", gguf, "-t", str(threads), "-p", "0", "-n", "64", "-r", "1", "-o", "json"], check=True, capture_output=True, text=True
    )
    return json.loads(out.stdout)[-1]["avg_ts"]


def completion(url, model, prompt, max_tokens):
    """(seconds to the first chunk, output tokens) of one streamed OpenAI completion."""
    connection = http.client.HTTPConnection(url.hostname, url.port, timeout=900)
    body = {"model": model, "prompt": prompt, "max_tokens": max_tokens, "temperature": 0, "stream": True, "ignore_eos": True}
    begin = time.perf_counter()
    connection.request("POST", "/v1/completions", json.dumps(body | {"stream_options": {"include_usage": True}}), {"Content-Type": "application/json"})
    reply, first, tokens = connection.getresponse(), None, 0
    for line in reply:
        if not line.startswith(b"data:") or line[5:].strip() == b"[DONE]":
            continue
        event = json.loads(line[5:])
        if first is None and event.get("choices"):
            first = time.perf_counter() - begin
        tokens = (event.get("usage") or {}).get("completion_tokens", tokens)
    return first, tokens


def vllm_serving(url, model, vocab, seed):
    """(output tokens per second, median TTFT in ms): 16 streams, 32 requests of 256 in and 64 out."""
    rng = random.Random(seed)
    prompts = [[rng.randrange(10, vocab) for _ in range(256)] for _ in range(32)]
    begin = time.perf_counter()
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        done = list(pool.map(lambda p: completion(urllib.parse.urlparse(url), model, p, 64), prompts))
    seconds = time.perf_counter() - begin
    return sum(tokens for _, tokens in done) / seconds, 1e3 * statistics.median(first for first, _ in done)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--model", required=True)
    p.add_argument("--gguf")
    p.add_argument("--llama-bench")
    p.add_argument("--vllm-url")
    p.add_argument("--vllm-model", default="model")
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--quired-flags", default="", help="more flags for quired, as one string")
    args = p.parse_args()
    with open(args.model + "/config.json", encoding="utf-8") as f:
        vocab = json.load(f)["vocab_size"]

    if args.llama_bench:
        ratios = []
        for i in range(args.rounds):
            with Quired(args.model, args.threads, *args.quired_flags.split()) as quired:
                result = quired.load("--num-prompts", 2, "--max-concurrency", 1, "--random-input-len", 8, "--random-output-len", 64, "--seed", i)
                ours, ready_s = 1e3 / result["median_tpot_ms"], quired.ready_s
            theirs = llama_decode(args.llama_bench, args.gguf, args.threads)
            ratios.append(ours / theirs)
            print(f"batch 1, round {i}: quire {ours:.1f} tok/s (ready in {ready_s:.2f} s), llama.cpp {theirs:.1f} tok/s, ratio {ratios[-1]:.2f}", flush=True)
        print(f"batch 1: median ratio to llama.cpp {statistics.median(ratios):.2f}")

    if args.vllm_url:
        throughput, ttft = [], []
        with Quired(args.model, args.threads, *args.quired_flags.split()) as quired:
            for i in range(args.rounds):
                result = quired.load("--num-prompts", 32, "--max-concurrency", 16, "--random-input-len", 256, "--random-output-len", 64, "--seed", 100 + i)
                tokens_s, first_ms = vllm_serving(args.vllm_url, args.vllm_model, vocab, 200 + i)
                throughput.append(result["output_throughput"] / tokens_s)
                ttft.append(result["median_ttft_ms"] / first_ms)
                print(
                    f"16 streams, round {i}: quire {result['output_throughput']:.1f} tok/s, TTFT {result['median_ttft_ms']:.0f} ms; "
                    f"vLLM {tokens_s:.1f} tok/s, TTFT {first_ms:.0f} ms; ratios {throughput[-1]:.2f}, {ttft[-1]:.2f}",
                    flush=True,
                )
        print(f"16 streams: median ratios to vLLM: throughput {statistics.median(throughput):.2f}, median TTFT {statistics.median(ttft):.2f}")


if __name__ == "__main__":
    main()

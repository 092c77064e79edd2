#!/usr/bin/env python3
"""Compares quire with transformers, live, on any local model directory: random prompts, greedy tokens, their log-probabilities.

    python3 -m venv /tmp/oracle && /tmp/oracle/bin/pip install torch transformers
    /tmp/oracle/bin/python tests/oracle/compare.py MODEL_DIR [--backend cpu] [--dtype float32] [--lengths 1,17,64,200] [--num-tokens 64]

Starts build/release/bin/quired on a free port (or asks a running one: --target HOST:PORT) through the client, build/release/bin/quire. The
oracle is one forward pass of transformers over prompt and answer, in float32. In float32 every log-probability must be within --tolerance
(1e-3; 1e-4 with --backend ref; never less than 1e-6 times the position) and every token the oracle's best, unless its best two are less than
1e-2 apart. In bfloat16 and float16 the mean difference must be at most twice that of transformers' own run in that type, plus 1e-3.
Prints a line per prompt; exit code 1 where one fails.
"""

import argparse
import json
import pathlib
import random
import subprocess
import sys

import torch
import transformers

BIN = pathlib.Path(__file__).resolve().parents[2] / "build" / "release" / "bin"
NEAR_TIE = 1e-2


def load(directory, dtype, config):
    # transformers' eager attention adds ALiBi's bias twice, in the mask and to the scores; its default one does not.
    attention = "sdpa" if getattr(config, "alibi", False) else "eager"
    return transformers.AutoModelForCausalLM.from_pretrained(
        directory, dtype=dtype, attn_implementation=attention, experts_implementation="eager").eval()


def oracle_len(config, max_model_len):
    """Length that transformers must see: for scalings that depend on it quire takes max_model_len, once, at start."""
    scaling = getattr(config, "rope_parameters", None) or {}
    trained = scaling.get("original_max_position_embeddings", config.max_position_embeddings)
    depends = scaling.get("rope_type") in ("dynamic", "longrope") and max_model_len > trained
    return max_model_len if depends else 0


@torch.no_grad()
def logprobs(model, ids, length):
    """[len(ids), vocab]; what is appended to reach `length` changes nothing but the choice of frequencies."""
    padded = ids + [ids[0]] * (length - len(ids))
    return model(torch.tensor([padded]), use_cache=False).logits[0, : len(ids)].double().log_softmax(-1)


def start(args):
    command = [args.bin / "quired", "--model", args.model, "--backend", args.backend, "--dtype", args.dtype, "--listen", "127.0.0.1:0",
               "--admin-listen", "127.0.0.1:0", "--max-model-len", args.max_model_len, "--log-level", "error"]
    daemon = subprocess.Popen([str(c) for c in command], stdout=subprocess.PIPE, text=True)
    ready = daemon.stdout.readline()
    if "ready" not in ready:
        sys.exit(f"quired did not start: exit code {daemon.wait()}")
    return daemon, ready.split("grpc=")[1].split()[0]


def generate(args, target, ids):
    """Greedy tokens after `ids` and their log-probabilities."""
    command = [args.bin / "quire", "generate", "--target", target, "--prompt-ids", ",".join(map(str, ids)), "--max-tokens", args.num_tokens,
               "--temperature", 0, "--logprobs", 0, "--ignore-eos", "--json"]
    lines = subprocess.run([str(c) for c in command], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
                           check=True).stdout.splitlines()
    tokens, values = [], []
    for delta in (message["delta"] for message in map(json.loads, lines) if "delta" in message):
        tokens += delta.get("token_ids", [])
        values += [entry.get("logprob", 0.0) for entry in delta.get("logprobs", [])]
    return tokens, values


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=pathlib.Path)
    parser.add_argument("--bin", type=pathlib.Path, default=BIN)
    parser.add_argument("--target")
    parser.add_argument("--backend", default="cpu")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16", "float16"])
    parser.add_argument("--lengths", default="1,17,64,200")
    parser.add_argument("--num-tokens", type=int, default=64)
    parser.add_argument("--max-model-len", type=int, default=1024, help="must be that of the running daemon with --target")
    parser.add_argument("--tolerance", type=float)
    args = parser.parse_args()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    config = transformers.AutoConfig.from_pretrained(args.model)
    args.max_model_len = min(args.max_model_len, config.max_position_embeddings)
    tolerance = args.tolerance or (1e-4 if args.backend == "ref" else 1e-3)
    exact = load(args.model, torch.float32, config)
    rounded = None if args.dtype == "float32" else load(args.model, getattr(torch, args.dtype), config)
    length = oracle_len(config, args.max_model_len)
    daemon, target = (None, args.target) if args.target else start(args)
    failed, ours, theirs = 0, [], []
    try:
        for n in sorted({min(int(n), args.max_model_len - args.num_tokens) for n in args.lengths.split(",")}):
            generator = random.Random(n)
            ids = [generator.randrange(config.vocab_size) for _ in range(n)]
            tokens, values = generate(args, target, ids)
            rows = logprobs(exact, ids + tokens[:-1], length)[n - 1 :]
            chosen, best = rows.gather(1, torch.tensor(tokens)[:, None])[:, 0], rows.topk(2)
            difference = (torch.tensor(values, dtype=torch.double) - chosen).abs()
            wrong = [i for i, t in enumerate(tokens)
                     if t != int(best.indices[i, 0]) and best.values[i, 0] - best.values[i, 1] > NEAR_TIE]
            ours.append(difference)
            if rounded is not None:
                own = logprobs(rounded, ids + tokens[:-1], length)[n - 1 :].gather(1, torch.tensor(tokens)[:, None])[:, 0]
                theirs.append((own - chosen).abs())
            allowed = torch.tensor([max(tolerance, 1e-6 * (n + i)) for i in range(len(tokens))])
            ok = rounded is not None or (not wrong and bool((difference <= allowed).all()))
            failed += not ok
            print(f"{'ok  ' if ok else 'FAIL'} prompt of {n}: {len(tokens)} tokens, {len(wrong)} wrong, log-probabilities off by "
                  f"{float(difference.mean()):.2g} on average, {float(difference.max()):.2g} at most", flush=True)
    finally:
        if daemon is not None:
            daemon.terminate()
            daemon.wait()
    if rounded is not None:
        mean, limit = float(torch.cat(ours).mean()), 2 * float(torch.cat(theirs).mean()) + 1e-3
        failed += mean > limit
        print(f"{'ok  ' if mean <= limit else 'FAIL'} mean difference {mean:.2g}, allowed {limit:.2g}")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()

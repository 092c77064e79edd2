#!/usr/bin/env python3
"""Records what transformers' logits processors make of random logits, for tests/kernels/sampling_test.cc to hold the sampler to.

    python3 -m venv /tmp/oracle && /tmp/oracle/bin/pip install torch transformers
    /tmp/oracle/bin/python tests/oracle/make_sampling_fixtures.py

Writes tests/oracle/fixtures/sampling.json: each case has logits, parameters and the probabilities with which transformers would draw. The
order of the processors is that of kernels/sampling/sampling.h; transformers has no frequency and presence penalty.
"""

import json
import pathlib
import random

import torch
from transformers.generation import logits_process as processors

VOCAB, PROMPT, OUTPUT, CASES, SEED = 40, 12, 8, 64, 20240611


def draw_case(rng):
    """Each parameter is off in about half of the cases, so that each is met alone and in company."""
    maybe = lambda value, off: value if rng.random() < 0.45 else off
    scale = rng.choice([0.5, 2.0, 5.0])
    return {
        "logits": [round(rng.gauss(0, scale), 3) for _ in range(VOCAB)],
        "prompt": [rng.randrange(VOCAB) for _ in range(PROMPT)],
        "output": [rng.randrange(VOCAB) for _ in range(OUTPUT)],
        "allowed": maybe(sorted(rng.sample(range(VOCAB), 15)), []),
        "banned": maybe(sorted(rng.sample(range(VOCAB), 3)), []),
        "bias": maybe([[i, rng.choice([-100.0, -1.5, 0.25, 4.0])] for i in rng.sample(range(VOCAB), 6)], []),
        "repetition_penalty": maybe(rng.choice([0.5, 1.2, 2.0]), 1.0),
        "temperature": maybe(rng.choice([0.3, 0.8, 2.5]), 1.0),
        "top_k": maybe(rng.choice([1, 3, 10, 39]), 0),
        "top_p": maybe(rng.choice([0.1, 0.5, 0.9, 0.99]), 1.0),
        "min_p": maybe(rng.choice([0.02, 0.1, 0.5]), 0.0),
    }


def probabilities(case):
    chain = processors.LogitsProcessorList()
    if case["allowed"]:
        chain.append(processors.PrefixConstrainedLogitsProcessor(lambda batch, ids: case["allowed"], num_beams=1))
    if case["banned"]:
        chain.append(processors.SuppressTokensLogitsProcessor(case["banned"]))
    if case["bias"]:
        chain.append(processors.SequenceBiasLogitsProcessor([[[i], b] for i, b in case["bias"]]))
    if case["repetition_penalty"] != 1.0:
        chain.append(processors.RepetitionPenaltyLogitsProcessor(case["repetition_penalty"]))
    if case["temperature"] != 1.0:
        chain.append(processors.TemperatureLogitsWarper(case["temperature"]))
    if case["top_k"]:
        chain.append(processors.TopKLogitsWarper(case["top_k"]))
    if case["top_p"] < 1.0:
        chain.append(processors.TopPLogitsWarper(case["top_p"]))
    if case["min_p"] > 0.0:
        chain.append(processors.MinPLogitsWarper(case["min_p"]))
    scores = chain(torch.tensor([case["prompt"] + case["output"]]), torch.tensor([case["logits"]], dtype=torch.float32))
    return scores[0].double().softmax(-1)


def main():
    rng = random.Random(SEED)
    cases = []
    for _ in range(CASES):
        case = draw_case(rng)
        case["probabilities"] = [float(f"{p:.7g}") for p in probabilities(case).tolist()]
        cases.append(case)
    out = pathlib.Path(__file__).parent / "fixtures" / "sampling.json"
    out.write_text("[" + ",\n".join(json.dumps(c, separators=(",", ":")) for c in cases) + "]\n")
    print(f"{out}: {len(cases)} cases, {out.stat().st_size} bytes")


if __name__ == "__main__":
    main()

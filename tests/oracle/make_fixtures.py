#!/usr/bin/env python3
"""Records what transformers computes on a model, for tests/engine/oracle_test.cc to hold quire to.

    python3 -m venv /tmp/oracle && /tmp/oracle/bin/pip install torch transformers
    /tmp/oracle/bin/python tests/oracle/make_fixtures.py deploy/models/tales-5m

Writes tests/oracle/fixtures/NAME.json: for ten prompts of 1 to 700 tokens the log-probability of every prompt token, 64 greedy tokens
with theirs and the gap between the two best logits, all in float32, and the mean distance of transformers' own bfloat16 run from it.
The prompts are drawn from the model itself by a fixed seed (two of them uniformly from the vocabulary), so the model directory is all that
is needed. The file names the weights by their SHA-256: run this again whenever they change.
"""

import argparse
import hashlib
import json
import pathlib

import torch
import transformers

LENGTHS = [1, 2, 5, 16, 17, 64, 129, 256, 511, 700]
UNIFORM = {5, 129}  # lengths of the prompts that are noise
NUM_GREEDY = 64
SEED = 20240607


def load(directory, dtype):
    return transformers.AutoModelForCausalLM.from_pretrained(directory, dtype=dtype, attn_implementation="eager").eval()


def draw_prompts(model):
    """Texts as the model itself tells them: it knows what it says, so log-probabilities are those of real use."""
    generator = torch.Generator().manual_seed(SEED)
    bos, vocab = model.config.bos_token_id, model.config.vocab_size
    for length in LENGTHS:
        ids, cache = [bos], None
        while len(ids) < length:
            if length in UNIFORM:
                ids.append(int(torch.randint(vocab, (1,), generator=generator)))
                continue
            step = model(torch.tensor([ids[-1:]]), past_key_values=cache, use_cache=True)
            cache = step.past_key_values
            ids.append(int(torch.multinomial(step.logits[0, -1].softmax(-1), 1, generator=generator)))
        yield ids


def prompt_logprobs(model, ids):
    """[len(ids) - 1]: of ids[1:]."""
    log_softmax = model(torch.tensor([ids])).logits[0].float().log_softmax(-1)
    return log_softmax[:-1].gather(1, torch.tensor(ids[1:], dtype=torch.long)[:, None])[:, 0]


def greedy(model, prompt):
    """Tokens, their log-probabilities and how far the best logit is above the second."""
    tokens, logprobs, gaps, ids, cache = [], [], [], prompt, None
    for _ in range(NUM_GREEDY):
        step = model(torch.tensor([ids]), past_key_values=cache, use_cache=True)
        row, cache = step.logits[0, -1].float(), step.past_key_values
        best = row.topk(2)
        tokens.append(int(best.indices[0]))
        logprobs.append(float(row.log_softmax(-1)[tokens[-1]]))
        gaps.append(float(best.values[0] - best.values[1]))
        ids = tokens[-1:]
    return tokens, logprobs, gaps


def rounded(numbers):
    return [float(f"{float(x):.8g}") for x in numbers]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=pathlib.Path, help="a Hugging Face model directory")
    parser.add_argument("--out", type=pathlib.Path, help="default: tests/oracle/fixtures/NAME.json")
    args = parser.parse_args()
    name = args.model.resolve().name
    out = args.out or pathlib.Path(__file__).parent / "fixtures" / f"{name}.json"

    torch.set_num_threads(1)  # the same bits whatever the machine
    with torch.no_grad():
        model, rounded_model = load(args.model, torch.float32), load(args.model, torch.bfloat16)
        records, distances = [], []
        for prompt in draw_prompts(model):
            logprobs = prompt_logprobs(model, prompt)
            distances.append((prompt_logprobs(rounded_model, prompt) - logprobs).abs())
            tokens, token_logprobs, gaps = greedy(model, prompt)
            records.append(
                {
                    "prompt": prompt,
                    "prompt_logprobs": rounded(logprobs),
                    "greedy": tokens,
                    "greedy_logprobs": rounded(token_logprobs),
                    "greedy_gaps": rounded(gaps),
                }
            )
    fixture = {
        "model": name,
        "weights_sha256": hashlib.sha256((args.model / "model.safetensors").read_bytes()).hexdigest(),
        "made_by": f"transformers {transformers.__version__}, torch {torch.__version__}",
        "bfloat16_mean_distance": float(torch.cat(distances).mean()),
        "records": records,
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(fixture, separators=(",", ":")).replace('{"prompt"', '\n{"prompt"') + "\n")
    print(f"{out}: {len(records)} prompts, {out.stat().st_size} bytes, bfloat16 mean distance {fixture['bfloat16_mean_distance']:.5f}")


if __name__ == "__main__":
    main()

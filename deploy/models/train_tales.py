#!/usr/bin/env python3
"""Trains the bundled model: a small Llama-architecture GQA model that tells fairy tales.

    python3 -m venv /tmp/oracle && /tmp/oracle/bin/pip install torch transformers
    /tmp/oracle/bin/python deploy/models/train_tales.py CORPUS_DIR OUT_DIR

CORPUS_DIR holds plain-text books (*.txt, paragraphs separated by blank lines). The book named by --validation is
never trained on, neither by the tokenizer nor by the model; the figure printed at the end is its bits per byte.
OUT_DIR receives a Hugging Face model directory (bfloat16) that `transformers` loads as it is. A checkpoint is written
every --checkpoint-steps steps beside it (OUT_DIR.ckpt); the same command goes on from there after an interruption.
Every random choice follows from --seed; on one machine and one thread count the result is reproducible.
"""

import argparse
import json
import math
import os
import pathlib
import re
import time

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM

BOS, EOS = "<|begin_of_text|>", "<|end_of_text|>"
VOCAB_SIZE, CONTEXT = 4096, 1024


def stories(text):
    """Splits a book into its stories: a short paragraph in capitals is a title, and a title begins a new story."""
    story = []
    for paragraph in re.split(r"\n\s*\n", text):
        paragraph = " ".join(paragraph.split())
        if not paragraph:
            continue
        letters = [c for c in paragraph if c.isalpha()]
        if len(paragraph) < 80 and letters and all(c.isupper() for c in letters):
            if story:
                yield "\n\n".join(story)
            story = []
        elif len(paragraph) > 20 or story:
            story.append(paragraph)
    if story:
        yield "\n\n".join(story)


def make_tokenizer(texts):
    """Byte-level BPE with GPT-2's splitter. It adds no BOS of its own: gateways that tokenize for themselves leave it out too."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE,
        special_tokens=[BOS, EOS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def encode(tokenizer, texts):
    """One stream of ids: BOS, story, EOS, BOS, ..."""
    ids = []
    for encoding in tokenizer.encode_batch(list(texts)):
        ids += [tokenizer.token_to_id(BOS), *encoding.ids, tokenizer.token_to_id(EOS)]
    return torch.tensor(ids)


def make_model():
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCAB_SIZE,
            hidden_size=256,
            intermediate_size=704,
            num_hidden_layers=6,
            num_attention_heads=8,
            num_key_value_heads=2,
            head_dim=32,
            max_position_embeddings=CONTEXT,
            rms_norm_eps=1e-5,
            rope_theta=10000.0,
            tie_word_embeddings=True,
            attention_bias=False,
            mlp_bias=False,
            bos_token_id=0,
            eos_token_id=1,
            initializer_range=0.02,
        )
    )


def bits_per_byte(model, ids, num_bytes, context=CONTEXT):
    """Bits per UTF-8 byte of a token stream, each token seen with at least half a context before it."""
    model.eval()
    nats, at = 0.0, 1
    with torch.no_grad():
        while at < len(ids):
            begin = max(0, at - context // 2)
            window = ids[begin : begin + context]
            log_probs = F.log_softmax(model(window[None]).logits[0].float(), -1)
            targets = window[at - begin :]
            nats -= log_probs[at - begin - 1 : len(window) - 1].gather(1, targets[:, None]).sum().item()
            at = begin + len(window)
    model.train()
    return nats / math.log(2) / num_bytes


def optimizers(model, lr, weight_decay):
    """Muon for the matrices of the layers, AdamW for the embedding and the norms."""
    matrices = [p for n, p in model.named_parameters() if p.ndim == 2 and "embed" not in n]
    others = [p for n, p in model.named_parameters() if p.ndim != 2 or "embed" in n]
    return [
        torch.optim.Muon(matrices, lr=lr, weight_decay=weight_decay, momentum=0.95, nesterov=True, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, lr=lr, betas=(0.9, 0.95), weight_decay=0.0),
    ]


def learning_rate(step, steps, peak, warm_up):
    """Linear warm-up, cosine decay to 2 % of the peak."""
    if step < warm_up:
        return peak * (step + 1) / warm_up
    t = (step - warm_up) / max(1, steps - warm_up)
    return peak * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * t)))


def save(model, tokenizer, out):
    """Writes a Hugging Face model directory in bfloat16."""
    out.mkdir(parents=True, exist_ok=True)
    half = make_model().to(torch.bfloat16)
    half.load_state_dict(model.state_dict())
    half.generation_config.update(bos_token_id=0, eos_token_id=1)
    half.save_pretrained(out, safe_serialization=True)
    tokenizer.save(str(out / "tokenizer.json"))
    (out / "tokenizer_config.json").write_text(
        json.dumps(
            {
                "tokenizer_class": "PreTrainedTokenizerFast",
                "bos_token": BOS,
                "eos_token": EOS,
                "clean_up_tokenization_spaces": False,
                "model_max_length": CONTEXT,
            },
            indent=2,
        )
        + "\n"
    )
    return half


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("corpus", type=pathlib.Path)
    p.add_argument("out", type=pathlib.Path)
    p.add_argument("--validation", default="alice-s-adventures-in-wonderland.txt")
    p.add_argument("--steps", type=int, default=600)
    p.add_argument("--batch-tokens", type=int, default=8192)
    p.add_argument("--lr", type=float, default=4e-3)
    p.add_argument("--weight-decay", type=float, default=0.1)
    p.add_argument("--checkpoint-steps", type=int, default=100)
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--threads", type=int, default=os.cpu_count())
    args = p.parse_args()
    torch.manual_seed(args.seed)
    torch.set_num_threads(args.threads)

    books = {f.name: f.read_text(encoding="utf-8") for f in sorted(args.corpus.glob("*.txt"))}
    held_out = books.pop(args.validation)
    train_stories = [s for name in sorted(books) for s in stories(books[name])]
    tokenizer = make_tokenizer(train_stories)
    order = torch.randperm(len(train_stories)).tolist()
    train = encode(tokenizer, [train_stories[i] for i in order])
    validation_text = "\n\n".join(stories(held_out))
    validation = torch.tensor(tokenizer.encode(validation_text).ids)
    num_bytes = len(validation_text.encode())
    model = make_model()
    parameters = sum(p.numel() for p in model.parameters())
    print(f"{len(train_stories)} stories, {len(train)} tokens, {parameters / 1e6:.2f} M parameters", flush=True)

    optims = optimizers(model, args.lr, args.weight_decay)
    checkpoint, first = pathlib.Path(str(args.out) + ".ckpt"), 0
    if checkpoint.exists():
        state = torch.load(checkpoint)
        model.load_state_dict(state["model"])
        for o, s in zip(optims, state["optims"]):
            o.load_state_dict(s)
        first = state["step"]
    begin = time.time()
    for step in range(first, args.steps):
        # Short windows first: three quarters of the steps cost less attention, the last quarter learns the whole context.
        length = 512 if step < args.steps * 3 // 4 else CONTEXT
        rng = torch.Generator().manual_seed(args.seed * 1_000_003 + step)
        starts = torch.randint(len(train) - length - 1, (args.batch_tokens // length,), generator=rng)
        batch = torch.stack([train[s : s + length + 1] for s in starts.tolist()])
        for o in optims:
            for group in o.param_groups:
                group["lr"] = learning_rate(step, args.steps, args.lr, warm_up=args.steps // 50)
        with torch.autocast("cpu", torch.bfloat16):
            logits = model(batch[:, :-1]).logits
        loss = F.cross_entropy(logits.float().flatten(0, 1), batch[:, 1:].flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for o in optims:
            o.step()
            o.zero_grad(set_to_none=True)
        if step % 20 == 0:
            rate = (step + 1 - first) * args.batch_tokens / (time.time() - begin)
            print(f"step {step} loss {loss.item():.3f} {rate:.0f} tokens/s", flush=True)
        if (step + 1) % args.checkpoint_steps == 0:
            torch.save({"model": model.state_dict(), "optims": [o.state_dict() for o in optims], "step": step + 1}, f"{checkpoint}.tmp")
            os.replace(f"{checkpoint}.tmp", checkpoint)
            save(model, tokenizer, args.out)
        if (step + 1) % (5 * args.checkpoint_steps) == 0:
            print(f"step {step + 1} validation {bits_per_byte(model, validation[:8192], num_bytes * 8192 / len(validation)):.3f} bits/byte", flush=True)
    half = save(model, tokenizer, args.out)
    figure = bits_per_byte(half.float(), validation, num_bytes)
    print(f"{args.validation}: {figure:.3f} bits per byte ({num_bytes} bytes, {len(validation)} tokens, weights rounded to bfloat16)")


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""Holds `quired tokenize` to the `tokenizers` library on vocabularies that nobody chose: random steps, flags and added tokens.

    python3 -m venv /tmp/oracle && /tmp/oracle/bin/pip install tokenizers sentencepiece
    /tmp/oracle/bin/python tests/oracle/tokenizer_sweep.py [--seeds 0-99] [--keep DIR]

Each seed draws a tokenizer.json: BPE over bytes or over characters with and without byte fallback, Unigram; normalisers, pre-tokenizers and
decoders in random sequences, with every behaviour and option; added tokens with every combination of flags; templates. It is trained on a
few lines. Compared over random Unicode, runs and texts of added tokens: the ids with and without special tokens, and the text of these and
of random ids. What quire refuses is listed by reason; exit code 1 where an answer differs.
"""

import argparse
import collections
import json
import os
import pathlib
import random
import re
import subprocess
import sys
import tempfile

os.environ["TOKENIZERS_PARALLELISM"], os.environ["RUST_BACKTRACE"] = "false", "0"
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

import make_tokenizer_fixtures as fixtures
from make_tokenizer_fixtures import byte_level, cut, replace, step

BIN = pathlib.Path(__file__).resolve().parents[2] / "build" / "release" / "bin"
BEHAVIORS = ["Isolated", "Removed", "MergedWithPrevious", "MergedWithNext", "Contiguous"]
PATTERNS = [fixtures.LLAMA3, fixtures.QWEN2, fixtures.QWEN35, fixtures.GPT4O, fixtures.CL100K, fixtures.DEEPSEEK3, r"\s+", r"\p{N}{1,3}", r"[^\s]+", r"\p{L}+|\p{N}",
            r"\s?\p{P}+", r"(?:ab|a)+", r"[a-f]{2,3}", r"\s+$", r"^\s+", r"\d+(?=\D)", r"'[sdt]|\w+", "[\r\n]", "e", r"(?i:the|cat)"]
CONTENTS = ["<tool>", "é", " ", "  ", "\n", "\n\n", "the", "The cat", "cat", "a", "ab", "1", "12", "▁▁", "Ā", "日本", "👍", "<0x41>", "[X]", "X]", "s", "İ", "ﬁ", " x ", "\t", "-", "don't"]


def sequence(kind, key, steps):
    return None if not steps else steps[0] if len(steps) == 1 else step("Sequence", **{key: steps})


def normalizer(r, over_bytes):
    def one():
        return r.choice([step("NFC"), step("NFD"), step("NFKC"), step("NFKD"), step("Lowercase"), step("StripAccents"),
                         step("Strip", strip_left=r.random() < 0.5, strip_right=r.random() < 0.5), replace(r.choice([" ", "e", "ab", "日", "''"]), r.choice(["▁", "", "xy", " "])),
                         step("Replace", pattern={"Regex": r.choice([" {2,}", r"\s", "[aeiou]", r"\p{M}", "a+", "."])}, content=r.choice(["", " ", "_", "éé"])),
                         step("Prepend", prepend=r.choice(["▁", " ", "x"]))])
    return sequence("Sequence", "normalizers", [one() for _ in range(r.choice([0, 0, 1, 1, 2, 3]))])


def split_step(r):
    return r.choice([
        lambda: cut(r.choice(PATTERNS), r.choice(BEHAVIORS), r.random() < 0.3),
        lambda: cut({"String": r.choice([" ", "e", "ab", "\n", "'", "日"])}, r.choice(BEHAVIORS), r.random() < 0.2),
        lambda: step("Digits", individual_digits=r.random() < 0.5),
        lambda: step("Punctuation", behavior=r.choice(BEHAVIORS)),
        lambda: step("Whitespace"),
        lambda: step("WhitespaceSplit")])()


def metaspace(r):
    return step("Metaspace", replacement=r.choice(["▁", "▁", "_"]), prepend_scheme=r.choice(["always", "first", "never"]), split=r.random() < 0.6)


def bytes_pre_tokenizer(r):
    steps = [split_step(r) for _ in range(r.choice([0, 0, 1, 1, 2]))] + [byte_level(r.random() < 0.6, r.random() < 0.3)]
    steps += [split_step(r) for _ in range(r.choice([0, 0, 0, 1]))]
    return sequence("Sequence", "pretokenizers", steps)


def characters_pre_tokenizer(r):
    steps = [split_step(r) for _ in range(r.choice([0, 0, 1]))] + ([metaspace(r)] if r.random() < 0.6 else []) + [split_step(r) for _ in range(r.choice([0, 0, 0, 1]))]
    return sequence("Sequence", "pretokenizers", steps)


def decoder_of_characters(r, pre):
    if r.random() < 0.3:
        return metaspace(r)
    steps = [replace("▁", " ")] if r.random() < 0.8 else []
    steps += [step("ByteFallback")] if r.random() < 0.8 else []
    steps += [step("Fuse")]
    steps += [step("Strip", content=" ", start=r.choice([0, 1, 2]), stop=0)] if r.random() < 0.5 else []
    return step("Sequence", decoders=steps)


def trained(r, shell, trainer):
    tokenizer = Tokenizer.from_str(json.dumps(shell))
    tokenizer.train_from_iterator([fixtures.TRAINING], trainer)
    return json.loads(tokenizer.to_str())["model"]


def bpe_of_bytes(r, shell):
    shell["model"] = {"type": "BPE", "vocab": {}, "merges": []}
    model = trained(r, shell, trainers.BpeTrainer(vocab_size=r.choice([260, 300, 500]), initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
    if r.random() < 0.2:  # bytes without a token
        for name in r.sample([k for k in model["vocab"] if len(k) == 1], 5):
            used = any(name in "".join(m) for m in model["merges"])
            if not used:
                del model["vocab"][name]
        model["vocab"] = {k: i for i, k in enumerate(sorted(model["vocab"], key=model["vocab"].get))}
    return model


def bpe_of_characters(r, shell):
    shell["model"] = {"type": "BPE", "vocab": {}, "merges": []}
    model = trained(r, shell, trainers.BpeTrainer(vocab_size=r.choice([120, 200, 400]), limit_alphabet=r.choice([40, 80]), show_progress=False))
    order = ["<unk>"] + sorted(model["vocab"], key=model["vocab"].get)
    if r.random() < 0.7:
        order[1:1] = [f"<0x{b:02X}>" for b in range(256) if r.random() < 0.98]
        model["byte_fallback"] = True
    model["unk_token"] = r.choice(["<unk>", "<unk>", None])
    model["fuse_unk"] = r.random() < 0.5
    model["vocab"] = {t: i for i, t in enumerate(dict.fromkeys(order))}
    return model


def unigram(r, shell):
    shell["model"] = {"type": "Unigram", "unk_id": 0, "vocab": [["<unk>", 0.0]]}
    model = trained(r, shell, trainers.UnigramTrainer(vocab_size=r.choice([150, 300]), unk_token="<unk>", special_tokens=["<unk>"], show_progress=False))
    if r.random() < 0.4:
        have = {text for text, _ in model["vocab"]}
        model["vocab"] += [[f"<0x{b:02X}>", 0.0] for b in range(256) if f"<0x{b:02X}>" not in have]
        model["byte_fallback"] = True
    return model


def added_tokens(r, model):
    vocab = model["vocab"] if isinstance(model["vocab"], dict) else {t: i for i, (t, _) in enumerate(model["vocab"])}
    tokens, fresh = [], len(vocab)
    for content in r.sample(CONTENTS, r.choice([0, 1, 3, 6, 10])):
        token = {k: r.random() < 0.3 for k in ("single_word", "lstrip", "rstrip", "normalized", "special")}
        token |= {"content": content, "id": vocab.get(content, fresh)}
        fresh += content not in vocab
        tokens.append(token)
    return sorted(tokens, key=lambda t: t["id"])


def template(r, tokens):
    special = [t for t in tokens if t["special"]]
    if not special or r.random() < 0.4:
        return None
    first, last = r.choice(special), r.choice(special)
    item = lambda t: {"SpecialToken": {"id": t["content"], "type_id": 0}}
    single = [item(first)] * r.choice([0, 1, 2]) + [{"Sequence": {"id": "A", "type_id": 0}}] + [item(last)] * r.choice([0, 1])
    known = {t["content"]: {"id": t["content"], "ids": [t["id"]], "tokens": [t["content"]]} for t in (first, last)}
    processor = step("TemplateProcessing", single=single, pair=single + [{"Sequence": {"id": "B", "type_id": 1}}], special_tokens=known)
    return step("Sequence", processors=[byte_level(True), processor]) if r.random() < 0.3 else processor


def draw(r):
    kind = r.choice(["bytes", "bytes", "characters", "characters", "unigram"])
    over_bytes = kind == "bytes"
    pre = bytes_pre_tokenizer(r) if over_bytes else characters_pre_tokenizer(r)
    document = fixtures.document(normalizer=normalizer(r, over_bytes), pre_tokenizer=pre)
    document["model"] = {"bytes": bpe_of_bytes, "characters": bpe_of_characters, "unigram": unigram}[kind](r, dict(document))
    if kind != "unigram":
        document["model"]["ignore_merges"] = r.random() < 0.3
    document["decoder"] = byte_level(True) if over_bytes else decoder_of_characters(r, pre)
    document["added_tokens"] = added_tokens(r, document["model"])
    document["post_processor"] = template(r, document["added_tokens"])
    return document


def tokenize(args, path, values, *flags):
    lines = "".join(json.dumps(v) + "\n" for v in values)
    done = subprocess.run([str(args.bin / "quired"), "tokenize", "--model", str(path), *flags], input=lines, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(done.stderr.strip())
    return [json.loads(line) for line in done.stdout.splitlines()]


def differences(what, values, got, expected):
    bad = sorted((p for p in zip(values, got, expected) if p[1] != p[2]), key=lambda p: len(p[0]))
    return [f"{what}: {len(bad)} of {len(values)}, shortest {json.dumps(v)[:120]}: {json.dumps(g)[:120]}, not {json.dumps(e)[:120]}" for v, g, e in bad[:1]]


def known(library, text):
    """Whether the library answers: it panics where offsets of its own fall inside a character."""
    try:
        library.encode(text)
        return True
    except BaseException as error:  # PanicException is no Exception
        if isinstance(error, KeyboardInterrupt):
            raise
        return False


def check(args, path, document, r):
    """Lists what differs."""
    library = Tokenizer.from_str(json.dumps(document))
    library.encode_special_tokens = True
    texts = [t for t in fixtures.texts(library, r, 25) if known(library, t)]
    plain = [library.encode(t, add_special_tokens=False).ids for t in texts]
    found = differences("ids", texts, tokenize(args, path, texts, "--no-special"), plain)
    found += differences("ids with special tokens", texts, tokenize(args, path, texts), [library.encode(t).ids for t in texts])
    size = library.get_vocab_size()
    ids = plain + [[r.randrange(size) for _ in range(r.randint(1, 12))] for _ in range(150)]
    return found + differences("text", ids, tokenize(args, path, ids, "--decode"), [library.decode(i, skip_special_tokens=False) for i in ids])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", type=pathlib.Path, default=BIN)
    parser.add_argument("--seeds", default="0-99", help="FIRST-LAST")
    parser.add_argument("--keep", type=pathlib.Path, help="where tokenizers that differ are kept")
    args = parser.parse_args()
    first, _, last = args.seeds.partition("-")
    counts, refused = collections.Counter(), collections.Counter()
    for seed in range(int(first), int(last or first) + 1):
        r = random.Random(f"tokenizer/{seed}")
        try:
            document = draw(r)
        except Exception as error:  # a trainer that cannot
            counts[f"not drawn ({str(error)[:60]})"] += 1
            continue
        with tempfile.TemporaryDirectory(prefix="sweep-") as folder:
            path = pathlib.Path(folder)
            (path / "tokenizer.json").write_text(json.dumps(document))
            try:
                found = check(args, path, document, r)
            except RuntimeError as error:
                refused[re.sub(r".*tokenizer.json: ", "", str(error))[:150]] += 1
                counts["refused"] += 1
                continue
        counts["differ" if found else "equal"] += 1
        if found:
            short = {k: document[k] for k in ("normalizer", "pre_tokenizer", "decoder")} | {"model": {k: v for k, v in document["model"].items() if k not in ("vocab", "merges")}}
            print(f"FAIL {seed}: " + "\n     ".join(found + [json.dumps(short, ensure_ascii=False)[:1500]]), flush=True)
            if args.keep:
                (args.keep / str(seed)).mkdir(parents=True, exist_ok=True)
                (args.keep / str(seed) / "tokenizer.json").write_text(json.dumps(document))
    for reason, count in refused.most_common():
        print(f"refused {count}: {reason}")
    print(", ".join(f"{count} {what}" for what, count in counts.items()))
    sys.exit(1 if counts["differ"] else 0)


if __name__ == "__main__":
    main()

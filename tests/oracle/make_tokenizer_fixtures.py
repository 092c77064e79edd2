#!/usr/bin/env python3
"""Writes tests/server/fixtures: small tokenizers, and what the `tokenizers` library makes of many texts and ids with them.

    python3 -m venv /tmp/oracle && /tmp/oracle/bin/pip install tokenizers
    /tmp/oracle/bin/python tests/oracle/make_tokenizer_fixtures.py

NAME.tokenizer.json are trained here on the text below; tales-5m is the bundled model's (deploy/models/tales-5m). Beside each,
NAME.cases.json: "encode" has [text, ids without special tokens, ids with them], "decode" has [ids, text,
text without special tokens]. Text of special tokens stays text (encode_special_tokens). All choices follow from constants.
"""

import json
import os
import pathlib
import random

os.environ["TOKENIZERS_PARALLELISM"] = "false"

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

ROOT = pathlib.Path(__file__).resolve().parents[2]
FIXTURES = ROOT / "tests/server/fixtures"
BUNDLED = ROOT / "deploy/models/tales-5m/tokenizer.json"
BOS, EOS = "<|begin|>", "<|end|>"

TRAINING = (
    """Once there was a miller who had three sons, and when he died he left them nothing but his mill, his ass and his cat.
The eldest took the mill, the second took the ass, and the youngest got nothing but the cat. "What shall I do?" said he.
"My brothers can earn their bread if they stay together; but I, when I have eaten my cat and made a muff of his skin, must
die of hunger." The cat heard it all, though he didn't show it, and said: "Don't be sad, master! You've only to give me a
bag, and have a pair of boots made, that I may walk among the brambles, and you'll see that you're not so poor as you
think. I'm no fool." They'd never heard a cat speak, and it's said that they'll never hear one again. IT'S TRUE, WE'VE SEEN IT.
In 1697, on the 12th of January, 3.5 pounds cost 1,000,000 francs; 22 + 33 = 55, and 100 % of 2024 is 2024.
for (int i = 0; i < num_blocks; ++i) {\n    if (table[i] != kNone) {\n        free_list.push_back(table[i]);\n    }\n}\n\n\n
Déjà vu: l'été, la naïveté, où êtes-vous? Grüße aus Köln — „schön“… Привет, как дела? 日本語のテキスト。 日本の猫。 👍👍🏽 ½ €\r\n\r\n
"""
    + " " * 40 + "x\n" + "\t" * 8 + "y\n" + "=" * 40 + "\n" + "a" * 32 + "\n" + "ha" * 20 + "\n" + "日本" * 6 + "\n"
)

# Texts that tokenizers and incremental decoders get wrong.
ODD = [
    "", " ", "  ", "a", " a", "a ", "  two  spaces  ", "\n", "\n\n\n", "\r\n", "\t\ttabs\tand\nlines\r\n ", " \n \n x", "a\n b", "x  \n\n  y",
    "naïve café — “quotes” … ½ €", "Ⅻ ﬁ ﬂ Å Å", "e\u0301 vs \u00e9, o\u0308\u0323", "日本語のテキストと漢字", "한국어 문장입니다", "مرحبا بالعالم ٣٤٥",
    "שלום עולם", "हिन्दी में लिखा", "ไทยไม่มีช่องว่าง", "👩‍👩‍👧‍👦 👍🏽 🏳️‍🌈 🇩🇪", "𝔘𝔫𝔦𝔠𝔬𝔡𝔢 𐍈 🀄", "\u200b\u200d\ufeffzero\u2060width", "\x00nul\x01\x07\x1b[31m",
    "\ufffd\ufffe\uffff\U0010ffff\ud7ff\ue000", "x" * 300, "a" * 777, " " * 200, "\n" * 90, "\u0301" * 120, "ha" * 99, "1234567890" * 12, "１２３ ²³Ⅷ 12345 1 12 1234",
    "don't we'll I'VE they're 'ſ 'K it'S''s 'x '", "\u2019s 'll'LL'lL 've'Ve 'd'D 'm'M 're'RE 't'T", "http://a.b/c?d=e&f#g <b>&amp;</b> {\"k\": [1, 2]}",
    "<s> </s> <unk> [INST] <|im_start|> <0x0A>", "ＦＵＬＬ　ＷＩＤＴＨ\u3000\u3000x", "\u2028line\u2029para\u0085nel\u00a0\u00a0b\u180ec\u1680 d", "Zͨa̘l̬g̷o", "!!!\r\n\n???\n", " !\n!",
    "\t\tif (x) {\r\n\t\t}\r\n", "foo_bar __init__ a_1", "3.14e-10 0x1F 1,000,000", "\x1c\x1d\x1e\x1f x\x0b\x0cy", f"{BOS}hello{EOS}", f" {BOS} {EOS}{EOS}x",
]  # fmt: skip

RUNS = ["a", "A", "é", " ", "\t", "\n", "\r\n", "0", "7", "!", "_", "-", "=", "\u0301", "\u200d", "\u3000", "\xa0", "字", "🙂", "\0", "'", "'s", "ü"]

LLAMA3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
QWEN2 = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")


def train(pre_tokenizer):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizer
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=600, special_tokens=[BOS, EOS], initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator([TRAINING], trainer)
    return tokenizer


def split(regex):
    return pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(regex), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def edited(tokenizer, edit):
    """The tokenizer after `edit` of its JSON."""
    document = json.loads(tokenizer.to_str())
    edit(document)
    return Tokenizer.from_str(json.dumps(document))


def with_bos(tokenizer, eos=False):
    ids = [(BOS, tokenizer.token_to_id(BOS)), (EOS, tokenizer.token_to_id(EOS))]
    template = processors.TemplateProcessing(single=f"{BOS} $A {EOS}" if eos else f"{BOS} $A", special_tokens=ids)
    tokenizer.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False), template]) if eos else template
    return tokenizer


def pairs_as_text(document):
    """Merges as older files have them: "a b"."""
    document["model"]["merges"] = [" ".join(pair) for pair in document["model"]["merges"]]


def ignore_merges(document):
    """Words are taken whole, some of which no merges make."""
    document["model"]["ignore_merges"] = True
    for word in ("Ġbrambles", "hunger", "Ġmuff"):
        document["model"]["vocab"].setdefault(word, len(document["model"]["vocab"]))


def tokenizers():
    """name: (tokenizer, what is written of it)."""
    gpt2 = with_bos(train(pre_tokenizers.ByteLevel(add_prefix_space=False)))
    llama3 = with_bos(edited(train(split(LLAMA3)), ignore_merges), eos=True)
    qwen2 = edited(train(split(QWEN2)), pairs_as_text)
    flags = edited(train(split(QWEN2)), pairs_as_text)
    flags.add_special_tokens([AddedToken("<|left|>", lstrip=True), AddedToken("<|right|>", rstrip=True), AddedToken("[hid]")])
    flags.add_tokens(
        [
            AddedToken("[both]", lstrip=True, rstrip=True),
            AddedToken("word", single_word=True),
            AddedToken("é", normalized=True),
            AddedToken("ö ü", normalized=False),
            AddedToken("<tool>", normalized=False),
            AddedToken("<tool>s", normalized=False),
            AddedToken("d]x", normalized=True),
            AddedToken("  "),
            AddedToken("[left]", lstrip=True, normalized=False),
            AddedToken("[right]", rstrip=True, normalized=False),
        ]
    )
    made = {"gpt2": gpt2, "llama3": llama3, "qwen2": qwen2, "flags": flags}
    found = {}
    for name, tokenizer in made.items():
        document = json.loads(tokenizer.to_str())
        if name == "qwen2":
            pairs_as_text(document)
        text = json.dumps(document, ensure_ascii=True, separators=(",", ":")) + "\n"
        (FIXTURES / f"{name}.tokenizer.json").write_text(text)
        found[name] = Tokenizer.from_str(text)
    found["tales-5m"] = Tokenizer.from_file(str(BUNDLED))
    return found


def character(rng):
    while True:
        c = rng.randrange(1, rng.choice([0x80, 0x800, 0x3000, 0x110000]))
        if not 0xD800 <= c < 0xE000:
            return chr(c)


def texts(tokenizer, rng):
    """The odd ones, random Unicode, runs, pieces of prose, and texts of added tokens among them."""
    added = [token.content for token in tokenizer.get_added_tokens_decoder().values()]
    found = list(ODD)
    for _ in range(60):
        found.append("".join(character(rng) for _ in range(25)))
    for _ in range(60):
        found.append("".join(rng.choice(RUNS) * rng.choice([1, 1, 2, 3, 5, 17]) for _ in range(rng.randint(2, 6))))
    for _ in range(40):
        at = rng.randrange(len(TRAINING))
        found.append(TRAINING[at : at + rng.choice([5, 20, 80])])
    for _ in range(15 * len(added)):
        parts = [rng.choice([" ", "", "  ", "\n", "x", "é", "[", "ord", "-", "\u3000", "the cat"]) + rng.choice(added) for _ in range(rng.randint(1, 4))]
        found.append("".join(parts) + rng.choice(["", " ", "   ", "s", "\n", "x y"]))
    return found


def id_lists(tokenizer, rng):
    """Random ids: half characters, special tokens, and the bytes of characters that are cut off and put together."""
    size = tokenizer.get_vocab_size()
    alphabet = {c: tokenizer.encode(c, add_special_tokens=False).ids for c in ["é", "日", "👍", "ж", "\U0010ffff"]}
    found = [[], [0], [1, 1]]
    for _ in range(60):
        found.append([rng.randrange(size) for _ in range(rng.randint(1, 12))])
    for _ in range(60):
        ids = [i for _ in range(5) for i in alphabet[rng.choice(list(alphabet))]]
        for _ in range(rng.randint(0, 3)):
            del ids[rng.randrange(len(ids))]
        found.append(ids)
    return found


def main():
    FIXTURES.mkdir(exist_ok=True)
    for name, tokenizer in tokenizers().items():
        tokenizer.encode_special_tokens = True
        rng = random.Random(f"quire {name}")
        cases = {
            "encode": [[t, tokenizer.encode(t, add_special_tokens=False).ids, tokenizer.encode(t).ids] for t in texts(tokenizer, rng)],
            "decode": [[i, tokenizer.decode(i, skip_special_tokens=False), tokenizer.decode(i)] for i in id_lists(tokenizer, rng)],
        }
        lines = ",\n".join(
            f'"{key}":[\n' + ",\n".join(json.dumps(case, separators=(",", ":")) for case in value) + "\n]" for key, value in cases.items()
        )
        (FIXTURES / f"{name}.cases.json").write_text("{" + lines + "}\n")
        print(f"{name}: {len(cases['encode'])} texts, {len(cases['decode'])} lists of ids")


if __name__ == "__main__":
    main()

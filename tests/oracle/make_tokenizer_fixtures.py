#!/usr/bin/env python3
"""Writes tests/server/fixtures: small tokenizers, and what the `tokenizers` library makes of many texts and ids with them.

    python3 -m venv /tmp/oracle && /tmp/oracle/bin/pip install tokenizers sentencepiece
    /tmp/oracle/bin/python tests/oracle/make_tokenizer_fixtures.py

NAME.tokenizer.json are trained here on the text below, NAME.tokenizer.model too, by sentencepiece; tales-5m is the bundled
model's (deploy/models/tales-5m). Those of FAMILIES have the pre-tokenizers, normalisers and decoders of the families' files. Beside each,
NAME.cases.json: "encode" has [text, ids without special tokens, ids with them], "decode" has [ids, text,
text without special tokens]. Text of special tokens stays text (encode_special_tokens). All choices follow from constants.
"""

import io
import json
import os
import pathlib
import random

os.environ["TOKENIZERS_PARALLELISM"] = "false"

import sentencepiece
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

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


QWEN35 = QWEN2.replace(r"?\p{L}+", r"?[\p{L}\p{M}]+").replace(r"[^\s\p{L}\p{N}]", r"[^\s\p{L}\p{M}\p{N}]")
UPPER, LOWER, CONTRACTION = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]", LLAMA3[: LLAMA3.index("|[^")]
GPT4O = "|".join([
    rf"[^\r\n\p{{L}}\p{{N}}]?{UPPER}*{LOWER}+{CONTRACTION}?", rf"[^\r\n\p{{L}}\p{{N}}]?{UPPER}+{LOWER}*{CONTRACTION}?", r"\p{N}{1,3}",
    r" ?[^\s\p{L}\p{N}]+[\r\n/]*", r"\s*[\r\n]+", r"\s+(?!\S)", r"\s+"])  # fmt: skip
CL100K = r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"
DEEPSEEK3 = r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"""


def step(kind, **more):
    return {"type": kind, **more}


def cut(pattern, behavior="Isolated", invert=False):
    return step("Split", pattern=pattern if isinstance(pattern, dict) else {"Regex": pattern}, behavior=behavior, invert=invert)


def byte_level(use_regex=False, prefix=False):
    return step("ByteLevel", add_prefix_space=prefix, trim_offsets=True, use_regex=use_regex)


def replace(old, new):
    return step("Replace", pattern={"String": old}, content=new)


def metaspace(scheme, split=True):
    return step("Metaspace", replacement="▁", prepend_scheme=scheme, split=split)


DIGITS, RUNS_OF_DIGITS = step("Digits", individual_digits=True), step("Digits", individual_digits=False)
UNDO = [replace("▁", " "), step("ByteFallback"), step("Fuse")]
STRIP = step("Strip", content=" ", start=1, stop=0)
LLAMA = step("Sequence", normalizers=[step("Prepend", prepend="▁"), replace(" ", "▁")])
# name: (normaliser, pre-tokenizers); over bytes
BYTE_FAMILIES = {
    "qwen35": (step("NFC"), [cut(QWEN35), byte_level()]),
    "gpt4o": (None, [cut(GPT4O), byte_level()]),
    "cl100k": (None, [cut(CL100K, "Removed", True), byte_level()]),
    "deepseek3": (None, [cut(r"\p{N}{1,3}"), cut("[一-龥぀-ゟ゠-ヿ]+"), cut(DEEPSEEK3), byte_level()]),
    "deepseek_coder": (None, [cut("[\r\n]"), cut(r"\s?\p{L}+"), cut(r"\s?\p{P}+"), cut("[一-龥ࠀ-一가-퟿]+"), DIGITS, byte_level()]),
    "deepseek2": (None, [cut("[\r\n]"), cut(r"\s?[A-Za-z\u00b5\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u01ba\u0370-\u0373\u0386\u0388-\u03ff\u0400-\u0481\u10a0-\u10c5]+"),
                         cut("\\s?[!-/:-~\uff01-\uff0f\uff1a-\uff5e\u2018-\u201f\u3000-\u3002]+"), cut(r"\s+$"), cut("[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+"), DIGITS, byte_level()]),
    "starcoder": (None, [DIGITS, byte_level(True)]),  # and Refact
    "mpt": (step("NFC"), [byte_level(True)]),
    "falcon": (None, [step("Punctuation", behavior="Contiguous"), byte_level(True), RUNS_OF_DIGITS, cut("[0-9][0-9][0-9]")]),
    "command_r": (step("NFC"), [DIGITS, byte_level(True)]),
    "words": (step("Sequence", normalizers=[step("NFKD"), step("Lowercase"), step("StripAccents"), step("Strip", strip_left=True, strip_right=True)]),
              [step("Whitespace"), cut({"String": "e"}, "MergedWithPrevious"), cut("[a-c]", "MergedWithNext"), byte_level(prefix=True)]),
}  # fmt: skip
# name: (normaliser, pre-tokenizer, decoder); over characters, with byte fallback
CHARACTER_FAMILIES = {
    "llama2": (LLAMA, None, step("Sequence", decoders=[*UNDO, STRIP])),
    "mistral": (None, metaspace("first", split=False), step("Sequence", decoders=[*UNDO, STRIP])),
    "gemma": (replace(" ", "▁"), cut({"String": " "}, "MergedWithPrevious"), step("Sequence", decoders=UNDO)),
}
SENTENCEPIECE = {
    "sp_bpe": {"model_type": "bpe", "normalization_rule_name": "identity", "byte_fallback": True, "split_digits": True, "remove_extra_whitespaces": False,
               "user_defined_symbols": ["<turn>", "▁▁"]},
    "sp_unigram": {"model_type": "unigram", "user_defined_symbols": ["<turn>"]},
}  # fmt: skip


def document(**parts):
    return {"version": "1.0", "truncation": None, "padding": None, "added_tokens": [], "normalizer": None, "pre_tokenizer": None, "post_processor": None,
            "decoder": None, **parts}  # fmt: skip


def added_token(text, i, special=False, **flags):
    return {"id": i, "content": text, "single_word": False, "lstrip": False, "rstrip": False, "normalized": not special, "special": special, **flags}


def byte_family(name):
    normalizer, steps = BYTE_FAMILIES[name]
    shell = document(normalizer=normalizer, pre_tokenizer=step("Sequence", pretokenizers=steps), decoder=byte_level(True), model={"type": "BPE", "vocab": {}, "merges": []})
    tokenizer = Tokenizer.from_str(json.dumps(shell))
    trainer = trainers.BpeTrainer(vocab_size=420, special_tokens=[BOS, EOS], initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False)
    tokenizer.train_from_iterator([TRAINING], trainer)
    tokenizer.add_tokens([AddedToken("<tool>"), AddedToken("é\u0301", normalized=True), AddedToken("   ", normalized=False)])
    return with_bos(tokenizer)


def character_family(name):
    normalizer, pre_tokenizer, decoder = CHARACTER_FAMILIES[name]
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.Metaspace()
    trained.train_from_iterator([TRAINING], trainers.BpeTrainer(vocab_size=320, limit_alphabet=80, show_progress=False))
    model = json.loads(trained.to_str())["model"]
    order = ["<unk>", BOS, EOS, *(f"<0x{b:02X}>" for b in range(256)), *sorted(model["vocab"], key=model["vocab"].get), "▁▁", "▁▁▁▁"]
    order = list(dict.fromkeys(order))
    merges = [*model["merges"], *([half, half] for half in ("▁", "▁▁") if [half, half] not in model["merges"])]
    tokens = [added_token(t, i, True) for i, t in enumerate(order[:3])]
    tokens += [added_token("[INST]", len(order), True, rstrip=True), added_token("\n\n", len(order) + 1, normalized=False), added_token("the cat", len(order) + 2)]
    bpe = {"type": "BPE", "unk_token": "<unk>", "fuse_unk": True, "byte_fallback": True, "vocab": {t: i for i, t in enumerate(order)}, "merges": merges}
    return with_bos(Tokenizer.from_str(json.dumps(document(normalizer=normalizer, pre_tokenizer=pre_tokenizer, decoder=decoder, added_tokens=tokens, model=bpe))))


def unigram():
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.train_from_iterator([TRAINING], trainers.UnigramTrainer(vocab_size=300, unk_token="<unk>", special_tokens=["<unk>", BOS, EOS], show_progress=False))
    return with_bos(tokenizer)


class SentencePiece:
    """sentencepiece behind the methods of a Tokenizer that are used below."""

    def __init__(self, name):
        model = io.BytesIO()
        lines = [line for line in TRAINING.split("\n") if line.strip()] * 4
        sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter(lines), model_writer=model, vocab_size=420, hard_vocab_limit=False,
                                                 character_coverage=0.98, num_threads=1, minloglevel=2, **SENTENCEPIECE[name])  # fmt: skip
        (FIXTURES / f"{name}.tokenizer.model").write_bytes(model.getvalue())
        self.model = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())

    def get_added_tokens_decoder(self):
        return {i: AddedToken(t) for i, t in enumerate(["<s>", "</s>", "<turn>"])}

    def get_vocab_size(self):
        return self.model.vocab_size()

    def ids(self, text, special):
        return [self.model.bos_id()] * special + self.model.encode(text)

    def text(self, ids):
        return self.model.decode(ids)


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
    made = {"gpt2": gpt2, "llama3": llama3, "qwen2": qwen2, "flags": flags, "unigram": unigram()}
    made |= {name: byte_family(name) for name in BYTE_FAMILIES} | {name: character_family(name) for name in CHARACTER_FAMILIES}
    found = {}
    for name, tokenizer in made.items():
        document = json.loads(tokenizer.to_str())
        if name == "qwen2":
            pairs_as_text(document)
        text = json.dumps(document, ensure_ascii=True, separators=(",", ":")) + "\n"
        (FIXTURES / f"{name}.tokenizer.json").write_text(text)
        found[name] = Tokenizer.from_str(text)
    found["tales-5m"] = Tokenizer.from_file(str(BUNDLED))
    return found | {name: SentencePiece(name) for name in SENTENCEPIECE}


def character(rng):
    while True:
        c = rng.randrange(1, rng.choice([0x80, 0x800, 0x3000, 0x110000]))
        if not 0xD800 <= c < 0xE000:
            return chr(c)


def texts(tokenizer, rng, count):
    """The odd ones, random Unicode, runs, pieces of prose, and texts of added tokens among them."""
    added = [token.content for token in tokenizer.get_added_tokens_decoder().values()]
    found = list(ODD)
    for _ in range(count):
        found.append("".join(character(rng) for _ in range(25)))
    for _ in range(count):
        found.append("".join(rng.choice(RUNS) * rng.choice([1, 1, 2, 3, 5, 17]) for _ in range(rng.randint(2, 6))))
    for _ in range(2 * count // 3):
        at = rng.randrange(len(TRAINING))
        found.append(TRAINING[at : at + rng.choice([5, 20, 80])])
    for _ in range(count * len(added) // 4):
        parts = [rng.choice([" ", "", "  ", "\n", "x", "é", "[", "ord", "-", "\u3000", "the cat"]) + rng.choice(added) for _ in range(rng.randint(1, 4))]
        found.append("".join(parts) + rng.choice(["", " ", "   ", "s", "\n", "x y"]))
    return found


def id_lists(tokenizer, rng, ids_of, count):
    """Random ids: half characters, special tokens, and the bytes of characters that are cut off and put together."""
    size = tokenizer.get_vocab_size()
    alphabet = {c: ids_of(c, False) for c in ["é", "日", "👍", "ж", "\U0010ffff"]}
    found = [[], [0], [3, 3]]
    for _ in range(count):
        found.append([rng.randrange(3, size) for _ in range(rng.randint(1, 12))])
    for _ in range(count):
        ids = [i for _ in range(5) for i in alphabet[rng.choice(list(alphabet))]]
        for _ in range(rng.randint(0, 3)):
            del ids[rng.randrange(len(ids))]
        found.append(ids)
    return found


def main():
    FIXTURES.mkdir(exist_ok=True)
    few = {*BYTE_FAMILIES, *CHARACTER_FAMILIES, *SENTENCEPIECE, "unigram"}
    for name, tokenizer in tokenizers().items():
        rng = random.Random(f"quire {name}")
        count = 12 if name in few else 60
        if isinstance(tokenizer, SentencePiece):
            ids_of, text_of = tokenizer.ids, lambda ids, skip: tokenizer.text(ids)
        else:
            tokenizer.encode_special_tokens = True
            ids_of, text_of = lambda text, special: tokenizer.encode(text, add_special_tokens=special).ids, lambda ids, skip: tokenizer.decode(ids, skip_special_tokens=skip)
        cases = {
            "encode": [[t, ids_of(t, False), ids_of(t, True)] for t in texts(tokenizer, rng, count)],
            "decode": [[i, text_of(i, False), text_of(i, True)] for i in id_lists(tokenizer, rng, ids_of, count)],
        }
        lines = ",\n".join(
            f'"{key}":[\n' + ",\n".join(json.dumps(case, separators=(",", ":")) for case in value) + "\n]" for key, value in cases.items()
        )
        (FIXTURES / f"{name}.cases.json").write_text("{" + lines + "}\n")
        print(f"{name}: {len(cases['encode'])} texts, {len(cases['decode'])} lists of ids")


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""Writes unicode_tables.cc and normalization_tables.cc: what the `tokenizers` library takes for letters, whitespace, accents
and the like, and how it normalises.

    python3 -m venv /tmp/oracle && /tmp/oracle/bin/pip install tokenizers
    /tmp/oracle/bin/python server/tokenizer/make_unicode_tables.py

The tables come from asking the library about every code point, not from the Unicode database: its engines carry their own
versions of Unicode (regular expressions of pre-tokenizers one, the flags of added tokens another, normalisers a third), and
ids are equal only if ours agree with them.
"""

import itertools
import pathlib
import unicodedata

import tokenizers
from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers

CODE_POINTS = [c for c in range(0x110000) if not 0xD800 <= c < 0xE000]
EVERY_CHARACTER = "".join(map(chr, CODE_POINTS))
HERE = pathlib.Path(__file__).resolve().parent
# In the order of enum GeneralCategory of unicode.h; Cn is what is in none of the others.
CATEGORIES = "Lu Ll Lt Lm Lo Mn Mc Me Nd Nl No Pc Pd Ps Pe Pi Pf Po Sm Sc Sk So Zs Zl Zp Cc Cf Co".split()


def taken(pre_tokenizer):
    """Code points that a pre-tokenizer which removes things removes."""
    left = {ord(c) for word, _ in pre_tokenizer.pre_tokenize_str(EVERY_CHARACTER) for c in word}
    return {c for c in CODE_POINTS if c not in left}


def matches(pattern):
    return taken(pre_tokenizers.Split(Regex(pattern), "removed"))


def beside(make_text, **flags):
    """The ids of make_text(character) for every code point, with an added token "@" that has `flags`."""
    tokenizer = Tokenizer(models.WordLevel({"?": 0}, unk_token="?"))
    tokenizer.add_tokens([AddedToken("@", normalized=False, **flags)])
    return {c: tokenizer.encode(make_text(chr(c))).ids for c in CODE_POINTS}


def alone(normalizer):
    """code point: what `normalizer` makes of it, for those that it changes."""
    return {c: made for c in CODE_POINTS if (made := normalizer.normalize_str(chr(c))) != chr(c)}


def grouped(keys):
    """(first, last, key) for the runs of equal keys[c] over all code points; runs do not span the surrogates."""
    for key, run in itertools.groupby(CODE_POINTS, lambda c: (keys[c], c >= 0xE000)):
        run = list(run)
        yield run[0], run[-1], key[0]


def table(entries):
    lines, line = [], "   "
    for entry in entries:
        if len(line) + 1 + len(entry) > 120:
            lines.append(line)
            line = "   "
        line += " " + entry
    return "    // clang-format off\n" + "\n".join([*lines, line]) + "\n    // clang-format on\n"


def write(name, note, body):
    header = f"// Written by make_unicode_tables.py with tokenizers {tokenizers.__version__}{note}: do not edit.\n\n"
    (HERE / name).write_text(header + body)


def properties():
    space = matches(r"\s")
    # "c@" is [c][@], unless the token has swallowed c.
    swallowed = {c for c, ids in beside(lambda c: c + "@", lstrip=True).items() if len(ids) == 1}
    assert space == swallowed == taken(pre_tokenizers.WhitespaceSplit()), "the library's engines disagree about whitespace"
    # A token with single_word is not found beside a word character; "@@" is left out: it is two tokens.
    word = {c for c, ids in beside(lambda c: c + "@", single_word=True).items() if ids[-1] == 0 and c != ord("@")}
    categories = {name: matches(rf"\p{{{name}}}") for name in CATEGORIES}
    assert matches(r"\d") == categories["Nd"]
    number = {ord(c) for w, _ in pre_tokenizers.Digits(individual_digits=False).pre_tokenize_str("".join(f"@{c}" for c in EVERY_CHARACTER)) for c in w
              if "@" not in w}
    punctuation = taken(pre_tokenizers.Punctuation("removed"))
    accent = {c for c, made in alone(normalizers.StripAccents()).items() if not made}
    flags = {"S": space, "W": word, "R": matches(r"\w"), "D": number, "P": punctuation, "A": accent}
    category_of = {c: name for name, members in categories.items() for c in members}
    assert len(category_of) == sum(map(len, categories.values())), "two categories share a code point"
    keys = {c: (category_of.get(c, "Cn"), " | ".join(name for name, members in flags.items() if c in members)) for c in CODE_POINTS}
    entries = [f"{{0x{first:X}, 0x{last:X}, {category}, {marks or 0}}}," for first, last, (category, marks) in grouped(keys) if category != "Cn" or marks]
    counts = ", ".join(f"{len(members)} {name}" for name, members in flags.items())
    write("unicode_tables.cc", f" ({counts} code points)", f"""#include "server/tokenizer/unicode.h"

namespace quire {{
namespace {{

constexpr uint8_t S = kSpace, W = kWord, R = kRegexWord, D = kDigits, P = kPunctuation, A = kAccent;
using enum GeneralCategory;

constexpr CodePointRange kRanges[] = {{
{table(entries)}}};

}}  // namespace

absl::Span<const CodePointRange> CodePointRanges() {{ return kRanges; }}

}}  // namespace quire
""")


def combining_classes():
    """code point: its canonical combining class, as the order that the library puts marks in shows it."""
    candidates = {c: unicodedata.combining(chr(c)) for c in CODE_POINTS if unicodedata.combining(chr(c))}
    witness = {}  # class: a mark that has it and no decomposition, in every version of Unicode
    for c in range(0x300, 0x10000):
        if (ccc := unicodedata.ucd_3_2_0.combining(chr(c))) and ccc == unicodedata.combining(chr(c)) and not unicodedata.decomposition(chr(c)):
            witness.setdefault(ccc, chr(c))
    nfd = normalizers.NFD().normalize_str
    found = {}
    for c, expected in candidates.items():
        # The mark goes before those of larger classes and stays behind those of its own and of smaller ones.
        larger = [ccc for ccc, mark in witness.items() if nfd("a" + mark + chr(c)) == nfd("a" + chr(c) + mark) and ccc > expected]
        smaller = [ccc for ccc, mark in witness.items() if nfd("a" + chr(c) + mark) == nfd("a" + mark + chr(c)) and ccc < expected]
        if larger or smaller:
            assert len(larger) + len(smaller) >= len(witness) - 1, hex(c)
            found[c] = expected
    return found


def normalization():
    canonical, compatible = alone(normalizers.NFD()), alone(normalizers.NFKD())
    hangul = {c for c in range(0xAC00, 0xD7A4)}
    canonical = {c: s for c, s in canonical.items() if c not in hangul}
    compatible = {c: s for c, s in compatible.items() if c not in hangul and canonical.get(c) != s}
    nfc = normalizers.NFC().normalize_str
    pairs = {}
    for c in canonical:
        decomposed = unicodedata.decomposition(chr(c))
        if decomposed.startswith("<") or " " not in decomposed:
            continue
        first, second = (int(p, 16) for p in decomposed.split())
        if nfc(chr(first) + chr(second)) == chr(c):
            pairs[first, second] = c
    lower = alone(normalizers.Lowercase())
    classes = combining_classes()
    arena, where = [], {}  # all expansions in one array of code points

    def place(s):
        if s not in where:
            where[s] = len(arena)
            arena.extend(map(ord, s))
        return f"{where[s]}, {len(s)}"

    def expansions(name, mapping):
        entries = [f"{{0x{c:X}, {place(s)}}}," for c, s in sorted(mapping.items())]
        return f"constexpr Expansion {name}[] = {{\n{table(entries)}}};\n\n"

    parts = expansions("kCanonical", canonical) + expansions("kCompatible", compatible) + expansions("kLower", lower)
    keys = {c: classes.get(c, 0) for c in CODE_POINTS}
    parts += "constexpr CombiningRange kCombining[] = {\n" + table(f"{{0x{a:X}, 0x{b:X}, {k}}}," for a, b, k in grouped(keys) if k) + "};\n\n"
    parts += "constexpr Composition kCompositions[] = {\n" + table(f"{{0x{a:X}, 0x{b:X}, 0x{c:X}}}," for (a, b), c in sorted(pairs.items())) + "};\n\n"
    parts += "constexpr char32_t kArena[] = {\n" + table(f"0x{c:X}," for c in arena) + "};\n\n"
    write("normalization_tables.cc", "", f"""#include "server/tokenizer/normalization_tables.h"

namespace quire {{
namespace {{

{parts}}}  // namespace

const NormalizationTables& GetNormalizationTables() {{
  static constexpr NormalizationTables kTables = {{kCanonical, kCompatible, kLower, kCombining, kCompositions, kArena}};
  return kTables;
}}

}}  // namespace quire
""")


if __name__ == "__main__":
    properties()
    normalization()

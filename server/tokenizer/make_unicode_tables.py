#!/usr/bin/env python3
"""Writes unicode_tables.cc: what the `tokenizers` library takes for letters, numbers, whitespace and word characters.

    python3 -m venv /tmp/oracle && /tmp/oracle/bin/pip install tokenizers
    /tmp/oracle/bin/python server/tokenizer/make_unicode_tables.py

The tables come from asking the library about every code point, not from the Unicode database: its engines carry their own
versions of Unicode (regular expressions of pre-tokenizers one, the flags of added tokens another), and ids are equal only
if ours agree with them.
"""

import itertools
import pathlib

import tokenizers
from tokenizers import AddedToken, Regex, Tokenizer, models, pre_tokenizers

CODE_POINTS = [c for c in range(0x110000) if not 0xD800 <= c < 0xE000]


def matches(pattern):
    """Code points that a pre-tokenizer's `pattern` matches."""
    split = pre_tokenizers.Split(Regex(pattern), "removed")
    return {c for c in CODE_POINTS if not split.pre_tokenize_str(chr(c))}


def beside(make_text, **flags):
    """The ids of make_text(character) for every code point, with an added token "@" that has `flags`."""
    tokenizer = Tokenizer(models.WordLevel({"?": 0}, unk_token="?"))
    tokenizer.add_tokens([AddedToken("@", normalized=False, **flags)])
    return {c: tokenizer.encode(make_text(chr(c))).ids for c in CODE_POINTS}


def main():
    space = matches(r"\s")
    # "c@" is [c][@], unless the token has swallowed c.
    swallowed = {c for c, ids in beside(lambda c: c + "@", lstrip=True).items() if len(ids) == 1}
    assert space == swallowed, "the library's two engines disagree about whitespace"
    # A token with single_word is not found beside a word character; "@@" is left out: it is two tokens.
    word = {c for c, ids in beside(lambda c: c + "@", single_word=True).items() if ids[-1] == 0 and c != ord("@")}
    properties = {"L": matches(r"\p{L}"), "N": matches(r"\p{N}"), "S": space, "W": word}

    def kind(c):
        return " | ".join(name for name, members in properties.items() if c in members)

    ranges = []
    for what, run in itertools.groupby(CODE_POINTS, kind):
        run = list(run)
        # A run of one kind may jump over the surrogates; they are of no kind.
        for _, part in itertools.groupby(run, lambda c: c >= 0xE000):
            part = list(part)
            if what:
                ranges.append(f"{{0x{part[0]:X}, 0x{part[-1]:X}, {what}}},")
    lines, line = [], "   "
    for entry in ranges:
        if len(line) + 1 + len(entry) > 120:
            lines.append(line)
            line = "   "
        line += " " + entry
    lines.append(line)
    counts = ", ".join(f"{len(members)} {name}" for name, members in properties.items())
    pathlib.Path(__file__).with_name("unicode_tables.cc").write_text(
        f"""// Written by make_unicode_tables.py with tokenizers {tokenizers.__version__} ({counts} code points): do not edit.

#include "server/tokenizer/unicode.h"

namespace quire {{
namespace {{

constexpr uint8_t L = kLetter, N = kNumber, S = kSpace, W = kWord;

constexpr CodePointRange kRanges[] = {{
    // clang-format off
"""
        + "\n".join(lines)
        + """
    // clang-format on
};

}  // namespace

absl::Span<const CodePointRange> CodePointRanges() { return kRanges; }

}  // namespace quire
"""
    )


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""Makes word_rules.jsonl: how Hugging Face's tokenizers cuts texts into words by the expressions of
Llama 3, Qwen2 and o200k (GPT-4o, Llama 4), one text a line: {"rule", "text", "ends": [byte, ...]}.

Run by hand, with a Python that has tokenizers: V/bin/python tests/golden/make_word_rules.py
"""
import json
import os
import random

from tokenizers import Regex, pre_tokenizers

HERE = os.path.dirname(os.path.abspath(__file__))
SUFFIX = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
TAIL = r"|\s*[\r\n]+|\s+(?!\S)|\s+"
RULES = {
    "llama-bpe": SUFFIX + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*" + TAIL,
    "qwen2": SUFFIX + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*" + TAIL,
    "llama4": r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*" +
              r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]+" + SUFFIX +
              r"?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+" +
              r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]*" + SUFFIX +
              r"?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*" + TAIL,
}
TEXTS = [
    "The quick brown fox jumps over 1234567 lazy dogs, isn't it? WE'RE 'LLAMAS' we'Ve it'S i'D",
    "camelCase HTMLParser XMLHttpRequest iPhone ABCdef ABC's don'T 'tis 'twas ''s '\u017f x'\u017f",
    "int main(int argc, char** argv) {\r\n\treturn x != 10;\n\n\n}  // http://a.b/c//d\n",
    "  leading, trailing   \n \n  \n\tx \u00a0\u00a0 y\u2028z \r\r\n ",
    "e\u0301t\u00e9 \u0301alone \u0301\u0301 A\u0301B A\u0301b \u4e2d\u6587\u5b57 \u3042\u30a2",
    "\u01c5abc \u02b0x X\u02b0Y",
    "\u0661\u0662\u0663\u0664 \u00bd\u2167 x\u00b2 12\u00b3456 \U0001d7d8\U0001d7d9",
    "!!! ??? ...\n\n--- //// /\n/ \U0001f600\U0001f468\u200d\U0001f469 \u20ac5 #a _b_c",
    "\u0627\u0644\u0639\u0631\u0628\u064a\u0629 \u0939\u093f\u0928\u094d\u0926\u0940",
    "\u10d0\u10d1 \u1c90\u1c91 \ua7b3\uab53",
]
PIECES = ["a", "B", "Ab", "\u01c5", "\u02b0", "\u4e2d", "\u0301", "'", "s", "LL", "re", " ",
          "  ", "\n", "\r\n", "\t", "\u00a0", "1", "23", "4567", "\u00bd", ".", "/", "-",
          "\U0001f600", "\u017f", "_"]


def main():
    generator = random.Random(7)
    texts = TEXTS + ["".join(generator.choices(PIECES, k=generator.randint(1, 24)))
                     for _ in range(100)]
    with open(os.path.join(HERE, "word_rules.jsonl"), "w", encoding="ascii") as out:
        for rule, pattern in RULES.items():
            splitter = pre_tokenizers.Split(Regex(pattern), "isolated")
            for text in texts:
                ends = []
                for piece, _ in splitter.pre_tokenize_str(text):
                    ends.append((ends[-1] if ends else 0) + len(piece.encode()))
                out.write(json.dumps({"rule": rule, "text": text, "ends": ends},
                                     separators=(",", ":")) + "\n")


main()

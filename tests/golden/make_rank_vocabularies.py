#!/usr/bin/env python3
"""Makes rank_vocabularies.jsonl: small vocabularies as tiktoken keeps them, and what the tiktoken
package makes of texts with them, one vocabulary a line:
{"name", "model_type", "file", "specials": {text: id}, "cases": [[text, [id, ...]], ...]}.

One kind is trained (the commonest pair of a text, again and again), one is random: words cut
anywhere, so that tokens are made in several ways and ranks do not follow lengths.

Run by hand, with a Python that has tiktoken: V/bin/python tests/golden/make_rank_vocabularies.py
"""
import base64
import collections
import json
import os
import random

import tiktoken

HERE = os.path.dirname(os.path.abspath(__file__))
SUFFIX = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
TAIL = r"|\s*[\r\n]+|\s+(?!\S)|\s+"
LOWER = r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
UPPER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]"
PATTERNS = {
    "llama": SUFFIX + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*" + TAIL,
    "llama4_text": rf"[^\r\n\p{{L}}\p{{N}}]?{UPPER}*{LOWER}+{SUFFIX}?"
                   rf"|[^\r\n\p{{L}}\p{{N}}]?{UPPER}+{LOWER}*{SUFFIX}?"
                   r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*" + TAIL,
}
# Names and offsets behind the vocabulary, of each family's program.
SPECIALS = {
    "llama": {"<|begin_of_text|>": 0, "<|end_of_text|>": 1, "<|reserved_special_token_1|>": 3,
              "<|finetune_right_pad_id|>": 4, "<|start_header_id|>": 6, "<|end_header_id|>": 7,
              "<|eom_id|>": 8, "<|eot_id|>": 9, "<|python_tag|>": 10,
              "<|reserved_special_token_2|>": 12, "<|reserved_special_token_245|>": 255},
    "llama4_text": {"<|begin_of_text|>": 0, "<|fim_suffix|>": 4, "<|header_start|>": 5,
                    "<|header_end|>": 6, "<|eom|>": 7, "<|eot|>": 8, "<|python_start|>": 16,
                    "<|finetune_right_pad|>": 18, "<|image_start|>": 80, "<|image|>": 90,
                    "<|patch|>": 92, "<|vision_reserved_special_token_1047|>": 1133,
                    "<|reasoning_thinking_end|>": 1143, "<|reserved_special_token_0|>": 1144,
                    "<|reserved_special_token_903|>": 2047},
}
TEXT = """The tokenizer of a language model cuts a text into words and each word into pieces. A piece
that is common has a number of its own: the, ing, tion, 2026, é, übermäßig, 中文, ";\n". Strings like
aaaaaaa, abababab and HTTPServer2000 are cut in more than one way; isn't that what they're for?
"""
TEXTS = [
    TEXT, "aaaa aaaaaaaaaaaaaaaaa aabaabaab abababababababab aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaab",
    "HTTPServer isn't 12345 words\n\n  we'Ve  \t x/y//\n", "naïve Straße 中文中文 \U0001f600!",
    " leading", "trailing  ", "", "tokenizertokenizer the the  the   the",
]


def trained(words, count):
    """The bytes in a shuffled order, then merges of the commonest pair."""
    ranks = {bytes([b]): i for i, b in enumerate(random.Random(3).sample(range(256), 256))}
    words = [[bytes([b]) for b in word.encode()] for word in words]
    while len(ranks) < count:
        pairs = collections.Counter(pair for word in words for pair in zip(word, word[1:]))
        best = max(sorted(pairs), key=pairs.get)
        ranks.setdefault(best[0] + best[1], len(ranks))
        for word in words:
            i = 0
            while i + 1 < len(word):
                if (word[i], word[i + 1]) == best:
                    word[i:i + 2] = [best[0] + best[1]]
                i += 1
    return ranks


def cut_anywhere(generator, words, count):
    ranks = {bytes([b]): b for b in range(256)}
    while len(ranks) < count:
        word = generator.choice(words).encode()
        start = generator.randrange(len(word))
        ranks.setdefault(word[start:start + generator.randint(2, 7)], len(ranks))
    return ranks


def main():
    generator = random.Random(11)
    words = TEXT.split(" ") + [" " + word for word in TEXT.split()] + ["a" * 12, "ab" * 7, "aab" * 5]
    pieces = ["a", "aa", "b", "ab", "the", " the", "token", "izer", " ", "\n", "1", "é", "中", "'s"]
    texts = TEXTS + ["".join(generator.choices(pieces, k=generator.randint(1, 30)))
                     for _ in range(40)]
    with open(os.path.join(HERE, "rank_vocabularies.jsonl"), "w", encoding="ascii") as out:
        for name, model_type, ranks in (
                ("trained", "llama", trained(words, 400)),
                ("trained", "llama4_text", trained(words, 380)),
                ("random", "llama", cut_anywhere(generator, words, 700)),
                ("random", "llama4_text", cut_anywhere(generator, words, 500))):
            ranks = {token: i for i, token in enumerate(ranks)}
            specials = {text: len(ranks) + at for text, at in SPECIALS[model_type].items()}
            encoding = tiktoken.Encoding(name, pat_str=PATTERNS[model_type], mergeable_ranks=ranks,
                                         special_tokens=specials)
            lines = [base64.b64encode(token).decode() + f" {rank}\n"
                     for token, rank in ranks.items()]
            out.write(json.dumps({
                "name": name, "model_type": model_type, "file": "".join(lines),
                "specials": specials,
                "cases": [[text, encoding.encode_ordinary(text)] for text in texts],
            }, separators=(",", ":")) + "\n")


main()

#!/usr/bin/env python3
"""Makes piece_rules.jsonl: how Hugging Face's tokenizers and SentencePiece encode texts with
vocabularies that merge characters and fall back to bytes, and what normal form C makes of texts.
One object a line: a vocabulary {"vocabulary", "json"} (a tokenizer.json) or {"vocabulary", "gguf"}
(tokens, scores, kinds, prefix), a case {"of", "text", "ids", "start"}, or {"nfc", "text"}.

The vocabularies are trained here on a text of this repository. Run by hand, with a Python that has
tokenizers and sentencepiece: V/bin/python tests/golden/make_piece_rules.py
"""
import io
import json
import os
import random

import sentencepiece
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

HERE = os.path.dirname(os.path.abspath(__file__))
SPACE = "\u2581"
TEXTS = [
    "The quick brown fox jumps over 1234567 lazy dogs, isn't it?",
    " leading", "  two leading", "trailing ", "trailing  ", "", " ", "   ", "a", "\n", "\n\n\n\n\n",
    "int main(int argc, char** argv) {\r\n\treturn x != 10;\n\n\n}  // http://a.b/c//d\n",
    "the the  the   the    the                                  the", "\t\t\tx\t", "<b>bold</b> <i> </table><table>",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "corpus corpora Corpus CORPUS",
    "\u4e2d\u6587\u5b57 \u3042\u30a2\u3044 \ud55c\uad6d\uc5b4", "\U0001f600\U0001f468\u200d\U0001f469 \u20ac5 #a _b_c",
    "\u0627\u0644\u0639\u0631\u0628\u064a\u0629 \u0939\u093f\u0928\u094d\u0926\u0940", "stra\u00dfe \u00fcber \u00c4rger na\u00efve",
    "e\u0301t\u00e9 \u0301alone", "\ufffd\ufffdx\ufffd", "\u2581 \u2581\u2581a", "a\u2581b", "x\u00a0y\u2028z", "\u0000\u0001\u007f",
    "stored blocks of keys and values; the daemon's answers are the same bytes",
]
PIECES = ["the", "a", " ", "  ", "\n", "\n\n", "\t", "corpus", "token", "s", ".", ",", "1", "<b>", "\u00e9",
          "\u4e2d", "\U0001f600", "ing", "\ufffd", "block", "of ", " and", "\u2581", "e"]
LITERALS = ["\n\n", "\n\n\n", "\n\n\n\n", "  ", "   ", "    ", "\t\t", "<b>", "</b>", "<table>"]


def training_text():
    with open(os.path.join(HERE, "..", "..", "engine", "README.md"), encoding="utf-8") as file:
        lines = file.read().splitlines()
    return [line for line in lines if line.strip()] + [
        "Stra\u00dfe \u00fcber na\u00efve \u00e9t\u00e9", "\u4e2d\u6587\u5b57\u7b26 \u4e2d\u6587", "\u3042\u3044\u3046"] * 4


def train_json():
    """Vocabulary and merges over words that begin with U+2581."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    bytes_ = [f"<0x{b:02X}>" for b in range(256)]
    tokenizer.train_from_iterator(training_text(), trainers.BpeTrainer(
        vocab_size=620, special_tokens=["<unk>", "<s>", "</s>"] + bytes_, show_progress=False))
    model = json.loads(tokenizer.to_str())["model"]
    return model["vocab"], [tuple(m) for m in model["merges"]]


def variant(vocab, merges, normalizer=None, pre_tokenizer=None, literals=()):
    tokenizer = Tokenizer(models.BPE(dict(vocab), list(merges), unk_token="<unk>",
                                     byte_fallback=True, fuse_unk=True))
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    if pre_tokenizer is not None:
        tokenizer.pre_tokenizer = pre_tokenizer
    tokenizer.decoder = decoders.Sequence([decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.add_special_tokens(["<unk>", "<s>", "</s>"])
    tokenizer.add_tokens([AddedToken(text, normalized=False) for text in literals])
    return tokenizer


def json_variants():
    vocab, merges = train_json()
    replace = normalizers.Replace(" ", SPACE)
    yield "prepend", variant(vocab, merges, normalizers.Sequence([normalizers.Prepend(SPACE), replace]))
    yield "first", variant(vocab, merges, None, pre_tokenizers.Metaspace(prepend_scheme="first", split=False))
    yield "split", variant(vocab, merges, None, pre_tokenizers.Metaspace(prepend_scheme="always", split=True))
    # Runs of newlines and tags are tokens of their own; no prefix.
    yield "literals", variant(vocab, merges, replace,
                              pre_tokenizers.Split(" ", "merged_with_previous"),
                              [text for text in LITERALS])


def train_gguf(prefix, literals):
    out = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(training_text()), model_writer=out, model_type="bpe", vocab_size=560,
        byte_fallback=True, normalization_rule_name="identity", remove_extra_whitespaces=False,
        add_dummy_prefix=prefix, user_defined_symbols=[text.replace(" ", SPACE) for text in literals], minloglevel=2,
        allow_whitespace_only_pieces=True, character_coverage=0.99)
    model = sentencepiece.SentencePieceProcessor(model_proto=out.getvalue())
    tokens, scores, kinds = [], [], []
    for i in range(model.get_piece_size()):
        piece = model.id_to_piece(i)
        kind = 2 if model.is_unknown(i) else 3 if model.is_control(i) else 6 if model.is_byte(i) else 1
        if piece in literals or piece.replace(SPACE, " ") in literals:
            kind, piece = 4, piece.replace(SPACE, " ")
        tokens.append(piece)
        scores.append(model.get_score(i))
        kinds.append(kind)
    return model, {"tokens": tokens, "scores": scores, "kinds": kinds, "prefix": prefix}


def main():
    generator = random.Random(11)
    texts = TEXTS + ["".join(generator.choices(PIECES, k=generator.randint(1, 30))) for _ in range(60)]
    nfc = ["".join(chr(generator.choice([0x41, 0x65, 0x301, 0x308, 0x323, 0x327, 0x1100, 0x1161, 0x11a8, 0xac00, 0xe9,
                                         0x212b, 0x3b1, 0x345, 0x915, 0x93c, 0x9c7, 0x9be, 0x20, 0xa, 0xfb1d, 0x2f9d4,
                                         0x1d15e, 0x4e2d, 0xb47, 0xb56, 0x1fb4])) for _ in range(generator.randint(1, 16)))
           for _ in range(120)] + TEXTS
    with open(os.path.join(HERE, "piece_rules.jsonl"), "w", encoding="ascii") as out:
        def write(value):
            out.write(json.dumps(value, separators=(",", ":")) + "\n")
        for name, tokenizer in json_variants():
            write({"vocabulary": name, "json": json.loads(tokenizer.to_str())})
            for text in texts:
                write({"of": name, "text": text, "ids": tokenizer.encode(text, add_special_tokens=False).ids})
        for name, prefix, literals in (("gguf", True, []), ("gguf literals", False, LITERALS)):
            model, tables = train_gguf(prefix, literals)
            write({"vocabulary": name, "gguf": tables})
            for text in texts:
                # SentencePiece finds literals with U+2581 for spaces, GGUF's readers with spaces: of
                # texts that hold both, ids differ.
                if "\u0000" not in text and not (literals and SPACE in text):
                    write({"of": name, "text": text, "ids": model.encode(text)})
        normalizer = normalizers.NFC()
        for text in nfc:
            write({"nfc": text, "text": normalizer.normalize_str(text)})


main()

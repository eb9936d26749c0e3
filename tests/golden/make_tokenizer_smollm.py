#!/usr/bin/env python3
"""Writes tokenizer_smollm.jsonl: texts and the token ids that llama.cpp gives them with SmolLM2's
vocabulary.

Each line: {"hex": the text's bytes, "special": whether special tokens are parsed, "ids": [...]}.
Needs llama-cpp-python: make_tokenizer_smollm.py SmolLM2-135M-Instruct.Q4_1.gguf >
tokenizer_smollm.jsonl
"""
import json
import random
import re
import sys

from llama_cpp import Llama

SOURCES = [
    "int main(int argc, char** argv) {\n\tstd::vector<int> v(10);\n\treturn v.size() != 10;\n}\n",
    "def f(x: list[str]) -> None:\n    if not x:\n        return\n\n\n    print(f\"{x!r:>10}\")\n",
    "#include <linux/module.h>\n\n/* (c) 1999-2024 */\n#define MAX(a,b) ((a)>(b)?(a):(b))\r\n",
    "SELECT a.id, COUNT(*) AS n FROM t_users a WHERE a.name LIKE '%o''brien%' GROUP BY 1;",
    "{\"key\": [1, 2.50, -3e10, null, true], \"nested\": {\"\\u00e9\": \"\\\\\"}}",
    "<html><body class=\"x\">&nbsp;</body></html>\t<!-- comment -->",
    "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA==",
    "thequickbrownfoxjumpsoverthelazydogwithoutasinglespaceinthewholesentence",
]
PROSE = [
    "The quick brown fox jumps over the lazy dog.",
    "I'm sure they'll say we've won; she'd agree, it's what you're after. "
    "'Tis the writer's 'S 'LL 'Re",
    "Don't! Can't? o'clock rock'n'roll ''s '' 's' 'sd 'reve x'll y'l z'v",
    "In 1984, 3.14159 and 1,000,000 were written as 0x7F or 12e-3; No. 007.",
    "a 1 b  2 c   3\t4\n5 6 ",
    "Grüße aus München, señor! Ça va? Þórr, İstanbul, ﬁn, ǅ, Œuvre",
    "Съешь же ещё этих мягких французских булок, да выпей чаю.",
    "Ξεσκεπάζω την ψυχοφθόρα βδελυγμία.",
    "العربية: مرحبا بالعالم ١٢٣ ٤٥",
    "עברית: שלום עולם",
    "हिन्दी में १२३ लिखा है। நன்றி ขอบคุณมาก",
]
CJK = [
    "你好,世界!今天天气不错。", "日本語のテキストと カタカナ、漢字。", "한국어 텍스트입니다 그리고 띄어쓰기",
    "中文English混排123测试", "二〇二四年〇月", "\u3000全角スペース\u3000\u3000二つ", "\U00020000\U0002a6df 𠮷野家",
]
SYMBOLS = [
    "😀 😃👍🏽 👨‍👩‍👧‍👦 🇩🇪🇫🇷 ❤️ 1️⃣", "e\u0301 n\u0303 a\u0308\u0323 \u0301alone  \u0301",
    "x² y³ ½ ⅓ Ⅷ ⑩ ㊿ 𝟘𝟙 ➀",
    "€£¥ ± × ÷ ≠ ∞ ∑ ∫ √ → ⇒ ■ □ ▲", "“curly” ‘quotes’ — – … ‰ †",
    "\u200bzero\u200dwidth\ufeff \u2060",
    "!!! ??? ... --- === *** ///// \\\\\\ ~~~ @@@ ### $$$ %%% ^^^ &&& ||| <<< >>>",
    "_snake_case camelCase __dunder__",
]
SPACES = [
    " ", "  ", "   ", "\n", "\n\n", "\n\n\n", "\t\t", "\r\n\r\n", " \n ", "a  b", "a   b",
    "a \n b", "a\n\n\nb", "  a",
    "a  ", "a\t b", "a \tb", "a\u00a0b", "a\u00a0\u00a0b", "a \u2003b", "a\u2028b\u2029 c",
    "\u0085x", "  1", "   1  ",
    " '", "  's", " ' s", "\x0b\x0c x", " " * 17 + "x", " " * 40, "\n" * 33 + "x",
    "\u1680\u205f\u3000a",
]
SPECIAL = [
    "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n", "<|endoftext|>", "a<|im_end|>b",
    "<|im_start|",
    "<<|im_start|>>", "<repo_name>x<file_sep>y <filename>", " <|im_end|> ",
    "<|im_start|><|im_start|>",
]
BROKEN = [
    b"\xff", b"a\xffb", b"\x80", b"\xc3", b"\xc3(", b"\xe2\x82", b"\xe2\x82 x", b"\xe2(\xa1",
    b"\xf0\x9f\x98",
    b"\xf0\x9f\x98x", b"\xf0(\x8c\xbc", b"\xc0\x80", b"\xc1\x81bc", b"\xe0\x81\x81",
    b"\xf0\x80\x81\x81",
    b"\xed\xa0\x80", b"\xed\xb0\x80x", b"\xf8\x88\x80\x80\x80", b"\xfe\xff", b"caf\xe9 cr\xe8me",
    b" \xff \xff",
    b"\xf4\x8f\xbf\xbf", b"\x00", b"a\x00b", b"\x01\x02\x03\x04\x05\x06", b"x\x13y\x14z\x16",
    b"12\xb9\xb2",
    b"\xe4\xbd\xe5\xa5\xbd", b"\xf1\x80\x80\x80", b"'\xff's",
]


def random_texts(random_state):
    pieces = SOURCES + PROSE + CJK + SYMBOLS + SPACES
    for _ in range(120):
        text = ""
        for _ in range(random_state.randrange(1, 6)):
            piece = random_state.choice(pieces)
            start = random_state.randrange(len(piece))
            text += piece[start:start + random_state.randrange(1, 12)]
        yield text.encode()
    for _ in range(120):
        yield random_state.randbytes(random_state.randrange(1, 40))
    for _ in range(120):
        text = bytearray(random_state.choice(pieces).encode())
        for _ in range(3):
            text[random_state.randrange(len(text))] = random_state.randrange(256)
        yield bytes(text)


def beyond_unicode(text):
    """llama.cpp aborts on sequences that decode to more than U+10FFFF."""
    return re.search(rb"(\xf4[\x90-\xbf]|[\xf5-\xf7][\x80-\xbf])[\x80-\xbf]{2}", text)


def main():
    model = Llama(sys.argv[1], vocab_only=True, verbose=False)
    texts = [text.encode() for text in SOURCES + PROSE + CJK + SYMBOLS + SPACES + SPECIAL] + BROKEN
    texts += random_texts(random.Random(1))
    cases = [(text, False) for text in texts if not beyond_unicode(text)]
    cases += [(text.encode(), True) for text in SPECIAL + PROSE[:2]]
    for text, special in cases:
        ids = model.tokenize(text, add_bos=False, special=special)
        print(json.dumps({"hex": text.hex(), "special": special, "ids": ids}))


main()

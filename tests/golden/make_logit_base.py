#!/usr/bin/env python3
"""Writes logit_base.bin, a base file by the rules of llama.cpp's tools/perplexity, and prints the
divergence of other logits from it, for tests/eval/logit_base_test.cc. Needs nothing but Python.

make_logit_base.py golden/logit_base.bin
"""
import math
import struct
import sys

CONTEXT, VOCABULARY, WINDOWS = 6, 5, 2  # an odd vocabulary: its rows are padded


def single(value):
    return struct.unpack("<f", struct.pack("<f", value))[0]


def base_logit(row, token):
    return -40.0 if (row + token) % 5 == 4 else ((row * 3 + token * 7) % 11) * 0.75 - 4.0


def model_logit(row, token):
    return ((row * 3 + token * 7) % 11) * 0.5 - 2.0 + (row == token)


def token_at(place):
    return place * 2 % VOCABULARY


def encode(logits):
    top = max(logits)
    bottom = max(min(logits), single(top - 16))
    log_sum = single(math.log(sum(single(math.exp(single(l - top))) for l in logits)))
    lowest = single(single(bottom - top) - log_sum)
    scale = single(single(top - bottom) / 65535)
    inverse = single(1 / scale)
    codes = [round(single(inverse * single(l - bottom))) if l > bottom else 0 for l in logits]
    codes += [0] * (2 * ((VOCABULARY + 1) // 2) - VOCABULARY)
    return scale, lowest, codes


def main():
    tokens = [token_at(i) for i in range(WINDOWS * CONTEXT)]
    data = b"_logits_" + struct.pack("<iii", CONTEXT, VOCABULARY, WINDOWS)
    data += struct.pack(f"<{len(tokens)}i", *tokens)
    klds, nlls, base_nlls, same = [], [], [], 0
    row = 0
    for window in range(WINDOWS):
        for place in range(CONTEXT // 2, CONTEXT - 1):
            scale, lowest, codes = encode([base_logit(row, t) for t in range(VOCABULARY)])
            data += struct.pack("<ff", scale, lowest) + struct.pack(f"<{len(codes)}H", *codes)
            logits = [model_logit(row, t) for t in range(VOCABULARY)]
            log_sum = math.log(sum(math.exp(l) for l in logits))
            base = [scale * c + lowest for c in codes[:VOCABULARY]]
            klds.append(sum(math.exp(b) * (b - l + log_sum) for b, l in zip(base, logits)
                            if b > -16))
            target = tokens[window * CONTEXT + place + 1]
            nlls.append(log_sum - logits[target])
            base_nlls.append(-base[target])
            same += base.index(max(base)) == logits.index(max(logits))
            row += 1
    with open(sys.argv[1], "wb") as file:
        file.write(data)
    deltas = [math.exp(-n) - math.exp(-b) for n, b in zip(nlls, base_nlls)]
    print("mean KLD", sum(klds) / row, "largest", max(klds))
    print("perplexity", math.exp(sum(nlls) / row), "base", math.exp(sum(base_nlls) / row))
    print("RMS delta p", math.sqrt(sum(d * d for d in deltas) / row), "same top", same / row)


if __name__ == "__main__":
    main()

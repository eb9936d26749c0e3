#!/usr/bin/env python3
"""Writes dequantize.txt: random blocks of every weight type and what the PyPI package gguf makes of them.

Each line: type, elements, the block's bytes in hex, the float32 values in hex (little-endian).
pip install gguf numpy; make_dequantize.py > dequantize.txt
"""
import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, dequantize

TYPES = ["F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q4_K", "Q5_K", "Q6_K"]
# Where a block holds binary16 numbers; random bits there would often be infinite.
HALVES = {"Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2], "Q8_0": [0], "Q4_K": [0, 2],
          "Q5_K": [0, 2], "Q6_K": [208]}
# Zero, the least subnormal, a subnormal, 1 below 2, and both signs.
HARD_HALVES = [0x0000, 0x8000, 0x0001, 0x83FF, 0x0400, 0x3FFF, 0xBC00, 0x2E66]


def main():
    random = np.random.default_rng(20261123)
    for name in TYPES:
        kind = GGMLQuantizationType[name]
        elements, size = GGML_QUANT_SIZES[kind]
        blocks = 32 if elements == 1 else 4 if elements == 32 else 1
        data = random.integers(0, 256, (1, blocks * size), dtype=np.uint8)
        if name == "F16":
            data[0, :16] = np.array(HARD_HALVES, np.uint16).view(np.uint8)
        if elements == 1:  # no infinities and NaNs, which compare badly
            value = data.view(np.uint32 if size == 4 else np.uint16)
            value &= {"F32": 0xBFFFFFFF, "F16": 0xBFFF, "BF16": 0xBFFF}[name]
        for block in range(blocks):
            for place, half in enumerate(HALVES.get(name, [])):
                number = np.float16(random.normal() * 0.02)
                if block == 0 and place == 0 and blocks > 1:
                    number = np.array([0x02AB], np.uint16).view(np.float16)[0]  # subnormal
                start = block * size + half
                data[0, start:start + 2] = np.array([number]).view(np.uint8)
        values = dequantize(data if elements > 1 or name == "BF16" else
                            data.view(np.float32 if name == "F32" else np.float16), kind)
        values = np.ascontiguousarray(values, np.float32)
        print(name, values.size, data.tobytes().hex(), values.tobytes().hex())


main()

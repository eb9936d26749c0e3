#!/usr/bin/env python3
"""Writes unicode_cases.inc: the code points of \\p{Lu} with \\p{Lt}, of \\p{Ll} and of \\p{M}, as
ranges.

Needs the PyPI package unicodedata2 of the Unicode version of make_unicode_ranges.py:
  pip install unicodedata2==15.1.0; make_unicode_cases.py > unicode_cases.inc
"""
import sys

import unicodedata2

VERSION = "15.1.0"
NAMES = (("kUpperRanges", ("Lu", "Lt")), ("kLowerRanges", ("Ll",)),
         ("kMarkRanges", ("Mn", "Mc", "Me")))


def write(name, categories):
    ranges = []
    for code_point in range(0x110000):
        if unicodedata2.category(chr(code_point)) not in categories:
            continue
        if ranges and ranges[-1][1] == code_point - 1:
            ranges[-1][1] = code_point
        else:
            ranges.append([code_point, code_point])
    print(f"constexpr CaseRange {name}[] = {{")
    line = "   "
    for first, last in ranges:
        item = f" {{0x{first:x}, 0x{last:x}}},"
        if len(line) + len(item) > 100:
            print(line)
            line = "   "
        line += item
    print(line + "};")


def main():
    if unicodedata2.unidata_version != VERSION:
        sys.exit(f"unicodedata2 is of Unicode {unicodedata2.unidata_version}, not {VERSION}")
    print(f"// Written by make_unicode_cases.py from Unicode {VERSION}; do not edit.")
    print("// clang-format off")
    for name, categories in NAMES:
        write(name, categories)
    print("// clang-format on")


main()

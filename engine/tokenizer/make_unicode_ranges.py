#!/usr/bin/env python3
"""Writes unicode_ranges.inc: the code points of \\p{L}, \\p{N} and \\s (White_Space), as ranges.

Needs the PyPI package unicodedata2 of the Unicode version below, so that the tables do not change
with the Python that runs this:
  pip install unicodedata2==15.1.0; make_unicode_ranges.py > unicode_ranges.inc
"""
import sys

import unicodedata2

VERSION = "15.1.0"
# Property White_Space of PropList.txt: not derivable from unicodedata; stable since Unicode 6.3.
SPACES = [*range(0x09, 0x0E), 0x20, 0x85, 0xA0, 0x1680, *range(0x2000, 0x200B), 0x2028,
          0x2029, 0x202F, 0x205F, 0x3000]


def ranges(code_points):
    result = []
    for code_point in code_points:
        if result and result[-1][1] == code_point - 1:
            result[-1][1] = code_point
        else:
            result.append([code_point, code_point])
    return result


def write(name, code_points):
    print(f"constexpr CodePointRange {name}[] = {{")
    line = "   "
    for first, last in ranges(code_points):
        item = f" {{0x{first:x}, 0x{last:x}}},"
        if len(line) + len(item) > 100:
            print(line)
            line = "   "
        line += item
    print(line + "};")


def main():
    if unicodedata2.unidata_version != VERSION:
        sys.exit(f"unicodedata2 is of Unicode {unicodedata2.unidata_version}, not {VERSION}")
    print(f"// Written by make_unicode_ranges.py from Unicode {VERSION}; do not edit.")
    print("// clang-format off")
    for name, category in (("kLetterRanges", "L"), ("kNumberRanges", "N")):
        write(name, [c for c in range(0x110000)
                     if unicodedata2.category(chr(c))[0] == category])
    write("kSpaceRanges", SPACES)
    print("// clang-format on")


main()

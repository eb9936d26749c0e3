#!/usr/bin/env python3
"""Writes the texts of format_study.py from Debian packages, the same ones on every machine.

  apt-get download anarchism && dpkg -x anarchism_*.deb F
  tests/eval/format_study_text.py --faq F/usr/share/doc/anarchism/html --out TEXTS

prose.txt is the body of Debian's anarchism FAQ (the text of the published llama.cpp comparison),
code.txt half Python of libpython3.11-stdlib, half C of /usr/include. calibration.txt shares no file
with them: licences, manuals, other Python, other headers, in pieces that alternate.
calibration_long.txt is calibration.txt and as much again.
"""

import argparse
import gzip
import html
import os
import re
import sys

PYTHON = "/usr/lib/python3.11"
TEST_PYTHON = ("heapq.py", "argparse.py", "tarfile.py", "statistics.py")
TEST_C = ("stdlib.h", "elf.h", "zlib.h", "regex.h")
CALIBRATION_PROSE = ("/usr/share/common-licenses/MPL-2.0", "/usr/share/common-licenses/Artistic",
                     "/usr/share/doc/libpng16-16/libpng-manual.txt.gz",
                     "/usr/share/common-licenses/GFDL-1.3", "/usr/share/perl/5.36/pod/perldiag.pod",
                     "/usr/share/doc/coreutils/NEWS.gz")
CALIBRATION_CODE = (PYTHON + "/asyncio/base_events.py", "/usr/include/pthread.h",
                    PYTHON + "/difflib.py", "/usr/include/tgmath.h",
                    PYTHON + "/http/client.py", "/usr/include/sqlite3.h",
                    PYTHON + "/textwrap.py", "/usr/include/string.h")
LONG_PROSE = ("/usr/share/common-licenses/Apache-2.0", "/usr/share/common-licenses/GPL-3",
              "/usr/share/common-licenses/LGPL-2.1", "/usr/share/common-licenses/MPL-1.1",
              "/usr/share/common-licenses/GFDL-1.2")
LONG_CODE = (PYTHON + "/zipfile.py", "/usr/include/unistd.h", PYTHON + "/datetime.py",
             "/usr/include/stdio.h", PYTHON + "/shutil.py")
PIECE_BYTES = 16000


def read(path):
    opened = gzip.open(path, "rb") if path.endswith(".gz") else open(path, "rb")
    with opened as file:
        return file.read().decode("utf-8", "replace")


def plain(page):
    """The text of an HTML page: no tags, no runs of blank lines."""
    body = re.sub(r"(?s)<(head|script|style)\b.*?</\1>|<!--.*?-->", "", page)
    body = re.sub(r"(?i)</?(p|h\d|li|br|div|blockquote)\b[^>]*>", "\n", body)
    body = html.unescape(re.sub(r"<[^>]+>", "", body))
    return re.sub(r"\n\s*\n+", "\n\n", re.sub(r"[ \t]+", " ", body)).strip()


def pieces(paths):
    for path in paths:
        if os.path.exists(path):
            yield read(path)[:PIECE_BYTES]
        else:
            sys.exit(f"{path} is absent: install its package, or take another file and say so")


def main():
    parser = argparse.ArgumentParser(description="texts for format_study.py")
    parser.add_argument("--faq", required=True, help="usr/share/doc/anarchism/html of the package")
    parser.add_argument("--out", required=True)
    arguments = parser.parse_args()
    names = sorted(n for n in os.listdir(arguments.faq) if re.fullmatch(r"sec[A-J]\d+\.html", n))
    prose = [plain(read(os.path.join(arguments.faq, n)))[:PIECE_BYTES] for n in names[::6]]
    code = [text for pair in zip(pieces(os.path.join(PYTHON, n) for n in TEST_PYTHON),
                                 pieces(os.path.join("/usr/include", n) for n in TEST_C))
            for text in pair]
    calibration = [text for pair in zip(pieces(CALIBRATION_PROSE), pieces(CALIBRATION_CODE))
                   for text in pair]
    more = [text for pair in zip(pieces(LONG_PROSE), pieces(LONG_CODE)) for text in pair]
    os.makedirs(arguments.out, exist_ok=True)
    for name, parts in (("prose", prose), ("code", code), ("calibration", calibration),
                        ("calibration_long", calibration + more)):
        with open(os.path.join(arguments.out, name + ".txt"), "w", encoding="utf-8") as file:
            file.write("\n\n".join(parts))


if __name__ == "__main__":
    main()

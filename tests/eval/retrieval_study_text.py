#!/usr/bin/env python3
"""Writes the texts of retrieval_study.py from Debian packages, the same ones on every machine.

  apt-get download anarchism debian-reference-de installation-guide-amd64
  for p in *.deb; do dpkg -x $p F; done
  tests/eval/retrieval_study_text.py --packages F --out TEXTS

cal-*.txt are for calibration, the others for tests; they share no file. Logs are this machine's own
dpkg.log (test) and alternatives.log (calibration), packages.txt is `apt-cache dumpavail`.
"""

import argparse
import glob
import os
import random
import re
import subprocess
import sys

from format_study_text import (CALIBRATION_CODE, CALIBRATION_PROSE, LONG_CODE, LONG_PROSE,
                               PIECE_BYTES, PYTHON, plain, read)

CODE_BYTES = 5000000
DOCUMENTS = "usr/share/doc"


def calibration_texts():
    prose = "\n\n".join(read(p)[:3 * PIECE_BYTES] for p in CALIBRATION_PROSE + LONG_PROSE)
    code = "\n\n".join(read(p)[:PIECE_BYTES] for p in CALIBRATION_CODE + LONG_CODE)
    lines = read("/var/log/alternatives.log").splitlines()
    return {"cal-prose": prose, "cal-code": code,
            "cal-log": "\n".join("Nov 11 " + line for line in lines * 2)}


def test_texts(packages):
    faq = os.path.join(packages, DOCUMENTS, "anarchism/html")
    pages = sorted(n for n in os.listdir(faq) if re.fullmatch(r"(sec|append)[A-J0-9]\w*\.html", n))
    modules = [p for p in sorted(glob.glob(PYTHON + "/**/*.py", recursive=True))
               if p not in CALIBRATION_CODE + LONG_CODE]
    random.Random(7).shuffle(modules)
    guide = "installation-guide-amd64/de/install.de.txt.gz"
    german = read(os.path.join(packages, DOCUMENTS, guide))
    for path in sorted(glob.glob(os.path.join(packages, "usr/share/debian-reference/*.de.html"))):
        german += plain(read(path))
    dump = subprocess.run(["apt-cache", "dumpavail"], capture_output=True, text=True, check=True)
    return {"prose": "\n\n".join(plain(read(os.path.join(faq, n))) for n in pages),
            "code": "\n\n".join(read(p) for p in modules[:400])[:CODE_BYTES],
            "german": german, "log": read("/var/log/dpkg.log"), "packages": dump.stdout}


def main():
    parser = argparse.ArgumentParser(description="texts for retrieval_study.py")
    parser.add_argument("--packages", required=True, help="folder the packages were unpacked to")
    parser.add_argument("--out", required=True)
    arguments = parser.parse_args()
    os.makedirs(arguments.out, exist_ok=True)
    for name, text in (calibration_texts() | test_texts(arguments.packages)).items():
        with open(os.path.join(arguments.out, name + ".txt"), "w", encoding="utf-8") as file:
            file.write(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())

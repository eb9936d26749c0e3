#!/usr/bin/env python3
"""The tree checker: the rules of this code base that a compiler does not know.

  .ci/tidy.py                      every rule that reads text only (a second or two)
  .ci/tidy.py --build build/release  the same, with the rules that need a build folder
  .ci/tidy.py --all                also compiles every header alone
  .ci/tidy.py --clang-tidy         runs clang-tidy only

Each finding is one line: path:line: [rule] what is wrong; the fix.
"""

import argparse
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import tidy_build  # noqa: E402
import tidy_rules  # noqa: E402
from tidy_tree import Tree  # noqa: E402


def main():
    parser = argparse.ArgumentParser(description="check the tree against its own rules")
    parser.add_argument("--root", default=os.path.join(os.path.dirname(__file__), ".."))
    parser.add_argument("--build", help="a configured and built folder, such as build/release")
    parser.add_argument("--all", action="store_true", help="also compile every header alone")
    parser.add_argument("--clang-tidy", action="store_true", help="run clang-tidy and nothing else")
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    arguments = parser.parse_args()

    tree = Tree(arguments.root)
    build = tidy_build.Build.open(tree, arguments.build)
    findings, notes = [], []
    if arguments.clang_tidy:
        tidy_build.check_clang_tidy(tree, build, arguments.jobs, findings, notes)
    else:
        for rule in tidy_rules.RULES:
            findings += rule(tree)
        tidy_build.check_format(tree, findings, notes)
        tidy_build.check_weak_symbols(tree, build, findings, notes)
        if arguments.all:
            tidy_build.check_headers_alone(tree, build, arguments.jobs, findings, notes)
    for finding in sorted(set(findings)):
        print(finding)
    for note in notes:
        print("tidy: not checked: " + note)
    print(f"tidy: {len(tree.files)} files, {len(set(findings))} findings")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())

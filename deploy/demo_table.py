"""Reads the answers that deploy/demo kept (LABEL.NUMBER.json), prints the table, checks the claims.

usage: demo_table.py FOLDER [WORDS EXPECTED IN ANSWER 0] [... 1] ...
Exit 1 when a claim does not hold.
"""

import json
import os
import sys

RATIO_MIN = 20


def load(folder):
    answers = {}
    for file_name in os.listdir(folder):
        parts = file_name.split(".")
        if len(parts) == 3 and parts[2] == "json":
            with open(os.path.join(folder, file_name), encoding="utf-8") as file:
                answers[parts[0], int(parts[1])] = json.load(file)
    return answers


def bytes_text(count):
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024 or unit == "GiB":
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return ""


def milliseconds(value):
    return f"{value / 1000:.2f} s" if value >= 1000 else f"{value:.1f} ms"


def row(label, question, answer):
    usage, timing, read = answer["usage"], answer["timing"], answer["read"]
    return (label, question, f"{usage['cached_tokens']:,}", f"{usage['recomputed_tokens']:,}",
            bytes_text(read["host_bytes"]), bytes_text(read["disk_bytes"]),
            milliseconds(timing["first_token_ms"]), milliseconds(timing["total_ms"]))


def print_table(rows):
    heads = ("", "question", "cached", "recomputed", "from memory", "from disk", "first token",
             "total")
    widths = [max(len(line[i]) for line in [heads, *rows]) for i in range(len(heads))]
    for line in [heads, *rows]:
        print("  ".join(text.ljust(width) if i == 0 else text.rjust(width)
                        for i, (text, width) in enumerate(zip(line, widths))).rstrip())


def main():
    folder, expected = sys.argv[1], sys.argv[2:]
    answers = load(folder)
    numbers = sorted(number for label, number in answers if label == "after")
    cold = answers["cold", 0]
    rows = [row("cold prefill", "1", cold)]
    for label, text in (("before", "follow-up"), ("after", "follow-up after restart")):
        rows += [row(text, str(n + 1), answers[label, n]) for n in numbers]
    print_table(rows)
    print()

    follow_ups = [answers[label, n] for label in ("before", "after") for n in numbers]
    recomputed = sum(a["usage"]["recomputed_tokens"] for a in follow_ups)
    same = cold["answer"] == answers["before", 0]["answer"] and all(
        answers["before", n]["answer"] == answers["after", n]["answer"] for n in numbers)
    ratio = cold["timing"]["first_token_ms"] / answers["after", 0]["timing"]["first_token_ms"]
    claims = [
        (recomputed == 0 and all(a["usage"]["cached_tokens"] > 0 for a in follow_ups),
         f"{recomputed} corpus tokens computed again in {len(follow_ups)} follow-ups"),
        (same, "answers byte-identical: cold, cached and after the restart"),
        (ratio >= RATIO_MIN, f"first token after the restart {ratio:.0f} times sooner than cold "
         f"(at least {RATIO_MIN})"),
    ]
    if expected:
        right = sum(words.lower() in answers["after", n]["answer"].lower()
                    for n, words in enumerate(expected))
        claims.append((right == len(expected),
                       f"{right} of {len(expected)} answers hold what the document says"))
    for holds, text in claims:
        print(("ok    " if holds else "FAIL  ") + text)
    return 0 if all(holds for holds, _ in claims) else 1


if __name__ == "__main__":
    sys.exit(main())

"""Reads what deploy/demo kept (LABEL.NUMBER.json), prints the table, checks the claims.

usage: demo_table.py FOLDER [WORDS EXPECTED IN ANSWER 0, END OF ITS FIRST SOURCE] [... 1] ...
Exit 1 when a claim does not hold.
"""

import json
import os
import sys

RATIO_MIN = 20
PIECE_TOKENS = 64  # what a question is about is read anew
LABELS = {"before": "question", "updated": "after the update", "after": "after the restart"}


def read_json(path):
    with open(path, encoding="utf-8") as file:
        return json.load(file)


def load(folder):
    answers = {}
    for file_name in os.listdir(folder):
        parts = file_name.split(".")
        if len(parts) == 3 and parts[2] == "json":
            answers[parts[0], int(parts[1])] = read_json(os.path.join(folder, file_name))
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
    return (label, question, f"{answer['attended_tokens']:,}", f"{usage['recomputed_tokens']:,}",
            bytes_text(read["host_bytes"]), bytes_text(read["disk_bytes"]),
            milliseconds(timing["first_token_ms"]), milliseconds(timing["total_ms"]))


def print_table(rows):
    heads = ("", "question", "attended", "computed", "from memory", "from disk", "first token",
             "total")
    widths = [max(len(line[i]) for line in [heads, *rows]) for i in range(len(heads))]
    for line in [heads, *rows]:
        print("  ".join(text.ljust(width) if i == 0 else text.rjust(width)
                        for i, (text, width) in enumerate(zip(line, widths))).rstrip())


def update_claim(folder, corpus):
    """Whether the last prefill computed no more than the one document that changed."""
    prefills = [job for job in read_json(os.path.join(folder, "jobs.json"))
                if job["kind"] == "prefill"]
    job = max(prefills, key=lambda one: one["id"])
    computed = job["total_tokens"] - job["reused_tokens"]
    changed = [s["tokens"] for s in corpus["sources"] if s["path"].endswith("office-notes.txt")]
    return (changed and 0 < computed <= changed[0] + 16,
            f"the update computed {computed:,} of {job['total_tokens']:,} tokens")


def main():
    folder, expected = sys.argv[1], sys.argv[2:]
    answers = load(folder)
    corpus = read_json(os.path.join(folder, "corpus.json"))
    numbers = sorted(number for label, number in answers if label == "after")
    prefill_ms = corpus["prefill"]["seconds"] * 1000
    rows = [("prefill, once", "", "", f"{corpus['tokens']:,}", "", "", "",
             milliseconds(prefill_ms))]
    for label, text in LABELS.items():
        rows += [row(text, str(n + 1), answers[label, n]) for n in numbers
                 if (label, n) in answers]
    print_table(rows)
    print()

    last = "updated" if ("updated", 0) in answers else "before"
    recomputed = max(a["usage"]["recomputed_tokens"] for a in answers.values())
    same = all(answers[last, n]["answer"] == answers["after", n]["answer"] for n in numbers)
    ratio = prefill_ms / answers["after", 0]["timing"]["first_token_ms"]
    claims = [
        (recomputed <= PIECE_TOKENS, f"at most {recomputed} of {corpus['tokens']:,} corpus tokens "
         f"computed again for an answer: the piece it is about"),
        (same, "answers byte-identical before and after the restart"),
        (ratio >= RATIO_MIN, f"first token after the restart {ratio:.0f} times sooner than the "
         f"prefill took (at least {RATIO_MIN})"),
    ]
    if expected:
        pairs = list(zip(expected[0::2], expected[1::2]))
        right = sum(words.lower() in answers["before", n]["answer"].lower()
                    for n, (words, _) in enumerate(pairs))
        cited = sum(answers["before", n]["citations"][0]["source"].endswith(source)
                    for n, (_, source) in enumerate(pairs))
        claims += [
            (right == len(pairs), f"{right} of {len(pairs)} answers hold what the documents say"),
            (cited == len(pairs), f"{cited} of {len(pairs)} first citations name the right file"),
            update_claim(folder, corpus),
            ("305" in answers["after", 0]["answer"], "the answer after the update is the new one"),
        ]
    for holds, text in claims:
        print(("ok    " if holds else "FAIL  ") + text)
    return 0 if all(holds for holds, _ in claims) else 1


if __name__ == "__main__":
    sys.exit(main())

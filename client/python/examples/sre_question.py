#!/usr/bin/env python3
"""A question over a repository and its logs, with the lines that the answer rests on.

  sre_question.py --name shop --repo ~/shop --logs /var/log/shop "Why did payments fail at 10:03?"
  sre_question.py                      the same over demo/, a repository of three files

Run it again while logs grow: documents that did not change are found by their digests. Logs are
sent in pieces of at most 64 KiB cut between lines, so that what was appended costs one piece.
"""

import argparse
import os
import sys

import corpusd

DEMO = os.path.join(os.path.dirname(os.path.abspath(__file__)), "demo")
PIECE_CHARACTERS = 64 << 10


def log_pieces(folder):
    """Yields (label, text); the label "PATH#LA-LB" lets citations name lines of the whole file."""
    for path, _, names in sorted(os.walk(folder)):
        for name in sorted(names):
            label = os.path.abspath(os.path.join(path, name))
            first, lines, held = 1, [], 0
            with open(label, encoding="utf-8", errors="replace") as file:
                for line in file:
                    if lines and held + len(line) > PIECE_CHARACTERS:
                        yield f"{label}#L{first}-L{first + len(lines) - 1}", "".join(lines)
                        first, lines, held = first + len(lines), [], 0
                    lines.append(line)
                    held += len(line)
            if lines:
                yield f"{label}#L{first}-L{first + len(lines) - 1}", "".join(lines)


def bring_up_to_date(client, name, repository, logs):
    exists = any(corpus.name == name for corpus in client.corpora())
    if exists:
        job = client.update(name, repository, log_pieces(logs))
    else:
        job = client.ingest(name, repository, log_pieces(logs), mode="segmented")
    client.wait(job, progress=corpusd.ProgressBar())
    job = client.job(job)
    computed = job.total_tokens - job.reused_tokens if exists else job.total_tokens
    print(f"{name}: {job.total_tokens:,} tokens, {computed:,} of them computed now",
          file=sys.stderr)


def main():
    parser = argparse.ArgumentParser(description="ask a repository and its logs")
    parser.add_argument("--socket", help="of the daemon")
    parser.add_argument("--name", default="shop", help="of the corpus")
    parser.add_argument("--repo", default=os.path.join(DEMO, "shop"))
    parser.add_argument("--logs", default=os.path.join(DEMO, "logs"))
    parser.add_argument("question", nargs="?",
                        default="What is the connection pool size in the settings?")
    arguments = parser.parse_args()
    try:
        with corpusd.connect(arguments.socket) as client:
            bring_up_to_date(client, arguments.name, arguments.repo, arguments.logs)
            stream = client.stream(arguments.name, arguments.question, max_tokens=64, cite=True)
            for piece in stream:
                print(piece, end="", flush=True)
            answer = stream.answer
    except corpusd.CorpusdError as error:
        print(f"sre_question: {error}", file=sys.stderr)
        return error.exit_code
    print()
    for citation in answer.citations:
        print(f"  {citation}  {citation.weight:.0%}")
    print(f"{answer.usage.cached_tokens} tokens cached, {answer.usage.recomputed_tokens} computed, "
          f"first token after {answer.timing.first_token_ms:.0f} ms", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())

#!/usr/bin/env python3
"""Reviews a contract: a list of questions, asked at the same time, as a table with places.

  contract_review.py lease.txt               the questions below
  contract_review.py lease.txt --questions my-list.txt
  contract_review.py                         over demo/contract.txt

The contract is prefilled once, under the digest of its bytes; a second review computes the
questions alone. Questions that are answered at the same time share one pass over the contract. Read
what it says as a pointer to the clause, not as advice: the default model is small.
"""

import argparse
import asyncio
import hashlib
import os
import sys

import corpusd

DEMO = os.path.join(os.path.dirname(os.path.abspath(__file__)), "demo", "contract.txt")
QUESTIONS = (
    "How much does the customer pay each month?",
    "How long does the agreement run?",
    "How many days before the end must a party give notice?",
    "What is the limit of liability?",
    "Which law applies?",
    "Within how many hours must a breach be reported?",
)


async def review(client, path, questions):
    """RETURNS an answer for each question."""
    with open(path, "rb") as file:
        name = "contract-" + hashlib.sha256(file.read()).hexdigest()[:12]
    if not any(corpus.name == name for corpus in await client.corpora()):
        await client.ingest(name, path, mode="segmented", ttl=30 * 86400)
    await client.wait(name, progress=corpusd.ProgressBar())
    return await asyncio.gather(*(client.ask(name, question, max_tokens=48, cite=True)
                                  for question in questions))


def print_table(questions, answers):
    for question, answer in zip(questions, answers):
        print(question)
        print("  " + " ".join(answer.text.split()))
        for citation in answer.citations[:2]:
            print(f"  [{os.path.basename(citation.path)}:{citation.first_line}-"
                  f"{citation.last_line}]")
    computed = sum(answer.usage.recomputed_tokens for answer in answers)
    cached = sum(answer.usage.cached_tokens for answer in answers)
    print(f"{len(answers)} questions: {cached:,} tokens cached, {computed:,} computed",
          file=sys.stderr)


async def main():
    parser = argparse.ArgumentParser(description="review a contract")
    parser.add_argument("--socket", help="of the daemon")
    parser.add_argument("--questions", help="a file with one question a line")
    parser.add_argument("contract", nargs="?", default=DEMO)
    arguments = parser.parse_args()
    questions = QUESTIONS
    if arguments.questions:
        with open(arguments.questions, encoding="utf-8") as file:
            questions = [line.strip() for line in file if line.strip()]
    try:
        async with await corpusd.connect_async(arguments.socket) as client:
            print_table(questions, await review(client, arguments.contract, questions))
    except corpusd.CorpusdError as error:
        print(f"contract_review: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))

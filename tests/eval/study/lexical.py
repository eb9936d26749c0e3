"""BM25 over the blocks of a corpus, as retrieval_study.py compares and fuses it.

Two kinds of terms: words (the plain method), or parts of words -- "maxRetries_2" is max, retries,
2 -- together with every pair of neighbours, which tells near-identical records apart.
"""

import collections
import math
import re

import numpy

WORD = re.compile(r"\w+")
PART = re.compile(r"[A-Z]+(?=[A-Z][a-z])|[A-Z]?[a-z]+|[A-Z]+|\d+|[^\W\d_]+")


def words(text):
    return WORD.findall(text.lower())


def parts_and_pairs(text):
    parts = [part.lower() for part in PART.findall(text)]
    return parts + [f"{a} {b}" for a, b in zip(parts, parts[1:])]


class Bm25:
    """texts: one string a block."""

    def __init__(self, texts, terms, k1, b):
        self.terms, self.k1, self.b = terms, k1, b
        self.counts = collections.defaultdict(dict)   # term -> block -> times
        lengths = []
        for i, text in enumerate(texts):
            found = terms(text)
            lengths.append(len(found))
            for term in found:
                blocks = self.counts[term]
                blocks[i] = blocks.get(i, 0) + 1
        self.lengths = numpy.array(lengths, dtype=numpy.float64)

    def scores(self, question):
        """RETURNS [blocks]."""
        total = len(self.lengths)
        result = numpy.zeros(total)
        mean = self.lengths.mean()
        for term in sorted(set(self.terms(question))):
            blocks = self.counts.get(term)
            if not blocks:
                continue
            idf = math.log(1 + (total - len(blocks) + 0.5) / (len(blocks) + 0.5))
            index = numpy.fromiter(blocks.keys(), dtype=numpy.int64)
            times = numpy.fromiter(blocks.values(), dtype=numpy.float64)
            length = self.k1 * (1 - self.b + self.b * self.lengths[index] / mean)
            result[index] += idf * times * (self.k1 + 1) / (times + length)
        return result

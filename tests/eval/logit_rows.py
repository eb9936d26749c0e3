"""llama-perplexity's base file and its divergence, in numpy: as logit_base.h and kld_statistics.h.

Rows are float32 logits [rows, vocabulary]. A row of a base file is uint16[row_words]: float32
scale, float32 lowest log-probability, then a code a token; log p = scale * code + lowest.
"""

import math
import struct

import numpy

MAGIC = b"_logits_"
RANGE = numpy.float32(16)


def row_words(vocabulary):
    return 2 * ((vocabulary + 1) // 2) + 4


def first_scored(context):
    return context // 2


def scored(context):
    return context - 1 - first_scored(context)


def log_sums(logits):
    """RETURNS the largest logit of each row and ln(sum exp(logit - largest)), as float32."""
    top = logits.max(axis=1)
    sums = numpy.exp(logits - top[:, None]).sum(axis=1, dtype=numpy.float64)
    return top, numpy.log(sums).astype(numpy.float32)


def encode(logits):
    """RETURNS uint16 [rows, row_words]."""
    rows, vocabulary = logits.shape
    top, log_sum = log_sums(logits)
    bottom = numpy.maximum(logits.min(axis=1), top - RANGE)
    scale = (top - bottom) / numpy.float32(65535)
    inverse = numpy.where(scale > 0, 1 / numpy.where(scale > 0, scale, numpy.float32(1)),
                          numpy.float32(0)).astype(numpy.float32)
    words = numpy.zeros((rows, row_words(vocabulary)), numpy.uint16)
    words[:, 0:4] = numpy.stack([scale, bottom - top - log_sum], axis=1).view(numpy.uint16)
    codes = numpy.rint((logits - bottom[:, None]) * inverse[:, None])
    words[:, 4:4 + vocabulary] = numpy.where(codes > 0, codes, 0)
    return words


class BaseWriter:
    """Rows come window by window, scored(context) for each."""

    def __init__(self, path, context, vocabulary, tokens):
        self.file = open(path, "wb")
        self.file.write(MAGIC + struct.pack("<iii", context, vocabulary, len(tokens) // context))
        self.file.write(numpy.asarray(tokens, "<i4").tobytes())

    def add(self, logits):
        self.file.write(encode(logits).astype("<u2").tobytes())

    def close(self):
        self.file.close()


class BaseReader:
    def __init__(self, path):
        with open(path, "rb") as file:
            if file.read(len(MAGIC)) != MAGIC:
                raise ValueError(f"{path} is no base file")
            self.context, self.vocabulary, self.windows = struct.unpack("<iii", file.read(12))
            count = self.context * self.windows
            self.tokens = numpy.frombuffer(file.read(4 * count), "<i4").reshape(self.windows, -1)
        shape = (self.windows, scored(self.context), row_words(self.vocabulary))
        self.rows = numpy.memmap(path, "<u2", mode="r", offset=20 + 4 * count, shape=shape)


class Divergence:
    """Gathers rows; report() has the names and the meaning of corpus-eval kld's JSON."""

    def __init__(self):
        self.nll, self.base_nll, self.kld, self.same = [], [], [], 0

    def add(self, logits, words, targets):
        """logits [rows, vocabulary] float32, words [rows, row_words], targets [rows]."""
        vocabulary = logits.shape[1]
        top, log_sum = log_sums(logits)
        at = numpy.arange(len(logits)), targets
        head = numpy.ascontiguousarray(words[:, 0:4]).view(numpy.float32)
        scale, lowest = head[:, 0:1], head[:, 1:2]
        codes = words[:, 4:4 + vocabulary]
        base = scale * codes + lowest
        self.nll.append(top + log_sum - logits[at])
        self.base_nll.append(-base[at])
        terms = numpy.exp(base) * (base - logits + (top + log_sum)[:, None])
        terms[base <= -16] = 0
        self.kld.append(terms.sum(axis=1, dtype=numpy.float64))
        self.same += int((logits.argmax(axis=1) == codes.argmax(axis=1)).sum())

    def report(self):
        nll, base, kld = (numpy.concatenate(x).astype(numpy.float64)
                          for x in (self.nll, self.base_nll, self.kld))
        count = len(nll)
        delta = numpy.exp(-nll) - numpy.exp(-base)
        same = self.same / count
        return {"scored_tokens": count, "perplexity": perplexity(nll),
                "base_perplexity": perplexity(base), "log_ratio": mean(nll - base),
                "kld": mean(kld),
                "kld_quantiles": {name: float(numpy.quantile(kld, at)) for name, at in
                                  (("p50", .5), ("p99", .99), ("p99_9", .999), ("maximum", 1))},
                "delta_p_rms": {"value": math.sqrt(float((delta * delta).mean()))},
                "same_top": {"value": same, "error": math.sqrt(same * (1 - same) / (count - 1))}}


def mean(values):
    """A mean and its standard error, which is 0 up to 10 values."""
    variance = float((values * values).mean()) - float(values.mean()) ** 2
    error = math.sqrt(max(0.0, variance) / (len(values) - 1)) if len(values) > 10 else 0.0
    return {"value": float(values.mean()), "error": error}


def perplexity(nll):
    log = mean(nll)
    value = math.exp(log["value"])
    return {"value": value, "error": value * log["error"]}


def check(golden_folder):
    """Holds this file to tests/golden: the base file bit for bit, the figures to 6 digits."""
    import os
    import sys
    sys.path.insert(0, golden_folder)
    import make_logit_base as golden
    path = os.path.join(golden_folder, "logit_base.bin")
    base = BaseReader(path)
    rows = base.windows * scored(base.context)
    expected = numpy.array([[golden.base_logit(r, t) for t in range(base.vocabulary)]
                            for r in range(rows)], numpy.float32)
    logits = numpy.array([[golden.model_logit(r, t) for t in range(base.vocabulary)]
                          for r in range(rows)], numpy.float32)
    words = base.rows.reshape(rows, -1)
    targets = base.tokens[:, first_scored(base.context) + 1:].reshape(-1)
    divergence = Divergence()
    divergence.add(logits, words, targets)
    report = divergence.report()
    if not (numpy.array_equal(encode(expected), words)
            and abs(report["kld"]["value"] - 0.6325658766908969) < 1e-6
            and abs(report["perplexity"]["value"] - 24.505150041104756) < 1e-4
            and report["same_top"]["value"] == 0.5):
        raise AssertionError(f"{path} is not what logit_rows.py makes of the same logits: {report}")

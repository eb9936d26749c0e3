"""What a corpus would take, before it is paid for: the same figures as `corpusctl plan`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from .errors import UsageError
from .records import Corpus, DiskUsage, Prefill
from .sources import Documents

# Of an ordinary question with its chat frame.
_QUESTION_TOKENS = 64
# Around the path in the line that each document begins with; paths are cut finer than prose.
_HEADER_TOKENS = 6
_LABEL_BYTES_PER_TOKEN = 2.5
_PIECE_BYTES = 4 << 10
_PIECES_MAX = 256


@dataclass(frozen=True)
class PlanFormat:
    name: str
    bytes: int
    fits: dict[str, str]
    """by tier: yes, after eviction, no, or none where there is no such tier"""


@dataclass(frozen=True)
class Plan:
    documents: int
    text_bytes: int
    tokens: int
    """about; exact if the daemon saw the whole text"""
    mode: str
    model_name: str
    model_digest: str
    exact_tokens_max: int
    kv_format: str
    formats: tuple[PlanFormat, ...]
    prefill_seconds: float | None
    """None: nothing was prefilled here yet, so no speed is known"""
    prefill_tokens_per_s: float | None
    measured_on: str | None
    cold_tokens: int
    break_even_questions: int | None
    skipped: dict[str, int]


class TextSample:
    """Pieces taken evenly out of a text whose length nobody knows before its end, 1 MiB at most."""

    def __init__(self) -> None:
        self.text_bytes = 0
        self._pieces: list[bytearray] = []
        self._stride = _PIECE_BYTES

    def add(self, text: bytes) -> None:
        while text:
            in_stride = self.text_bytes % self._stride
            if in_stride == 0:
                if len(self._pieces) == _PIECES_MAX:
                    self._pieces = self._pieces[::2]
                    self._stride *= 2
                self._pieces.append(bytearray())
            if in_stride < _PIECE_BYTES:
                taken = text[:_PIECE_BYTES - in_stride]
                self._pieces[-1] += taken
            else:
                taken = text[:self._stride - in_stride]
            self.text_bytes += len(taken)
            text = text[len(taken):]

    def text(self) -> bytes:
        return b"".join(self._pieces)


@dataclass
class PlanText:
    documents: int
    label_bytes: int
    text_bytes: int
    sample: bytes


def read(found: Documents) -> PlanText:
    """Reads the documents as an ingest would, and keeps no more than a sample."""
    sample = TextSample()
    for document in found.documents:
        for piece in document.pieces():
            sample.add(piece)
    labels = sum(len(d.label.encode("utf-8", "replace")) for d in found.documents)
    return PlanText(len(found.documents), labels, sample.text_bytes, sample.text())


def _measured(corpora: Iterable[Corpus], mode: str, digest: str) -> tuple[Prefill, str] | None:
    known = [c for c in corpora if c.prefill.tokens_per_s > 0 and c.model_digest == digest]
    best = max(known, key=lambda c: (c.mode == mode, c.tokens), default=None)
    return None if best is None else (best.prefill, best.name)


def _fit(usage: DiskUsage, tier_name: str, size: int) -> str:
    for tier in usage.tiers:
        if tier.name == tier_name and tier.capacity_bytes:
            if size <= tier.free_bytes:
                return "yes"
            pinned = min(tier.pinned_bytes, tier.capacity_bytes)
            return "after eviction" if size <= tier.capacity_bytes - pinned else "no"
    return "none"


def reckon(found: Documents, text: PlanText, reply: Any, mode: str, corpora: Iterable[Corpus],
           usage: DiskUsage) -> Plan:
    """`reply`: the daemon's to the sample. The arithmetic of client/ctl/corpus_plan.cc."""
    if mode not in ("auto", "exact", "segmented"):
        raise UsageError(f"mode '{mode}' is none of auto, exact, segmented", "invalid_argument")
    tokens = reply.preamble_tokens
    if text.sample:
        tokens += round(reply.sample_tokens / len(text.sample) * text.text_bytes)
    if mode == "auto":
        mode = "exact" if tokens <= reply.exact_tokens_max else "segmented"
    block_tokens = max(reply.block_tokens, 1)
    blocks = -(-tokens // block_tokens)
    if mode == "segmented":
        tokens += text.documents * _HEADER_TOKENS + int(text.label_bytes / _LABEL_BYTES_PER_TOKEN)
        # The last block of each document is half empty on average.
        blocks = tokens // block_tokens + (text.documents + 1) // 2 + 1
    cold_tokens = min(tokens, reply.exact_tokens_max)
    saved = cold_tokens - _QUESTION_TOKENS
    measured = _measured(corpora, mode, reply.model_digest)
    formats = tuple(
        PlanFormat(f.name, blocks * f.block_bytes,
                   {tier: _fit(usage, tier, blocks * f.block_bytes)
                    for tier in ("device", "host", "disk")})
        for f in reply.formats)
    return Plan(
        documents=text.documents, text_bytes=text.text_bytes, tokens=tokens, mode=mode,
        model_name=reply.model_name, model_digest=reply.model_digest,
        exact_tokens_max=reply.exact_tokens_max, kv_format=reply.default_format, formats=formats,
        prefill_seconds=tokens / measured[0].tokens_per_s if measured else None,
        prefill_tokens_per_s=measured[0].tokens_per_s if measured else None,
        measured_on=measured[1] if measured else None, cold_tokens=cold_tokens,
        break_even_questions=-(-tokens // saved) if saved > 0 else None,
        skipped={reason: len(paths) for reason, paths in found.skipped.items()})

"""What the daemon answers to a question, as values with the names of `corpusctl ask -o json`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Usage:
    prompt_tokens: int
    cached_tokens: int
    recomputed_tokens: int
    completion_tokens: int


@dataclass(frozen=True)
class Timing:
    queue_ms: float
    load_ms: float
    first_token_ms: float
    total_ms: float
    decode_tokens_per_s: float


@dataclass(frozen=True)
class Read:
    """Bytes of stored blocks that the question read, by the tier they came from."""

    device_bytes: int
    host_bytes: int
    disk_bytes: int
    remote_bytes: int


@dataclass(frozen=True)
class Selection:
    """Of a segmented corpus: how many of its blocks were attended to."""

    candidate_blocks: int
    chosen_blocks: int
    select_ms: float


_LINES = re.compile(r"(?P<path>.+)#L(?P<first>[1-9][0-9]*)(?:-L(?P<last>[1-9][0-9]*))?\Z",
                    re.DOTALL)


@dataclass(frozen=True)
class Citation:
    source: str
    first_token: int
    tokens: int
    weight: float
    path: str
    """the file that the source is, or is a part of"""
    first_line: int | None
    """of that file, from 1; None: not known"""
    last_line: int | None

    @classmethod
    def from_message(cls, m: Any) -> Citation:
        path, first, last = m.source, m.first_line or None, m.last_line or None
        # "PATH#LA-LB" holds the lines A to B of PATH; "PATH#LA" was made of line A alone.
        found = _LINES.match(m.source)
        if found and first:
            begin, end = int(found["first"]), int(found["last"] or found["first"])
            if end >= begin:
                path = found["path"]
                span = end - begin if found["last"] else 0
                last = begin + min((last or first) - 1, span)
                first = begin + min(first - 1, span)
        return cls(m.source, m.first_token, m.tokens, m.weight, path, first, last)

    def __str__(self) -> str:
        if self.first_line is None:
            return f"{self.source} tokens {self.first_token} to {self.first_token + self.tokens}"
        lines = str(self.first_line)
        if self.last_line and self.last_line > self.first_line:
            lines += f"-{self.last_line}"
        return f"{self.path}:{lines}"


@dataclass(frozen=True)
class TokenLogprob:
    """A token, and how likely the model itself held it: before temperature and penalties."""

    token: str
    """its text, with U+FFFD where that is no whole UTF-8; `bytes` is exact"""
    bytes: bytes
    id: int
    logprob: float
    top: tuple[TokenLogprob, ...]
    """the likeliest in this place, the best first; none unless asked for"""

    @classmethod
    def from_message(cls, m: Any) -> TokenLogprob:
        return cls(m.token.decode("utf-8", "replace"), m.token, m.id, m.logprob,
                   tuple(cls.from_message(other) for other in m.top))


class AnswerPiece(str):
    """A piece of a streamed answer: its text, of which answer it is, and its tokens' logprobs."""

    answer_index: int
    logprobs: tuple[TokenLogprob, ...]

    @classmethod
    def from_message(cls, m: Any) -> AnswerPiece:
        piece = cls(m.text)
        piece.answer_index = m.index
        piece.logprobs = tuple(TokenLogprob.from_message(t) for t in m.logprobs)
        return piece


@dataclass(frozen=True)
class Choice:
    """One of the answers to a question."""

    index: int
    text: str
    finish_reason: str
    """stop, length or cancelled"""
    stop: str | None
    """the stop string that ended it"""
    tokens: int
    logprobs: tuple[TokenLogprob, ...]

    @classmethod
    def from_message(cls, m: Any) -> Choice:
        return cls(m.index, m.text, m.finish_reason, m.stop or None, m.tokens,
                   tuple(TokenLogprob.from_message(t) for t in m.logprobs))


@dataclass(frozen=True)
class Answer:
    text: str
    """of the first answer, as is finish_reason"""
    finish_reason: str
    """stop, length or cancelled"""
    answers: tuple[Choice, ...]
    """all of them: `n`"""
    usage: Usage
    timing: Timing
    read: Read
    attended_tokens: int
    citations: tuple[Citation, ...]
    selection: Selection | None

    @classmethod
    def from_message(cls, m: Any) -> Answer:
        u, t, r = m.usage, m.timing, m.read
        selection = None
        if m.HasField("selection"):
            s = m.selection
            selection = Selection(s.candidate_blocks, s.chosen_blocks, s.select_ms)
        return cls(
            text=m.answer, finish_reason=m.finish_reason,
            answers=tuple(Choice.from_message(a) for a in m.answers),
            usage=Usage(u.prompt_tokens, u.cached_tokens, u.recomputed_tokens,
                        u.completion_tokens),
            timing=Timing(t.queue_ms, t.load_ms, t.first_token_ms, t.total_ms,
                          t.decode_tokens_per_s),
            read=Read(r.device_bytes, r.host_bytes, r.disk_bytes, r.remote_bytes),
            attended_tokens=m.attended_tokens,
            citations=tuple(Citation.from_message(c) for c in m.citations), selection=selection)

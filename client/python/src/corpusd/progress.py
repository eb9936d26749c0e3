"""Progress of a job as a line that rewrites itself, like corpusctl's."""

from __future__ import annotations

import shutil
import sys
import time
from typing import TextIO

from .records import Job

_BAR_COLUMNS_MAX = 30
_BAR_COLUMNS_MIN = 8
_PLAIN_INTERVAL_S = 2.0


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.0f}s"
    minutes, rest = divmod(int(seconds), 60)
    if minutes < 60:
        return f"{minutes}m{rest:02}s"
    return f"{minutes // 60}h{minutes % 60:02}m"


def describe(job: Job, separator: str = "  ") -> str:
    """"120/400 tokens  812 tokens/s  ETA 3s"."""
    parts = [f"{job.done_tokens:,}/{job.total_tokens:,} tokens"]
    if job.tokens_per_s > 0:
        parts.append(f"{job.tokens_per_s:,.0f} tokens/s")
    if job.eta_s is not None and not job.ended:
        parts.append(f"ETA {_duration(job.eta_s)}")
    if job.ended:
        parts.append(job.state)
    return separator.join(parts)


def bar(job: Job, width: int) -> str:
    """One line of at most `width` columns."""
    before, percent = f"{job.corpus}  ", int(100 * job.share)
    after = f"{percent:3}%  {describe(job)}"
    room = width - len(before) - len(after) - 3
    line = before
    if room >= _BAR_COLUMNS_MIN:
        columns = min(room, _BAR_COLUMNS_MAX)
        filled = columns * percent // 100
        line += "[" + "#" * filled + "." * (columns - filled) + "] "
    return (line + after)[:width]


class ProgressBar:
    """A progress callback: `client.wait(job, progress=ProgressBar())`.

    On a terminal it rewrites one line; elsewhere it prints one every tenth of the way or two
    seconds. Not for several jobs at once: make one each.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = sys.stderr if stream is None else stream
        self._terminal = self._stream.isatty()
        self._printed_at = float("-inf")
        self._tenth = -1

    def __call__(self, job: Job) -> None:
        if self._terminal:
            # One column stays free: a full line would wrap.
            line = bar(job, shutil.get_terminal_size().columns - 1)
            self._stream.write(f"\r{line}\x1b[K" + ("\n" if job.ended else ""))
        else:
            tenth, now = int(10 * job.share), time.monotonic()
            if tenth <= self._tenth and now - self._printed_at < _PLAIN_INTERVAL_S and \
                    not job.ended:
                return
            self._tenth, self._printed_at = tenth, now
            self._stream.write(f"{job.corpus}: {int(100 * job.share)}% {describe(job, ', ')}\n")
        self._stream.flush()

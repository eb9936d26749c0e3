"""What both clients share of timeouts and of waiting for a corpus."""

from __future__ import annotations

from typing import Final, Union

from .errors import error_of
from .records import Corpus, Job



class Default:
    """Of a call's timeout: the client's own."""


JobLike = Union[int, Job]
Timeout = Union[float, None, Default]

DEFAULT: Final = Default()
NO_LIMIT: Final = None
#: how often a corpus without a job to watch is looked at again
LOOK_AGAIN_S = 0.25


def job_id_of(job: JobLike) -> int:
    return job.id if isinstance(job, Job) else job


def corpus_of_job(job: Job) -> str:
    """The corpus that a job that is done has made: an update's takes the place of the old one."""
    return job.corpus.removesuffix("~update")


def next_step(corpus: Corpus) -> int:
    """RETURNS -1 if it is ready, the job to watch, or 0: look again later. Raises if it will not
    become ready."""
    if corpus.state == "ready":
        return -1
    if corpus.state == "failed":
        code = corpus.error.split(": ", 1)[0]
        raise error_of(code, f"corpus '{corpus.name}' failed: {corpus.error}")
    if corpus.state == "cancelled":
        raise error_of("cancelled", f"corpus '{corpus.name}' was cancelled")
    if corpus.state == "evicted" and not corpus.job_id:
        raise error_of("not_ready", f"corpus '{corpus.name}' was {corpus.error}; warm it")
    return corpus.job_id

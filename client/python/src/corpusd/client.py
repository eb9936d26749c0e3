"""The synchronous client. Thread-safe: any number of threads may share one, and one connection."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from types import TracebackType
from typing import Any, TypeVar

from . import answers, bundles
from . import plan as planning
from . import protocol, records, sources, verbs
from .connection import Connection, PendingCall
from .bundles import BundleFile
from .errors import error_of, error_of_job
from .sources import DEFAULT_EXCLUDE, Paths, Texts
from .waiting import (DEFAULT, LOOK_AGAIN_S, NO_LIMIT, Default, JobLike, Timeout, corpus_of_job,
                      job_id_of, next_step)

T = TypeVar("T")


class AnswerStream(Iterator[answers.AnswerPiece]):
    """The pieces of an answer as they come; `answer` once they have.

    Leaving early (`close`, the end of a `with`, or dropping the last reference) cancels the
    question at the daemon.
    """

    def __init__(self, verb: protocol.Verb[answers.Answer], call: PendingCall) -> None:
        self._verb = verb
        self._call = call
        self._answer: answers.Answer | None = None

    def __next__(self) -> answers.AnswerPiece:
        if self._call.ended:
            raise StopIteration
        piece = verbs.ask_piece(self._verb, self._call.next())
        if isinstance(piece, answers.AnswerPiece):
            return piece
        self._answer = piece
        raise StopIteration

    @property
    def answer(self) -> answers.Answer:
        """The answer whole, with usage, timing and citations. Reads what has not come yet."""
        for _ in self:
            pass
        if self._answer is None:
            raise error_of("cancelled", "the answer was given up before its end")
        return self._answer

    def close(self) -> None:
        self._call.cancel()

    def __enter__(self) -> AnswerStream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        call: PendingCall | None = getattr(self, "_call", None)
        if call is not None:
            call.cancel()


class Client:
    """A connection to a daemon. `timeout` is for calls that should be quick, in seconds; questions,
    ingests, waits and moves between tiers have none unless one is given to the call. None: none."""

    def __init__(self, socket_path: str | None = None, *, timeout: float | None = 30.0,
                 connect_timeout: float | None = 5.0) -> None:
        self._timeout = timeout
        path = protocol.default_socket_path() if socket_path is None else socket_path
        self._connection = Connection(path, connect_timeout)

    def close(self) -> None:
        """Ends the connection; the daemon stops what it was asked over it. Jobs go on."""
        self._connection.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.close()

    def _start(self, request: Any, timeout: Timeout) -> PendingCall:
        seconds = self._timeout if isinstance(timeout, Default) else timeout
        return self._connection.start(request, seconds)

    def _call(self, verb: protocol.Verb[T], timeout: Timeout = DEFAULT) -> T:
        return verb.value_of(self._start(verb.request, timeout).next())

    # --- the daemon

    def version(self) -> records.Version:
        return self._call(verbs.version())

    def ping(self) -> float:
        """Seconds since the daemon's start."""
        return self._call(verbs.ping())

    def stats(self) -> dict[str, records.Metric]:
        """Every metric that the daemon has, by name: "corpusd_tokens_total", ..."""
        return self._call(verbs.stats())

    def df(self) -> records.DiskUsage:
        return self._call(verbs.df())

    def doctor(self, *, timeout: Timeout = NO_LIMIT) -> list[records.Check]:
        return self._call(verbs.doctor(), timeout)

    # --- corpora

    def corpora(self) -> list[records.Corpus]:
        return self._call(verbs.list_corpora())

    def get(self, name: str) -> records.Corpus:
        return self._call(verbs.get(name))

    def delete(self, name: str, *, timeout: Timeout = NO_LIMIT) -> None:
        """Cancels a job that works on it first."""
        self._call(verbs.delete(name), timeout)

    def rename(self, name: str, to: str) -> None:
        self._call(verbs.rename(name, to))

    def pin(self, name: str, *, tier: str | None = None, ttl: float | None = None,
            reason: str | None = None, keep: bool = True,
            timeout: Timeout = NO_LIMIT) -> records.Corpus:
        """`ttl` in seconds. With `keep`, what is not said of a pin that stands stays."""
        return self._call(verbs.pin(name, tier, ttl, reason, keep), timeout)

    def unpin(self, name: str) -> records.Corpus:
        return self._call(verbs.unpin(name))

    def evict(self, name: str | None = None, *, tier: str = "", dry_run: bool = False,
              to_free: int | None = None, timeout: Timeout = NO_LIMIT) -> records.Eviction:
        """Of one corpus, or of as much as gives `to_free` bytes back; from `tier`."""
        return self._call(verbs.evict(name, tier, dry_run, to_free), timeout)

    def warm(self, name: str, *, to: str = "host", timeout: Timeout = NO_LIMIT) -> records.Warmth:
        return self._call(verbs.warm(name, to), timeout)

    def touch(self, name: str, *, ttl: float | None = None, priority: str | None = None,
              never_expires: bool = False) -> records.Corpus:
        """Changes the expiry (`ttl` in seconds from now), the priority, or neither."""
        return self._call(verbs.touch(name, ttl, priority, never_expires))

    def verify(self, name: str, *, repair: bool = False,
               progress: Callable[[int, int], None] | None = None,
               timeout: Timeout = NO_LIMIT) -> records.Verification:
        """`progress` gets blocks done and in all."""
        verb = verbs.verify(name, repair)
        call = self._start(verb.request, timeout)
        try:
            while True:
                found = verbs.verify_progress(verb, call.next())
                if isinstance(found, records.Verification):
                    return found
                if progress is not None:
                    progress(*found)
        finally:
            call.cancel()

    # --- making them

    def ingest(self, name: str, paths: Paths = (), texts: Texts = (), *, mode: str = "auto",
               kv_format: str = "", preamble: str = "", pin: bool = False,
               ttl: float | None = None, priority: str = "",
               exclude: Iterable[str] = DEFAULT_EXCLUDE,
               timeout: Timeout = NO_LIMIT) -> records.Job:
        """Sends files, folders and texts as a new corpus. RETURNS its job: see `wait`."""
        found = sources.gather(paths, texts, exclude)
        options = verbs.IngestOptions(mode=mode, kv_format=kv_format, preamble=preamble, pin=pin,
                                      ttl=ttl, priority=priority)
        return self._send(verbs.ingest(name, found, options), found, timeout)

    def append(self, name: str, paths: Paths = (), texts: Texts = (), *,
               exclude: Iterable[str] = DEFAULT_EXCLUDE,
               timeout: Timeout = NO_LIMIT) -> records.Job:
        """Makes an exact corpus longer."""
        found = sources.gather(paths, texts, exclude)
        return self._send(verbs.append(name, found), found, timeout)

    def update(self, name: str, paths: Paths | None = None, texts: Texts = (), *,
               exclude: Iterable[str] = DEFAULT_EXCLUDE,
               timeout: Timeout = NO_LIMIT) -> records.Job:
        """Gives a segmented corpus these sources in place of its own; what is unchanged is not
        computed again. Without paths and texts, those that it was made of are read again."""
        if paths is None:
            paths = () if texts else sources.roots_to_read(name, self.get(name).roots)
        found = sources.gather(paths, texts, exclude)
        return self._send(verbs.update(name, found), found, timeout)

    def resume(self, name: str) -> records.Job:
        """Goes on with a prefill that was cancelled or has failed."""
        found = sources.Documents()
        return self._send(verbs.append(name, found), found, DEFAULT)

    def _send(self, verb: protocol.Verb[records.Job], found: sources.Documents,
              timeout: Timeout) -> records.Job:
        call = self._start(verb.request, timeout)
        try:
            for request in verbs.ingest_frames(found):
                if call.refusal():
                    break
                call.send(request)
            return verb.value_of(call.next())
        finally:
            call.cancel()

    def plan(self, paths: Paths = (), texts: Texts = (), *, mode: str = "auto",
             preamble: str = "", exclude: Iterable[str] = DEFAULT_EXCLUDE) -> planning.Plan:
        """What a corpus of these would take. Nothing is stored."""
        found = sources.gather(paths, texts, exclude)
        text = planning.read(found)
        reply = self._call(verbs.plan(text.sample, preamble))
        return planning.reckon(found, text, reply, mode, self.corpora(), self.df())

    # --- moving them to another daemon

    def export(self, name: str, target: BundleFile, *, overwrite: bool = False,
               progress: Callable[[int, int], None] | None = None,
               timeout: Timeout = NO_LIMIT) -> records.Exported:
        """Writes a corpus as one checked, compressed file: to a path, which appears once it is
        whole, or to an open binary file. `progress` gets blocks done and in all."""
        verb = verbs.export(name)
        with bundles.writing(target, overwrite) as write:
            call = self._start(verb.request, timeout)
            try:
                for _ in range(verbs.EXPORT_PIECES_AHEAD):
                    call.send(verbs.export_next())
                while True:
                    found = verbs.export_piece(verb, call.next())
                    if isinstance(found, records.Exported):
                        return found
                    write(found.content)
                    if progress is not None:
                        progress(found.done_blocks, found.total_blocks)
                    call.send(verbs.export_next())
            finally:
                call.cancel()

    def import_(self, source: BundleFile, *, name: str = "",
                progress: Callable[[int, int], None] | None = None,
                timeout: Timeout = NO_LIMIT) -> records.Imported:
        """Reads a bundle from a path or an open binary file; `name` is another than its own."""
        verb = verbs.import_(name)

        def report(response: Any) -> records.Imported | None:
            found = verbs.import_progress(verb, response)
            if isinstance(found, records.Imported):
                return found
            if progress is not None:
                progress(*found)
            return None

        with bundles.reading(source) as pieces:
            call = self._start(verb.request, timeout)
            try:
                for request in verbs.import_frames(pieces):
                    while call.refusal():  # raises it; else how far the daemon is
                        report(call.next())
                    call.send(request)
                while True:
                    imported = report(call.next())
                    if imported is not None:
                        return imported
            finally:
                call.cancel()

    # --- asking

    def ask(self, name: str, question: str, *, max_tokens: int = 0, temperature: float = 0.0,
            seed: int = 0, top_p: float = 1.0, cite: bool = False, no_cache: bool = False,
            budget_tokens: int = 0, retrieval: str = "", top_k: int = 0, min_p: float = 0.0,
            repetition_penalty: float = 0.0, presence_penalty: float = 0.0,
            frequency_penalty: float = 0.0, stop: Sequence[str] = (),
            repetition_window: int = 0, n: int = 1, logprobs: int | None = None,
            timeout: Timeout = NO_LIMIT) -> answers.Answer:
        """`n` answers of at most `max_tokens` each; `logprobs` says how likely each token was, and
        so many of the likeliest in its place."""
        options = verbs.AskOptions(
            max_tokens=max_tokens, temperature=temperature, seed=seed, top_p=top_p, cite=cite,
            no_cache=no_cache, budget_tokens=budget_tokens, retrieval=retrieval, top_k=top_k,
            min_p=min_p, repetition_penalty=repetition_penalty,
            presence_penalty=presence_penalty, frequency_penalty=frequency_penalty, stop=stop,
            repetition_window=repetition_window, n=n, logprobs=logprobs)
        return self._call(verbs.ask(name, question, options, stream=False), timeout)

    def stream(self, name: str, question: str, *, max_tokens: int = 0,
               temperature: float = 0.0, seed: int = 0, top_p: float = 1.0, cite: bool = False,
               no_cache: bool = False, budget_tokens: int = 0, retrieval: str = "", top_k: int = 0,
               min_p: float = 0.0, repetition_penalty: float = 0.0, presence_penalty: float = 0.0,
               frequency_penalty: float = 0.0, stop: Sequence[str] = (),
               repetition_window: int = 0, n: int = 1, logprobs: int | None = None,
               timeout: Timeout = NO_LIMIT) -> AnswerStream:
        """`ask`, piece by piece: `for piece in client.stream(...)`. With `n`, pieces of several
        answers come in turn: see `piece.answer_index`."""
        options = verbs.AskOptions(
            max_tokens=max_tokens, temperature=temperature, seed=seed, top_p=top_p, cite=cite,
            no_cache=no_cache, budget_tokens=budget_tokens, retrieval=retrieval, top_k=top_k,
            min_p=min_p, repetition_penalty=repetition_penalty,
            presence_penalty=presence_penalty, frequency_penalty=frequency_penalty, stop=stop,
            repetition_window=repetition_window, n=n, logprobs=logprobs)
        verb = verbs.ask(name, question, options, stream=True)
        return AnswerStream(verb, self._start(verb.request, timeout))

    # --- jobs

    def jobs(self) -> list[records.Job]:
        return self._call(verbs.jobs())

    def job(self, job: JobLike) -> records.Job:
        return self._call(verbs.job(job_id_of(job)))

    def cancel(self, job: JobLike) -> records.Job:
        return self._call(verbs.cancel(job_id_of(job)))

    def watch(self, job: JobLike, *, timeout: Timeout = NO_LIMIT) -> Iterator[records.Job]:
        """The job as it moves, several times a second at most, until it has ended. Leaving the
        iterator lets the job run on."""
        verb = verbs.watch(job_id_of(job))
        call = self._start(verb.request, timeout)
        try:
            while not call.ended:
                yield verb.value_of(call.next())
        finally:
            call.cancel()

    def wait(self, target: JobLike | str, *, timeout: float | None = None,
             progress: Callable[[records.Job], None] | None = None) -> records.Corpus:
        """Until a job is done, or a corpus of that name is ready. RETURNS the corpus.

        Raises what the job failed of (SpaceError, ...; its `job` tells more), RequestCancelledError
        if it was cancelled, DeadlineError after `timeout` seconds; the job goes on then.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        name = None if not isinstance(target, str) else target
        job_id = 0 if isinstance(target, str) else job_id_of(target)
        while True:
            if job_id:
                job = self._follow(job_id, deadline, progress)
                error = error_of_job(job)
                if error is not None:
                    raise error
                name = corpus_of_job(job)
            assert name is not None
            corpus = self.get(name)
            job_id = next_step(corpus)
            if job_id < 0:
                return corpus
            if job_id == 0:
                if deadline is not None and time.monotonic() > deadline:
                    raise error_of("deadline_exceeded", f"'{name}' is not ready after {timeout} s")
                time.sleep(LOOK_AGAIN_S)

    def _follow(self, job_id: int, deadline: float | None,
                progress: Callable[[records.Job], None] | None) -> records.Job:
        remaining = None if deadline is None else max(deadline - time.monotonic(), 0.001)
        last = None
        for last in self.watch(job_id, timeout=remaining):
            if progress is not None:
                progress(last)
        assert last is not None  # the daemon says the job at once
        return last


def connect(socket_path: str | None = None, *, timeout: float | None = 30.0) -> Client:
    """A client of the daemon at `socket_path`, else $CORPUSD_SOCKET, else where daemons listen."""
    return Client(socket_path, timeout=timeout)

"""The asyncio client: the same verbs as `Client`, awaited. One event loop; any number of tasks."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from types import TracebackType
from typing import Any, TypeVar

from . import answers, bundles
from . import plan as planning
from . import protocol, records, sources, verbs
from .aio_connection import AsyncConnection, AsyncPendingCall
from .bundles import BundleFile
from .errors import error_of, error_of_job
from .sources import DEFAULT_EXCLUDE, Paths, Texts
from .waiting import (DEFAULT, LOOK_AGAIN_S, NO_LIMIT, Default, JobLike, Timeout, corpus_of_job,
                      job_id_of, next_step)

T = TypeVar("T")


class AsyncAnswerStream(AsyncIterator[answers.AnswerPiece]):
    """As AnswerStream: leaving early (`aclose`, the end of an `async with`, dropping the last
    reference) cancels the question at the daemon."""

    def __init__(self, verb: protocol.Verb[answers.Answer], call: AsyncPendingCall) -> None:
        self._verb = verb
        self._call = call
        self._answer: answers.Answer | None = None

    async def __anext__(self) -> answers.AnswerPiece:
        if self._call.ended:
            raise StopAsyncIteration
        piece = verbs.ask_piece(self._verb, await self._call.next())
        if isinstance(piece, answers.AnswerPiece):
            return piece
        self._answer = piece
        raise StopAsyncIteration

    async def answer(self) -> answers.Answer:
        """The answer whole. Reads what has not come yet."""
        async for _ in self:
            pass
        if self._answer is None:
            raise error_of("cancelled", "the answer was given up before its end")
        return self._answer

    async def aclose(self) -> None:
        self._call.cancel()

    async def __aenter__(self) -> AsyncAnswerStream:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def __del__(self) -> None:
        call: AsyncPendingCall | None = getattr(self, "_call", None)
        if call is not None:
            call.cancel_from_anywhere()


class AsyncClient:
    """Made by `await connect_async()`. Timeouts as of `Client`."""

    def __init__(self, connection: AsyncConnection, timeout: float | None) -> None:
        self._connection = connection
        self._timeout = timeout

    async def close(self) -> None:
        await self._connection.close()

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None,
                        trace: TracebackType | None) -> None:
        await self.close()

    async def _start(self, request: Any, timeout: Timeout) -> AsyncPendingCall:
        seconds = self._timeout if isinstance(timeout, Default) else timeout
        return await self._connection.start(request, seconds)

    async def _call(self, verb: protocol.Verb[T], timeout: Timeout = DEFAULT) -> T:
        call = await self._start(verb.request, timeout)
        return verb.value_of(await call.next())

    # --- the daemon

    async def version(self) -> records.Version:
        return await self._call(verbs.version())

    async def ping(self) -> float:
        """Seconds since the daemon's start."""
        return await self._call(verbs.ping())

    async def stats(self) -> dict[str, records.Metric]:
        """Every metric that the daemon has, by name: "corpusd_tokens_total", ..."""
        return await self._call(verbs.stats())

    async def df(self) -> records.DiskUsage:
        return await self._call(verbs.df())

    async def doctor(self, *, timeout: Timeout = NO_LIMIT) -> list[records.Check]:
        return await self._call(verbs.doctor(), timeout)

    # --- corpora

    async def corpora(self) -> list[records.Corpus]:
        return await self._call(verbs.list_corpora())

    async def get(self, name: str) -> records.Corpus:
        return await self._call(verbs.get(name))

    async def delete(self, name: str, *, timeout: Timeout = NO_LIMIT) -> None:
        await self._call(verbs.delete(name), timeout)

    async def rename(self, name: str, to: str) -> None:
        await self._call(verbs.rename(name, to))

    async def pin(self, name: str, *, tier: str | None = None, ttl: float | None = None,
                  reason: str | None = None, keep: bool = True,
                  timeout: Timeout = NO_LIMIT) -> records.Corpus:
        return await self._call(verbs.pin(name, tier, ttl, reason, keep), timeout)

    async def unpin(self, name: str) -> records.Corpus:
        return await self._call(verbs.unpin(name))

    async def evict(self, name: str | None = None, *, tier: str = "", dry_run: bool = False,
                    to_free: int | None = None, timeout: Timeout = NO_LIMIT) -> records.Eviction:
        return await self._call(verbs.evict(name, tier, dry_run, to_free), timeout)

    async def warm(self, name: str, *, to: str = "host",
                   timeout: Timeout = NO_LIMIT) -> records.Warmth:
        return await self._call(verbs.warm(name, to), timeout)

    async def touch(self, name: str, *, ttl: float | None = None, priority: str | None = None,
                    never_expires: bool = False) -> records.Corpus:
        return await self._call(verbs.touch(name, ttl, priority, never_expires))

    async def verify(self, name: str, *, repair: bool = False,
                     progress: Callable[[int, int], None] | None = None,
                     timeout: Timeout = NO_LIMIT) -> records.Verification:
        verb = verbs.verify(name, repair)
        call = await self._start(verb.request, timeout)
        try:
            while True:
                found = verbs.verify_progress(verb, await call.next())
                if isinstance(found, records.Verification):
                    return found
                if progress is not None:
                    progress(*found)
        finally:
            call.cancel()

    # --- making them

    async def ingest(self, name: str, paths: Paths = (), texts: Texts = (), *,
                     mode: str = "auto", kv_format: str = "", preamble: str = "",
                     pin: bool = False, ttl: float | None = None, priority: str = "",
                     exclude: Iterable[str] = DEFAULT_EXCLUDE,
                     timeout: Timeout = NO_LIMIT) -> records.Job:
        found = await asyncio.to_thread(sources.gather, paths, texts, exclude)
        options = verbs.IngestOptions(mode=mode, kv_format=kv_format, preamble=preamble, pin=pin,
                                      ttl=ttl, priority=priority)
        return await self._send(verbs.ingest(name, found, options), found, timeout)

    async def append(self, name: str, paths: Paths = (), texts: Texts = (), *,
                     exclude: Iterable[str] = DEFAULT_EXCLUDE,
                     timeout: Timeout = NO_LIMIT) -> records.Job:
        found = await asyncio.to_thread(sources.gather, paths, texts, exclude)
        return await self._send(verbs.append(name, found), found, timeout)

    async def update(self, name: str, paths: Paths | None = None, texts: Texts = (), *,
                     exclude: Iterable[str] = DEFAULT_EXCLUDE,
                     timeout: Timeout = NO_LIMIT) -> records.Job:
        if paths is None:
            paths = ()
            if not texts:
                paths = sources.roots_to_read(name, (await self.get(name)).roots)
        found = await asyncio.to_thread(sources.gather, paths, texts, exclude)
        return await self._send(verbs.update(name, found), found, timeout)

    async def resume(self, name: str) -> records.Job:
        found = sources.Documents()
        return await self._send(verbs.append(name, found), found, DEFAULT)

    async def _send(self, verb: protocol.Verb[records.Job], found: sources.Documents,
                    timeout: Timeout) -> records.Job:
        call = await self._start(verb.request, timeout)
        frames = verbs.ingest_frames(found)
        try:
            # Files are read on a thread: a slow disk does not hold up the loop.
            while request := await asyncio.to_thread(next, frames, None):
                if call.refusal():
                    break
                await call.send(request)
            return verb.value_of(await call.next())
        finally:
            call.cancel()

    async def plan(self, paths: Paths = (), texts: Texts = (), *, mode: str = "auto",
                   preamble: str = "",
                   exclude: Iterable[str] = DEFAULT_EXCLUDE) -> planning.Plan:
        found = await asyncio.to_thread(sources.gather, paths, texts, exclude)
        text = await asyncio.to_thread(planning.read, found)
        reply = await self._call(verbs.plan(text.sample, preamble))
        return planning.reckon(found, text, reply, mode, await self.corpora(), await self.df())

    # --- moving them to another daemon

    async def export(self, name: str, target: BundleFile, *, overwrite: bool = False,
                     progress: Callable[[int, int], None] | None = None,
                     timeout: Timeout = NO_LIMIT) -> records.Exported:
        verb = verbs.export(name)
        with bundles.writing(target, overwrite) as write:
            call = await self._start(verb.request, timeout)
            try:
                for _ in range(verbs.EXPORT_PIECES_AHEAD):
                    await call.send(verbs.export_next())
                while True:
                    found = verbs.export_piece(verb, await call.next())
                    if isinstance(found, records.Exported):
                        return found
                    await asyncio.to_thread(write, found.content)
                    if progress is not None:
                        progress(found.done_blocks, found.total_blocks)
                    await call.send(verbs.export_next())
            finally:
                call.cancel()

    async def import_(self, source: BundleFile, *, name: str = "",
                      progress: Callable[[int, int], None] | None = None,
                      timeout: Timeout = NO_LIMIT) -> records.Imported:
        verb = verbs.import_(name)

        def report(response: Any) -> records.Imported | None:
            found = verbs.import_progress(verb, response)
            if isinstance(found, records.Imported):
                return found
            if progress is not None:
                progress(*found)
            return None

        with bundles.reading(source) as pieces:
            call = await self._start(verb.request, timeout)
            frames = verbs.import_frames(pieces)
            try:
                while request := await asyncio.to_thread(next, frames, None):
                    while call.refusal():  # raises it; else how far the daemon is
                        report(await call.next())
                    await call.send(request)
                while True:
                    imported = report(await call.next())
                    if imported is not None:
                        return imported
            finally:
                call.cancel()

    # --- asking

    async def ask(self, name: str, question: str, *, max_tokens: int = 0,
                  temperature: float = 0.0, seed: int = 0, top_p: float = 1.0,
                  cite: bool = False, no_cache: bool = False, budget_tokens: int = 0,
                  retrieval: str = "", top_k: int = 0, min_p: float = 0.0,
                  repetition_penalty: float = 0.0, presence_penalty: float = 0.0,
                  frequency_penalty: float = 0.0, stop: Sequence[str] = (),
                  repetition_window: int = 0, n: int = 1, logprobs: int | None = None,
                  timeout: Timeout = NO_LIMIT) -> answers.Answer:
        options = verbs.AskOptions(
            max_tokens=max_tokens, temperature=temperature, seed=seed, top_p=top_p, cite=cite,
            no_cache=no_cache, budget_tokens=budget_tokens, retrieval=retrieval, top_k=top_k,
            min_p=min_p, repetition_penalty=repetition_penalty,
            presence_penalty=presence_penalty, frequency_penalty=frequency_penalty, stop=stop,
            repetition_window=repetition_window, n=n, logprobs=logprobs)
        return await self._call(verbs.ask(name, question, options, stream=False), timeout)

    async def stream(self, name: str, question: str, *, max_tokens: int = 0,
                     temperature: float = 0.0, seed: int = 0, top_p: float = 1.0,
                     cite: bool = False, no_cache: bool = False, budget_tokens: int = 0,
                     retrieval: str = "", top_k: int = 0, min_p: float = 0.0,
                     repetition_penalty: float = 0.0, presence_penalty: float = 0.0,
                     frequency_penalty: float = 0.0, stop: Sequence[str] = (),
                     repetition_window: int = 0, n: int = 1, logprobs: int | None = None,
                     timeout: Timeout = NO_LIMIT) -> AsyncAnswerStream:
        """`async for piece in await client.stream(...)`."""
        options = verbs.AskOptions(
            max_tokens=max_tokens, temperature=temperature, seed=seed, top_p=top_p, cite=cite,
            no_cache=no_cache, budget_tokens=budget_tokens, retrieval=retrieval, top_k=top_k,
            min_p=min_p, repetition_penalty=repetition_penalty,
            presence_penalty=presence_penalty, frequency_penalty=frequency_penalty, stop=stop,
            repetition_window=repetition_window, n=n, logprobs=logprobs)
        verb = verbs.ask(name, question, options, stream=True)
        return AsyncAnswerStream(verb, await self._start(verb.request, timeout))

    # --- jobs

    async def jobs(self) -> list[records.Job]:
        return await self._call(verbs.jobs())

    async def job(self, job: JobLike) -> records.Job:
        return await self._call(verbs.job(job_id_of(job)))

    async def cancel(self, job: JobLike) -> records.Job:
        return await self._call(verbs.cancel(job_id_of(job)))

    async def watch(self, job: JobLike, *,
                    timeout: Timeout = NO_LIMIT) -> AsyncIterator[records.Job]:
        verb = verbs.watch(job_id_of(job))
        call = await self._start(verb.request, timeout)
        try:
            while not call.ended:
                yield verb.value_of(await call.next())
        finally:
            call.cancel()

    async def wait(self, target: JobLike | str, *, timeout: float | None = None,
                   progress: Callable[[records.Job], None] | None = None) -> records.Corpus:
        deadline = None if timeout is None else time.monotonic() + timeout
        name = None if not isinstance(target, str) else target
        job_id = 0 if isinstance(target, str) else job_id_of(target)
        while True:
            if job_id:
                job = await self._follow(job_id, deadline, progress)
                error = error_of_job(job)
                if error is not None:
                    raise error
                name = corpus_of_job(job)
            assert name is not None
            corpus = await self.get(name)
            job_id = next_step(corpus)
            if job_id < 0:
                return corpus
            if job_id == 0:
                if deadline is not None and time.monotonic() > deadline:
                    raise error_of("deadline_exceeded", f"'{name}' is not ready after {timeout} s")
                await asyncio.sleep(LOOK_AGAIN_S)

    async def _follow(self, job_id: int, deadline: float | None,
                      progress: Callable[[records.Job], None] | None) -> records.Job:
        remaining = None if deadline is None else max(deadline - time.monotonic(), 0.001)
        last = None
        async for last in self.watch(job_id, timeout=remaining):
            if progress is not None:
                progress(last)
        assert last is not None  # the daemon says the job at once
        return last


async def connect_async(socket_path: str | None = None, *, timeout: float | None = 30.0,
                        connect_timeout: float | None = 5.0) -> AsyncClient:
    path = protocol.default_socket_path() if socket_path is None else socket_path
    return AsyncClient(await AsyncConnection.open(path, connect_timeout), timeout)

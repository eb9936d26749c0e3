"""Each verb of the protocol as a request and what its answer is read as. No I/O."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from . import answers, records
from .errors import UsageError
from .protocol import PIECE_BYTES, Request, Verb, text
from .sources import Document, Documents

#: of a bundle, asked for before they are needed: the daemon reads while this side writes
EXPORT_PIECES_AHEAD = 4


def _nothing(_: Any) -> None:
    return None


def _milliseconds(what: str, seconds: float | None) -> int:
    if seconds is None:
        return 0
    if seconds < 0:
        raise UsageError(f"{what} must not be negative", "invalid_argument")
    return max(int(seconds * 1000), 1) if seconds else 0


def version() -> Verb[records.Version]:
    request = Request()
    request.version.SetInParent()
    return Verb(request, "version", records.Version.from_message)


def ping() -> Verb[float]:
    request = Request()
    request.ping.SetInParent()
    return Verb(request, "ping", lambda reply: float(reply.uptime_ms / 1000))


def list_corpora() -> Verb[list[records.Corpus]]:
    request = Request()
    request.list.SetInParent()
    return Verb(request, "list",
                lambda reply: [records.Corpus.from_message(c) for c in reply.corpora])


def get(name: str) -> Verb[records.Corpus]:
    request = Request()
    request.show.name = text("name", name)
    return Verb(request, "corpus", records.Corpus.from_message)


def delete(name: str) -> Verb[None]:
    request = Request()
    request.remove.name = text("name", name)
    return Verb(request, "empty", _nothing)


def rename(name: str, to: str) -> Verb[None]:
    request = Request()
    setattr(request.rename, "from", text("name", name))
    request.rename.to = text("name", to)
    return Verb(request, "empty", _nothing)


def pin(name: str, tier: str | None, ttl: float | None, reason: str | None,
        keep: bool) -> Verb[records.Corpus]:
    request = Request()
    request.pin.name = text("name", name)
    request.pin.tier = tier or ""
    request.pin.ttl_ms = _milliseconds("ttl", ttl)
    request.pin.reason = text("reason", reason or "")
    request.pin.keep = keep
    return Verb(request, "corpus", records.Corpus.from_message)


def unpin(name: str) -> Verb[records.Corpus]:
    request = Request()
    request.unpin.name = text("name", name)
    return Verb(request, "corpus", records.Corpus.from_message)


def evict(name: str | None, tier: str, dry_run: bool,
          to_free: int | None) -> Verb[records.Eviction]:
    request = Request()
    if (name is None) == (to_free is None):
        raise UsageError("evict takes the name of a corpus or to_free, one of the two",
                         "invalid_argument")
    if name is not None:
        request.evict.name = text("name", name)
    request.evict.to_free_bytes = to_free or 0
    setattr(request.evict, "from", tier)
    request.evict.dry_run = dry_run
    return Verb(request, "evict", records.Eviction.from_message)


def warm(name: str, tier: str) -> Verb[records.Warmth]:
    request = Request()
    request.warm.name = text("name", name)
    request.warm.to = tier
    return Verb(request, "warm", records.Warmth.from_message)


def touch(name: str, ttl: float | None, priority: str | None,
          never_expires: bool) -> Verb[records.Corpus]:
    request = Request()
    request.touch.name = text("name", name)
    request.touch.ttl_ms = _milliseconds("ttl", ttl)
    request.touch.priority = priority or ""
    request.touch.keep_expiry = ttl is None and not never_expires
    return Verb(request, "corpus", records.Corpus.from_message)


def jobs() -> Verb[list[records.Job]]:
    request = Request()
    request.jobs.SetInParent()
    return Verb(request, "jobs", lambda reply: [records.Job.from_message(j) for j in reply.jobs])


def job(job_id: int) -> Verb[records.Job]:
    request = Request()
    request.job.id = job_id
    return Verb(request, "job", records.Job.from_message)


def watch(job_id: int) -> Verb[records.Job]:
    request = Request()
    request.watch_job.id = job_id
    return Verb(request, "job", records.Job.from_message)


def cancel(job_id: int) -> Verb[records.Job]:
    request = Request()
    request.cancel_job.id = job_id
    return Verb(request, "job", records.Job.from_message)


def cancel_request(request_id: int) -> Any:
    request = Request()
    request.cancel.request_id = request_id
    return request


def stats() -> Verb[dict[str, records.Metric]]:
    request = Request()
    request.stats.SetInParent()
    return Verb(request, "stats", lambda reply: {family.name: records.Metric.from_message(family)
                                                 for family in reply.families})


def df() -> Verb[records.DiskUsage]:
    request = Request()
    request.disk_usage.SetInParent()
    return Verb(request, "disk_usage", records.DiskUsage.from_message)


def doctor() -> Verb[list[records.Check]]:
    request = Request()
    request.doctor.SetInParent()
    return Verb(request, "doctor",
                lambda reply: [records.Check.from_message(c) for c in reply.checks])


def verify(name: str, repair: bool) -> Verb[records.Verification]:
    request = Request()
    request.verify.name = text("name", name)
    request.verify.repair = repair
    return Verb(request, "verify", records.Verification.from_message)


def plan(sample: bytes, preamble: str) -> Verb[Any]:
    request = Request()
    request.plan.sample = sample
    request.plan.preamble = text("preamble", preamble)
    return Verb(request, "plan", lambda reply: reply)


def ask(name: str, question: str, options: AskOptions, stream: bool) -> Verb[answers.Answer]:
    request = Request()
    asked = request.ask
    asked.name = text("name", name)
    asked.question = text("question", question)
    asked.max_tokens = options.max_tokens
    asked.temperature = options.temperature
    asked.seed = options.seed
    asked.top_p = options.top_p
    asked.cite = options.cite
    asked.no_cache = options.no_cache
    asked.budget_tokens = options.budget_tokens
    asked.retrieval = options.retrieval
    asked.top_k = options.top_k
    asked.min_p = options.min_p
    asked.repetition_penalty = options.repetition_penalty
    asked.presence_penalty = options.presence_penalty
    asked.frequency_penalty = options.frequency_penalty
    asked.stop.extend(text("stop string", stop) for stop in options.stop)
    asked.repetition_window = options.repetition_window
    asked.n = options.n
    asked.logprobs = options.logprobs is not None
    asked.top_logprobs = options.logprobs or 0
    asked.stream = stream
    return Verb(request, "ask", answers.Answer.from_message)


class AskOptions:
    """How a question is answered; the daemon's defaults where nothing is said."""

    def __init__(self, *, max_tokens: int = 0, temperature: float = 0.0, seed: int = 0,
                 top_p: float = 1.0, cite: bool = False, no_cache: bool = False,
                 budget_tokens: int = 0, retrieval: str = "", top_k: int = 0,
                 min_p: float = 0.0, repetition_penalty: float = 0.0,
                 presence_penalty: float = 0.0, frequency_penalty: float = 0.0,
                 stop: Sequence[str] = (), repetition_window: int = 0, n: int = 1,
                 logprobs: int | None = None) -> None:
        self.max_tokens = max_tokens
        self.temperature = temperature
        self.seed = seed
        self.top_p = top_p
        self.cite = cite
        self.no_cache = no_cache
        self.budget_tokens = budget_tokens
        self.retrieval = retrieval
        self.top_k = top_k
        self.min_p = min_p
        self.repetition_penalty = repetition_penalty
        self.presence_penalty = presence_penalty
        self.frequency_penalty = frequency_penalty
        if isinstance(stop, str):
            raise UsageError("stop is a sequence of texts, not one text", "invalid_argument")
        self.stop = tuple(stop)
        for what, number in (("n", n), ("repetition_window", repetition_window),
                             ("logprobs", logprobs or 0)):
            if number < 0:
                raise UsageError(f"{what} must not be negative", "invalid_argument")
        self.repetition_window = repetition_window
        self.n = n
        self.logprobs = logprobs


def ask_piece(verb: Verb[answers.Answer],
              response: Any) -> answers.AnswerPiece | answers.Answer:
    """A piece of an answer, or all of them whole at the end."""
    if response.WhichOneof("body") == "ask_delta":
        return answers.AnswerPiece.from_message(response.ask_delta)
    return verb.value_of(response)


def verify_progress(verb: Verb[records.Verification],
                    response: Any) -> tuple[int, int] | records.Verification:
    if response.WhichOneof("body") == "progress":
        return response.progress.done, response.progress.total
    return verb.value_of(response)


class IngestOptions:
    """What a new corpus is made with; the daemon's defaults where nothing is said."""

    def __init__(self, *, mode: str = "auto", kv_format: str = "", preamble: str = "",
                 pin: bool = False, ttl: float | None = None, priority: str = "") -> None:
        self.mode = mode
        self.kv_format = kv_format
        self.preamble = preamble
        self.pin = pin
        self.ttl = ttl
        self.priority = priority


def ingest(name: str, found: Documents, options: IngestOptions) -> Verb[records.Job]:
    """The first message; then come those of `ingest_pieces`, with the same id."""
    request = Request()
    begin = request.ingest_begin
    begin.name = text("name", name)
    begin.mode = options.mode
    begin.kv_format = options.kv_format
    begin.preamble = text("preamble", options.preamble)
    begin.pin = options.pin
    begin.ttl_ms = _milliseconds("ttl", options.ttl)
    begin.priority = options.priority
    begin.skipped_files = found.skipped_files
    begin.roots.extend(found.roots)
    return Verb(request, "ingest", lambda reply: records.Job.from_message(reply.job))


def append(name: str, found: Documents) -> Verb[records.Job]:
    verb = ingest(name, found, IngestOptions(mode=""))
    verb.request.ingest_begin.append = True
    return verb


def update(name: str, found: Documents) -> Verb[records.Job]:
    verb = ingest(name, found, IngestOptions(mode=""))
    verb.request.ingest_begin.update = True
    return verb


def _piece(label: str, content: bytes, last: bool) -> Any:
    request = Request()
    request.ingest_data.path = label
    request.ingest_data.content = content
    request.ingest_data.last = last
    return request


def document_pieces(document: Document) -> Iterator[Any]:
    """A document as frames of at most PIECE_BYTES; the first has its label."""
    label, held = text("label", document.label), b""
    if not label:
        raise UsageError("a text needs a label that is not empty", "invalid_argument")
    for part in document.pieces():
        held += part
        while len(held) > PIECE_BYTES:
            yield _piece(label, held[:PIECE_BYTES], False)
            label, held = "", held[PIECE_BYTES:]
    yield _piece(label, held, True)


def ingest_end() -> Any:
    request = Request()
    request.ingest_end.SetInParent()
    return request


def ingest_frames(found: Documents) -> Iterator[Any]:
    """All that follows the first message."""
    for document in found.documents:
        yield from document_pieces(document)
    yield ingest_end()


def export(name: str) -> Verb[records.Exported]:
    """The first message; then as many of `export_next` as pieces are wanted."""
    request = Request()
    request.export_begin.name = text("name", name)
    return Verb(request, "export_reply", records.Exported.from_message)


def export_next() -> Any:
    request = Request()
    request.export_next.SetInParent()
    return request


def export_piece(verb: Verb[records.Exported], response: Any) -> records.Exported | Any:
    """A message with `content`, `done_blocks` and `total_blocks`, or the end."""
    if response.WhichOneof("body") == "export_data":
        return response.export_data
    return verb.value_of(response)


def import_(name: str) -> Verb[records.Imported]:
    """The first message; then come those of `import_frames`, with the same id."""
    request = Request()
    request.import_begin.name = text("name", name)
    return Verb(request, "import_reply", records.Imported.from_message)


def import_frames(pieces: Iterable[bytes]) -> Iterator[Any]:
    for piece in pieces:
        request = Request()
        request.import_data.content = piece
        yield request
    request = Request()
    request.import_end.SetInParent()
    yield request


def import_progress(verb: Verb[records.Imported],
                    response: Any) -> tuple[int, int] | records.Imported:
    if response.WhichOneof("body") == "progress":
        return response.progress.done, response.progress.total
    return verb.value_of(response)

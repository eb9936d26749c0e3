"""What the daemon answers, as frozen dataclasses. The names are those of `corpusctl -o json`.

Times are aware datetimes in UTC, or None where there is none. Sizes are bytes. `from_message`
takes the protocol's own message.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


def _time(milliseconds: int) -> datetime | None:
    return _EPOCH + timedelta(milliseconds=milliseconds) if milliseconds else None


@dataclass(frozen=True)
class Version:
    version: str
    backend: str
    model_name: str
    model_digest: str
    protocol: int
    pid: int

    @classmethod
    def from_message(cls, message: Any) -> Version:
        return cls(message.version, message.backend, message.model_name, message.model_digest,
                   message.protocol, message.pid)


@dataclass(frozen=True)
class TierBytes:
    """What a corpus takes: as bf16 it would be, as it is stored, and what lies in each tier."""

    bf16: int
    stored: int
    device: int
    host: int
    disk: int


@dataclass(frozen=True)
class Pin:
    tier: str
    owner: str
    reason: str
    bytes: int
    pinned_at: datetime | None
    expires_at: datetime | None


@dataclass(frozen=True)
class Quality:
    """What the KV format costs on a sample of the corpus: mean KL divergence in nats."""

    sample_tokens: int
    mean_kld: float
    same_top: float
    limit: float


@dataclass(frozen=True)
class Source:
    path: str
    first_token: int
    tokens: int
    bytes: int
    digest: str


@dataclass(frozen=True)
class Prefill:
    seconds: float
    tokens_per_s: float
    resumed_times: int


@dataclass(frozen=True)
class Corpus:
    name: str
    id: int
    state: str
    """queued, prefilling, ready, failed, cancelled or evicted"""
    mode: str
    tokens: int
    durable_tokens: int
    segments: int
    blocks: int
    kv_format: str
    model_name: str
    model_digest: str
    root: str
    bytes: TierBytes
    pinned: Pin | None
    priority: str
    expires_at: datetime | None
    created_at: datetime | None
    last_used_at: datetime | None
    prefill: Prefill
    quality: Quality | None
    sources: tuple[Source, ...]
    """filled by `get` alone"""
    roots: tuple[str, ...]
    """what `update` without paths reads"""
    replaces: str
    skipped_files: int
    job_id: int
    """of the job that works on it, or 0"""
    error: str

    @classmethod
    def from_message(cls, m: Any) -> Corpus:
        pin = None
        if m.pinned:
            pin = Pin(m.pin_tier, m.pin_owner, m.pin_reason, m.pin_bytes, _time(m.pinned_at_ms),
                      _time(m.pin_expires_at_ms))
        quality = None
        if m.HasField("quality"):
            q = m.quality
            quality = Quality(q.sample_tokens, q.mean_kld, q.same_top, q.limit)
        return cls(
            name=m.name, id=m.id, state=m.state, mode=m.mode, tokens=m.tokens,
            durable_tokens=m.durable_tokens, segments=m.segments, blocks=m.blocks,
            kv_format=m.kv_format, model_name=m.model_name, model_digest=m.model_digest,
            root=m.root,
            bytes=TierBytes(m.bf16_bytes, m.stored_bytes, m.device_bytes, m.host_bytes,
                            m.disk_bytes),
            pinned=pin, priority=m.priority, expires_at=_time(m.expires_at_ms),
            created_at=_time(m.created_at_ms), last_used_at=_time(m.last_used_at_ms),
            prefill=Prefill(m.prefill_seconds, m.prefill_tokens_per_s, m.prefill_resumed_times),
            quality=quality,
            sources=tuple(Source(s.path, s.first_token, s.tokens, s.bytes, s.digest)
                          for s in m.sources),
            roots=tuple(m.roots), replaces=m.replaces, skipped_files=m.skipped_files,
            job_id=m.job_id, error=m.error)


@dataclass(frozen=True)
class Job:
    id: int
    kind: str
    corpus: str
    state: str
    """queued, running, done, failed or cancelled"""
    done_tokens: int
    total_tokens: int
    reused_tokens: int
    tokens_per_s: float
    eta_s: float | None
    written_bytes: int
    resumed_times: int
    failed_times: int
    retry_at: datetime | None
    error: str
    created_at: datetime | None
    started_at: datetime | None
    finished_at: datetime | None

    @property
    def ended(self) -> bool:
        return self.state in ("done", "failed", "cancelled")

    @property
    def share(self) -> float:
        """How much of it is done, 0 to 1."""
        if self.state == "done":
            return 1.0
        return min(self.done_tokens / self.total_tokens, 1.0) if self.total_tokens else 0.0

    @classmethod
    def from_message(cls, m: Any) -> Job:
        return cls(
            id=m.id, kind=m.kind, corpus=m.corpus, state=m.state, done_tokens=m.done_tokens,
            total_tokens=m.total_tokens, reused_tokens=m.reused_tokens,
            tokens_per_s=m.tokens_per_s, eta_s=None if m.eta_s < 0 else m.eta_s,
            written_bytes=m.written_bytes, resumed_times=m.resumed_times,
            failed_times=m.failed_times, retry_at=_time(m.retry_at_ms), error=m.error,
            created_at=_time(m.created_at_ms), started_at=_time(m.started_at_ms),
            finished_at=_time(m.finished_at_ms))


@dataclass(frozen=True)
class Eviction:
    """What left, or with `dry_run` would."""

    blocks: int
    bytes: int
    shared_blocks: int
    pinned_bytes: int
    busy_bytes: int
    leased_bytes: int
    steps: tuple[EvictionStep, ...]

    @classmethod
    def from_message(cls, m: Any) -> Eviction:
        steps = tuple(EvictionStep(s.corpus, s.keep_blocks, s.blocks, s.bytes, s.why)
                      for s in m.steps)
        return cls(m.blocks, m.bytes, m.shared_blocks, m.pinned_bytes, m.busy_bytes,
                   m.leased_bytes, steps)


@dataclass(frozen=True)
class EvictionStep:
    corpus: str
    keep_blocks: int
    blocks: int
    bytes: int
    why: str


@dataclass(frozen=True)
class Warmth:
    """What `warm` moved."""

    blocks: int
    bytes: int
    disk_bytes: int
    device_bytes: int
    seconds: float

    @classmethod
    def from_message(cls, m: Any) -> Warmth:
        return cls(m.blocks, m.bytes, m.disk_bytes, m.device_bytes, m.seconds)


@dataclass(frozen=True)
class Verification:
    blocks: int
    bytes: int
    damaged: int
    missing: int
    repaired: int

    @classmethod
    def from_message(cls, m: Any) -> Verification:
        return cls(m.blocks, m.bytes, m.damaged, m.missing, m.repaired)


@dataclass(frozen=True)
class Exported:
    """A corpus that was written as a bundle."""

    blocks: int
    bytes: int
    sha256: str

    @classmethod
    def from_message(cls, m: Any) -> Exported:
        return cls(m.blocks, m.bytes, m.sha256)


@dataclass(frozen=True)
class Imported:
    """A corpus that came out of a bundle."""

    corpus: Corpus
    reused_blocks: int
    """left by an earlier import that was broken off"""

    @classmethod
    def from_message(cls, m: Any) -> Imported:
        return cls(Corpus.from_message(m.corpus), m.reused_blocks)


@dataclass(frozen=True)
class Tier:
    name: str
    capacity_bytes: int
    used_bytes: int
    pinned_bytes: int
    free_bytes: int


@dataclass(frozen=True)
class PinHolder:
    owner: str
    pins: int
    bytes: int


@dataclass(frozen=True)
class Lease:
    id: int
    owner: str
    blocks: int
    bytes: int
    since: datetime | None
    expires_at: datetime | None


@dataclass(frozen=True)
class WriteState:
    """Whether the store takes new blocks."""

    read_only: bool
    reason: str
    since: datetime | None
    refused: int


@dataclass(frozen=True)
class DiskUsage:
    tiers: tuple[Tier, ...]
    corpora: tuple[Corpus, ...]
    pin_holders: tuple[PinHolder, ...]
    pins_owner_bytes: int
    pins_total_bytes: int
    writes: WriteState
    leases: tuple[Lease, ...]
    evicted_blocks: int
    """since the daemon's start, as is evicted_bytes"""
    evicted_bytes: int

    @classmethod
    def from_message(cls, m: Any) -> DiskUsage:
        w = m.write_state
        return cls(
            tiers=tuple(Tier(t.name, t.capacity_bytes, t.used_bytes, t.pinned_bytes, t.free_bytes)
                        for t in m.tiers),
            corpora=tuple(Corpus.from_message(c) for c in m.corpora),
            pin_holders=tuple(PinHolder(h.owner, h.pins, h.bytes) for h in m.pin_holders),
            pins_owner_bytes=m.pins_owner_bytes, pins_total_bytes=m.pins_total_bytes,
            writes=WriteState(w.read_only, w.reason, _time(w.since_ms), w.refused),
            leases=tuple(Lease(x.id, x.owner, x.blocks, x.bytes, _time(x.since_ms),
                               _time(x.expires_at_ms)) for x in m.leases),
            evicted_blocks=m.evictions.blocks, evicted_bytes=m.evictions.bytes)


@dataclass(frozen=True)
class Check:
    name: str
    level: str
    """ok, warn or error"""
    text: str

    @classmethod
    def from_message(cls, m: Any) -> Check:
        return cls(m.name, m.level, m.text)


@dataclass(frozen=True)
class Histogram:
    count: int
    sum: float
    buckets: tuple[tuple[float, int], ...]
    """upper bound and how many observations are up to it; the last bound is infinite"""


@dataclass(frozen=True)
class Sample:
    labels: dict[str, str]
    value: float
    histogram: Histogram | None


@dataclass(frozen=True)
class Metric:
    """One metric of the daemon, as Prometheus has it."""

    name: str
    type: str
    """counter, gauge or histogram"""
    help: str
    samples: tuple[Sample, ...]

    def value(self, **labels: str) -> float:
        """The sum over the samples that have these labels."""
        return sum(sample.value for sample in self.samples
                   if labels.items() <= sample.labels.items())

    @classmethod
    def from_message(cls, m: Any) -> Metric:
        samples = []
        for s in m.samples:
            histogram = None
            if s.HasField("histogram"):
                h = s.histogram
                buckets = tuple((b.upper_bound, b.cumulative_count) for b in h.buckets)
                histogram = Histogram(h.count, h.sum, buckets)
            samples.append(Sample({label.name: label.value for label in s.labels}, s.value,
                                  histogram))
        return cls(m.name, m.type, m.help, tuple(samples))

"""Client of corpusd, the daemon that prefills a corpus once and answers questions about it.

    import corpusd

    with corpusd.connect() as client:
        client.wait(client.ingest("licence", "/usr/share/common-licenses/MPL-2.0"))
        for piece in client.stream("licence", "Which organisation is the license steward?"):
            print(piece, end="")
"""

from .aio import AsyncAnswerStream, AsyncClient, connect_async
from .answers import (Answer, AnswerPiece, Choice, Citation, Read, Selection, Timing,
                      TokenLogprob, Usage)
from .client import AnswerStream, Client, connect
from .errors import (AlreadyExistsError, CorpusdError, DeadlineError, DeniedError, IntegrityError,
                     JobFailedError, NotFoundError, NothingToDoError, NotReadyError,
                     ProtocolError, RequestCancelledError, RetryableError, SpaceError,
                     UnreachableError, UsageError)
from .plan import Plan, PlanFormat
from .progress import ProgressBar
from .protocol import default_socket_path
from .records import (Check, Corpus, DiskUsage, Eviction, EvictionStep, Exported, Histogram,
                      Imported, Job, Lease, Metric, Pin, PinHolder, Prefill, Quality, Sample,
                      Source, Tier, TierBytes, Verification, Version, Warmth, WriteState)

__version__ = "0.1.0"

__all__ = [
    "AlreadyExistsError", "Answer", "AnswerPiece", "AnswerStream", "AsyncAnswerStream",
    "AsyncClient", "Check", "Choice", "Citation", "Client", "Corpus", "CorpusdError",
    "DeadlineError", "DeniedError", "DiskUsage", "Eviction", "EvictionStep", "Exported",
    "Histogram", "Imported", "IntegrityError", "Job", "JobFailedError", "Lease", "Metric",
    "NotFoundError", "NotReadyError", "NothingToDoError", "Pin", "PinHolder", "Plan", "PlanFormat",
    "Prefill", "ProgressBar", "ProtocolError", "Quality", "Read", "RequestCancelledError",
    "RetryableError", "Sample", "Selection", "Source", "SpaceError", "Tier", "TierBytes", "Timing",
    "TokenLogprob", "UnreachableError", "Usage", "UsageError", "Verification", "Version", "Warmth",
    "WriteState", "connect", "connect_async", "default_socket_path",
]

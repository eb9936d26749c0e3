"""What goes wrong, one class for each exit code of corpusctl.

Every exception has `code`, the stable word of the protocol ("not_found"), and `exit_code`, what
corpusctl ends with for it. Catch the class; show `str(error)` to people.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .records import Job

__all__ = [
    "AlreadyExistsError", "CorpusdError", "DeadlineError", "DeniedError", "IntegrityError",
    "JobFailedError", "NotFoundError", "NotReadyError", "NothingToDoError", "ProtocolError",
    "RequestCancelledError", "RetryableError", "SpaceError", "UnreachableError", "UsageError",
]


class CorpusdError(Exception):
    """Anything that a call of this package reports. Others of exit code 1 are this class itself."""

    exit_code = 1

    def __init__(self, message: str, code: str = "internal") -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        #: the job that failed, if `wait` raised this
        self.job: Job | None = None


class UsageError(CorpusdError):
    """The request makes no sense: a bad name, an unknown option, text that is too long."""

    exit_code = 2


class NotFoundError(CorpusdError):
    """There is no such corpus, job or file."""

    exit_code = 3


class NotReadyError(CorpusdError):
    """The corpus is being prefilled, or its blocks are gone: wait or warm it."""

    exit_code = 4


class RetryableError(CorpusdError):
    """The daemon is busy or stopping: the same call may succeed later."""

    exit_code = 5


class DeniedError(CorpusdError):
    """This user may not do that."""

    exit_code = 6


class UnreachableError(CorpusdError):
    """No daemon listens, or the connection broke. Connect again."""

    exit_code = 7


class SpaceError(CorpusdError):
    """A quota or a tier is full."""

    exit_code = 8


class NothingToDoError(CorpusdError):
    """There is no text to read, or the job has ended already."""

    exit_code = 9


class IntegrityError(CorpusdError):
    """Stored bytes are damaged."""

    exit_code = 10


class DeadlineError(CorpusdError, TimeoutError):
    """The call's timeout has passed; the daemon was told to stop."""

    exit_code = 124


class AlreadyExistsError(CorpusdError):
    """A corpus has that name."""


class RequestCancelledError(CorpusdError):
    """The request or the job was cancelled."""


class ProtocolError(CorpusdError):
    """The daemon sent what no daemon of this protocol sends."""


class JobFailedError(CorpusdError):
    """A job failed for a reason that has no class of its own."""


# As in client/ctl/exit_code.cc; a code that is not here is a CorpusdError.
_CLASSES: dict[str, type[CorpusdError]] = {
    "not_found": NotFoundError,
    "already_exists": AlreadyExistsError,
    "invalid_argument": UsageError,
    "unimplemented": UsageError,
    "usage": UsageError,
    "resource_exhausted": SpaceError,
    "aborted": RetryableError,
    "unavailable": RetryableError,
    "corruption": IntegrityError,
    "cancelled": RequestCancelledError,
    "deadline_exceeded": DeadlineError,
    "permission_denied": DeniedError,
    "not_ready": NotReadyError,
    "unreachable": UnreachableError,
    "protocol": ProtocolError,
    "nothing_to_do": NothingToDoError,
    "job_failed": JobFailedError,
}


def error_of(code: str, message: str) -> CorpusdError:
    """The exception for a code of the protocol."""
    return _CLASSES.get(code, CorpusdError)(message, code)


def error_of_job(job: Job) -> CorpusdError | None:
    """Why a job that has ended did not succeed; None if it did."""
    if job.state == "done":
        return None
    if job.state == "cancelled":
        error = error_of("cancelled", f"job {job.id} of '{job.corpus}' was cancelled")
    else:
        # A job's error begins with its code: "resource_exhausted: ...".
        code = (job.error or "").split(": ", 1)[0]
        error = error_of(code if code in _CLASSES else "job_failed",
                         f"job {job.id} of '{job.corpus}' failed: {job.error}")
    error.job = job
    return error

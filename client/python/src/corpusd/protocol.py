"""Frames and messages of corpusd.v1: bytes in and out, no sockets.

The messages come from `protocol.desc`, the compiled client/proto, and not from generated code,
which would bind the package to a range of protobuf versions.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from importlib import resources
from typing import Any, Callable, Generic, TypeVar

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError

from .errors import CorpusdError, ProtocolError, UsageError, error_of

FRAME_BYTES_MAX = 16 << 20
#: of a source in one frame, as in the C++ client; the daemon refuses more than 1 MiB
PIECE_BYTES = 256 << 10
#: what the daemon keeps the deadline by; this side waits so much longer for its sentence
DEADLINE_GRACE_S = 1.0

T = TypeVar("T")


def _load() -> Any:
    # A pool of its own: another package may bring the same file names.
    pool = descriptor_pool.DescriptorPool()
    files = descriptor_pb2.FileDescriptorSet.FromString(
        resources.files(__package__).joinpath("protocol.desc").read_bytes())
    for file in files.file:
        pool.AddSerializedFile(file.SerializeToString())
    return pool


def _message_class(pool: Any, name: str) -> Any:
    descriptor = pool.FindMessageTypeByName(f"corpusd.v1.{name}")
    if hasattr(message_factory, "GetMessageClass"):  # protobuf 4.22
        return message_factory.GetMessageClass(descriptor)
    factory: Any = message_factory.MessageFactory(pool)
    return factory.GetPrototype(descriptor)


_POOL = _load()
Request = _message_class(_POOL, "Request")
Response = _message_class(_POOL, "Response")


@dataclass(frozen=True)
class Verb(Generic[T]):
    """A request with one answer: which field of the response holds it, and what is made of it."""

    request: Any
    field: str
    read: Callable[[Any], T]

    def value_of(self, response: Any) -> T:
        if response.WhichOneof("body") != self.field:
            raise unexpected(self.request)
        return self.read(getattr(response, self.field))


def unexpected(request: Any) -> ProtocolError:
    asked = request.WhichOneof("body")
    return ProtocolError(f"corpusd answered '{asked}' with something else; are the versions equal?",
                         "protocol")


def text(what: str, value: str) -> str:
    """`value`, if it can be sent: lone surrogates, as of undecodable file names, cannot."""
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        raise UsageError(f"the {what} is not UTF-8", "invalid_argument") from None
    return value


def encode(request: Any, frame_bytes_max: int = FRAME_BYTES_MAX) -> bytes:
    body: bytes = request.SerializeToString()
    if len(body) > frame_bytes_max:
        raise UsageError(f"a request of {len(body)} bytes is over the limit of {frame_bytes_max}",
                         "invalid_argument")
    return struct.pack(">I", len(body)) + body


class FrameReader:
    """Bytes as they come -> responses."""

    def __init__(self, frame_bytes_max: int = FRAME_BYTES_MAX) -> None:
        self._bytes = bytearray()
        self._frame_bytes_max = frame_bytes_max

    def feed(self, data: bytes) -> list[Any]:
        """RETURNS the responses that are complete now. Raises ProtocolError."""
        self._bytes += data
        responses = []
        while len(self._bytes) >= 4:
            size = int.from_bytes(self._bytes[:4], "big")
            if size > self._frame_bytes_max:
                raise ProtocolError(f"corpusd sent a frame of {size} bytes, over the limit of "
                                    f"{self._frame_bytes_max}", "protocol")
            if len(self._bytes) < 4 + size:
                break
            try:
                responses.append(Response.FromString(bytes(self._bytes[4:4 + size])))
            except DecodeError as error:
                raise ProtocolError("corpusd sent a frame that is no response",
                                    "protocol") from error
            del self._bytes[:4 + size]
        return responses


def error_in(response: Any) -> CorpusdError | None:
    if not response.HasField("error"):
        return None
    return error_of(response.error.code_text, response.error.message)


def checked(response: Any, end: Callable[[], None]) -> Any:
    """RETURNS what came for a call; calls `end` first if it is the last. Raises what the daemon, or
    in place of a response the connection, reports."""
    if isinstance(response, CorpusdError):
        end()
        # Many calls may share a broken connection: each raises an exception of its own.
        raise type(response)(response.message, response.code)
    error = error_in(response)
    if error is not None or response.end_of_stream:
        end()
    if error is not None:
        raise error
    return response


def default_socket_path() -> str:
    """$CORPUSD_SOCKET, else $XDG_RUNTIME_DIR/corpusd/corpusd.sock, else /run/corpusd/..."""
    path = os.environ.get("CORPUSD_SOCKET")
    if path:
        return path
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    return f"{runtime}/corpusd/corpusd.sock" if runtime else "/run/corpusd/corpusd.sock"


def unreachable(path: str, error: OSError) -> CorpusdError:
    hint = f"; is it running? start it with: corpusd --socket {path}"
    if isinstance(error, PermissionError):
        hint = "; your user must be in the socket's group"
    return error_of("unreachable",
                    f"cannot reach corpusd at '{path}': {error.strerror or error}{hint}")


def deadline_passed(request: Any, seconds: float) -> CorpusdError:
    return error_of("deadline_exceeded",
                    f"'{request.WhichOneof('body')}' took longer than {seconds:g} s")

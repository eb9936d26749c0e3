"""One connection of the synchronous client: many calls at once, from any threads.

A thread of its own reads responses and hands each to the call that waits for it; callers write
frames whole, one at a time. It does not survive a fork: connect again in the child.
"""

from __future__ import annotations

import queue
import socket
import threading
import time
import weakref
from typing import Any

from . import protocol, verbs
from .errors import CorpusdError, ProtocolError, UnreachableError

_READ_BYTES = 256 << 10


class PendingCall:
    """A request whose responses have not all come."""

    def __init__(self, connection: Connection, request: Any, timeout: float | None) -> None:
        self.id: int = request.id
        self.ended = False
        self._connection = connection
        self._request = request
        self._timeout = timeout
        self._responses: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.deadline: float | None = None
        if timeout is not None:
            self.deadline = time.monotonic() + timeout + protocol.DEADLINE_GRACE_S

    def put(self, item: Any) -> None:
        self._responses.put(item)

    def next(self) -> Any:
        """RETURNS the next response. Raises what the daemon or the connection reports."""
        remaining = None
        if self.deadline is not None:
            remaining = max(self.deadline - time.monotonic(), 0.0)
        try:
            response = self._responses.get(timeout=remaining)
        except queue.Empty:
            self.cancel()
            raise protocol.deadline_passed(self._request, self._timeout or 0.0) from None
        except BaseException:  # Ctrl-C
            self.cancel()
            raise
        return protocol.checked(response, self.end)

    def refusal(self) -> bool:
        """Whether something has come already: while a corpus is sent, that it was refused."""
        return not self._responses.empty()

    def send(self, request: Any) -> None:
        """Another message of the same call."""
        request.id = self.id
        self._connection.send(request, self.deadline)

    def end(self) -> None:
        self.ended = True
        self._connection.forget(self.id)

    def cancel(self) -> None:
        """Tells the daemon that nobody waits any more. Never raises."""
        if self.ended:
            return
        self.end()
        self._connection.cancel(self.id)


class Connection:
    def __init__(self, path: str, connect_timeout: float | None = 5.0,
                 frame_bytes_max: int = protocol.FRAME_BYTES_MAX) -> None:
        self.path = path
        self._frame_bytes_max = frame_bytes_max
        self._socket = _connected(path, connect_timeout)
        self._writing = threading.Lock()
        self._lock = threading.Lock()
        self._calls: dict[int, PendingCall] = {}
        self._next_id = 1
        self._broken: CorpusdError | None = None
        # The reader holds no reference that would keep a forgotten connection alive.
        self._reader = threading.Thread(
            target=_read, args=(weakref.ref(self), self._socket, frame_bytes_max),
            name="corpusd-reader", daemon=True)
        self._reader.start()

    def start(self, request: Any, timeout: float | None) -> PendingCall:
        if timeout is not None:
            request.timeout_ms = max(int(timeout * 1000), 1)
        with self._lock:
            if self._broken is not None:
                raise type(self._broken)(self._broken.message, self._broken.code)
            request.id = self._next_id
            self._next_id += 1
            call = PendingCall(self, request, timeout)
            self._calls[request.id] = call
        try:
            self.send(request, call.deadline)
        except BaseException:
            call.end()
            raise
        return call

    def send(self, request: Any, deadline: float | None) -> None:
        frame = protocol.encode(request, self._frame_bytes_max)
        # Only the wait for others is bounded: half a frame would end the connection.
        patience = -1.0 if deadline is None else max(deadline - time.monotonic(), 0.0)
        if not self._writing.acquire(timeout=patience):
            raise protocol.deadline_passed(request, patience)
        try:
            self._socket.sendall(frame)
        except OSError as error:
            # A daemon that closes the connection says why first; the reader has heard it.
            self._reader.join(1.0)
            with self._lock:
                broken = self._broken
            if broken is not None:
                raise type(broken)(broken.message, broken.code) from None
            raise UnreachableError(f"connection to corpusd at '{self.path}' broke: {error}",
                                   "unreachable") from error
        finally:
            self._writing.release()

    def cancel(self, request_id: int) -> None:
        request = verbs.cancel_request(request_id)
        with self._lock:
            request.id = self._next_id
            self._next_id += 1
        try:
            self.send(request, time.monotonic() + 0.2)
        except (CorpusdError, OSError):
            pass  # the connection's end cancels it too

    def forget(self, call_id: int) -> None:
        with self._lock:
            self._calls.pop(call_id, None)

    def deliver(self, response: Any) -> None:
        if response.id == 0:  # of the connection as a whole
            error = protocol.error_in(response)
            if error is not None:
                self.fail(error)
            return
        with self._lock:
            call = self._calls.get(response.id)
        if call is not None:  # else given up meanwhile
            call.put(response)

    def fail(self, error: CorpusdError) -> None:
        with self._lock:
            if self._broken is None:
                self._broken = error
            error = self._broken
            calls = list(self._calls.values())
        for call in calls:
            call.put(error)

    def close(self) -> None:
        self.fail(UnreachableError("the client was closed", "unreachable"))
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # the other side was first
        if self._reader is not threading.current_thread():
            self._reader.join(5.0)

    def __del__(self) -> None:
        opened: socket.socket | None = getattr(self, "_socket", None)
        if opened is not None:
            try:
                opened.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass


def _connected(path: str, timeout: float | None) -> socket.socket:
    opened = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    deadline = None if timeout is None else time.monotonic() + timeout
    try:
        while True:
            try:
                opened.connect(path)
                return opened
            except BlockingIOError:  # the daemon's backlog is full
                if deadline is not None and time.monotonic() >= deadline:
                    raise
                time.sleep(0.02)
    except OSError as error:
        opened.close()
        raise protocol.unreachable(path, error) from error


def _read(of: weakref.ref[Connection], opened: socket.socket, frame_bytes_max: int) -> None:
    frames = protocol.FrameReader(frame_bytes_max)
    error: CorpusdError | None = None
    with opened:
        while error is None:
            try:
                data = opened.recv(_READ_BYTES)
                responses = frames.feed(data)
                if not data:
                    error = UnreachableError("corpusd closed the connection", "unreachable")
            except OSError as broken:
                responses = []
                error = UnreachableError(f"connection to corpusd broke: {broken}", "unreachable")
            except ProtocolError as broken:
                responses, error = [], broken
            connection = of()
            if connection is None:
                return
            for response in responses:
                connection.deliver(response)
            if error is not None:
                connection.fail(error)
            del connection

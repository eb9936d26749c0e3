"""One connection of the asyncio client. Everything runs on the loop that opened it."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from . import protocol, verbs
from .errors import CorpusdError, ProtocolError, UnreachableError

_READ_BYTES = 256 << 10


class AsyncPendingCall:
    """A request whose responses have not all come."""

    def __init__(self, connection: AsyncConnection, request: Any,
                 timeout: float | None) -> None:
        self.id: int = request.id
        self.ended = False
        self._connection = connection
        self._request = request
        self._timeout = timeout
        self._responses: asyncio.Queue[Any] = asyncio.Queue()
        self._deadline: float | None = None
        if timeout is not None:
            self._deadline = time.monotonic() + timeout + protocol.DEADLINE_GRACE_S

    def put(self, item: Any) -> None:
        self._responses.put_nowait(item)

    async def next(self) -> Any:
        """RETURNS the next response. Raises what the daemon or the connection reports. A task that
        is cancelled meanwhile cancels the request."""
        remaining = None
        if self._deadline is not None:
            remaining = max(self._deadline - time.monotonic(), 0.0)
        try:
            response = await asyncio.wait_for(self._responses.get(), remaining)
        except asyncio.TimeoutError:
            self.cancel()
            raise protocol.deadline_passed(self._request, self._timeout or 0.0) from None
        except BaseException:
            self.cancel()
            raise
        return protocol.checked(response, self.end)

    def refusal(self) -> bool:
        return not self._responses.empty()

    async def send(self, request: Any) -> None:
        request.id = self.id
        await self._connection.send(request)

    def end(self) -> None:
        self.ended = True
        self._connection.forget(self.id)

    def cancel(self) -> None:
        """Tells the daemon that nobody waits any more. Never raises."""
        if self.ended:
            return
        self.end()
        self._connection.cancel(self.id)

    def cancel_from_anywhere(self) -> None:
        """As cancel, of a thread or a moment that is not the loop's, such as a collection."""
        if self.ended:
            return
        try:
            self._connection.loop.call_soon_threadsafe(self.cancel)
        except RuntimeError:
            pass  # the loop is closed, and the connection with it


class AsyncConnection:
    def __init__(self, path: str, reader: asyncio.StreamReader,
                 writer: asyncio.StreamWriter) -> None:
        self.loop = asyncio.get_running_loop()
        self.path = path
        self._reader = reader
        self._writer = writer
        self._calls: dict[int, AsyncPendingCall] = {}
        self._next_id = 1
        self._broken: CorpusdError | None = None
        self._task = self.loop.create_task(self._read(), name="corpusd-reader")

    @classmethod
    async def open(cls, path: str, connect_timeout: float | None) -> AsyncConnection:
        deadline = None if connect_timeout is None else time.monotonic() + connect_timeout
        while True:
            try:
                reader, writer = await asyncio.open_unix_connection(path)
                return cls(path, reader, writer)
            except BlockingIOError as error:  # the daemon's backlog is full
                if deadline is not None and time.monotonic() >= deadline:
                    raise protocol.unreachable(path, error) from error
                await asyncio.sleep(0.02)
            except OSError as error:
                raise protocol.unreachable(path, error) from error

    async def start(self, request: Any, timeout: float | None) -> AsyncPendingCall:
        if timeout is not None:
            request.timeout_ms = max(int(timeout * 1000), 1)
        self._check()
        request.id = self._next_id
        self._next_id += 1
        call = AsyncPendingCall(self, request, timeout)
        self._calls[request.id] = call
        try:
            await self.send(request)
        except BaseException:
            call.cancel()
            raise
        return call

    async def send(self, request: Any) -> None:
        self._check()
        self._writer.write(protocol.encode(request))
        try:
            await self._writer.drain()
        except OSError as error:
            await asyncio.wait([self._task], timeout=1.0)  # the daemon may have said why
            self._check()
            raise UnreachableError(f"connection to corpusd at '{self.path}' broke: {error}",
                                   "unreachable") from error

    def cancel(self, request_id: int) -> None:
        if self._broken is not None or self._writer.is_closing():
            return
        request = verbs.cancel_request(request_id)
        request.id = self._next_id
        self._next_id += 1
        self._writer.write(protocol.encode(request))

    def forget(self, call_id: int) -> None:
        self._calls.pop(call_id, None)

    async def close(self) -> None:
        self._fail(UnreachableError("the client was closed", "unreachable"))
        self._writer.close()
        try:
            await self._writer.wait_closed()
        except OSError:
            pass  # the other side was first
        self._task.cancel()
        await asyncio.wait([self._task])

    def _check(self) -> None:
        if self._broken is not None:
            raise type(self._broken)(self._broken.message, self._broken.code)

    def _fail(self, error: CorpusdError) -> None:
        self._broken = self._broken or error
        for call in list(self._calls.values()):
            call.put(self._broken)

    async def _read(self) -> None:
        frames = protocol.FrameReader()
        error: CorpusdError | None = None
        while error is None:
            responses = []
            try:
                data = await self._reader.read(_READ_BYTES)
                responses = frames.feed(data)
                if not data:
                    error = UnreachableError("corpusd closed the connection", "unreachable")
            except OSError as broken:
                error = UnreachableError(f"connection to corpusd broke: {broken}", "unreachable")
            except ProtocolError as broken:
                error = broken
            for response in responses:
                self._deliver(response)
        self._fail(error)

    def _deliver(self, response: Any) -> None:
        if response.id == 0:  # of the connection as a whole
            error = protocol.error_in(response)
            if error is not None:
                self._fail(error)
            return
        call = self._calls.get(response.id)
        if call is not None:  # else given up meanwhile
            call.put(response)

"""Connections for httpx on asyncio itself.

httpcore's own backend asks the system at each request whether any idle connection has been closed, and goes through
anyio for every piece that arrives. With threads at work beside it, each of these calls gives up the interpreter and has
to wait for it again: a tenth of the time of a quiet full run. Its pool serves many hosts and makes requests wait for each
other, a quarter of what a request costs; a client of one host that keeps to its limit itself needs neither.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
from collections import deque
from typing import TYPE_CHECKING, Any, Final, Protocol, Self, cast

import httpcore

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator

    import httpx

_MOST_WAITING: Final = 1 << 20
"""Bytes that may arrive before they are asked for."""
_IDLE_SECONDS: Final = 5.0
"""After which a connection is not used again; servers close theirs after a little longer."""
_NEXT_ADDRESS_SECONDS: Final = 0.25
"""When a host's next address is tried beside the one before, as RFC 8305 has it."""


def use_own_connections(client: httpx.AsyncClient, ssl_context: ssl.SSLContext) -> None:
    """Let a client that has not been used yet connect in this way, through proxies too."""
    for transport in filter(None, (client._transport, *client._mounts.values())):  # noqa: SLF001 - httpx has no setting for it
        held = cast("httpx.AsyncHTTPTransport", transport)
        if type(held._pool) is httpcore.AsyncConnectionPool:  # noqa: SLF001
            held._pool = cast("httpcore.AsyncConnectionPool", Pool(ssl_context))  # noqa: SLF001
        else:
            # a proxy's, which is one of httpcore's own and has a backend that httpx does not pass on
            held._pool._network_backend = Backend()  # noqa: SLF001


class Pool:
    """Connections that are used again; as many as there are requests at a time, which the caller bounds."""

    def __init__(self, ssl_context: ssl.SSLContext) -> None:
        self._ssl_context = ssl_context
        self._open: set[httpcore.AsyncHTTPConnection] = set()
        self._idle: list[httpcore.AsyncHTTPConnection] = []

    async def handle_async_request(self, request: httpcore.Request) -> httpcore.Response:
        """Send a request; the connection is free again when the answer's stream has been closed.

        Raises:
            httpcore's errors.
        """
        connection = await self._reused(request.url.origin) or httpcore.AsyncHTTPConnection(
            request.url.origin,
            ssl_context=self._ssl_context,
            keepalive_expiry=_IDLE_SECONDS,
            network_backend=Backend(),
        )
        self._open.add(connection)
        try:
            response = await connection.handle_async_request(request)
        except BaseException:
            # it closes itself, but not when it was given up while it waited for its own lock
            self._open.discard(connection)
            await connection.aclose()
            raise
        response.stream = _Answer(cast("_Arriving", response.stream), lambda: self._take_back(connection))
        return response

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close all connections, also where this is given up meanwhile."""
        self._idle.clear()
        if self._open:
            try:
                await self._open.pop().aclose()
            finally:
                await self.aclose()

    async def _reused(self, origin: httpcore.Origin) -> httpcore.AsyncHTTPConnection | None:
        while self._idle:
            connection = self._idle.pop()
            if connection.can_handle_request(origin) and not connection.has_expired():
                return connection
            self._open.discard(connection)
            await connection.aclose()
        return None

    async def _take_back(self, connection: httpcore.AsyncHTTPConnection) -> None:
        if connection in self._open and connection.is_idle():
            self._idle.append(connection)
        else:
            self._open.discard(connection)
            await connection.aclose()


class _Arriving(Protocol):
    """A body that is arriving, as httpcore hands it out."""

    def __aiter__(self) -> AsyncIterator[bytes]: ...

    async def aclose(self) -> None:
        """No more of it is wanted."""


class _Answer:
    """A body whose connection is free when it has been closed."""

    def __init__(self, stream: _Arriving, when_closed: Callable[[], Awaitable[None]]) -> None:
        self._stream, self._when_closed, self._closed = stream, when_closed, False

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._stream.__aiter__()

    async def aclose(self) -> None:
        if self._closed:
            return
        self._closed = True
        try:
            await self._stream.aclose()
        finally:
            await self._when_closed()


class Backend(httpcore.AsyncNetworkBackend):
    """What httpcore connects with."""

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore's signature
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Connect to whichever of a host's addresses answers first.

        Raises:
            ConnectTimeout, ConnectError: httpcore's.
        """
        del socket_options  # none is ever set, and asyncio sets TCP_NODELAY
        with _told_as(httpcore.ConnectTimeout, httpcore.ConnectError):
            async with asyncio.timeout(timeout):
                _, wire = await asyncio.get_running_loop().create_connection(
                    _Wire,
                    host,
                    port,
                    local_addr=(local_address, 0) if local_address else None,
                    # asyncio's race leaves a connection open where it is given up in the moment it is made
                    happy_eyeballs_delay=None if _is_address(host) else _NEXT_ADDRESS_SECONDS,
                )
        return Stream(wire)

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await asyncio.sleep(seconds)


class Stream(httpcore.AsyncNetworkStream):
    """One connection, as httpcore uses it: one reader and one writer."""

    def __init__(self, wire: _Wire) -> None:
        self._wire = wire

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ARG002, ASYNC109 - httpcore's
        """The next piece as it arrived, which HTTP/1.1 takes of any size; nothing at the end.

        Raises:
            ReadTimeout, ReadError: httpcore's.
        """
        with _told_as(httpcore.ReadTimeout, httpcore.ReadError):
            return await self._wire.take(timeout)

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ASYNC109 - httpcore's signature
        """Send.

        Raises:
            WriteTimeout, WriteError: httpcore's.
        """
        if buffer:
            with _told_as(httpcore.WriteTimeout, httpcore.WriteError):
                await self._wire.send(buffer, timeout)

    async def aclose(self) -> None:
        """Close at once; what was not read is dropped."""
        self._wire.transport.abort()
        # the system hears of it in the loop's next round
        await asyncio.sleep(0)

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore's signature
    ) -> httpcore.AsyncNetworkStream:
        """Go on encrypted.

        Raises:
            ConnectTimeout, ConnectError: httpcore's; the latter's cause is what was wrong with the certificate.
        """
        loop, wire = asyncio.get_running_loop(), self._wire
        try:
            with _told_as(httpcore.ConnectTimeout, httpcore.ConnectError):
                async with asyncio.timeout(timeout):
                    encrypted = await loop.start_tls(wire.transport, wire, ssl_context, server_hostname=server_hostname)
        except BaseException:
            wire.transport.abort()
            raise
        # None where it was closed meanwhile, which the next read says
        wire.transport = encrypted or wire.transport
        return self

    def get_extra_info(self, info: str) -> Any:
        """What httpcore asks: whether an idle connection is of no more use, and how it is encrypted."""
        if info == "is_readable":
            return self._wire.has_news
        return self._wire.transport.get_extra_info(
            {"server_addr": "peername", "client_addr": "sockname"}.get(info, info)
        )


class _Wire(asyncio.Protocol):
    """Keeps what arrives until it is asked for, and stops the sender while too much waits."""

    transport: asyncio.Transport

    def __init__(self) -> None:
        self._pieces: deque[bytes] = deque()
        self._waiting = 0
        self._ended = False
        self._failure: Exception | None = None
        self._reader: asyncio.Future[None] | None = None
        self._room: asyncio.Future[None] | None = None

    @property
    def has_news(self) -> bool:
        """Whether something arrived that nobody has read, or the other side has closed."""
        return self._ended or bool(self._pieces)

    async def take(self, seconds: float | None) -> bytes:
        """The next piece; nothing at the end. Raises TimeoutError, or what ended the connection."""
        if not self.has_news:
            self._reader = asyncio.get_running_loop().create_future()
            try:
                async with asyncio.timeout(seconds):
                    await self._reader
            finally:
                self._reader = None
        if self._pieces:
            piece = self._pieces.popleft()
            self._waiting -= len(piece)
            if self._waiting <= _MOST_WAITING:
                # does nothing where it was not paused
                self.transport.resume_reading()
            return piece
        if self._failure is not None:
            raise self._failure
        return b""

    async def send(self, data: bytes, seconds: float | None) -> None:
        """Hand over, and wait while the other side takes nothing. Raises TimeoutError, or that it has closed."""
        if self._ended:
            raise self._failure or ConnectionResetError("closed by the other side")
        self.transport.write(data)
        if self._room is not None:
            async with asyncio.timeout(seconds):
                await asyncio.shield(self._room)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._pieces.append(data)
        self._waiting += len(data)
        if self._waiting > _MOST_WAITING:
            self.transport.pause_reading()
        self._wake(self._reader)

    def eof_received(self) -> None:
        self._ended = True
        self._wake(self._reader)

    def connection_lost(self, exc: Exception | None) -> None:
        self._ended, self._failure = True, exc
        self._wake(self._reader)
        self.resume_writing()

    def pause_writing(self) -> None:
        self._room = asyncio.get_running_loop().create_future()

    def resume_writing(self) -> None:
        self._wake(self._room)
        self._room = None

    def _wake(self, waiter: asyncio.Future[None] | None) -> None:
        if waiter is not None and not waiter.done():
            waiter.set_result(None)


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


@contextlib.contextmanager
def _told_as(late: type[Exception], failed: type[Exception]) -> Iterator[None]:
    """Failures in httpcore's words; what was the matter is the cause."""
    try:
        yield
    except TimeoutError as error:
        raise late from error
    except OSError as error:
        # an SSLError is one, and so is a name that is not found
        raise failed(str(error)) from error

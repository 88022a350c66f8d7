"""The connections below httpx: nothing lost between the wire and the reader, and every failure told in httpcore's words."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import subprocess
from typing import TYPE_CHECKING, Any, cast

import httpcore
import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sources import _connections
from sources._connections import Backend, Pool, Stream, use_own_connections

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine

MB = 1 << 20


@contextlib.asynccontextmanager
async def served(
    answer: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]], tls: ssl.SSLContext | None = None
) -> AsyncIterator[int]:
    """A server on a port of loopback, which answers each connection and closes it."""

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        handling.append(asyncio.current_task())
        with contextlib.suppress(ConnectionError, ssl.SSLError, asyncio.CancelledError):
            await answer(reader, writer)
        writer.close()
        with contextlib.suppress(ConnectionError, ssl.SSLError, asyncio.CancelledError):
            await writer.wait_closed()

    handling: list[asyncio.Task[None] | None] = []
    server = await asyncio.start_server(accept, "127.0.0.1", 0, ssl=tls)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in filter(None, handling):
            task.cancel()
        await asyncio.gather(*filter(None, handling), return_exceptions=True)


async def everything(stream: httpcore.AsyncNetworkStream) -> bytes:
    body = bytearray()
    while piece := await stream.read(1 << 16, timeout=5):
        body += piece
    return bytes(body)


def play(scene: Coroutine[None, None, None]) -> None:
    asyncio.run(asyncio.wait_for(scene, 30))


@settings(max_examples=25, deadline=None)
@given(pieces=st.lists(st.tuples(st.binary(min_size=1, max_size=70_000), st.booleans(), st.booleans()), max_size=12))
def test_what_was_sent_is_what_is_read(pieces: list[tuple[bytes, bool, bool]]) -> None:
    """A piece that gets lost or changes its place on the way is a row that is wrong."""

    async def scene() -> None:
        async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            for piece, wait, _ in pieces:
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(0.001 if wait else 0)

        async with served(answer) as port:
            stream = await Backend().connect_tcp("127.0.0.1", port, timeout=5)
            body = bytearray()
            for _, _, wait in pieces:
                await asyncio.sleep(0.001 if wait else 0)
                body += await stream.read(1 << 16, timeout=5)
            body += await everything(stream)
            await stream.aclose()
        assert bytes(body) == b"".join(piece for piece, _, _ in pieces)

    play(scene())


def test_a_reader_that_is_slow_stops_the_sender(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a vendor that sends faster than pages are read fills the memory."""
    monkeypatch.setattr(_connections, "_MOST_WAITING", MB // 4)

    async def scene() -> None:
        sent = 0

        async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal sent
            for _ in range(64):
                writer.write(bytes(MB))
                await writer.drain()
                sent += MB

        async with served(answer) as port:
            stream = await Backend().connect_tcp("127.0.0.1", port, timeout=5)
            await asyncio.sleep(0.5)
            assert sent < 32 * MB
            assert len(await everything(stream)) == 64 * MB

    play(scene())


def test_pieces_that_arrived_before_the_connection_broke_are_read_first() -> None:
    """What broke a connection says nothing about what came before."""

    async def scene() -> None:
        async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"all there is")
            await writer.drain()
            await asyncio.sleep(0.05)
            # closed with something unsent to read, which resets it
            writer.transport.get_extra_info("socket").setsockopt(
                socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0"
            )
            writer.transport.abort()

        async with served(answer) as port:
            stream = await Backend().connect_tcp("127.0.0.1", port, timeout=5)
            await asyncio.sleep(0.2)
            assert await stream.read(1 << 16, timeout=5) == b"all there is"
            with pytest.raises(httpcore.ReadError):
                await stream.read(1 << 16, timeout=5)
            with pytest.raises(httpcore.WriteError):
                await stream.write(b"more", timeout=5)

    play(scene())


async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    del reader, writer
    await asyncio.sleep(5)


def test_a_silent_server_is_told_as_such_and_may_still_be_heard() -> None:
    """A read that was given up must not swallow what arrives afterwards."""

    async def scene() -> None:
        async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await asyncio.sleep(0.3)
            writer.write(b"late")
            await writer.drain()

        async with served(answer) as port:
            stream = await Backend().connect_tcp("127.0.0.1", port, timeout=5)
            with pytest.raises(httpcore.ReadTimeout):
                await stream.read(1 << 16, timeout=0.05)
            reading = asyncio.ensure_future(stream.read(1 << 16, timeout=5))
            await asyncio.sleep(0.05)
            reading.cancel()
            with pytest.raises(asyncio.CancelledError):
                await reading
            assert await everything(stream) == b"late"

    play(scene())


def test_a_server_that_takes_nothing_is_told_as_such() -> None:
    """A request that cannot be sent would otherwise wait for as long as the other side keeps its window closed."""

    async def scene() -> None:
        async with served(silent) as port:
            stream = await Backend().connect_tcp("127.0.0.1", port, timeout=5)
            with pytest.raises(httpcore.WriteTimeout):
                await stream.write(bytes(64 * MB), timeout=0.2)
            await stream.aclose()

    play(scene())


def test_an_idle_connection_that_was_closed_is_known_without_asking_the_system() -> None:
    """httpcore takes another one then; a request on a closed connection is a failed attempt."""

    async def scene() -> None:
        closing = asyncio.Event()

        async def answer(_: asyncio.StreamReader, __: asyncio.StreamWriter) -> None:
            await closing.wait()

        async with served(answer) as port:
            stream = await Backend().connect_tcp("127.0.0.1", port, timeout=5)
            assert not stream.get_extra_info("is_readable")
            closing.set()
            await asyncio.sleep(0.1)
            assert stream.get_extra_info("is_readable")
            assert stream.get_extra_info("server_addr") == ("127.0.0.1", port)

    play(scene())


def test_what_cannot_be_reached_is_told_in_httpcores_words() -> None:
    """httpx knows no other errors, and would let them end the run."""

    async def scene() -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            with pytest.raises(httpcore.ConnectError):
                await Backend().connect_tcp("127.0.0.1", taken.getsockname()[1], timeout=5)
        with pytest.raises(httpcore.ConnectError):
            await Backend().connect_tcp("no.such.host.invalid", 443, timeout=5)

    play(scene())


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Contexts of a server and of a client that trusts it."""
    folder = tmp_path_factory.mktemp("tls")
    cert, key = folder / "cert.pem", folder / "key.pem"
    make = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 1 -subj /CN=test"
    more = ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(cert)]
    subprocess.run([*make.split(), *more], check=True, capture_output=True)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(cert, key)
    return server, ssl.create_default_context(cafile=cert)


def test_an_encrypted_connection_reads_and_writes_like_any_other(
    certificate: tuple[ssl.SSLContext, ssl.SSLContext],
) -> None:
    """Vendors are asked over TLS, where pieces are of other sizes and the end is another."""
    server, client = certificate

    async def scene() -> None:
        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(await reader.readexactly(5) + bytes(3 * MB))
            await writer.drain()

        async with served(answer, server) as port:
            stream = await Backend().connect_tcp("127.0.0.1", port, timeout=5)
            stream = await stream.start_tls(client, "127.0.0.1", timeout=5)
            await stream.write(b"hello", timeout=5)
            assert await everything(stream) == b"hello" + bytes(3 * MB)
            assert stream.get_extra_info("ssl_object") is not None
            await stream.aclose()

    play(scene())


def test_a_certificate_nobody_vouches_for_is_the_cause(certificate: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    """The person is told to look at the certificate because of it, instead of at the network."""

    async def scene() -> None:
        async with served(silent, certificate[0]) as port:
            stream = await Backend().connect_tcp("127.0.0.1", port, timeout=5)
            with pytest.raises(httpcore.ConnectError) as raised:
                await stream.start_tls(ssl.create_default_context(), "127.0.0.1", timeout=5)
            assert isinstance(raised.value.__cause__, ssl.SSLCertVerificationError)

    play(scene())


def test_a_server_that_never_ends_its_handshake_is_given_up() -> None:
    async def scene() -> None:
        async with served(silent) as port:
            stream = await Backend().connect_tcp("127.0.0.1", port, timeout=5)
            with pytest.raises(httpcore.ConnectTimeout):
                await stream.start_tls(ssl.create_default_context(), "127.0.0.1", timeout=0.2)

    play(scene())


def test_httpx_connects_in_this_way_directly_and_through_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    """httpx has no setting for it: where a release keeps it elsewhere, runs would be slower and nothing would say so."""
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example:3128")
    client = httpx.AsyncClient()
    use_own_connections(client, ssl.create_default_context())
    ((proxy,),) = [[t._pool for t in client._mounts.values() if isinstance(t, httpx.AsyncHTTPTransport)]]
    assert isinstance(proxy._network_backend, Backend)
    assert isinstance(client._transport, httpx.AsyncHTTPTransport)
    assert isinstance(client._transport._pool, Pool)


async def ask(pool: Pool, port: int, path: str = "/", *, scheme: str = "http") -> tuple[int, bytes]:
    """One request and its whole answer."""
    url = httpcore.URL(f"{scheme}://127.0.0.1:{port}{path}")
    request = httpcore.Request(
        "GET", url, headers={"Host": "test"}, extensions={"timeout": {"read": 0.3, "connect": 0.3}}
    )
    response = await pool.handle_async_request(request)
    try:
        return response.status, b"".join([piece async for piece in response.stream])  # type: ignore[union-attr]
    finally:
        await response.aclose()


def numbered(connections: list[int], *, close_after: int = 99) -> Callable[..., Awaitable[None]]:
    """A server that answers with the number of the connection it is asked over; counts requests by connection."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number = len(connections)
        connections.append(0)
        while connections[number] < close_after:
            await reader.readuntil(b"\r\n\r\n")
            connections[number] += 1
            await asyncio.sleep(0.001)
            body = str(number).encode()
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
            await writer.drain()

    async def until_closed(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError):
            await answer(reader, writer)

    return until_closed


def test_connections_are_used_again_and_no_more_are_made_than_are_needed() -> None:
    """A connection for each request is a handshake for each page; one for two requests mixes their answers."""

    async def scene() -> None:
        connections: list[int] = []
        async with served(numbered(connections)) as port:
            pool = Pool(ssl.create_default_context())
            for _ in range(5):
                answers = await asyncio.gather(*(ask(pool, port) for _ in range(3)))
                assert sorted(answers) == [(200, b"0"), (200, b"1"), (200, b"2")]
            assert connections == [5, 5, 5]
            async with served(numbered([])) as other:
                assert await ask(pool, other) == (200, b"0")
            await pool.aclose()
            assert not pool._open
            assert not pool._idle

    play(scene())


@pytest.mark.parametrize("used_before", [False, True])
def test_a_request_given_up_at_any_moment_leaves_no_connection_open(
    used_before: bool,  # noqa: FBT001 - a parameter of the test
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It would stay open until the process ends, or be used with half an answer in it."""
    made: list[httpcore.AsyncNetworkStream] = []
    connect = Backend.connect_tcp

    async def noted(*arguments: Any, **options: Any) -> httpcore.AsyncNetworkStream:
        made.append(await connect(*arguments, **options))
        return made[-1]

    monkeypatch.setattr(Backend, "connect_tcp", noted)
    moment, given_up = 0, True

    async def scene() -> bool:
        async with served(numbered([])) as port:
            pool = Pool(ssl.create_default_context())
            if used_before:
                await ask(pool, port)
            waiting = asyncio.ensure_future(ask(pool, port))
            for _ in range(moment):
                await asyncio.sleep(0)
            given_up = waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
            assert pool._open == set(pool._idle)
            await pool.aclose()
            assert all(cast("Stream", stream)._wire.transport.is_closing() for stream in made)
            return given_up

    while given_up:
        given_up = asyncio.run(scene())
        moment += 1 + moment // 20
    assert moment > 20
    assert made


def test_an_answer_closed_twice_gives_its_connection_back_once() -> None:
    """Else two requests go out on it at a time, and the second fails."""

    async def scene() -> None:
        async with served(numbered([])) as port:
            pool = Pool(ssl.create_default_context())
            request = httpcore.Request("GET", f"http://127.0.0.1:{port}/", headers={"Host": "test"})
            response = await pool.handle_async_request(request)
            assert await response.aread() == b"0"
            await response.aclose()
            await response.aclose()
            answers = await asyncio.gather(*(ask(pool, port) for _ in range(2)))
            assert sorted(answers) == [(200, b"0"), (200, b"1")]
            await pool.aclose()

    play(scene())


def test_closing_the_pool_closes_its_connections() -> None:
    """A vendor counts those that stay open, until the process ends."""

    async def scene() -> None:
        ended = asyncio.Event()

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            with contextlib.suppress(ConnectionError):
                assert not await reader.read()
            ended.set()

        async with served(answer) as port:
            pool = Pool(ssl.create_default_context())
            assert await ask(pool, port) == (200, b"ok")
            assert not ended.is_set()
            await pool.aclose()
            await asyncio.wait_for(ended.wait(), 2)

    play(scene())


@pytest.mark.parametrize("moment", range(1, 5))
def test_closing_that_is_itself_given_up_closes_every_connection(moment: int) -> None:
    """A reading that is stopped a second time while it closes: the rest would stay open until the process ends."""

    async def scene() -> None:
        async with served(numbered([])) as port:
            pool = Pool(ssl.create_default_context())
            await asyncio.gather(*(ask(pool, port) for _ in range(4)))
            wires = [cast("Any", connection)._connection._network_stream._wire for connection in pool._open]
            closing = asyncio.ensure_future(pool.aclose())
            for _ in range(moment):
                await asyncio.sleep(0)
            closing.cancel()
            await asyncio.gather(closing, return_exceptions=True)
            assert [wire.transport.is_closing() for wire in wires] == [True] * 4
            assert not pool._open

    play(scene())


def test_a_connection_that_was_closed_or_has_idled_long_is_not_used_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A request on it is a failed attempt."""

    async def scene() -> None:
        connections: list[int] = []
        async with served(numbered(connections, close_after=2)) as port:
            pool = Pool(ssl.create_default_context())
            for number in (0, 0, 1, 1, 2):
                assert await ask(pool, port) == (200, str(number).encode())
                await asyncio.sleep(0.05)
            assert len(pool._open) == 1
            monkeypatch.setattr(_connections, "_IDLE_SECONDS", 0.01)
            await pool.aclose()
            for number in (3, 4):
                assert await ask(pool, port) == (200, str(number).encode())
                await asyncio.sleep(0.05)
            await pool.aclose()

    play(scene())


def test_nothing_is_kept_of_a_request_that_failed_or_was_given_up() -> None:
    """A connection with half an answer in it would hand the rest to the next request."""

    async def scene() -> None:
        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            head = await reader.readuntil(b"\r\n\r\n")
            if b"/silent" in head:
                await asyncio.sleep(5)
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf" + (b"" if b"/half" in head else b" more"))
            await writer.drain()
            await asyncio.sleep(5 if b"/slow" in head else 0)

        async with served(answer) as port:
            pool = Pool(ssl.create_default_context())
            with pytest.raises(httpcore.ReadTimeout):
                await ask(pool, port, "/silent")
            with pytest.raises(httpcore.RemoteProtocolError):
                await ask(pool, port, "/half")
            with pytest.raises(httpcore.ConnectTimeout):
                await ask(pool, port, scheme="https")
            waiting = asyncio.ensure_future(ask(pool, port, "/silent"))
            await asyncio.sleep(0.05)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            request = httpcore.Request("GET", f"http://127.0.0.1:{port}/slow", headers={"Host": "test"})
            await (await pool.handle_async_request(request)).aclose()
            assert not pool._open
            assert not pool._idle
            assert await ask(pool, port) == (200, b"half more")
            await pool.aclose()

    play(scene())


def test_a_request_goes_through_a_proxys_tunnel(
    certificate: tuple[ssl.SSLContext, ssl.SSLContext], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Behind a company's proxy the connection is first the proxy's, and then encrypted to the vendor."""

    async def vendor(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in range(2):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2000000\r\n\r\n" + b"x" * 2_000_000)
            await writer.drain()

    async def scene() -> None:
        tunnels = 0

        async def proxy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal tunnels
            tunnels += (await reader.readuntil(b"\r\n\r\n")).startswith(b"CONNECT ")
            there, back = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            await asyncio.gather(_pass_on(reader, back), _pass_on(there, writer))

        async with served(vendor, certificate[0]) as port, served(proxy) as proxy_port:
            monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{proxy_port}")
            async with httpx.AsyncClient(verify=certificate[1]) as client:
                use_own_connections(client, certificate[1])
                for _ in range(2):
                    reply = await client.get(f"https://127.0.0.1:{port}/")
                    assert reply.content == b"x" * 2_000_000
        assert tunnels == 1

    play(scene())


async def _pass_on(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    try:
        with contextlib.suppress(ConnectionError):
            while piece := await source.read(1 << 16):
                target.write(piece)
                await target.drain()
    finally:
        target.close()

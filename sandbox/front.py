"""The outermost layer: carries out faults and writes the request log."""

from __future__ import annotations

import asyncio
import time
import zlib
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, quote

import orjson

from sandbox.getscreen import errors as getscreen
from sandbox.posthog import errors as posthog
from sandbox.requestlog import LoggedRequest
from sandbox.screendesk import errors as screendesk

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from sandbox.faults import Fault
    from sandbox.world import World

HANG_UP = "sandbox.hang_up"
"""Name of the ASGI extension by which `SandboxServer` lends out the connection: `hang_up(abruptly: bool)`."""

_VENDORS = ("screendesk", "getscreen", "posthog")
_LIST_KEYS = ("records", "users", "data", "results")
_LOGIN_PAGE = (
    b"<!DOCTYPE html>\n<html><head><title>Sign in</title></head><body><form>Please sign in</form></body></html>\n"
)
_JSON = "application/json"
_HTML = "text/html; charset=utf-8"
_OK, _FOUND, _THROTTLED = 200, 302, 429
_REDIRECTS = range(300, 400)
_CREDENTIALS = (b"authorization", b"x-api-key")
_PIECE = 1 << 18


class Front:
    """ASGI middleware around the three APIs.

    Over `SandboxServer` a dropped connection is a real one. In-process there is none to drop, so the faults that need
    one raise ConnectionResetError, which httpx's ASGITransport passes on as it is.
    """

    def __init__(self, app: ASGIApp, world: World) -> None:
        self._app = app
        self._world = world

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exchange = _Exchange(self._world, scope, receive, send)
        self._world.requests.began()
        try:
            fault = self._world.faults.pick(exchange.method, exchange.path, exchange.vendor, exchange.query)
            if fault is None:
                await self._app(scope, receive, exchange.send)
            else:
                await _strike(fault, exchange, self._app)
        except Exception:
            exchange.log_crash()
            raise
        finally:
            self._world.requests.ended()


class _Exchange:
    """One request and its reply on the way out."""

    def __init__(self, world: World, scope: Scope, receive: Receive, send: Send) -> None:
        self.world, self.scope, self.receive, self._send = world, scope, receive, send
        self.method, self.path = scope["method"], scope["path"]
        self.query = dict(parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True))
        first = self.path.split("/", 2)[1]
        self.vendor = first if first in _VENDORS else ""
        self._at = time.monotonic()
        self._logged = False

    def log_crash(self) -> None:
        """Log a 500 for an exception that leaves the API, unless the request is in the log already."""
        if not self._logged:
            self.log(500)

    def log(self, status: int) -> None:
        self._logged = True
        secrets = self.world.secrets()
        query = {name: "<secret>" if any(secret and secret in value for secret in secrets) else value
                 for name, value in self.query.items()}  # fmt: skip
        entry = LoggedRequest(self.method, self.path, query, status, self.vendor, self._at)
        self.world.requests.add(entry)

    async def send(self, message: Message) -> None:
        # logged before the reply leaves, so that whoever has the reply also finds the entry
        if message["type"] == "http.response.start":
            self.log(message["status"])
        await self._send(message)

    async def start(
        self, status: int, content_type: str, *, length: int | None, extra: Iterable[tuple[str, str]] = ()
    ) -> None:
        headers = [("content-type", content_type), *extra]
        if length is not None:
            headers.append(("content-length", str(length)))
        encoded = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]
        await self.send({"type": "http.response.start", "status": status, "headers": encoded})

    async def part(self, body: bytes, *, more: bool) -> None:
        await self._send({"type": "http.response.body", "body": body, "more_body": more})

    async def reply(self, status: int, body: bytes, content_type: str = _JSON, *extra: tuple[str, str]) -> None:
        await self.start(status, content_type, length=len(body), extra=extra)
        await self.part(body, more=False)

    async def hang_up(self, *, abruptly: bool) -> None:
        lend: Callable[[bool], None] | None = self.scope.get("extensions", {}).get(HANG_UP)
        if lend is None:
            raise ConnectionResetError("the sandbox dropped the connection")
        lend(abruptly)
        message = await self.receive()
        while message["type"] != "http.disconnect":
            message = await self.receive()

    def error_body(self, status: int, retry_after: str | None = None) -> bytes:
        if self.vendor == "getscreen":
            return getscreen.error_body(status)
        if self.vendor == "posthog":
            if status == _THROTTLED:
                return posthog.throttled(int(retry_after) if retry_after and retry_after.isdecimal() else 1)
            return posthog.error_body(status)
        return screendesk.error_body(status, shape=self.world.screendesk.settings.error_shape)


class _Reply:
    """The reply the API would have given."""

    def __init__(self) -> None:
        self.status = 0
        self.headers: list[tuple[bytes, bytes]] = []
        self.body = b""

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status, self.headers = message["status"], list(message.get("headers", ()))
        else:
            self.body += message.get("body", b"")

    @property
    def content_type(self) -> str:
        return dict(self.headers).get(b"content-type", _JSON.encode()).decode("latin-1")


async def _strike(fault: Fault, exchange: _Exchange, app: ASGIApp) -> None:
    match fault.kind:
        case "status":
            extra = () if fault.retry_after is None else (("retry-after", fault.retry_after),)
            await exchange.reply(fault.status, exchange.error_body(fault.status, fault.retry_after), _JSON, *extra)
        case "reset" if not fault.mid_body:
            exchange.log(0)
            await exchange.hang_up(abruptly=True)
        case "slow":
            await asyncio.sleep(fault.delay)
            await app(exchange.scope, exchange.receive, exchange.send)
        case "html":
            await exchange.reply(_OK, _LOGIN_PAGE, _HTML)
        case "empty":
            await exchange.reply(_OK, b"")
        case "error_object":
            await exchange.reply(_OK, exchange.error_body(500))
        case "redirect":
            status = fault.status if fault.status in _REDIRECTS else _FOUND
            await exchange.reply(status, b"", _HTML, ("location", fault.to))
        case "bomb" | "endless" | "echo":
            await _attack(fault, exchange)
        case _:
            reply = _Reply()
            await app(exchange.scope, exchange.receive, reply.send)
            await _spoil(fault, exchange, reply)


async def _attack(fault: Fault, exchange: _Exchange) -> None:
    """Answer as a hostile server would."""
    match fault.kind:
        case "bomb":
            await _pour(exchange, _bomb(fault.size), ("content-encoding", fault.encoding))
        case "endless":
            await _pour(exchange, _endless())
        case _:
            await _echo(fault, exchange)


async def _pour(exchange: _Exchange, pieces: Iterable[bytes], *extra: tuple[str, str]) -> None:
    """Send pieces until there are no more, or nobody takes them."""
    await exchange.start(_OK, _JSON, length=None, extra=extra)
    left = asyncio.ensure_future(_disconnected(exchange))
    for piece in pieces:
        await exchange.part(piece, more=True)
        await asyncio.sleep(0)
        if left.done():
            return
    left.cancel()
    await exchange.part(b"", more=False)


async def _disconnected(exchange: _Exchange) -> None:
    while (await exchange.receive())["type"] != "http.disconnect":
        pass


def _bomb(size: int) -> Iterator[bytes]:
    zipper, spaces = zlib.compressobj(9, wbits=31), b" " * _PIECE
    yield zipper.compress(b'{"results":[')
    for _ in range(size // _PIECE):
        yield zipper.compress(spaces)
    yield zipper.compress(b"]}") + zipper.flush()


def _endless() -> Iterator[bytes]:
    yield b'{"records":[{}'
    while True:
        yield b",{}" * (_PIECE // 3)


async def _echo(fault: Fault, exchange: _Exchange) -> None:
    sent = [value.decode("latin-1") for name, value in exchange.scope["headers"] if name in _CREDENTIALS]
    secret = " ".join(value.removeprefix("Bearer ") for value in sent)
    body = orjson.dumps({"error": f"the token {secret} may not", "errors": [{"detail": secret}], "token": sent})
    extra = [("x-debug", secret)]
    if fault.to:
        extra.append(("location", f"{fault.to}?token={quote(secret, safe='')}"))
    await exchange.reply(fault.status, body, f"application/json; token={secret}", *extra)


async def _spoil(fault: Fault, exchange: _Exchange, reply: _Reply) -> None:
    """Send the API's own reply, damaged."""
    body = reply.body
    match fault.kind:
        case "drip":
            await exchange.start(reply.status, reply.content_type, length=len(body))
            for at in range(0, len(body), fault.chunk):
                await exchange.part(body[at : at + fault.chunk], more=True)
                await asyncio.sleep(fault.delay)
            await exchange.part(b"", more=False)
        case "truncate" | "reset":
            cut = body[: int(len(body) * fault.keep)]
            promised = fault.declared or fault.kind == "reset"
            await exchange.start(reply.status, reply.content_type, length=len(body) if promised else None)
            await exchange.part(cut, more=promised)
            if promised:
                # let the part reach the client before the connection goes
                await asyncio.sleep(0.02)
                await exchange.hang_up(abruptly=fault.kind == "reset")
        case "wrong_type":
            await exchange.reply(reply.status, body, _HTML)
        case "missing_list":
            envelope: dict[str, Any] = orjson.loads(body)
            left = {name: value for name, value in envelope.items() if name not in _LIST_KEYS}
            await exchange.reply(reply.status, orjson.dumps(left))
        case _:
            changed = body if fault.body is None else fault.body(body)
            await exchange.reply(reply.status, changed, reply.content_type)

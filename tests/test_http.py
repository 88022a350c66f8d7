"""ApiClient against real sockets where socket behaviour matters, and scripted answers elsewhere. No test waits."""

from __future__ import annotations

import asyncio
import copy
import gc
import gzip
import itertools
import json
import logging
import pickle
import random
import ssl
import subprocess
import traceback
import tracemalloc
from collections import Counter
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import TYPE_CHECKING, Any

import httpx
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sources._columns import ColumnReader
from sources._http import (
    ApiClient,
    ApiError,
    BadReply,
    Credential,
    EndpointMissing,
    QuotaExceeded,
    RecordMissing,
    Refused,
    RetryPolicy,
    Throttled,
    TooLarge,
    Traffic,
    Unreachable,
    UntrustedAddress,
    WrongSetting,
    query_of,
)
from sources._pacing import Pacing
from sources.screendesk.tables import RECORDINGS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
    from pathlib import Path

SECRET = "canary-S3cret-9f8e7d6c"
TOKEN = Credential("Authorization", f"Bearer {SECRET}", "sources.screendesk.api_token")
KEY = Credential("X-Api-Key", SECRET, "sources.getscreen.api_key")
EPOCH = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
PAGE: dict[str, Any] = {"data": [1]}
WAITS = [0.5, 1, 2, 4, 8]  # the most each backoff may take


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


class Clock:
    """Time that passes only when everyone waits, and then at once up to the earliest alarm."""

    def __init__(self) -> None:
        self.now = 0.0
        self.slept: list[float] = []
        self._alarms: list[float] = []

    def __call__(self) -> float:
        return self.now

    def wall(self) -> datetime:
        return EPOCH + timedelta(seconds=self.now)

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        alarm = self.now + seconds
        self._alarms.append(alarm)
        try:
            while self.now < alarm:
                before = (self.now, len(self.slept), len(self._alarms))
                for _ in range(30):
                    await asyncio.sleep(0)
                if alarm == min(self._alarms) and before == (self.now, len(self.slept), len(self._alarms)):
                    self.now = alarm
        finally:
            self._alarms.remove(alarm)


def client(handler: Any = None, *, clock: Clock | None = None, **settings: Any) -> ApiClient:
    clock = clock or Clock()
    if handler is not None:
        settings["transport"] = httpx.MockTransport(handler)
    settings = {
        "vendor": "screendesk",
        "base_url": "https://app.example.io/api/v2",
        "credential": TOKEN,
        "clock": clock,
        "wall_clock": clock.wall,
        "sleep": clock.sleep,
        **settings,
    }
    return ApiClient(**settings)


def script(*answers: Any) -> tuple[Any, list[httpx.Request]]:
    """A handler that gives the answers in turn and the last one for ever, and the requests it got."""
    seen: list[httpx.Request] = []

    def handle(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        answer = answers[min(len(seen), len(answers)) - 1]
        if isinstance(answer, Exception):
            raise answer
        if isinstance(answer, int):
            return httpx.Response(answer)
        return answer if isinstance(answer, httpx.Response) else httpx.Response(200, json=answer)

    return handle, seen


def run(coroutine: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(coroutine)


async def fetch(api: ApiClient, path: str = "/recordings", **params: int) -> dict[str, Any]:
    async with api:
        return await api.get_list(path, params, list_key="data")


def failure(api: ApiClient, path: str = "/recordings") -> ApiError:
    with pytest.raises(ApiError) as caught:
        run(fetch(api, path))
    assert_silent(caught.value)
    return caught.value


def assert_silent(error: BaseException) -> None:
    """No secret in anything printed, and no chained exception that holds a request or a body."""
    shown = "".join(traceback.format_exception(error)) + repr(error) + str(error) + repr(vars(error))
    assert SECRET not in shown
    assert error.__cause__ is None
    link: BaseException | None = error.__context__
    while link is not None:
        assert not isinstance(link, (httpx.HTTPError, json.JSONDecodeError))
        link = link.__context__


# --- real sockets -------------------------------------------------------------------------------------------------


class Server:
    """A raw TCP server: each connection is given to the script, and every byte it sends is kept."""

    def __init__(self, answer: Callable[[Server, asyncio.StreamWriter], Awaitable[None]]) -> None:
        self.answer = answer
        self.port = 0
        self.connections = 0
        self.heard = b""
        self.requests = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                self.heard += head
                self.requests += 1
                await self.answer(self, writer)
                await writer.drain()
                if writer.is_closing():
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()
            with suppress(ConnectionError, ssl.SSLError):
                await writer.wait_closed()


@asynccontextmanager
async def serving(
    answer: Callable[[Server, asyncio.StreamWriter], Awaitable[None]], tls: ssl.SSLContext | None = None
) -> AsyncIterator[Server]:
    server = Server(answer)
    tasks: set[asyncio.Task[None]] = set()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(server.serve(reader, writer))
        tasks.add(task)

    listener = await asyncio.start_server(accept, "127.0.0.1", 0, ssl=tls)
    server.port = listener.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listener.close()
        await listener.wait_closed()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def sends(head: str, body: bytes = b"", *, close: bool = False) -> Callable[[Server, asyncio.StreamWriter], Any]:
    async def answer(_: Server, writer: asyncio.StreamWriter) -> None:
        writer.write(f"HTTP/1.1 {head}\r\n\r\n".encode() + body)
        if close:
            await writer.drain()
            writer.close()

    return answer


def whole(body: bytes, *headers: str) -> Callable[[Server, asyncio.StreamWriter], Any]:
    return sends("\r\n".join(["200 OK", f"Content-Length: {len(body)}", *headers]), body)


def in_turn(*answers: Callable[[Server, asyncio.StreamWriter], Any]) -> Callable[[Server, asyncio.StreamWriter], Any]:
    async def answer(server: Server, writer: asyncio.StreamWriter) -> None:
        await answers[min(server.requests, len(answers)) - 1](server, writer)

    return answer


async def reset(_: Server, writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()  # type: ignore[attr-defined,unused-ignore]


async def fetch_from(server: Server, **settings: Any) -> Any:
    async with client(base_url=server.url, **settings) as api:
        try:
            return await api.get_list("/list", {"page": 1}, list_key="data")
        except ApiError as error:
            assert_silent(error)
            return error


GOOD = whole(b'{"data": [1]}')


# --- the credential stays at its origin ---------------------------------------------------------------------------


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("credential", [TOKEN, KEY], ids=["bearer", "api key"])
def test_a_redirect_sends_no_byte_to_a_stranger(status: int, credential: Credential) -> None:
    async def check() -> tuple[Any, Server, Server]:
        async with serving(GOOD) as stranger:
            head = f"{status} Moved\r\nLocation: http://127.0.0.1:{stranger.port}/x?t={SECRET}\r\nContent-Length: 0"
            async with serving(sends(head)) as server:
                return await fetch_from(server, credential=credential), server, stranger

    error, server, stranger = run(check())
    assert isinstance(error, UntrustedAddress)
    assert "127.0.0.1" in error.message
    assert "/x" not in error.message
    assert server.requests == 1
    assert SECRET.encode() in server.heard
    assert stranger.connections == 0


@pytest.mark.parametrize(
    ("location", "named"),
    [
        ("http://app.example.io/api/v2/recordings", "host app.example.io"),
        ("https://evil.example/x?key=1", "host evil.example"),
        ("//evil.example/x", "host evil.example"),
        ("/login?return=secret", "host app.example.io"),
        (f"https://{SECRET}.evil.example/", "host [redacted].evil.example"),
        ("file:///etc/passwd", "an unreadable address"),
        ("https://[", "an unreadable address"),
        ("", "host app.example.io"),
    ],
)
def test_a_redirect_is_named_by_host_only(location: str, named: str) -> None:
    handle, seen = script(httpx.Response(302, headers={"location": location}))
    error = failure(client(handle))
    assert isinstance(error, UntrustedAddress)
    assert f"to {named}, " in error.message
    assert len(seen) == 1


@pytest.mark.parametrize(
    "path",
    [
        "https://evil.example/api",
        "http://app.example.io/api/v2/recordings",
        "https://app.example.io:444/api/v2/recordings",
        "https://app.example.io@evil.example/",
        "file:///etc/passwd",
        "//evil.example/x",
        "/../../admin",
        "/recordings/..",
        "/recordings/%2e%2e/users",
        "/recordings/..%2fusers",
        "/recordings\\..\\users",
        "/recordings/%5cevil",
        "/recordings/./x",
        "/recordings\r\nX: y",
        "/recordings/%0d%0aX: y",
        "/recordings?page=2",
        "/recordings#x",
    ],
)
def test_a_path_that_leads_out_of_the_api_is_not_asked(path: str) -> None:
    """A vendor's id is part of a path, and an absolute `next` may be passed by mistake."""
    handle, seen = script(PAGE)
    assert isinstance(failure(client(handle), path), UntrustedAddress)
    assert seen == []


def test_the_credential_is_added_per_request_and_only_for_the_exact_origin() -> None:
    handle, seen = script(PAGE)

    async def check() -> None:
        async with client(handle, base_url="https://app.example.io/api") as api:
            await api.get_list("/list", {}, list_key="data")
            assert "authorization" not in api._open().headers
            for stranger in ("http://app.example.io/", "https://app.example.io:444/", "https://app.example.io.evil/"):
                async with api._answer(httpx.URL(stranger)):
                    pass
            async with api._answer(httpx.URL("https://APP.example.io:443/")):
                pass

    run(check())
    assert [request.headers.get("authorization") for request in seen] == [TOKEN.value, None, None, None, TOKEN.value]


def test_an_absolute_next_is_used_for_its_query_only() -> None:
    assert query_of(f"http://evil.example/x?limit=100&offset=200&q=a%20b&e=#{SECRET}") == {
        "limit": "100",
        "offset": "200",
        "q": "a b",
        "e": "",
    }


@pytest.mark.parametrize("url", ["", "nonsense", "http://[", "https://x/?" + "a=1&" * 200, None, 7])
def test_a_malformed_next_has_no_query(url: Any) -> None:
    assert query_of(url) == {}


@pytest.mark.parametrize(
    "base_url",
    [
        "http://app.example.io/api",
        "http://127.0.0.1.evil.example",
        "http://localhost.evil.example",
        "http://0.0.0.0:80",
        "https://app.example.io@evil.example/",
        "https://@evil.example/",
        "https://user:pw@app.example.io",
        "https://app.example.io\\@evil.example",
        "https://app.example.io/?x=1",
        "https://app.example.io/?",
        "https://app.example.io/#x",
        "https://",
        "https:///api",
        "https://exa mple.io",
        "https://app.example.io:0",
        "https://app.example.io:99999",
        "https://app.example.io:x",
        "ftp://app.example.io",
        "app.example.io",
        "",
        " https://app.example.io",
    ],
)
def test_a_base_url_that_could_leak_the_credential_is_refused(base_url: str) -> None:
    with pytest.raises(WrongSetting, match=r"sources\.screendesk\.base_url") as caught:
        client(base_url=base_url)
    assert "SOURCES__SCREENDESK__BASE_URL" in caught.value.setting
    assert caught.value.recovery == "fix"
    assert_silent(caught.value)


@pytest.mark.parametrize(
    "base_url", ["https://app.example.io", "https://app.example.io:8443/x/", "http://127.0.0.1:1", "http://[::1]:8/a"]
)
def test_a_base_url_keeps_its_path_with_or_without_a_final_slash(base_url: str) -> None:
    handle, seen = script(PAGE)
    run(fetch(client(handle, base_url=base_url), "/list/", page=2))
    assert str(seen[0].url) == f"{base_url.rstrip('/')}/list/?page=2"


@pytest.mark.parametrize("value", ["Bearer ", "", f"Bearer {SECRET}\n", f"Bearer {SECRET} ", f"Bearer {SECRET}“"])
def test_a_credential_no_header_can_carry_is_refused_without_being_printed(value: str) -> None:
    """httpx and h11 print the whole value when they meet it."""
    with pytest.raises(WrongSetting, match="SOURCES__SCREENDESK__API_TOKEN") as caught:
        client(credential=Credential("Authorization", value, "sources.screendesk.api_token"))
    assert_silent(caught.value)


def test_construction_opens_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(httpx, "AsyncClient", lambda **_: pytest.fail("opened"))
    client()


def test_a_netrc_file_adds_no_credential(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login u password netrc-password\n")
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    monkeypatch.setenv("HOME", str(tmp_path))

    async def check() -> bytes:
        async with serving(GOOD) as server:
            await fetch_from(server, credential=KEY)
            return server.heard

    assert b"authorization" not in run(check()).lower()


def test_a_proxy_in_the_environment_is_not_used_for_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    """Over http the proxy would read the credential, and the sandbox is not reachable through it."""

    async def check() -> tuple[Any, Server]:
        async with serving(GOOD) as proxy, serving(GOOD) as server:
            monkeypatch.setenv("HTTP_PROXY", proxy.url)
            monkeypatch.setenv("ALL_PROXY", proxy.url)
            return await fetch_from(server), proxy

    data, proxy = run(check())
    assert data == PAGE
    assert proxy.connections == 0


def test_a_proxy_in_the_environment_is_used_for_other_hosts_and_never_shown_the_credential(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def check() -> Server:
        async with serving(sends("502 Bad Gateway\r\nContent-Length: 0")) as proxy:
            monkeypatch.setenv("HTTPS_PROXY", proxy.url)
            async with client(retry=RetryPolicy(attempts=1)) as api:
                with pytest.raises(Unreachable):
                    await api.get_list("/list", {}, list_key="data")
            return proxy

    proxy = run(check())
    assert proxy.heard.startswith(b"CONNECT app.example.io:443 ")
    assert SECRET.encode() not in proxy.heard


def test_cookies_are_not_kept() -> None:
    """A session cookie would make later answers depend on earlier ones, and PostHog prefers it to the key."""
    handle, seen = script(httpx.Response(200, json=PAGE, headers={"set-cookie": "sid=1; Path=/"}))

    async def check() -> None:
        async with client(handle) as api:
            for _ in range(2):
                await api.get_list("/list", {}, list_key="data")

    run(check())
    assert "cookie" not in seen[1].headers


# --- what may print it --------------------------------------------------------------------------------------------


def test_no_log_record_shows_the_credential_even_if_the_server_sends_it_back(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    caplog.set_level(logging.DEBUG, "httpcore")
    echo = whole(b'{"data": [1]}', f"X-Echo: {SECRET}", f"Set-Cookie: k={SECRET}")
    refuse = sends(f"401 {SECRET}\r\nContent-Length: {len(SECRET)}\r\nWWW-Authenticate: {SECRET}", SECRET.encode())

    async def check() -> Any:
        async with serving(in_turn(echo, refuse)) as server, client(base_url=server.url) as api:
            await api.get_list("/list", {"page": 3, "email": "ann@example.io"}, list_key="data")
            with pytest.raises(Refused) as caught:
                await api.get_list("/list", {}, list_key="data")
            return caught.value

    assert_silent(run(check()))
    assert SECRET not in caplog.text
    assert {"httpcore.http11", "deskhouse.http"} <= {record.name for record in caplog.records}
    ours = "\n".join(record.getMessage() for record in caplog.records if record.name == "deskhouse.http")
    assert "GET /list?page=3 -> 200, 13 bytes" in ours
    assert "ann@" not in ours


def test_a_closed_client_leaves_no_log_filter_behind() -> None:
    def filters() -> int:
        return sum(len(logging.getLogger(name).filters) for name in ("httpx", "httpcore.http11", "deskhouse.http"))

    before = filters()
    run(fetch(client(script(PAGE)[0])))
    assert filters() == before


def test_reprs_hide_the_credential() -> None:
    assert SECRET not in repr(TOKEN) + str(TOKEN) + repr(client()) + str(client())


@pytest.mark.parametrize(
    "body", [f'{{"error": "bad {SECRET}"}}', f"<html>{SECRET}", f'{{"{SECRET}": 1}}', f'["{SECRET}"]', f'"{SECRET}']
)
def test_an_error_never_quotes_the_body(body: str) -> None:
    handle, _ = script(httpx.Response(200, content=body, headers={"content-type": f"text/{SECRET}; x={SECRET}"}))
    assert isinstance(failure(client(handle)), BadReply)


def test_errors_survive_pickling_and_copying() -> None:
    """dlt pickles what failed; an exception that cannot be rebuilt hides its own cause."""
    error = Throttled("screendesk", "wait", retry_after=7.0)
    for twin in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert (type(twin), str(twin), twin.vendor, twin.retry_after) == (Throttled, "wait", "screendesk", 7.0)


# --- answers that are not pages -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        pytest.param(httpx.Response(200, html="<html>Log in</html>"), "text/html, 19 bytes", id="html login page"),
        pytest.param(httpx.Response(200, content=b""), "no content type, 0 bytes", id="empty 200"),
        pytest.param(httpx.Response(204), "0 bytes", id="204"),
        pytest.param(httpx.Response(200, json={"error": "x", "data": []}), "error", id="error object"),
        pytest.param(httpx.Response(200, json={"errors": [{"m": 1}], "data": []}), "error", id="errors list"),
        pytest.param(httpx.Response(200, json={}), '"data" is missing', id="list key missing"),
        pytest.param(httpx.Response(200, json={"data": None}), '"data" is no list', id="list key null"),
        pytest.param(httpx.Response(200, json={"data": {}}), '"data" is no list', id="list key object"),
        pytest.param(httpx.Response(200, json=[]), "no object", id="bare list"),
        pytest.param(httpx.Response(200, content=b"null"), "no object", id="null"),
        pytest.param(httpx.Response(200, content=b'{"data": [1, 2'), "unreadable from byte 1", id="cut off"),
        pytest.param(httpx.Response(200, content=b'{"data": [NaN]}'), "unreadable", id="NaN"),
        pytest.param(httpx.Response(200, content=b'{"data": [-Infinity]}'), "unreadable", id="Infinity"),
        pytest.param(httpx.Response(200, content=b'{"data": ["\xff"]}'), "unreadable", id="not UTF-8"),
        pytest.param(httpx.Response(200, content=b"[" * 100_000), "unreadable", id="nested without end"),
        pytest.param(httpx.Response(200, content=b"x", headers={"content-encoding": "br"}), "encoding", id="brotli"),
        pytest.param(httpx.Response(400), "HTTP 400", id="400"),
        pytest.param(httpx.Response(422), "HTTP 422", id="422"),
    ],
)
def test_what_is_no_page_is_an_error_and_never_an_empty_page(answer: httpx.Response, says: str) -> None:
    handle, _ = script(answer)
    error = failure(client(handle))
    assert isinstance(error, BadReply)
    assert says in error.message
    assert (error.recovery, error.vendor) == ("stop", "screendesk")


PAGES = [
    b"<!DOCTYPE html><form>Sign in</form>",
    b"\xef\xbb\xbf\n <html>",
    b"\n" * 99 + b'<?xml version="1.0"?><Error/>',
]


@pytest.mark.parametrize("label", ["text/html; charset=utf-8", "application/json", ""])
@pytest.mark.parametrize("body", PAGES, ids=["html", "blank first", "xml"])
def test_a_web_page_with_200_says_what_it_may_be_whatever_its_label(body: bytes, label: str) -> None:
    """A login page that is trusted for its label, or whose error leaves a person to guess at `unreadable from byte 0`."""
    handle, seen = script(httpx.Response(200, content=body, headers={"content-type": label} if label else {}))
    error = failure(client(handle))
    assert isinstance(error, BadReply)
    for said in ("did not send JSON for /recordings but a web page", "login", "proxy", f"{len(body)} bytes), twice"):
        assert said in error.message
    assert "SOURCES__SCREENDESK__BASE_URL" in error.message
    assert "SOURCES__SCREENDESK__API_TOKEN" in error.message
    assert not any(quoted in error.message for quoted in ("Sign in", "<", "DOCTYPE"))
    assert "\n" not in error.message
    assert len(seen) == 2


def test_a_web_page_in_passing_costs_one_more_request() -> None:
    handle, seen = script(httpx.Response(200, html="<html>back in a minute"), PAGE)
    assert run(fetch(client(handle))) == PAGE
    assert len(seen) == 2


@pytest.mark.parametrize(
    "label", ["text/html; charset=iso-8859-1", "text/plain", "application/octet-stream", "nonsense"]
)
def test_json_with_a_wrong_label_is_read_whole_and_told_once(label: str, caplog: pytest.LogCaptureFixture) -> None:
    """A vendor's or proxy's slip in a header that stops every sync, or that garbles what is not ASCII."""
    caplog.set_level(logging.INFO, "deskhouse.http")
    content = json.dumps({"data": ["Zoë 😀"]}, ensure_ascii=False).encode()
    handle, seen = script(httpx.Response(200, content=content, headers={"content-type": label}))

    async def twice() -> list[Any]:
        async with client(handle) as api:
            return [await api.get_list("/a", {}, list_key="data"), await api.get_object("/b")]

    assert run(twice()) == [{"data": ["Zoë 😀"]}] * 2
    assert len(seen) == 2
    told = [record.getMessage() for record in caplog.records if "read all the same" in record.getMessage()]
    assert told == [f"screendesk calls the JSON at /a {label.partition(';')[0]}; it is read all the same"]


def test_a_wrong_label_makes_no_page_of_json_that_is_none() -> None:
    """A gateway's notice in JSON, called HTML, that is taken for a page without rows."""
    notice = httpx.Response(200, content=b'{"message": "sign in"}', headers={"content-type": "text/html"})
    assert '"data" is missing' in failure(client(script(notice)[0])).message


def test_json_that_cannot_be_read_is_fetched_once_more() -> None:
    handle, seen = script(httpx.Response(200, content=b'{"data": [1'), PAGE)
    assert run(fetch(client(handle))) == PAGE
    assert len(seen) == 2
    handle, seen = script(httpx.Response(200, content=b'{"data": [1'))
    failure(client(handle))
    assert len(seen) == 2


def test_an_empty_error_field_is_no_error() -> None:
    page: dict[str, Any] = {"data": [], "error": None, "errors": []}
    assert run(fetch(client(script(page)[0]))) == page


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (b"9223372036854775808", 2**63),
        (b"18446744073709551616", 2**64),
        (b"-9223372036854775809", -(2**63) - 1),
        (b" \n 123456789012345678901234567890", 123456789012345678901234567890),
        (b" " * 99 + b"-123456789012345678901234567890", -123456789012345678901234567890),
        (b"1" * 4301, "1" * 4301),
        (b"1e400", "1e400"),
        (b"-1E999", "-1E999"),
        (b"1.5", 1.5),
        (b'"a\\ud800b"', "a\ufffdb"),
        (b'"\\udc00\\ud83d\\ude00"', "\ufffd\U0001f600"),
        (b'"\\\\ud800 \\\\\\ud800"', "\\ud800 \\\ufffd"),
        (b'{"k": 1, "k": 2}', {"k": 2}),
        (b'"a\\u0000b"', "a\0b"),
    ],
)
def test_values_arrive_exact(text: bytes, value: Any) -> None:
    """orjson alone makes integers beyond 64 bits floats, and refuses lone surrogates and 1e400."""
    data = run(fetch(client(script(httpx.Response(200, content=b'{"data": [' + text + b"]}"))[0])))
    assert data == {"data": [value]}
    assert type(data["data"][0]) is type(value)


@given(st.integers(-(10**40), 10**40), st.booleans())
def test_no_integer_changes(number: int, spaced: bool) -> None:  # noqa: FBT001
    page = json.dumps({"data": [{"n": number, "t": f"{number}"}]}, separators=None if spaced else (",", ":"))
    assert run(fetch(client(script(httpx.Response(200, content=page))[0])))["data"][0]["n"] == number


def test_a_byte_order_mark_is_ignored() -> None:
    assert run(fetch(client(script(httpx.Response(200, content=b'\xef\xbb\xbf{"data": [1]}'))[0]))) == PAGE


# --- errors a person can act on -----------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_credential_names_its_setting_and_is_not_retried(status: int) -> None:
    handle, seen = script(status)
    error = failure(client(handle, hints={403: "The plan may lack API access."}))
    assert isinstance(error, Refused)
    for part in (f"HTTP {status}", "Screendesk", "sources.screendesk.api_token", "SOURCES__SCREENDESK__API_TOKEN"):
        assert part in error.message
    assert ("plan may lack" in error.message) == (status == 403)
    assert "SOURCES__SCREENDESK__API_TOKEN" in error.setting
    assert (error.recovery, len(seen)) == ("fix", 1)


def test_402_is_a_quota_and_stops_the_whole_client() -> None:
    handle, seen = script(402, PAGE)

    async def check() -> None:
        async with client(handle) as api:
            for _ in range(2):
                with pytest.raises(QuotaExceeded, match="402") as caught:
                    await api.get_list("/list", {}, list_key="data")
                assert caught.value.recovery == "wait"

    run(check())
    assert len(seen) == 1


@pytest.mark.parametrize("status", [404, 410])
def test_a_missing_list_is_a_wrong_setting_and_a_missing_record_an_answer(status: int) -> None:
    handle, seen = script(status)
    error = failure(client(handle, hints={404: "Retired.", 410: "Retired."}))
    assert isinstance(error, EndpointMissing)
    assert "SOURCES__SCREENDESK__BASE_URL" in error.setting
    assert error.message.endswith("Retired.")

    async def check() -> None:
        async with client(handle) as api:
            with pytest.raises(RecordMissing):
                await api.get_object("/recordings/1")

    run(check())
    assert len(seen) == 2


def test_a_record_is_read_whole_with_its_parameters() -> None:
    handle, seen = script({"id": 1})

    async def check() -> Any:
        async with client(handle) as api:
            return await api.get_object("/history/info", {"session_id": 5})

    assert run(check()) == {"id": 1}
    assert seen[0].url.query == b"session_id=5"
    assert seen[0].method == "GET"


# --- retries ------------------------------------------------------------------------------------------------------

TRANSIENT = [
    pytest.param(500, id="500"),
    pytest.param(502, id="502"),
    pytest.param(503, id="503"),
    pytest.param(504, id="504"),
    pytest.param(408, id="408"),
    pytest.param(httpx.ConnectError("x"), id="connect error"),
    pytest.param(httpx.ConnectTimeout("x"), id="connect timeout"),
    pytest.param(httpx.ReadTimeout("x"), id="read timeout"),
    pytest.param(httpx.ReadError("x"), id="read error"),
    pytest.param(httpx.RemoteProtocolError(SECRET), id="garbled"),
    pytest.param(httpx.PoolTimeout("x"), id="pool timeout"),
]


@pytest.mark.parametrize("trouble", TRANSIENT)
def test_trouble_in_passing_is_repeated_with_full_jitter_and_counted(trouble: Any) -> None:
    clock, table = Clock(), Traffic()
    handle, seen = script(*[trouble] * 5, PAGE)

    async def check() -> ApiClient:
        async with client(handle, clock=clock) as api:
            assert await api.get_list("/list", {}, list_key="data", traffic=table) == PAGE
            return api

    api = run(check())
    assert (api.traffic.requests, api.traffic.retries, len(seen)) == (6, 5, 6)
    assert table == api.traffic
    assert api.traffic.throttled_seconds == 0
    assert len(clock.slept) == 5
    assert all(0 <= slept <= most for slept, most in zip(clock.slept, WAITS, strict=True))


def test_the_jitter_is_full(monkeypatch: pytest.MonkeyPatch) -> None:
    """Equal waits would bring all workers back at the same moment."""
    bounds: list[tuple[float, float]] = []

    def uniform(low: float, high: float) -> float:
        bounds.append((low, high))
        return high

    monkeypatch.setattr(random, "uniform", uniform)
    failure(client(script(503)[0], retry=RetryPolicy(attempts=9, cap_seconds=10, deadline_seconds=1000)))
    assert bounds == [(0, high) for high in (0.5, 1, 2, 4, 8, 10, 10, 10, 10)]


@pytest.mark.parametrize("trouble", TRANSIENT)
def test_attempts_are_capped_and_the_error_says_what_happened(trouble: Any) -> None:
    handle, seen = script(trouble)
    error = failure(client(handle))
    assert isinstance(error, Unreachable)
    assert "6 attempts" in error.message
    assert error.recovery == "retry"
    assert len(seen) == 6


@pytest.mark.parametrize("status", [400, 401, 402, 403, 404, 409, 410, 418, 422])
def test_what_will_not_change_is_not_repeated(status: int) -> None:
    handle, seen = script(status)
    failure(client(handle))
    assert len(seen) == 1


def test_the_overall_deadline_ends_the_attempts() -> None:
    clock = Clock()

    def slow(_: httpx.Request) -> httpx.Response:
        clock.now += 40
        return httpx.Response(503)

    error = failure(client(slow, clock=clock, retry=RetryPolicy(attempts=99, deadline_seconds=100)))
    assert isinstance(error, Unreachable)
    assert clock.now <= 140
    assert "3 attempts" in error.message


def stamp(seconds: float) -> str:
    return format_datetime(EPOCH + timedelta(seconds=seconds), usegmt=True)


@pytest.mark.parametrize(
    ("header", "least", "most"),
    [
        pytest.param("7", 7, 8.1, id="seconds"),
        pytest.param("1.5", 1.5, 8.1, id="fraction"),
        pytest.param(stamp(9), 9, 9, id="date"),
        pytest.param("Sunday, 22-Nov-26 12:00:09 GMT", 9, 9, id="old date"),
        pytest.param("0", 0.5, 2, id="zero"),
        pytest.param("-5", 0.5, 2, id="negative"),
        pytest.param(stamp(-3600), 0.5, 2, id="past date"),
        pytest.param("999999", 120, 120, id="absurd"),
        pytest.param("9" * 400, 120, 120, id="beyond a float"),
        pytest.param(stamp(10**8), 120, 120, id="far date"),
        pytest.param("Fri, 31 Dec 9999 23:59:59 -2359", 0, 120, id="end of the calendar"),
        pytest.param("soon", 0, 2, id="garbage"),
        pytest.param("", 0, 2, id="empty"),
        pytest.param("1e9", 0, 2, id="not a number of seconds"),
    ],
)
@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_is_a_minimum_wait_within_bounds(header: str, least: float, most: float, status: int) -> None:
    clock = Clock()
    handle, seen = script(httpx.Response(status, headers={"retry-after": header}), PAGE)
    assert run(fetch(client(handle, clock=clock))) == PAGE
    assert len(seen) == 2
    assert least <= clock.now <= most


def test_a_429_without_retry_after_is_backed_off() -> None:
    clock = Clock()
    handle, seen = script(429, 429, PAGE)
    assert run(fetch(client(handle, clock=clock))) == PAGE
    assert len(seen) == 3
    assert 0 < clock.now <= 6.5


def test_a_wait_beyond_the_deadline_fails_at_once_and_says_when_to_try_again() -> None:
    clock = Clock()
    handle, seen = script(httpx.Response(429, headers={"retry-after": "3600"}))
    error = failure(client(handle, clock=clock, retry=RetryPolicy(deadline_seconds=100)))
    assert isinstance(error, Throttled)
    assert "after 2026-11-22 13:00:00 UTC" in error.message
    assert (error.retry_after, error.recovery) == (3600, "wait")
    assert (len(seen), clock.now) == (1, 0)


def test_throttling_that_never_ends_is_throttled_and_not_unreachable() -> None:
    handle, seen = script(httpx.Response(503, headers={"retry-after": "1"}))
    error = failure(client(handle))
    assert isinstance(error, Throttled)
    assert len(seen) == 6
    assert failure(client(script(429)[0])).recovery == "wait"


def test_permanent_trouble_stays_within_a_budget_for_all_workers() -> None:
    """1000 pages with 8 workers and 6 attempts each would be 6000 requests."""
    handle, seen = script(503)

    async def check() -> list[Any]:
        async with client(handle, max_concurrency=8) as api:
            pages = (api.get_list("/list", {"page": page}, list_key="data") for page in range(1000))
            return list(await asyncio.gather(*pages, return_exceptions=True))

    errors = run(check())
    assert len(errors) == 1000
    assert {(type(error), str(error)) for error in errors} == {(Unreachable, str(errors[0]))}
    assert len(seen) <= 60


def test_retries_are_bounded_while_most_requests_succeed() -> None:
    """Trouble with every third request draws on a budget for the client, not on one per request."""
    seen = Counter[str]()

    async def check() -> ApiClient:
        async with client(handle, max_concurrency=4) as api:
            for page in range(600):
                with suppress(Unreachable):
                    await api.get_list("/list", {"page": page}, list_key="data")
            return api

    def handle(request: httpx.Request) -> httpx.Response:
        seen[str(request.url)] += 1
        page = int(request.url.params["page"])
        return httpx.Response(503) if page % 3 == 0 and seen[str(request.url)] < 3 else httpx.Response(200, json=PAGE)

    api = run(check())
    assert api.traffic.retries <= 60 + 600 // 10


def test_one_broken_address_does_not_take_the_vendor_down_while_others_answer() -> None:
    async def handle(request: httpx.Request) -> httpx.Response:
        await asyncio.sleep(0)
        return httpx.Response(500) if "broken" in request.url.path else httpx.Response(200, json=PAGE)

    async def check() -> Any:
        clock = Clock()
        async with client(handle, clock=clock) as api:

            async def others() -> None:
                while clock.now < 1 and not broken.done():
                    await api.get_list("/users", {}, list_key="data")
                    await asyncio.sleep(0)

            broken = asyncio.ensure_future(api.get_list("/broken", {}, list_key="data"))
            await asyncio.gather(others(), broken, return_exceptions=True)
            return await api.get_list("/users", {}, list_key="data")

    assert run(check()) == PAGE


# --- sockets that misbehave ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "trouble",
    [
        pytest.param(reset, id="reset"),
        pytest.param(sends("200 OK\r\nContent-Length: 99", b'{"data": [1]}', close=True), id="short with length"),
        pytest.param(sends("200 OK\r\nConnection: close", b'{"data": [1', close=True), id="short without length"),
        pytest.param(sends(f"200 OK\r\nBroken {SECRET}", close=True), id="garbled header"),
        pytest.param(whole(gzip.compress(b'{"data": [1]}')[:-9], "Content-Encoding: gzip"), id="short gzip"),
        pytest.param(whole(b"no gzip", "Content-Encoding: gzip"), id="no gzip"),
    ],
)
def test_a_body_that_breaks_off_is_fetched_again_and_never_a_short_page(trouble: Any) -> None:
    async def check() -> tuple[Any, int]:
        async with serving(in_turn(trouble, GOOD)) as server:
            return await fetch_from(server), server.requests

    assert run(check()) == (PAGE, 2)


def test_an_answer_that_is_not_read_gives_its_connection_back() -> None:
    """Else the only connection stays taken, and the next attempt waits for it in vain."""
    trouble = sends("503 Busy\r\nContent-Length: 9", b"come back")

    async def check() -> Any:
        async with serving(in_turn(trouble, trouble, GOOD)) as server:
            return await fetch_from(server, max_concurrency=1, read_timeout=0.5)

    assert run(check()) == PAGE


def test_a_refused_connection_is_unreachable_and_says_why() -> None:
    async def check() -> Any:
        async with serving(GOOD) as server:
            pass
        return await fetch_from(server)

    error = run(check())
    assert isinstance(error, Unreachable)
    assert "ConnectError" in error.message
    assert "SOURCES__SCREENDESK__BASE_URL" in error.message


def test_a_drip_is_cut_although_every_read_is_in_time() -> None:
    async def drip(_: Server, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
        while not writer.is_closing():
            writer.write(b" ")
            await writer.drain()
            await asyncio.sleep(0.01)

    async def check() -> tuple[Any, int]:
        async with serving(drip) as server:
            settings = {"read_timeout": 5.0, "request_deadline": 0.1, "retry": RetryPolicy(attempts=2)}
            return await fetch_from(server, **settings), server.requests

    error, requests = run(check())
    assert isinstance(error, Unreachable)
    assert "within 0.1 s" in error.message
    assert requests == 2


def test_silence_is_cut_by_the_read_timeout() -> None:
    async def silent(_: Server, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(60)

    async def check() -> Any:
        async with serving(silent) as server:
            return await fetch_from(server, read_timeout=0.05, retry=RetryPolicy(attempts=2))

    error = run(check())
    assert isinstance(error, Unreachable)
    assert "ReadTimeout" in error.message


def test_a_gzip_bomb_stops_at_the_cap_and_never_inflates_in_memory() -> None:
    bomb = gzip.compress(b'{"data": ["' + b"0" * (256 << 20) + b'"]}', 9)

    async def check() -> tuple[Any, int]:
        async with serving(whole(bomb, "Content-Encoding: gzip")) as server:
            tracemalloc.start()
            try:
                error = await fetch_from(server, max_bytes=4 << 20)
                return error, tracemalloc.get_traced_memory()[1]
            finally:
                tracemalloc.stop()

    error, peak = run(check())
    assert isinstance(error, TooLarge)
    assert peak < 16 << 20


@pytest.mark.parametrize(
    "body", [pytest.param([b"x" * 3000], id="plain"), pytest.param([gzip.compress(b"")] * 200, id="empty gzip members")]
)
def test_endless_bodies_stop_at_the_cap(body: list[bytes]) -> None:
    headers = {"content-encoding": "gzip"} if body[0][:2] == b"\x1f\x8b" else {}
    handle, seen = script(httpx.Response(200, headers=headers, content=aiter_of(body)))
    assert isinstance(failure(client(handle, max_bytes=2000)), TooLarge)
    assert len(seen) == 1


async def aiter_of(pieces: list[bytes]) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece


@given(st.data())
@settings(max_examples=50)
def test_gzip_arrives_whole_however_it_is_cut(data: st.DataObject) -> None:
    page = {"data": ["x" * data.draw(st.integers(0, 3 << 20)), data.draw(st.text())]}
    plain = json.dumps(page).encode()
    middle = data.draw(st.integers(0, len(plain)))
    zipped = gzip.compress(plain[:middle]) + gzip.compress(plain[middle:])
    size = data.draw(st.integers(1, len(zipped)))
    pieces = [zipped[start : start + size] for start in range(0, len(zipped), size)]
    stream = httpx.Response(200, headers={"content-encoding": "gzip"}, content=aiter_of(pieces))
    api = client(script(stream)[0])
    assert run(fetch(api)) == page
    assert api.traffic.bytes_read == len(zipped)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ssl.SSLContext]:
    folder = tmp_path_factory.mktemp("tls")
    key, cert = folder / "key.pem", folder / "cert.pem"
    make = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 1 -subj /CN=test"
    make += f" -addext subjectAltName=IP:127.0.0.1 -keyout {key} -out {cert}"
    subprocess.run(make.split(), check=True, capture_output=True)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(cert, key)
    return cert, tls


def test_a_self_signed_certificate_is_refused_at_once_and_no_request_is_sent(
    certificate: tuple[Path, ssl.SSLContext],
) -> None:
    async def check() -> tuple[Any, Server]:
        async with serving(GOOD, tls=certificate[1]) as server:
            clock = Clock()
            async with client(base_url=server.url.replace("http:", "https:"), clock=clock) as api:
                with pytest.raises(WrongSetting) as caught:
                    await api.get_list("/list", {}, list_key="data")
                assert clock.slept == []
                return caught.value, server

    error, server = run(check())
    assert_silent(error)
    assert "SSL_CERT_FILE" in error.message
    assert (server.requests, server.heard) == (0, b"")


def test_a_certificate_of_ones_own_is_accepted_through_ssl_cert_file(
    certificate: tuple[Path, ssl.SSLContext], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))

    async def check() -> Any:
        async with serving(GOOD, tls=certificate[1]) as server:
            return await fetch(client(base_url=server.url.replace("http:", "https:")))

    assert run(check()) == PAGE


def test_a_wrong_ca_file_is_a_setting_to_fix(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", "/nowhere/ca.pem")
    error = failure(client())
    assert isinstance(error, WrongSetting)
    assert "SSL_CERT_FILE" in error.setting


# --- pacing -------------------------------------------------------------------------------------------------------


def columns_and_body(records: int) -> tuple[ColumnReader, bytes]:
    """A reader, and a reply large enough to be read beside the event loop."""
    body = orjson.dumps({"records": [{"uuid": f"u{n}", "title": "t" * 1000} for n in range(records)]})
    assert len(body) > 32 << 10
    return ColumnReader(RECORDINGS, "records"), body


def test_a_reply_that_is_being_read_keeps_no_other_request_waiting() -> None:
    """Else connections idle while what has come is read."""
    reader, body = columns_and_body(50)
    handle, seen = script(httpx.Response(200, content=body))

    async def check() -> None:
        async with client(handle, max_concurrency=1) as api:
            may_read = asyncio.Event()
            read = api._reply_reader.read

            async def later(columns: ColumnReader, reply: bytearray) -> Any:
                await may_read.wait()
                return await read(columns, reply)

            api._reply_reader.read = later  # type: ignore[method-assign]
            pages = [
                asyncio.ensure_future(api.get_list("/l", {"page": n}, list_key="records", columns=reader))
                for n in range(3)
            ]
            for _ in range(50):
                await asyncio.sleep(0)
            assert len(seen) == 3
            may_read.set()
            assert [len(reply["records"]) for reply in await asyncio.gather(*pages)] == [50, 50, 50]
            assert api._calls._value == 1

    run(check())


@given(limit=st.integers(1, 4), answers=st.lists(st.sampled_from(["good", "cut off", "trouble", "page"]), max_size=30))
@settings(max_examples=60, deadline=None)
def test_places_are_neither_lost_nor_made(limit: int, answers: list[str]) -> None:
    """A reply's place is free while it is read, and what turns out unreadable then is asked for again."""
    reader, body = columns_and_body(50)
    kinds = {
        "good": httpx.codes.OK,
        "cut off": httpx.codes.OK,
        "trouble": httpx.codes.BAD_GATEWAY,
        "page": httpx.codes.OK,
    }
    contents = {"good": body, "cut off": body[:-5], "trouble": b"", "page": b"<html>" + b" " * 40_000}
    left, running = list(answers), 0

    async def handle(_: httpx.Request) -> httpx.Response:
        nonlocal running
        running += 1
        assert running <= limit
        await asyncio.sleep(0)
        running -= 1
        kind = left.pop() if left else "good"
        return httpx.Response(kinds[kind], content=contents[kind])

    async def check() -> None:
        async with client(handle, max_concurrency=limit) as api:
            pages = (api.get_list("/l", {"page": n}, list_key="records", columns=reader) for n in range(8))
            replies = await asyncio.gather(*pages, return_exceptions=True)
            assert api._calls._value == limit
            for reply in replies:
                assert isinstance(reply, ApiError) or len(reply["records"]) == 50  # type: ignore[index]

    run(check())


@given(limit=st.integers(1, 6), seed=st.integers(), pages=st.integers(1, 40))
@settings(max_examples=60, deadline=None)
def test_never_more_requests_at_a_time_than_allowed(limit: int, seed: int, pages: int) -> None:
    """Whatever order answers come in, which of them are throttled, and who is cancelled while queueing."""
    chance = random.Random(seed)
    running = most = 0

    async def handle(request: httpx.Request) -> httpx.Response:
        nonlocal running, most
        running += 1
        most = max(most, running)
        assert running <= limit
        try:
            for _ in range(chance.randrange(6)):
                await asyncio.sleep(0)
        finally:
            running -= 1
        if chance.random() < 0.1:
            return httpx.Response(429, headers={"retry-after": str(chance.randrange(3))})
        return httpx.Response(200, json=PAGE)

    async def check() -> ApiClient:
        async with client(handle, max_concurrency=limit) as api:
            tasks = [asyncio.ensure_future(api.get_list("/l", {}, list_key="data")) for _ in range(pages)]
            for _ in range(chance.randrange(30)):
                await asyncio.sleep(0)
            for task in tasks:
                if chance.random() < 0.2:
                    task.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
            assert all(result == PAGE or isinstance(result, (asyncio.CancelledError, Throttled)) for result in results)
            assert api._pacing._active == 0
            assert not api._pacing._queue
            return api

    api = run(check())
    assert 1 <= api.concurrency <= limit


def test_concurrency_and_rate_give_way_on_429_once_per_round_and_recover() -> None:
    clock = Clock()
    throttle = True

    async def handle(request: httpx.Request) -> httpx.Response:
        for _ in range(3):
            await asyncio.sleep(0)
        return httpx.Response(429) if throttle else httpx.Response(200, json=PAGE)

    async def check() -> None:
        nonlocal throttle
        async with client(handle, clock=clock, max_concurrency=8, requests_per_second=0) as api:
            assert (api.concurrency, api._pacing.interval) == (8, 0)
            tasks = [asyncio.ensure_future(api.get_list("/l", {}, list_key="data")) for _ in range(8)]
            while api.concurrency == 8:  # noqa: ASYNC110  no event says so
                await asyncio.sleep(0)
            throttle = False
            assert api._pacing.interval == 0.1
            await asyncio.gather(*tasks)
            assert api.concurrency == 4, "eight refusals of one round are one sign, not eight"
            for _ in range(60):
                await api.get_list("/l", {}, list_key="data")
            assert (api.concurrency, api._pacing.interval) == (8, 0)

    run(check())


def test_concurrency_never_falls_below_one() -> None:
    handle, _ = script(429, 429, 429, 429, PAGE)
    api = client(handle, max_concurrency=2)
    run(fetch(api))
    assert api.concurrency == 1


def test_no_request_is_sent_inside_a_retry_after_window_by_any_worker() -> None:
    clock, table, at = Clock(), Traffic(), []
    waits: list[float] = []

    async def handle(_: httpx.Request) -> httpx.Response:
        at.append(clock.now)
        await asyncio.sleep(0)
        if len(at) == 3:
            return httpx.Response(429, headers={"retry-after": "30"})
        return httpx.Response(200, json=PAGE)

    async def check() -> ApiClient:
        async with client(handle, clock=clock, max_concurrency=2, requests_per_second=10) as api:
            tasks = [asyncio.ensure_future(api.get_list("/l", {}, list_key="data", traffic=table)) for _ in range(40)]
            while not all(task.done() for task in tasks):
                waits.append(api.waiting)
                await asyncio.sleep(0)
            assert [task.result() for task in tasks] == [PAGE] * 40
            return api

    api = run(check())
    refused = at[2]
    assert not [moment for moment in at if refused < moment < refused + 30 - 1e-9]
    assert len(at) == 41
    assert max(waits) == pytest.approx(30, abs=0.2)
    assert api.waiting == 0
    assert api.traffic.throttled_seconds == pytest.approx(30, abs=0.2), "waits of many workers overlap: counted once"
    assert table == api.traffic


def test_the_request_rate_is_bounded_over_all_workers() -> None:
    clock, at = Clock(), []

    def handle(_: httpx.Request) -> httpx.Response:
        at.append(clock.now)
        return httpx.Response(200, json=PAGE)

    async def check() -> ApiClient:
        async with client(handle, clock=clock, max_concurrency=5, requests_per_second=4) as api:
            await asyncio.gather(*(api.get_list("/l", {}, list_key="data") for _ in range(20)))
            return api

    api = run(check())
    assert min(later - earlier for earlier, later in itertools.pairwise(at)) >= 0.25 - 1e-9
    assert api.traffic.throttled_seconds == 0


def test_a_sleep_that_does_nothing_does_not_hang() -> None:
    """Tests elsewhere pass such a sleep, with the real clock."""

    async def no_sleep(_: float) -> None:
        return

    handle, _ = script(httpx.Response(429, headers={"retry-after": "100"}), PAGE)
    api = ApiClient(
        vendor="v", base_url="https://x.io", credential=TOKEN, transport=httpx.MockTransport(handle), sleep=no_sleep
    )
    assert run(fetch(api)) == PAGE


# --- being interrupted --------------------------------------------------------------------------------------------


def test_a_failing_sleep_is_not_swallowed_and_frees_its_place() -> None:
    async def broken(_: float) -> None:
        raise KeyError("sleep")

    handle, _ = script(503, PAGE)

    async def check() -> Any:
        async with client(handle, sleep=broken, max_concurrency=1) as api:
            with pytest.raises(KeyError):
                await api.get_list("/l", {}, list_key="data")
            return await api.get_list("/l", {}, list_key="data")

    assert run(check()) == PAGE


def test_cancelled_requests_free_their_places_at_once() -> None:
    gate = asyncio.Event()

    async def handle(request: httpx.Request) -> httpx.Response:
        if "slow" in request.url.path:
            await gate.wait()
        return httpx.Response(200, json=PAGE)

    async def check() -> Any:
        async with client(handle, max_concurrency=2) as api:
            slow = [asyncio.ensure_future(api.get_list("/slow", {}, list_key="data")) for _ in range(6)]
            for _ in range(20):
                await asyncio.sleep(0)
            for task in slow:
                task.cancel()
            await asyncio.gather(*slow, return_exceptions=True)
            return await api.get_list("/fast", {}, list_key="data")

    assert run(check()) == PAGE


def test_closing_ends_requests_under_way_and_waiting_ones() -> None:
    started = asyncio.Event()

    async def silent(_: Server, writer: asyncio.StreamWriter) -> None:
        started.set()
        await asyncio.sleep(60)

    async def check() -> list[Any]:
        async with serving(silent) as server:
            api = client(base_url=server.url, max_concurrency=1)
            tasks = [asyncio.ensure_future(api.get_list("/l", {}, list_key="data")) for _ in range(3)]
            await started.wait()
            await api.aclose()
            return await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 10)

    results = run(check())
    assert all(isinstance(result, RuntimeError) and "closed" in str(result) for result in results), results
    gc.collect()


def test_a_closed_client_sends_nothing() -> None:
    handle, seen = script(PAGE)

    async def check() -> None:
        api = client(handle)
        await api.aclose()
        await api.aclose()
        with pytest.raises(RuntimeError, match="closed"):
            await api.get_list("/l", {}, list_key="data")

    run(check())
    assert seen == []


def test_a_pause_ends_when_the_client_is_closed() -> None:
    async def for_ever(_: float) -> None:
        await asyncio.Event().wait()

    async def check() -> list[Any]:
        api = client(script(httpx.Response(429, headers={"retry-after": "9"}))[0], sleep=for_ever)
        tasks = [asyncio.ensure_future(api.get_list("/l", {}, list_key="data")) for _ in range(3)]
        while not api.waiting:  # noqa: ASYNC110  no event says so
            await asyncio.sleep(0)
        await api.aclose()
        return list(await asyncio.gather(*tasks, return_exceptions=True))

    assert [type(result) for result in run(check())] == [RuntimeError] * 3


def test_a_pause_begins_with_the_refusal_and_not_when_its_connection_is_closed() -> None:
    """Requests that queue would slip through while the refused one's connection is taken down."""
    seen = 0

    class SlowToClose(httpx.AsyncByteStream):
        async def __aiter__(self) -> AsyncIterator[bytes]:
            yield b""

        async def aclose(self) -> None:
            for _ in range(10):
                await asyncio.sleep(0)
            assert seen == 1

    async def handle(request: httpx.Request) -> httpx.Response:
        nonlocal seen
        seen += 1
        if seen == 1:
            return httpx.Response(429, headers={"retry-after": "5"}, stream=SlowToClose())
        return httpx.Response(200, json=PAGE)

    async def check() -> None:
        async with client(handle) as api:
            await asyncio.gather(*(api.get_list("/l", {}, list_key="data") for _ in range(8)))

    run(check())
    assert seen == 9


def test_a_429_without_a_date_is_shown_as_waiting_and_counted_as_throttled() -> None:
    clock = Clock()
    waits: list[float] = []

    async def check() -> ApiClient:
        async with client(script(429, PAGE)[0], clock=clock, max_concurrency=1) as api:
            task = asyncio.ensure_future(api.get_list("/l", {}, list_key="data"))
            while not task.done():
                waits.append(api.waiting)
                await asyncio.sleep(0)
            return api

    api = run(check())
    assert max(waits) > 0
    assert api.traffic.throttled_seconds == pytest.approx(max(waits))


def test_a_turn_handed_to_a_cancelled_request_is_passed_on() -> None:
    async def check() -> None:
        clock = Clock()
        pacing = Pacing(max_concurrency=1, requests_per_second=0, clock=clock, sleep=clock.sleep)
        await pacing._acquire()
        waiting = asyncio.ensure_future(pacing._acquire())
        await asyncio.sleep(0)
        pacing._release()
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        await asyncio.wait_for(pacing._acquire(), 5)

    run(check())


def test_a_failing_sleep_between_two_requests_frees_its_place() -> None:
    calls = 0

    async def broken_once(_: float) -> None:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise KeyError("sleep")

    async def check() -> Any:
        async with client(script(PAGE)[0], sleep=broken_once, max_concurrency=1, requests_per_second=1) as api:
            await api.get_list("/l", {}, list_key="data")
            with pytest.raises(KeyError):
                await api.get_list("/l", {}, list_key="data")
            return await asyncio.wait_for(api.get_list("/l", {}, list_key="data"), 5)

    assert run(check()) == PAGE

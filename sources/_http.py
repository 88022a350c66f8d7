"""One vendor's JSON API, read with GET over one origin: the credential goes there and nowhere else.

A page comes back whole or as an `ApiError` (drawn in `sources._errors`), never as an empty page; `sources._replies` judges
which. Requests that fail in passing are repeated with full jitter, within limits per request, per client and in time;
`sources._pacing` slows all requests down when the vendor asks. Once a request has failed for good and no other was
answered meanwhile, the client is down: later requests fail at once with the same error.
"""

from __future__ import annotations

import asyncio
import copy
import logging
import math
import time
import zlib
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Self

import httpx
import sniffio
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, wait_random_exponential

from sources._body import Body, BodyTooLargeError
from sources._connections import use_own_connections
from sources._errors import (
    ApiError,
    BadReply,
    EndpointMissing,
    QuotaExceeded,
    RecordMissing,
    Refused,
    Throttled,
    TooLarge,
    Unreachable,
    UntrustedAddress,
    WrongSetting,
    cause_of,
    certificate_refused,
)
from sources._origin import Credential, Origin, named, query_of
from sources._pacing import Pacing, RetryPolicy, Traffic
from sources._replies import Replies, Transient
from sources._reply_reader import ReplyReader

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence

    from sources._columns import ColumnReader

__all__ = [
    "ApiClient",
    "ApiError",
    "BadReply",
    "Credential",
    "EndpointMissing",
    "QuotaExceeded",
    "RecordMissing",
    "Refused",
    "RetryPolicy",
    "Throttled",
    "TooLarge",
    "Traffic",
    "Unreachable",
    "UntrustedAddress",
    "WrongSetting",
    "query_of",
]

_log = logging.getLogger("deskhouse.http")
# a filter on a parent logger does not see its children's records
_WIRE_LOGS = ("deskhouse.http", *(f"httpcore.{part}" for part in ("connection", "http11", "proxy", "socks")))
_SPARE_RETRIES = 60  # per client, and one more for every ten answers
_RETRY = RetryPolicy()
_LARGE = 32 << 10  # bytes from which a body is worth a thread
_LOGGED_PARAMS = ("page", "offset", "limit")


class ApiClient:
    """Reads one vendor's API. Construction does no I/O; use it as an async context manager, in one event loop.

    `vendor` is the section its settings are in, `name` what messages call it.
    """

    def __init__(
        self,
        *,
        vendor: str,
        name: str | None = None,
        base_url: str,
        credential: Credential,
        max_concurrency: int = 2,
        requests_per_second: float = 0.0,
        retry: RetryPolicy = _RETRY,
        read_timeout: float = 30.0,
        request_deadline: float = 120.0,
        max_bytes: int = 64 << 20,
        transport: httpx.AsyncBaseTransport | None = None,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        traffic: Traffic | None = None,
        hints: Mapping[int, str] | None = None,
    ) -> None:
        self.vendor = vendor
        self.name = name or vendor.capitalize()
        self.traffic = Traffic() if traffic is None else traffic
        self._origin = Origin(vendor, base_url, credential, self.name)
        self._redactor = self._origin.redactor
        self._retry = retry
        self._read_timeout = read_timeout
        self._timeouts = {"timeout": httpx.Timeout(read_timeout).as_dict()}
        self._request_deadline = request_deadline
        self._max_bytes = max_bytes
        self._transport = transport
        self._clock = clock
        self._wall_clock = wall_clock
        self._replies = Replies(self._origin, retry, hints or {}, wall_clock)
        self._max_concurrency = max(1, max_concurrency)
        # a request keeps its place here while it backs off: else a thousand could each fail once before one gives up
        self._calls = asyncio.Semaphore(self._max_concurrency)
        self._pacing = Pacing(
            max_concurrency=max_concurrency, requests_per_second=requests_per_second, clock=clock, sleep=sleep
        )
        self._log_filter = self._redactor.filter()
        self._reply_reader = ReplyReader()
        self._client: httpx.AsyncClient | None = None
        self._closed = False
        self._down: ApiError | None = None
        self._answers = 0
        self._retries = 0

    def __repr__(self) -> str:
        return f"ApiClient({self.vendor!r}, {self._origin.base!r})"

    async def __aenter__(self) -> Self:
        # httpx's libraries ask at each request which library runs the loop, and take this for an answer
        sniffio.current_async_library_cvar.set("asyncio")
        self._open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Closes all connections. Requests under way fail, requests that wait stop waiting."""
        self._closed = True
        self._pacing.wake()
        self._reply_reader.close()
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()
        for name in _WIRE_LOGS:
            logging.getLogger(name).removeFilter(self._log_filter)

    @property
    def waiting(self) -> float:
        """Seconds still to wait because the vendor asked to slow down; 0 otherwise."""
        return self._pacing.waiting

    @property
    def concurrency(self) -> int:
        """How many requests may run at a time just now."""
        return self._pacing.limit

    async def get_list(
        self,
        path: str,
        params: Mapping[str, str | int],
        *,
        list_key: str,
        traffic: Traffic | None = None,
        columns: ColumnReader | None = None,
    ) -> dict[str, Any]:
        """One page: the JSON object at `path`, in which `list_key` is certain to be a list.

        `traffic` is counted besides the client's own. With `columns` the list is `Columns` wherever it can be.
        """
        return await self._get(path, params, list_key, traffic, columns)

    async def get_object(
        self, path: str, params: Mapping[str, str | int] | None = None, *, traffic: Traffic | None = None
    ) -> dict[str, Any]:
        """One record's JSON object; raises RecordMissing where the vendor says there is none."""
        return await self._get(path, params or {}, None, traffic)

    async def _get(
        self,
        path: str,
        params: Mapping[str, str | int],
        list_key: str | None,
        traffic: Traffic | None,
        columns: ColumnReader | None = None,
    ) -> dict[str, Any]:
        counters = [self.traffic] if traffic is None or traffic is self.traffic else [self.traffic, traffic]
        call = _Call(
            url=self._origin.url(path, params),
            path=path,
            params=params,
            list_key=list_key,
            counters=counters,
            columns=columns,
        )

        await self._calls.acquire()
        call.has_place = True
        try:
            try:
                return await self._attempt(call)
            except Transient as failure:
                first = failure
            return await self._repeated(call, first)
        except Transient as again:
            error = self._gave_up(again, call)
        finally:
            self._leave(call)
        raise error

    async def _repeated(self, call: _Call, first: Transient) -> dict[str, Any]:
        """What comes of a request whose first attempt failed. Only then, as tenacity keeps results until Python looks for garbage."""
        failures = [first]

        async def attempt() -> dict[str, Any]:
            if failures:
                raise failures.pop()
            return await self._attempt(call)

        def wait(state: RetryCallState) -> float:
            again = _again(state)
            # rate windows are often a minute: without a Retry-After, a 429 starts from a longer wait
            base = self._retry.base_seconds * (4 if again.throttled else 1)
            seconds = wait_random_exponential(multiplier=base, max=self._retry.cap_seconds)(state)
            seconds = max(seconds, again.wait or 0.0)
            if again.throttled:
                self._pacing.pause(seconds)
            return seconds

        def stop(state: RetryCallState) -> bool:
            again = _again(state)
            late = self._clock() - call.started + state.upcoming_sleep > self._retry.deadline_seconds
            # a wait the vendor sets paces itself; every other retry draws on what the whole client has
            spent = again.wait is None and self._retries >= _SPARE_RETRIES + self._answers // 10
            return late or spent or call.attempts >= self._retry.attempts or self._down is not None

        async def rest(seconds: float) -> None:
            await self._pacing.rest(seconds, call.counters if call.throttled else ())

        retrying = AsyncRetrying(
            retry=retry_if_exception_type(Transient), wait=wait, stop=stop, sleep=rest, reraise=True
        )
        return await retrying(attempt)

    async def _attempt(self, call: _Call) -> dict[str, Any]:
        try:
            async with self._pacing.slot(call.counters) as era:
                self._begin(call)
                reply, body = await self._exchange(call, era)
            data = await self._in_columns(call, body)
            if data is None:
                data = self._replies.understood(reply, body, call.path, again=not call.unreadable)
            self._replies.check_content(data, call.path, call.list_key)
        except Transient as again:
            call.last = again
            call.unreadable |= again.unreadable
            _log.debug("%s GET %s: %s, attempt %d", self.vendor, call.shown, again.reason, call.attempts)
            raise
        except RecordMissing:
            self._answers += 1
            raise
        except QuotaExceeded as error:
            self._go_down(error)
            raise
        self._answers += 1
        self._pacing.succeeded()
        self._replies.note_label(reply, call.path)
        return data

    def _leave(self, call: _Call) -> None:
        if call.has_place:
            call.has_place = False
            self._calls.release()

    def _begin(self, call: _Call) -> None:
        """Count an attempt, or refuse it where it can come to nothing."""
        if self._closed:
            message = f"the {self.vendor} client is closed"
            raise RuntimeError(message)
        if self._down is not None:
            raise copy.copy(self._down)
        now = self._clock()
        if call.attempts == 0:
            call.started, call.answers_before = now, self._answers
        call.left = self._retry.deadline_seconds - (now - call.started)
        if call.last is not None and call.left <= 0:
            raise call.last
        call.attempts += 1
        for counter in call.counters:
            counter.requests += 1
            counter.retries += call.attempts > 1
        self._retries += call.attempts > 1 and call.last is not None and call.last.wait is None

    async def _exchange(self, call: _Call, era: int) -> tuple[httpx.Response, bytearray]:
        """Sends one request and reads its body, whatever way the connection fails."""
        started, limit = self._clock(), min(self._request_deadline, call.left)
        trouble: Exception
        try:
            async with asyncio.timeout(limit), self._answer(call.url) as reply:
                self._heed_status(call, reply, era)
                # a server may send the credential back: what is stored of its answer must not hold it
                body = self._redactor.body(await self._read(call, reply))
                shown = (self.vendor, call.shown, reply.status_code, len(body), self._clock() - started)
                _log.debug("%s GET %s -> %d, %d bytes, %.3f s", *shown)
                return reply, body
        except TimeoutError:
            trouble = Transient(f"did not finish its answer within {limit:g} s")
        except httpx.TimeoutException as exc:
            trouble = Transient(f"sent nothing for {self._read_timeout:g} s ({type(exc).__name__})")
        except (httpx.TransportError, OSError) as exc:
            trouble = (
                self._distrusted()
                if certificate_refused(exc)
                else Transient(f"gave no complete answer ({cause_of(exc)})")
            )
        except zlib.error:
            trouble = Transient("sent a damaged or cut-off gzip body")
        # raised here, so that the exception carries no httpx object, which would hold the request and its headers
        raise trouble

    @asynccontextmanager
    async def _answer(self, url: httpx.URL) -> AsyncIterator[httpx.Response]:
        """Asks httpx's transport itself: of what a client adds to that, every part is switched off here, and it doubles the cost."""
        client = self._open()
        request = httpx.Request("GET", url, headers=client.headers, extensions=self._timeouts)
        self._origin.authorize(request)
        reply = await client._transport_for_url(url).handle_async_request(request)  # noqa: SLF001 - its choice of proxy
        reply.request = request
        try:
            yield reply
        finally:
            await reply.aclose()

    def _heed_status(self, call: _Call, reply: httpx.Response, era: int) -> None:
        """Go on with a success, and slow down where the vendor asks for it."""
        try:
            self._replies.check_status(reply, call.path, one_record=call.list_key is None)
        except Transient as again:
            if again.too_many:
                self._pacing.slow_down(era)
            if again.wait is not None:
                self._pacing.pause(again.wait)
            raise

    async def _read(self, call: _Call, reply: httpx.Response) -> bytearray:
        encoding = reply.headers.get("content-encoding", "").strip().lower()
        if encoding not in {"", "identity", "gzip", "x-gzip"}:
            raise self._replies.error(BadReply, f"sent {call.path} in an encoding that was not asked for.")
        body = Body(zipped=encoding.endswith("gzip"), max_bytes=self._max_bytes)
        try:
            # the stream itself: the pieces as they arrive, also from a transport that had them all at once
            assert isinstance(reply.stream, httpx.AsyncByteStream)
            async for chunk in reply.stream:
                for counter in call.counters:
                    counter.bytes_read += len(chunk)
                body.add(chunk)
            return body.finish()
        except BodyTooLargeError:
            text = f"sent more than {self._max_bytes:,} bytes for {call.path}: not read further."
        raise self._replies.error(TooLarge, text)

    async def _in_columns(self, call: _Call, body: bytearray) -> dict[str, Any] | None:
        """The answer with its list as columns, where all of it is as declared; large ones are read beside the event loop."""
        if call.columns is None:
            return None
        if len(body) < _LARGE:
            return call.columns.read(body)
        # others need not wait for that
        self._leave(call)
        return await self._reply_reader.read(call.columns, body)

    def _gave_up(self, again: Transient, call: _Call) -> ApiError:
        """The final error of a request. It stands for the whole vendor unless others got answers meanwhile."""
        if self._down is not None:
            return copy.copy(self._down)
        spent = f"{call.attempts} attempt{'s'[: call.attempts != 1]} in {self._clock() - call.started:.0f} s"
        error: ApiError
        if again.throttled:
            when = "in some minutes"
            if again.asked is not None:
                moment = self._wall_clock().astimezone(UTC) + timedelta(seconds=max(1.0, math.ceil(again.asked)))
                when = f"after {moment:%Y-%m-%d %H:%M:%S} UTC"
            text = f"{again.reason}, still after {spent}. Run again {when}, or lower {self._rate_setting}."
            error = self._replies.error(
                Throttled, text, retry_after=None if again.asked is None else max(0.0, again.asked)
            )
        else:
            text = f"{again.reason}; gave up after {spent}. Check the network and {named(self._origin.setting)}"
            error = self._replies.error(Unreachable, f"{text}, or run again later.")
        if self._answers == call.answers_before:
            self._go_down(error)
        return error

    def _go_down(self, error: ApiError) -> None:
        self._down = copy.copy(error)
        self._pacing.wake()

    def _open(self) -> httpx.AsyncClient:
        if self._client is not None:
            return self._client
        try:
            ssl_context = None if self._transport else httpx.create_ssl_context()
            self._client = httpx.AsyncClient(
                transport=self._transport,
                verify=ssl_context or True,
                # a proxy could not reach our loopback, and would see the credential
                trust_env=not self._origin.on_loopback,
                limits=httpx.Limits(max_connections=self._max_concurrency),
                headers={"Accept": "application/json", "Accept-Encoding": "gzip", "User-Agent": "deskhouse"},
            )
            if ssl_context:
                use_own_connections(self._client, ssl_context)
        except (OSError, ValueError, ImportError, httpx.InvalidURL):
            setting = "SSL_CERT_FILE, SSL_CERT_DIR, HTTPS_PROXY or ALL_PROXY"
            text = f"cannot be asked: the environment's {setting} does not hold what it should."
            raise self._replies.error(WrongSetting, text, setting=setting) from None
        for name in _WIRE_LOGS:
            logging.getLogger(name).addFilter(self._log_filter)
        return self._client

    @property
    def _rate_setting(self) -> str:
        return named(f"sources.{self.vendor}.requests_per_second")

    def _distrusted(self) -> WrongSetting:
        text = (
            "did not prove who it is: its certificate could not be verified. Nothing was sent. Behind a company proxy, "
            f"point SSL_CERT_FILE at the company's CA file; else check {named(self._origin.setting)}."
        )
        return self._replies.error(WrongSetting, text, setting=named(self._origin.setting))


@dataclass
class _Call:
    """One get with all its attempts."""

    url: httpx.URL
    path: str
    params: Mapping[str, str | int]
    list_key: str | None
    counters: Sequence[Traffic]
    columns: ColumnReader | None = None
    has_place: bool = False
    attempts: int = 0
    started: float = 0.0
    left: float = 0.0
    answers_before: int = 0
    unreadable: bool = False
    last: Transient | None = None

    @property
    def throttled(self) -> bool:
        return self.last is not None and self.last.throttled

    @property
    def shown(self) -> str:
        """Path and place in the list, and no other parameter: those may be personal."""
        place = "&".join(f"{key}={self.params[key]}" for key in _LOGGED_PARAMS if key in self.params)
        return f"{self.path}?{place}" if place else self.path


def _again(state: RetryCallState) -> Transient:
    again = state.outcome.exception() if state.outcome else None
    assert isinstance(again, Transient)
    return again

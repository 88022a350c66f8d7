"""The way between deskhouse and the sandbox: counts requests, lets things happen at them, spoils replies.

Faults are made here and not by the sandbox's switchboard, because in-process there is no connection to cut: what a cut
connection looks like to the client is raised in its place.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING

import httpx
import orjson

from sandbox.app import create_app
from simulation.steps import Do, Fault

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from simulation.account import Account
    from simulation.steps import At

_LISTS = ("records", "users", "data", "results")


class Wire(httpx.AsyncBaseTransport):
    """A transport for one run after another."""

    def __init__(self, account: Account, happen: Callable[[Do], None]) -> None:
        self._account, self._happen = account, happen
        self._inner = httpx.ASGITransport(create_app(account.world))
        self._events: list[At] = []
        self._faults: list[list[object]] = []
        self._requests = 0
        self._pace = 1
        self._turn = asyncio.Lock()
        self.lied = False

    def begin(self, events: Sequence[At] = (), pace: int = 1) -> None:
        """A run begins; what is left of the last one's events is forgotten."""
        self._events = sorted(events, key=lambda e: e.request)
        self._faults, self._requests, self._pace, self.lied = [], 0, pace, False
        self._turn = asyncio.Lock()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Answer one request; requests side by side are answered one after another, in the order they were sent."""
        async with self._turn:
            return await self._answer(request)

    async def _answer(self, request: httpx.Request) -> httpx.Response:
        while self._events and self._events[0].request <= self._requests:
            event = self._events.pop(0).event
            if isinstance(event, Fault):
                self._faults.append([event.kind, event.times or 1_000_000])
            else:
                self._happen(event)
        self._requests += 1
        self._account.world.advance(timedelta(seconds=self._pace))
        if not self._faults:
            return await self._inner.handle_async_request(request)
        fault = self._faults[0]
        fault[1] -= 1  # type: ignore[operator]
        if fault[1] == 0:
            self._faults.pop(0)
        return await self._spoilt(str(fault[0]), request)

    async def _spoilt(self, kind: str, request: httpx.Request) -> httpx.Response:
        if kind == "429":
            return httpx.Response(429, json={"error": "slow down"}, headers={"Retry-After": "7"})
        if kind in {"500", "503"}:
            return httpx.Response(int(kind), json={"error": {"message": "trouble", "code": int(kind)}})
        if kind == "html":
            return httpx.Response(200, html="<html>Please sign in</html>")
        if kind == "reset":
            raise httpx.ReadError("connection reset by peer", request=request)
        reply = await self._inner.handle_async_request(request)
        body = await reply.aread()
        if kind == "cut":
            raise httpx.RemoteProtocolError("peer closed connection", request=request)
        if kind == "truncated":
            return httpx.Response(reply.status_code, content=body[: len(body) // 2])
        return self._without_rows(reply, body)

    def _without_rows(self, reply: httpx.Response, body: bytes) -> httpx.Response:
        """A vendor that says, wrongly and consistently, that it has nothing."""
        data = orjson.loads(body)
        name = next((n for n in _LISTS if isinstance(data.get(n), list)), None)
        if name is None or not reply.is_success:
            return httpx.Response(reply.status_code, content=body)
        self.lied = True
        data[name] = []
        if "pagination" in data:
            data["pagination"] = {"count": 0, "page": data["pagination"]["page"], "last_page": 1, "pages": 1}
        data |= {n: 0 for n in ("total", "count") if n in data} | {n: None for n in ("next",) if n in data}
        return httpx.Response(200, content=orjson.dumps(data))

"""Getscreen.me HTTP API v1 over HTTP."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson
from starlette.routing import Route

from sandbox.getscreen.errors import error_body
from sandbox.replies import METHODS, json_reply, listing

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from starlette.requests import Request
    from starlette.responses import Response

    from sandbox.getscreen.account import ConnectionFacts, Getscreen, GetscreenSettings
    from sandbox.world import World

_DEFAULT_LIMIT = 20
_TRUE = ("1", "true", "yes")
_FALSE = ("0", "false", "no")
_CLOSED = 3


class GetscreenApi:
    """The endpoints of one account."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._account: Getscreen = world.getscreen

    def routes(self) -> list[Route]:
        """Everything that only reads."""
        endpoints = {
            "/history/list": self._history,
            "/history/info": self._session,
            "/support/list": self._invitations,
            "/support/info": self._invitation,
        }
        return [Route(path, self._guarded(endpoint), methods=METHODS) for path, endpoint in endpoints.items()]

    def refuse(self, request: Request) -> Response:
        """The answer to an unknown address, which every writing method here is."""
        del request
        return _error(404)

    def _guarded(self, endpoint: Callable[[Request], Response]) -> Callable[[Request], Any]:
        async def guarded(request: Request) -> Response:
            if request.method != "GET":
                return self.refuse(request)
            with self._world.lock:
                if request.headers.get("x-api-key") != self._account.token:
                    return _error(403)
                try:
                    return endpoint(request)
                except _InvalidError as invalid:
                    return _error(400, str(invalid))

        return guarded

    def _history(self, request: Request) -> Response:
        settings = self._account.settings
        query = request.query_params
        offset = _integer(query, "offset") or 0
        limit = _integer(query, "limit")
        limit = _DEFAULT_LIMIT if limit is None else limit
        if offset < 0 or limit < 1 or (limit > settings.max_limit and settings.over_limit == "refuse"):
            raise _InvalidError("Invalid parameters: offset, limit")
        limit = min(limit, settings.max_limit)
        sent = _filters(query)
        tag = (*sent.items(), settings.filter_meaning, settings.bounds, settings.open_in_list)
        entries = self._account.connections.view(tag, _matcher(settings, sent))
        head: dict[str, object] = {"offset": offset, "limit": limit, "total": len(entries)}
        if settings.filter_echo != "absent":
            head["filter"] = _echo(settings, sent)
        return listing(head, "data", [entry.body for entry in entries[offset : offset + limit]])

    def _session(self, request: Request) -> Response:
        query = request.query_params
        number, uid = _integer(query, "session_id"), query.get("session_uid")
        if number is None and not uid:
            raise _InvalidError("Invalid parameters: session_id or session_uid is required")
        key = self._account.find(uid) if number is None and uid else number
        if key is None or key not in self._account.connections:
            return _error(404)
        info = self._account.info(key)
        return json_reply(orjson.dumps({"data": info} if self._account.settings.info_shape == "data" else info))

    def _invitations(self, request: Request) -> Response:
        del request
        entries = self._account.invitations.view("open", lambda facts: facts.status < _CLOSED)
        return listing({"remain": self._account.settings.remain}, "data", [entry.body for entry in entries])

    def _invitation(self, request: Request) -> Response:
        key = _integer(request.query_params, "connection_id")
        if key is None:
            raise _InvalidError("Invalid parameters: connection_id is required")
        body = self._account.invitations.body(key)
        return _error(404) if body is None else json_reply(b'{"data":' + body + b"}")


class _InvalidError(Exception):
    """Parameters the vendor answers with 400."""


def _error(status: int, message: str | None = None) -> Response:
    return json_reply(error_body(status, message), status)


def _integer(query: Mapping[str, str], name: str) -> int | None:
    text = query.get(name)
    if text is None or text == "":
        return None
    try:
        return int(text)
    except ValueError:
        raise _InvalidError(f"Invalid parameters: {name}") from None


def _filters(query: Mapping[str, str]) -> dict[str, int | str | bool]:
    """The filters that were sent, in the order the vendor echoes them."""
    sent: dict[str, int | str | bool] = {}
    for name in ("date_from", "date_to"):
        value = _integer(query, name)
        if value is not None:
            sent[name] = value
    agent = query.get("agent_id")
    if agent:
        sent["agent_id"] = int(agent) if agent.isdecimal() else agent
    support = _integer(query, "support_id")
    if support is not None:
        sent["support_id"] = support
    video = query.get("video", "").lower()
    if video and video not in _TRUE + _FALSE:
        raise _InvalidError("Invalid parameters: video")
    if video:
        sent["video"] = video in _TRUE
    return sent


def _echo(settings: GetscreenSettings, sent: dict[str, int | str | bool]) -> dict[str, int | str | bool]:
    if settings.filter_echo == "empty":
        return {}
    if settings.filter_echo == "strings":
        return {name: str(value).lower() if isinstance(value, bool) else str(value) for name, value in sent.items()}
    return sent


def _matcher(
    settings: GetscreenSettings, sent: dict[str, int | str | bool]
) -> Callable[[ConnectionFacts], bool] | None:
    in_period = _period(settings, sent)
    agent, support, video = sent.get("agent_id"), sent.get("support_id"), sent.get("video")
    if not sent and settings.open_in_list:
        return None

    def matches(facts: ConnectionFacts) -> bool:
        return (
            (settings.open_in_list or facts.stop is not None)
            and (agent is None or facts.agent_id == str(agent))
            and (support is None or facts.support_id == str(support))
            and (video is None or facts.video == video)
            and in_period(facts)
        )

    return matches


def _period(settings: GetscreenSettings, sent: dict[str, int | str | bool]) -> Callable[[ConnectionFacts], bool]:
    """Whether a session lies in the period, under the meaning and bounds the knobs give it."""
    lower = float(sent.get("date_from", "-inf"))
    upper = float(sent.get("date_to", "inf"))
    lower_in = settings.bounds in {"closed", "closed_open"}
    upper_in = settings.bounds in {"closed", "open_closed"}

    def from_on(instant: float | None) -> bool:
        if instant is None:
            return "date_from" not in sent
        return lower <= instant if lower_in else lower < instant

    def up_to(instant: float | None) -> bool:
        if instant is None:
            return "date_to" not in sent
        return instant <= upper if upper_in else instant < upper

    tests: dict[str, Callable[[ConnectionFacts], bool]] = {
        "ignored": lambda _: True,
        "start": lambda facts: from_on(facts.start) and up_to(facts.start),
        "stop": lambda facts: from_on(facts.stop) and up_to(facts.stop),
        "containment": lambda facts: from_on(facts.start) and up_to(facts.stop),
        "overlap": lambda facts: (facts.stop is None or from_on(facts.stop)) and up_to(facts.start),
    }
    return tests[settings.filter_meaning]

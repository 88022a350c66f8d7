"""PostHog's desktop recordings endpoint over HTTP."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlencode, urlsplit

import orjson
from starlette.routing import Route

from sandbox.posthog.errors import error_body, throttled
from sandbox.replies import METHODS, bearer, json_reply, listing

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from starlette.requests import Request
    from starlette.responses import Response

    from sandbox.posthog.account import MeetingFacts, Posthog
    from sandbox.tables import Entry
    from sandbox.world import World

_DEFAULT_LIMIT = 100
_INT64 = 2**63 - 1
_CRASH = 500
_REFUSALS = {
    "scope": "API key missing required scope 'desktop_recording:read'",
    "project": "API key does not have access to the requested project: ID {project}.",
    "membership": "You don't have access to the project.",
    "organization": "Organization 'Example' does not allow using personal API keys.",
}
_PREFIXES = ("projects", "environments")


class PosthogApi:
    """The endpoints of one project, under both prefixes, with or without a trailing slash."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._account: Posthog = world.posthog

    def routes(self) -> list[Route]:
        """Lists and details. All methods arrive here, since PostHog authenticates before it refuses one."""
        routes = []
        for prefix in _PREFIXES:
            base = f"/api/{prefix}/{{project}}/desktop_recordings"
            for slash in ("", "/"):
                for path, endpoint in ((base, self._list), (base + "/{id}", self._detail)):
                    routes.append(Route(path + slash, self._guarded(prefix, endpoint), methods=METHODS))
        return routes

    def refuse(self, request: Request) -> Response:
        """The answer to an unknown address; it comes before any authentication."""
        del request
        return json_reply(error_body(404, detail="Endpoint not found."), 404)

    def _guarded(self, prefix: str, endpoint: Callable[[Request], Response]) -> Callable[[Request], Any]:
        async def guarded(request: Request) -> Response:
            with self._world.lock:
                settings = self._account.settings
                served = settings.projects_prefix if prefix == "projects" else settings.environments_prefix
                if not served:
                    return self.refuse(request)
                refused = self._forbidden(request) or self._throttled()
                if refused is not None:
                    return refused
                if request.method != "GET":
                    detail = f'Method "{request.method}" not allowed.'
                    return json_reply(error_body(405, detail=detail), 405, {"Allow": "GET"})
                return endpoint(request)

        return guarded

    def _forbidden(self, request: Request) -> Response | None:
        account = self._account
        key = bearer(request.headers.get("authorization")) or request.query_params.get("personal_api_key")
        if not key:
            detail = "Authentication credentials were not provided."
            return json_reply(error_body(403, code="not_authenticated", detail=detail), 403)
        if key != account.token:
            return json_reply(error_body(403), 403)
        project = request.path_params["project"]
        if project not in (account.project_id, "@current"):
            return json_reply(error_body(404, detail="Project not found."), 404)
        refusal = account.settings.refusal
        if refusal is None:
            return None
        detail = _REFUSALS[refusal].replace("{project}", project)
        return json_reply(error_body(403, code="permission_denied", detail=detail), 403)

    def _throttled(self) -> Response | None:
        """A sliding log per rate, as Django REST framework keeps it."""
        settings = self._account.settings
        rates = [(60, settings.burst_per_minute), (3600, settings.sustained_per_hour)]
        if not any(allowed for _, allowed in rates):
            return None
        calls, now = self._account.calls, time.monotonic()
        while calls and calls[0] <= now - 3600:
            calls.popleft()
        waits = []
        for window, allowed in rates:
            recent = [at for at in calls if at > now - window]
            if allowed is not None and len(recent) >= allowed:
                waits.append(recent[-allowed] + window - now)
        if not waits:
            calls.append(now)
            return None
        seconds = max(1, math.ceil(max(waits)))
        return json_reply(throttled(seconds), 429, {"Retry-After": str(seconds)})

    def _list(self, request: Request) -> Response:
        query = request.query_params
        limit, offset = _limit(query.get("limit")), _offset(query.get("offset"))
        creator = query.get("user_id")
        if max(limit, offset) > _INT64 or (creator and not creator.isdecimal()):
            return json_reply(error_body(_CRASH), _CRASH)
        entries = self._chosen(query)
        head = {
            "count": len(entries),
            "next": self._next(request, limit, offset, len(entries)),
            "previous": self._previous(request, limit, offset),
        }
        return listing(head, "results", self._account.page(entries, offset, limit))

    def _chosen(self, query: Mapping[str, str]) -> list[Entry[MeetingFacts]]:
        creator, platform, status = query.get("user_id"), query.get("platform"), query.get("status")
        text = query.get("search", "").lower()

        def wanted(facts: MeetingFacts) -> bool:
            return (
                (not creator or facts.created_by == creator)
                and (not platform or facts.platform == platform)
                and (not status or facts.status == status)
            )

        entries = self._account.desktop_recordings.view((creator, platform, status), wanted)
        if text:
            return [entry for entry in entries if text in str(orjson.loads(entry.body)["transcript_text"]).lower()]
        return entries

    def _detail(self, request: Request) -> Response:
        body = self._account.desktop_recordings.body(request.path_params["id"])
        return json_reply(error_body(404), 404) if body is None else json_reply(body)

    def _next(self, request: Request, limit: int, offset: int, count: int) -> str | None:
        return None if offset + limit >= count else self._link(request, limit, offset + limit)

    def _previous(self, request: Request, limit: int, offset: int) -> str | None:
        return None if offset <= 0 else self._link(request, limit, max(0, offset - limit))

    def _link(self, request: Request, limit: int, offset: int) -> str:
        """An absolute address from the request's own, its parameters sorted; an offset of 0 is left out."""
        settings = self._account.settings
        url = urlsplit(str(request.url))
        params = parse_qs(url.query, keep_blank_values=True) | {"limit": [str(limit)], "offset": [str(offset)]}
        if offset == 0:
            del params["offset"]
        scheme, host = settings.next_scheme or url.scheme, settings.next_host or url.netloc
        return f"{scheme}://{host}{url.path}?{urlencode(sorted(params.items()), doseq=True)}"


def _limit(text: str | None) -> int:
    number = _integer(text)
    return number if number is not None and number > 0 else _DEFAULT_LIMIT


def _offset(text: str | None) -> int:
    number = _integer(text)
    return number if number is not None and number > 0 else 0


def _integer(text: str | None) -> int | None:
    try:
        return int(text or "")
    except ValueError:
        return None

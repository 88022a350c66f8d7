"""Screendesk API v2 over HTTP."""

from __future__ import annotations

from math import ceil
from typing import TYPE_CHECKING, Any

from starlette.responses import Response
from starlette.routing import Route

from sandbox.replies import METHODS, bearer, json_reply, listing
from sandbox.screendesk.errors import error_body

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.requests import Request

    from sandbox.screendesk.account import RecordingFacts, Screendesk
    from sandbox.tables import Entry
    from sandbox.world import World

_UNKNOWN_RECORDING = "Recording not found or does not exist"


class ScreendeskApi:
    """The endpoints of one account."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._account: Screendesk = world.screendesk

    def routes(self) -> list[Route]:
        """Everything a token may GET."""
        endpoints = {
            "/recordings": self._recordings,
            "/recordings/{uuid}": self._recording,
            "/recordings/{uuid}/download": self._download,
            "/users": self._users,
            "/users/search": self._search,
        }
        return [Route(path, self._guarded(endpoint), methods=METHODS) for path, endpoint in endpoints.items()]

    def refuse(self, request: Request) -> Response:
        """What Rails answers to a path or method it has no route for."""
        del request
        return self._error(404)

    def _error(self, status: int, message: str | None = None) -> Response:
        return json_reply(error_body(status, message, self._account.settings.error_shape), status)

    def _guarded(self, endpoint: Callable[[Request], Response]) -> Callable[[Request], Any]:
        async def guarded(request: Request) -> Response:
            if request.method != "GET":
                return self.refuse(request)
            with self._world.lock:
                if bearer(request.headers.get("authorization")) != self._account.token:
                    return self._error(401)
                if not self._account.settings.api_enabled:
                    return self._error(403)
                return endpoint(request)

        return guarded

    def _member(self) -> str | None:
        """The address of the member whose token this is; None for an admin, who sees everything."""
        settings = self._account.settings
        if settings.role == "admin":
            return None
        if settings.agent is not None:
            return settings.agent.lower()
        return next((str(key).lower() for key in self._account.users.keys()), "")  # noqa: SIM118

    def _recordings(self, request: Request) -> Response:
        query = request.query_params
        ticket, provider, member = query.get("ticket_id"), query.get("provider"), self._member()

        def wanted(facts: RecordingFacts) -> bool:
            return (
                (not ticket or facts.ticket_id == ticket)
                and (not provider or facts.platform == provider)
                and (member is None or facts.owner == member)
            )

        narrowed = bool(ticket or provider or member is not None)
        entries = self._account.recordings.view((ticket, provider, member), wanted if narrowed else None)
        if self._account.settings.order == "unstable":
            entries = self._account.rng.sample(entries, len(entries))
        return self._page(request, "records", entries)

    def _visible(self, uuid: str) -> bytes | None:
        record = self._account.recordings.body(uuid)
        member = self._member()
        if record is None or member is None:
            return record
        user = self._account.recordings.get(uuid).get("user") or {}
        return record if str(user.get("email", "")).lower() == member else None

    def _recording(self, request: Request) -> Response:
        body = self._visible(request.path_params["uuid"])
        return self._error(404, _UNKNOWN_RECORDING) if body is None else json_reply(body)

    def _download(self, request: Request) -> Response:
        uuid = request.path_params["uuid"]
        if self._visible(uuid) is None:
            return self._error(404, _UNKNOWN_RECORDING)
        video = self._account.video(uuid)
        if video is None:
            return self._error(409)
        disposition = {"Content-Disposition": f'attachment; filename="recording-{uuid}.mp4"'}
        return Response(video, media_type="video/mp4", headers=disposition)

    def _users(self, request: Request) -> Response:
        if self._account.settings.role == "member":
            return self._error(403)
        return self._page(request, "users", self._account.users.view())

    def _search(self, request: Request) -> Response:
        if self._account.settings.role == "member":
            return self._error(403)
        email = request.query_params.get("email", "").strip().lower()
        if not email:
            return self._error(400, "Missing email parameter")
        users = self._account.users
        body = next((users.body(key) for key in users.keys() if str(key).lower() == email), None)  # noqa: SIM118
        return self._error(404) if body is None else json_reply(body)

    def _page(self, request: Request, key: str, entries: list[Entry[Any]]) -> Response:
        settings = self._account.settings
        asked = request.query_params.get("page", "1")
        page = int(asked) if asked.isdecimal() else 0
        count = len(entries)
        last = max(1, ceil(count / settings.page_size))
        if page < 1 or (page > last and settings.past_end == "error"):
            return self._error(500)
        if page > last and settings.past_end == "last_page":
            page = last
        first = (page - 1) * settings.page_size
        rows = entries[first : first + settings.page_size]
        return listing(
            {"pagination": self._pagination(page, last, count, first, len(rows))}, key, [row.body for row in rows]
        )

    def _pagination(self, page: int, last: int, count: int, first: int, rows: int) -> dict[str, int | None]:
        settings = self._account.settings
        past = page > last
        items = 0 if past else settings.page_size
        if settings.items_shrinks_on_last_page and page == last:
            items = rows
        fields: dict[str, int | None] = {
            "count": count,
            "page": page,
            "items": items,
            "pages": last,
            "next_page": page + 1 if page < last else None,
            "prev_page": last if past else (page - 1 or None),
            "last_page": last,
            "from": first + 1 if rows else 0,
            "to": first + rows if rows else 0,
        }
        if settings.last_page_form == "null":
            return fields
        return {name: value for name, value in fields.items() if value is not None}

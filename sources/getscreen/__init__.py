"""Getscreen.me: the history of remote-desktop connections.

Endpoint -> table, and why it is written the way it is:

    GET /history/list?date_from=…&date_to=…&offset=N&limit=100
                                          -> getscreen.connections (+ connections__client)
    GET /history/info?session_id=N        -> asked only whether a connection still exists, and whether it has ended

The history is merged by `id`. An ordinary run reads the connections of the last `lookback_days`, asks for older ones
that were open, and proves by the vendor's `total` that none is missing; the whole list is read every
`full_sweep_every` days and wherever a doubt is left. Nothing says what the date filter compares and whether its bounds
are in, connections close, get their video and their comment after they first appear, and nothing marks a changed row:
so windows overlap, each row's content is compared with the warehouse, and only what differs is written.

Quirks: `limit` is at most 100 and may be clamped, so the offset advances by what came back up to `total`. `stop` is
null, 0 or absent while a connection is open. `client` is a list, one bare object, null or ""; `agent`, `video` and
`geo` are an object, null, [] or absent; `video` may be an address alone; ids come as numbers or digits, 0 means none.
`history/info` has another shape (no agent name, no logins), so its answer is never stored as a row. Links that give
access to a device are dropped wherever they appear, and video addresses lose their query, which may carry the key.

Key: profile -> Integration -> HTTP API, in the header `X-Api-Key`. Docs: https://docs.getscreen.me/en/http-api/
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import aclosing
from datetime import UTC, datetime
from typing import Any

import httpx

from sources._columns import ColumnReader
from sources._http import ApiClient, Credential, RecordMissing, RetryPolicy, Traffic
from sources._pages import Walk, by_total
from sources._plan import Answer, DatePlan, History, ListPlan, Presence, Span
from sources._reading import Reading
from sources._settings import SourceSettings
from sources._tables import Key
from sources.getscreen.tables import CONNECTIONS, TABLES

VENDOR = "getscreen"
BASE_URL = "https://api.getscreen.me/v1"
PAGE_LIMIT = 100
"""The most the vendor allows (vendor-docs, history/list)."""


def open_client(
    settings: SourceSettings,
    transport: httpx.AsyncBaseTransport | None = None,
    retry: RetryPolicy | None = None,
) -> ApiClient:
    """A client for Getscreen.me; no request is made."""
    return ApiClient(
        vendor=VENDOR,
        name="Getscreen.me",
        base_url=settings.base_url,
        credential=Credential("X-Api-Key", settings.secret, "sources.getscreen.api_key"),
        max_concurrency=settings.max_concurrency,
        requests_per_second=settings.requests_per_second,
        transport=transport,
        retry=retry or RetryPolicy(),
        hints={
            402: "The plan's number of requests is used up; what was read is kept.",
            403: "Getscreen.me answers 403 for a wrong key and for a plan without API access alike.",
        },
    )


def plan_tables(client: ApiClient) -> Sequence[ListPlan]:
    """How connections are read."""
    columns = ColumnReader(CONNECTIONS, "data")

    def history(limit: int = PAGE_LIMIT, **params: int) -> Walk:
        return lambda traffic: by_total(
            client, "/history/list", list_key="data", limit=limit, params=params, traffic=traffic, columns=columns
        )

    async def total(traffic: Traffic) -> int | None:
        async with aclosing(history(limit=1)(traffic)) as pages:
            async for page in pages:
                return page.count
        return None

    async def span(key: Key, traffic: Traffic) -> Span | Presence:
        try:
            reply = await client.get_object("/history/info", {"session_id": key}, traffic=traffic)
        except RecordMissing:
            return Presence.GONE
        return span_of(key, reply) or Presence.PRESENT

    async def ask_connection(key: Key, traffic: Traffic) -> Answer:
        return Presence.GONE if await span(key, traffic) is Presence.GONE else Presence.PRESENT

    async def sees_everything(_: Traffic) -> bool:
        # a key has no roles or scopes: nothing documented lets it see a part of the history
        return True

    return [
        ListPlan(
            CONNECTIONS,
            history(),
            ask_connection,
            sees_everything,
            prepare=in_declared_shape,
            dates=DatePlan(lambda since, until: history(date_from=since, date_to=until), total, span),
        )
    ]


def span_of(key: Key, reply: dict[str, Any]) -> Span | None:
    """When a connection began and ended, from `history/info`; None where the answer does not tell.

    It comes bare (the documents' sample) or inside `data` (their prose). `stop` is null, 0, absent or not past the
    start while the connection is open.
    """
    session = reply if "id" in reply else reply.get("data")
    if type(session) is not dict or str(session.get("id")) != str(key):
        return None
    start, stop = session.get("start"), session.get("stop")
    if type(start) not in (int, float) or type(stop) not in (int, float, type(None)):
        return None
    return Span(start, stop if stop and stop > start else None)


def in_declared_shape(record: dict[str, Any]) -> dict[str, Any]:
    """A connection with its video as an object, whether the vendor sent an object or an address alone."""
    video = record.get("video")
    if type(video) is not str or not video:
        return record
    size = {"size": record["video_size"]} if "video_size" in record else {}
    rest = {k: v for k, v in record.items() if k != "video_size"}
    return {**rest, "video": {"url": video, **size}}


def open_reading(
    settings: SourceSettings,
    histories: Mapping[str, History],
    transport: httpx.AsyncBaseTransport | None = None,
    *,
    full: bool = False,
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> Reading:
    """Getscreen.me, ready to be read: rows the warehouse holds already (`histories`, by qualified table name) are left out."""
    return Reading(
        settings,
        lambda: open_client(settings, transport),
        plan_tables,
        TABLES,
        histories,
        full=full,
        clock=clock,
    )


async def probe(client: ApiClient, settings: SourceSettings) -> str:  # noqa: ARG001 - one signature for every source
    """What the key can see, in words, for one request.

    Raises:
        ApiError: it can see nothing, and why.
    """
    reply = await client.get_list("/history/list", {"offset": 0, "limit": 1}, list_key="data")
    total = reply.get("total")
    return f"sees {total:,} connections" if isinstance(total, int) else "sees connections"


def __getattr__(name: str) -> Any:
    # importing dlt takes a third of a second, and a run that loads nothing does without it
    if name == VENDOR:
        from sources.getscreen.source import getscreen  # noqa: PLC0415

        return getscreen
    raise AttributeError(name)

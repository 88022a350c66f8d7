"""Screendesk: screen recordings, live calls and the account's users.

Endpoint -> table, and why it is written the way it is:

    GET /recordings?page=N  -> screendesk.recordings (+ recordings__room_insights__participants_insights)
    GET /users?page=N       -> screendesk.users

Both are swept whole and merged by key. The API has no "changed since" filter and no sort parameter, `updated_at` does
not move with every change (`impressions_count`), and rows are deleted without a trace by the account's retention
policy at midnight UTC: so each row's content is compared with the warehouse, and a row that vanished is asked for
(`GET /recordings/{uuid}`, `GET /users/search?email=`) before it is marked deleted.

Quirks: page size is the vendor's choice; on the last page `next_page` may be absent or null; the list key is `records`
for recordings and `users` for users; `/users` is for admins only, and a member's token lists that member's recordings
alone, so nothing is ever marked deleted unless the token may list users. Users have no id but their e-mail.

Token: personal, from Profile -> API, Enterprise plan. Docs: https://docs.screendesk.io/api
"""

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

import httpx

from sources._columns import ColumnReader
from sources._http import ApiClient, Credential, RecordMissing, Refused, RetryPolicy, Traffic
from sources._pages import ListPage, by_page_number
from sources._plan import Answer, History, ListPlan, Presence
from sources._reading import Reading
from sources._settings import SourceSettings
from sources._tables import Key
from sources.screendesk.tables import RECORDINGS, TABLES, USERS

VENDOR = "screendesk"
BASE_URL = "https://app.screendesk.io/api/v2"


def open_client(
    settings: SourceSettings,
    transport: httpx.AsyncBaseTransport | None = None,
    retry: RetryPolicy | None = None,
) -> ApiClient:
    """A client for Screendesk; no request is made."""
    return ApiClient(
        vendor=VENDOR,
        name="Screendesk",
        base_url=settings.base_url,
        credential=Credential("Authorization", f"Bearer {settings.secret}", "sources.screendesk.api_token"),
        max_concurrency=settings.max_concurrency,
        requests_per_second=settings.requests_per_second,
        transport=transport,
        retry=retry or RetryPolicy(),
        hints={
            403: "The plan may lack API access (Enterprise only), or the token's user lacks the role: users are listed for admins only."
        },
    )


def plan_tables(client: ApiClient) -> Sequence[ListPlan]:
    """How recordings and users are read."""

    async def ask_recording(key: Key, traffic: Traffic) -> Answer:
        try:
            return await client.get_object(f"/recordings/{quote(str(key), safe='')}", traffic=traffic)
        except RecordMissing:
            return Presence.GONE

    async def ask_user(key: Key, traffic: Traffic) -> Answer:
        try:
            return await client.get_object("/users/search", {"email": str(key)}, traffic=traffic)
        except RecordMissing:
            return Presence.GONE

    async def is_admin(traffic: Traffic) -> bool:
        try:
            await client.get_list("/users", {"page": 1}, list_key="users", traffic=traffic)
        except Refused:
            return False
        return True

    recordings, users = ColumnReader(RECORDINGS, "records"), ColumnReader(USERS, "users")

    def list_recordings(traffic: Traffic, *, ahead: bool = True) -> AsyncGenerator[ListPage, None]:
        return by_page_number(
            client, "/recordings", list_key="records", traffic=traffic, ahead=ahead, columns=recordings
        )

    return [
        ListPlan(
            RECORDINGS,
            list_recordings,
            ask_recording,
            is_admin,
            step=lambda traffic: list_recordings(traffic, ahead=False),
            cleaned_at_midnight=True,
        ),
        ListPlan(
            USERS,
            lambda traffic: by_page_number(client, "/users", list_key="users", traffic=traffic, columns=users),
            ask_user,
            is_admin,
        ),
    ]


def open_reading(
    settings: SourceSettings,
    histories: Mapping[str, History],
    transport: httpx.AsyncBaseTransport | None = None,
    *,
    full: bool = False,
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> Reading:
    """Screendesk, ready to be read: rows the warehouse holds already (`histories`, by qualified table name) are left out."""
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
    """What the token can see, in words, for one request.

    Raises:
        ApiError: it can see nothing, and why.
    """
    reply = await client.get_list("/recordings", {"page": 1}, list_key="records")
    pagination = reply.get("pagination")
    count = pagination.get("count") if isinstance(pagination, dict) else None
    return f"sees {count:,} recordings" if isinstance(count, int) else "sees recordings"


def __getattr__(name: str) -> Any:
    # importing dlt takes a third of a second, and a run that loads nothing does without it
    if name == VENDOR:
        from sources.screendesk.source import screendesk  # noqa: PLC0415

        return screendesk
    raise AttributeError(name)

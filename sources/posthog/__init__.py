"""PostHog desktop recordings: meetings with their participants, transcripts and extracted tasks.

Endpoint -> table, and why it is written the way it is:

    GET /api/projects/{project_id}/desktop_recordings/?limit=100&offset=N
        -> posthog.desktop_recordings (+ __participants, __transcript_segments, __extracted_tasks)
    GET /api/projects/{project_id}/desktop_recordings/{id}/  -> asked for rows that vanished or look older than stored

The list is swept whole and merged by `id`. There is no filter on any date and unknown parameters are ignored in
silence; `updated_at` does not move for changes made by SQL; a transcript may shrink; deletes leave no trace. Lists are
replaced as a whole with their meeting: segments have no id, and their timestamps repeat.

Quirks: ordered by `started_at` alone, so meetings that started together may swap places between two pages; `count` is
live; `next` is absolute and may name another scheme or host behind a proxy, so only its query is used. Older servers
know the endpoint under `/api/environments/` alone, which is tried where `/api/projects/` answers 404. PostHog Cloud
retired the product in mid 2026: a 404 on both says so.

Key: personal API key with scope `desktop_recording:read`. Docs: https://posthog.com/docs/api
"""

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

import httpx

from sources._columns import ColumnReader
from sources._http import ApiClient, Credential, EndpointMissing, RecordMissing, RetryPolicy, Traffic
from sources._pages import ListPage, by_next_offset, by_overlapping_offset
from sources._plan import Answer, History, ListPlan, Presence
from sources._reading import Reading
from sources._settings import SourceSettings
from sources._tables import Key
from sources.posthog.tables import DESKTOP_RECORDINGS, TABLES

VENDOR = "posthog"
BASE_URL = "https://us.posthog.com"
PAGE_LIMIT = 100
"""The server's own default; it sets no maximum, but list rows carry whole transcripts."""
OVERLAP = 10
"""Meetings that start at the same instant are few; a pass that meets more of them is read again another way."""

RETIRED = (
    "PostHog knows no desktop recordings for this project, neither under /api/projects/ nor /api/environments/ (404). "
    "PostHog Cloud has retired this endpoint (mid 2026); self-hosted versions from about November 2025 to June 2026 "
    "serve it. If yours does, check sources.posthog.project_id (SOURCES__POSTHOG__PROJECT_ID) and "
    "sources.posthog.base_url (SOURCES__POSTHOG__BASE_URL)."
)


class DesktopRecordings:
    """The list under whichever prefix the server knows it."""

    def __init__(self, client: ApiClient, project_id: str, page_limit: int = PAGE_LIMIT) -> None:
        project = quote(project_id, safe="@")
        self._client = client
        self._page_limit = page_limit
        self._columns = ColumnReader(DESKTOP_RECORDINGS, "results")
        self._paths = [f"/api/{prefix}/{project}/desktop_recordings/" for prefix in ("projects", "environments")]
        self._path = self._paths[0]

    def walk(self, traffic: Traffic) -> AsyncGenerator[ListPage, None]:
        """One pass over the list, pages side by side."""
        return self._under_known_prefix(
            lambda path: by_next_offset(
                self._client,
                path,
                list_key="results",
                limit=self._page_limit,
                overlap=OVERLAP,
                traffic=traffic,
                columns=self._columns,
            )
        )

    def walk_past_ties(self, traffic: Traffic) -> AsyncGenerator[ListPage, None]:
        """One pass that meetings which started together cannot slip through, each page fetched when it is taken."""
        return self._under_known_prefix(
            lambda path: by_overlapping_offset(
                self._client, path, list_key="results", limit=self._page_limit, order="started_at", traffic=traffic
            )
        )

    async def _under_known_prefix(
        self, pages_at: Callable[[str], AsyncGenerator[ListPage, None]]
    ) -> AsyncGenerator[ListPage, None]:
        try:
            async with aclosing(pages_at(self._path)) as pages:
                async for page in pages:
                    yield page
        except EndpointMissing:
            if self._path == self._paths[-1]:
                raise EndpointMissing(self._client.vendor, RETIRED, setting="sources.posthog.project_id") from None
            self._path = self._paths[-1]
            async with aclosing(self._under_known_prefix(pages_at)) as pages:
                async for page in pages:
                    yield page

    async def ask(self, key: Key, traffic: Traffic) -> Answer:
        """One meeting by id."""
        try:
            return await self._client.get_object(f"{self._path}{quote(str(key), safe='')}/", traffic=traffic)
        except RecordMissing:
            return Presence.GONE


def open_client(
    settings: SourceSettings,
    transport: httpx.AsyncBaseTransport | None = None,
    retry: RetryPolicy | None = None,
) -> ApiClient:
    """A client for PostHog; no request is made."""
    return ApiClient(
        vendor=VENDOR,
        name="PostHog",
        base_url=settings.base_url,
        credential=Credential("Authorization", f"Bearer {settings.secret}", "sources.posthog.api_key"),
        max_concurrency=settings.max_concurrency,
        requests_per_second=settings.requests_per_second,
        transport=transport,
        retry=retry or RetryPolicy(),
        hints={403: "The key needs the scope desktop_recording:read and access to the project."},
    )


def open_reading(
    settings: SourceSettings,
    histories: Mapping[str, History],
    transport: httpx.AsyncBaseTransport | None = None,
    *,
    full: bool = False,
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> Reading:
    """PostHog, ready to be read: rows the warehouse holds already (`histories`, by qualified table name) are left out."""

    def plan_tables(client: ApiClient) -> Sequence[ListPlan]:
        recordings = DesktopRecordings(client, settings.project_id)
        return [
            ListPlan(
                DESKTOP_RECORDINGS,
                recordings.walk,
                recordings.ask,
                _sees_everything,
                rewalk=recordings.walk_past_ties,
                step=recordings.walk_past_ties,
            )
        ]

    return Reading(
        settings,
        lambda: open_client(settings, transport),
        plan_tables,
        TABLES,
        histories,
        full=full,
        clock=clock,
    )


async def _sees_everything(_: Traffic) -> bool:
    # whoever may list a project's meetings sees all of them (facts/posthog.md §2, visibility)
    return True


async def probe(client: ApiClient, settings: SourceSettings) -> str:
    """What the key can see, in words, for one request, or two where `/api/projects/` does not know the list.

    Raises:
        ApiError: it can see nothing, and why.
    """
    async with aclosing(DesktopRecordings(client, settings.project_id, page_limit=1).walk(Traffic())) as pages:
        page = await anext(pages)
    if page.count is None:
        return "sees meetings"
    return f"sees {page.count:,} meetings in project {settings.project_id}"


def __getattr__(name: str) -> Any:
    # importing dlt takes a third of a second, and a run that loads nothing does without it
    if name == VENDOR:
        from sources.posthog.source import posthog  # noqa: PLC0415

        return posthog
    raise AttributeError(name)

"""Walks over lists: every record once, or a pass that says why it is not clean."""

from __future__ import annotations

import asyncio
import logging
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Literal

import httpx
import orjson
import pytest

from sandbox.app import create_app
from sandbox.faults import Fault
from sandbox.world import World
from sources import _pages, getscreen, posthog, screendesk
from sources._columns import ColumnReader
from sources._http import ApiError, BadReply, EndpointMissing, RetryPolicy, Traffic
from sources._pages import ListPage, by_page_number, by_total
from sources._settings import SourceSettings

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from sources._http import ApiClient

SOURCES: dict[str, Any] = {"screendesk": screendesk, "getscreen": getscreen, "posthog": posthog}
PATHS = {"screendesk": "/screendesk/api/v2", "getscreen": "/getscreen/v1", "posthog": "/posthog"}
ONE_TRY = RetryPolicy(attempts=1)


def client_of(vendor: str, transport: httpx.AsyncBaseTransport, token: str, concurrency: int = 4) -> ApiClient:
    configured = SourceSettings(vendor, token, "http://127.0.0.1" + PATHS[vendor], concurrency, 0.0, project_id="4242")
    client: ApiClient = SOURCES[vendor].open_client(configured, transport, ONE_TRY)
    return client


def walk_of(vendor: str, client: ApiClient, limit: int = 100) -> AsyncGenerator[ListPage, None]:
    traffic = Traffic()
    if vendor == "screendesk":
        return by_page_number(client, "/recordings", list_key="records", traffic=traffic)
    if vendor == "getscreen":
        return by_total(client, "/history/list", list_key="data", limit=limit, params={}, traffic=traffic)
    return posthog.DesktopRecordings(client, "4242", limit).walk(traffic)


async def collect(walk: AsyncGenerator[ListPage, None]) -> list[ListPage]:
    async with aclosing(walk) as pages:
        return [page async for page in pages]


def walk(world: World, vendor: str, limit: int = 100, concurrency: int = 4, *, again: bool = False) -> list[ListPage]:
    async def run() -> list[ListPage]:
        token = getattr(world, vendor).token
        async with client_of(vendor, httpx.ASGITransport(create_app(world)), token, concurrency) as client:
            if again:
                return await collect(posthog.DesktopRecordings(client, "4242", limit).walk_past_ties(Traffic()))
            return await collect(walk_of(vendor, client, limit))

    return asyncio.run(run())


def scripted(
    answer: Callable[[dict[str, str]], Any], vendor: str = "screendesk", limit: int = 2
) -> tuple[list[ListPage], list[dict[str, str]]]:
    """Walk a list whose every page is made by `answer` from the query; returns pages and queries."""
    asked: list[dict[str, str]] = []

    def handle(request: httpx.Request) -> httpx.Response:
        asked.append(dict(request.url.params))
        assert len(asked) < 500, "the walk does not end"
        return httpx.Response(200, content=orjson.dumps(answer(asked[-1])))

    async def run() -> list[ListPage]:
        async with client_of(vendor, httpx.MockTransport(handle), "t0ken") as client:
            return await collect(walk_of(vendor, client, limit))

    return asyncio.run(run()), asked


def records(pages: list[ListPage]) -> list[Any]:
    return [record for page in pages for record in page.records]


def problems(pages: list[ListPage]) -> list[str]:
    assert all(page.in_place == (not page.problem) for page in pages)
    return [page.problem for page in pages if page.problem]


# ---- the whole list, in order, once


@pytest.mark.parametrize("count", [0, 1, 9, 10, 11, 95])
@pytest.mark.parametrize("form", ["absent", "null"])
@pytest.mark.parametrize("shrinks", [True, False])
def test_numbered_pages_end_in_both_documented_ways(count: int, form: Literal["absent", "null"], shrinks: bool) -> None:  # noqa: FBT001
    world = World(recordings=count, connections=0, meetings=0)
    world.screendesk.settings.page_size = 10
    world.screendesk.settings.last_page_form = form
    world.screendesk.settings.items_shrinks_on_last_page = shrinks
    world.screendesk.settings.past_end = "error"
    pages = walk(world, "screendesk")
    assert records(pages) == world.screendesk.recordings.all()
    assert not problems(pages)
    assert {page.count for page in pages} == {count}
    assert len(world.requests) == max(1, -(-count // 10))


@pytest.mark.parametrize("count", [0, 1, 19, 20, 21, 101])
@pytest.mark.parametrize("clamp", [7, 20, 100])
def test_an_offset_list_advances_by_what_came_back(count: int, clamp: int) -> None:
    world = World(recordings=0, connections=count, meetings=0)
    world.getscreen.settings.max_limit = clamp
    pages = walk(world, "getscreen", limit=20)
    assert records(pages) == world.getscreen.connections.all()
    assert not problems(pages)
    assert {page.count for page in pages} == {count}


@pytest.mark.parametrize("count", [0, 1, 19, 20, 21, 101])
def test_a_next_address_is_used_for_its_query_alone(count: int) -> None:
    world = World(recordings=0, connections=0, meetings=count)
    world.posthog.settings.next_scheme, world.posthog.settings.next_host = "http", "evil.example"
    pages = walk(world, "posthog", limit=20)
    assert {r["id"] for r in records(pages)} == set(world.posthog.desktop_recordings.keys())
    assert not problems(pages)


def test_a_server_that_serves_fewer_than_asked_is_followed() -> None:
    """Catches offsets computed from the limit asked for, which skip what a clamped page left out."""
    rows = list(range(11))

    def answer(query: dict[str, str]) -> Any:
        offset = int(query["offset"])
        more = f"http://x/?limit=3&offset={offset + 3}" if offset + 3 < len(rows) else None
        return {"count": len(rows), "next": more, "results": rows[offset : offset + 3]}

    pages, _ = scripted(answer, "posthog", limit=100)
    assert records(pages) == rows
    assert not problems(pages)


def test_equals_that_swap_places_are_seen_when_pages_overlap_by_as_many() -> None:
    """Catches ties split between two pages: one of them read twice, the other never, on a list that stands still."""
    world = World(recordings=0, connections=0, meetings=60)
    table = world.posthog.desktop_recordings
    for index, key in enumerate(table.keys()):
        table.update(key, {"started_at": f"2026-10-{10 + index // 6:02}T10:00:00Z"})
    for _ in range(10):
        pages = walk(world, "posthog", limit=10)
        assert {r["id"] for r in records(pages)} == set(table.keys())
        assert not problems(pages)


def test_equals_that_fill_a_page_are_asked_for_in_a_larger_one() -> None:
    """Catches re-reading by luck: 40 meetings that began together, in another order with each request."""
    world = World(recordings=0, connections=0, meetings=50)
    table = world.posthog.desktop_recordings
    for key in table.keys()[:40]:
        table.update(key, {"started_at": "2026-10-10T10:00:00Z"})
    for _ in range(5):
        pages = walk(world, "posthog", limit=10, again=True)
        assert sorted(r["id"] for r in records(pages)) == sorted(table.keys())


# ---- what must not pass for clean


@pytest.mark.parametrize("past_end", ["empty_page", "last_page", "error"])
@pytest.mark.parametrize("gone", [5, 15, 25])
def test_a_list_that_shrinks_while_it_is_read_ends_where_it_now_ends(
    past_end: Literal["empty_page", "last_page", "error"], gone: int
) -> None:
    """Catches asking for a page that is no more: some servers answer it with 500, which would end the whole table."""
    world = World(recordings=50, connections=0, meetings=0)
    table, settings = world.screendesk.recordings, world.screendesk.settings
    settings.page_size, settings.past_end = 10, past_end
    client = client_of("screendesk", httpx.ASGITransport(create_app(world)), world.screendesk.token, 1)

    async def run() -> list[ListPage]:
        pages = []
        async with client, aclosing(walk_of("screendesk", client)) as found:
            async for page in found:
                pages.append(page)
                if len(pages) == 1:
                    for key in table.keys()[-gone:]:
                        table.delete(key)
        return pages

    pages = asyncio.run(run())
    assert {r["uuid"] for r in records(pages)} == set(table.keys()) | {r["uuid"] for r in pages[0].records}
    assert {page.count for page in pages if page.count is not None} == {50, 50 - gone}


def test_a_list_that_grows_while_it_is_read_is_read_to_its_new_end() -> None:
    rows = list(range(6))

    def answer(query: dict[str, str]) -> Any:
        page = int(query["page"])
        count = 6 if page == 1 else 9
        last = count // 2 + count % 2
        here = list(range(9))[2 * page - 2 : 2 * page]
        fields = {"count": count, "page": page, "last_page": last, "next_page": page + 1 if page < last else None}
        return {"records": here, "pagination": fields}

    pages, _ = scripted(answer)
    assert records(pages)[: len(rows)] == rows
    assert records(pages) == list(range(9))
    assert {page.count for page in pages} == {6, 9}


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"page": 3}, "page 3 came when page 2 was asked for"),
        ({"page": None}, "page None came"),
        ({"next_page": 9}, "names page 9 as the next"),
        ({"next_page": None}, "disagrees with itself"),
        ({"from": 1, "to": 9}, "holds 2 records and claims 9"),
        ({"page": "9" * 5000}, "page None came"),
    ],
)
def test_a_numbered_page_that_is_not_the_one_asked_for_says_so(fields: dict[str, Any], says: str) -> None:
    def answer(query: dict[str, str]) -> Any:
        page = int(query["page"])
        said = {"count": 6, "page": page, "last_page": 3, "next_page": page + 1 if page < 3 else None}
        return {"records": [2 * page, 2 * page + 1], "pagination": {**said, **(fields if page == 2 else {})}}

    pages, _ = scripted(answer)
    assert records(pages) == [2, 3, 4, 5, 6, 7]
    assert [says in problem for problem in problems(pages)] == [True]


@pytest.mark.parametrize(
    ("vendor", "answer"),
    [
        (
            "screendesk",
            lambda _: {"records": [1, 2], "pagination": {"count": 99, "page": 1, "last_page": 50, "next_page": 2}},
        ),
        (
            "screendesk",
            lambda q: {
                "records": [1, 2],
                "pagination": {"count": 2, "page": int(q["page"]), "next_page": int(q["page"]) + 1},
            },
        ),
        ("posthog", lambda q: {"count": 99, "next": f"http://x/?offset={int(q['offset']) + 2}", "results": [1, 2]}),
        ("getscreen", lambda q: {"offset": int(q["offset"]), "total": 99, "data": [1, 2]}),
        ("getscreen", lambda _: {"offset": 0, "data": [1, 2]}),
    ],
)
def test_a_list_that_does_not_advance_is_ended_and_says_so(vendor: str, answer: Any) -> None:
    pages, _ = scripted(answer, vendor)
    assert "does not advance" in problems(pages)[-1]
    assert records(pages) == [1, 2]


@pytest.mark.parametrize("vendor", ["screendesk", "posthog", "getscreen"])
def test_a_list_without_end_is_ended(vendor: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_pages, "MOST_PAGES", 20)

    def answer(query: dict[str, str]) -> Any:
        page, offset = int(query.get("page", 0)), int(query.get("offset", 0))
        return {
            "records": [page],
            "pagination": {"count": 1, "page": page, "last_page": page + 1, "next_page": page + 1},
            "count": 1,
            "next": f"http://x/?offset={offset + 1}",
            "results": [offset],
            "offset": offset,
            "data": [offset],
        }

    pages, asked = scripted(answer, vendor)
    assert "goes on past 20 pages" in problems(pages)[-1]
    assert len(asked) <= 20 + 8


def test_a_next_address_that_skips_is_noticed() -> None:
    def answer(query: dict[str, str]) -> Any:
        offset = int(query["offset"])
        following = {0: 2, 2: 6, 4: None}.get(offset)
        return {
            "count": 6,
            "next": None if following is None else f"http://x/?offset={following}",
            "results": [offset, offset + 1],
        }

    pages, _ = scripted(answer, "posthog")
    assert problems(pages) == ["the page at offset 2 names offset 6 as the next"]
    assert records(pages) == [0, 1, 2, 3, 4, 5]


def test_an_offset_that_is_not_echoed_is_noticed() -> None:
    pages, _ = scripted(lambda _: {"offset": 5, "total": 2, "data": [1, 2]}, "getscreen")
    assert problems(pages) == ["the page at offset 5 came when offset 0 was asked for"]


@pytest.mark.parametrize("pagination", [None, [], "x"])
def test_a_list_whose_end_cannot_be_known_is_an_error(pagination: Any) -> None:
    with pytest.raises(BadReply, match="pagination"):
        scripted(
            lambda q: {
                "records": [1],
                "pagination": {"page": 1, "last_page": 2, "next_page": 2} if q["page"] == "1" else pagination,
            }
        )


# ---- trouble under way


@pytest.mark.parametrize("vendor", ["screendesk", "posthog"])
def test_a_page_that_fails_ends_the_walk_and_lets_no_other_go_on(
    vendor: str, caplog: pytest.LogCaptureFixture, recwarn: pytest.WarningsRecorder
) -> None:
    """Catches pages still under way when their list has failed, which asyncio reports as never retrieved."""
    world = World(recordings=500, connections=0, meetings=200)
    world.screendesk.settings.page_size = 20
    world.faults.add(Fault("status", vendor=vendor, status=500, times=None, after=3))

    async def run() -> int:
        token = getattr(world, vendor).token
        async with client_of(vendor, httpx.ASGITransport(create_app(world)), token) as client:
            with pytest.raises(ApiError):
                await collect(walk_of(vendor, client, 10))
            at_failure = len(world.requests)
            await asyncio.sleep(0.05)
            assert len(asyncio.all_tasks()) == 1
            return at_failure

    with caplog.at_level(logging.WARNING, logger="asyncio"):
        assert asyncio.run(run()) == len(world.requests)
    assert not [r for r in caplog.records if r.name == "asyncio"]
    assert not recwarn.list


def test_a_walk_that_is_dropped_stops_asking() -> None:
    world = World(recordings=500, connections=0, meetings=0)
    world.screendesk.settings.page_size = 5

    async def run() -> int:
        async with client_of("screendesk", httpx.ASGITransport(create_app(world)), world.screendesk.token) as client:
            async with aclosing(walk_of("screendesk", client)) as pages:
                await anext(pages)
                await anext(pages)
            at_end = len(world.requests)
            await asyncio.sleep(0.05)
            assert len(asyncio.all_tasks()) == 1
            return at_end

    assert asyncio.run(run()) == len(world.requests) < 20


@pytest.mark.parametrize(
    ("title_bytes", "in_columns", "most"),
    [(10, True, _pages.MOST_AHEAD), (40_000, True, 2 * 4), (10, False, 2 * 4)],
    ids=["as many as may be", "two a connection where they are large", "and where they are Python objects"],
)
def test_pages_are_fetched_ahead_within_bounds(
    title_bytes: int,
    in_columns: bool,  # noqa: FBT001 - a parameter of the test
    most: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Catches a list that piles up in memory before a reader that is slow, and a reader that waits for every page."""
    monkeypatch.setattr(_pages, "MOST_AHEAD_BYTES", 300_000)
    last, asked, least = 400, [], 2 * 4

    async def handle(request: httpx.Request) -> httpx.Response:
        number = int(request.url.params["page"])
        asked.append(number)
        await asyncio.sleep(0.001)
        pagination = {"page": number, "last_page": last, "next_page": number + 1, "count": last}
        record = {"uuid": f"u{number}", "title": "t" * title_bytes}
        return httpx.Response(200, content=orjson.dumps({"pagination": pagination, "records": [record]}))

    async def run() -> None:
        reader = ColumnReader(screendesk.RECORDINGS, "records") if in_columns else None
        async with client_of("screendesk", httpx.MockTransport(handle), "t0ken") as client:
            walk = by_page_number(client, "/recordings", list_key="records", traffic=Traffic(), columns=reader)
            async with aclosing(walk) as pages:
                for _ in range(100):
                    await anext(pages)
                await asyncio.sleep(0.5)
                assert max(asked) == 100 + most
                for _ in range(100):
                    await anext(pages)
                    await asyncio.sleep(0.005)
                await asyncio.sleep(0.1)
                assert max(asked) == 200 + least

    asyncio.run(run())


def test_probing_posthog_costs_one_request() -> None:
    """Catches pages fetched ahead for a caller who wants the first alone."""
    world = World(recordings=0, connections=0, meetings=30)

    async def run() -> str:
        client = client_of("posthog", httpx.ASGITransport(create_app(world)), world.posthog.token)
        async with client:
            said = await posthog.probe(client, SourceSettings("posthog", "x", "http://127.0.0.1", project_id="4242"))
            await asyncio.sleep(0.05)
            return said

    assert asyncio.run(run()) == "sees 30 meetings in project 4242"
    assert len(world.requests) == 1


# ---- PostHog's two prefixes


def test_posthog_falls_back_to_environments_and_stays_there() -> None:
    world = World(recordings=0, connections=0, meetings=40)
    world.posthog.settings.projects_prefix = False
    assert len({r["id"] for r in records(walk(world, "posthog", limit=10))}) == 40
    paths = [r.path.split("/")[3] for r in world.requests]
    assert paths == ["projects", "environments", "environments", "environments"]


def test_posthog_without_the_endpoint_is_told_that_it_is_retired() -> None:
    world = World(recordings=0, connections=0, meetings=7)
    world.posthog.settings.projects_prefix = world.posthog.settings.environments_prefix = False
    with pytest.raises(EndpointMissing, match="retired") as caught:
        walk(world, "posthog")
    assert "SOURCES__POSTHOG__PROJECT_ID" in caught.value.message
    assert len(world.requests) == 2

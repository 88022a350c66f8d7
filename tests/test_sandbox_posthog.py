"""PostHog over HTTP: links, unstable ties, both prefixes and Django's errors."""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from sandbox.app import create_app
from sandbox.credentials import POSTHOG_KEY
from sandbox.world import World

HOST = "http://sandbox.test"
BASE = f"{HOST}/posthog/api/projects/4242/desktop_recordings/"
HEADERS = {"Authorization": f"Bearer {POSTHOG_KEY}"}


def ask(
    world: World, url: str = BASE, method: str = "GET", headers: dict[str, str] = HEADERS, **params: Any
) -> httpx.Response:
    async def send() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(create_app(world))) as client:
            return await client.request(method, url, headers=headers, params=params or None)

    return asyncio.run(send())


def small(meetings: int = 30) -> World:
    return World(recordings=0, connections=0, meetings=meetings)


def error(reply: httpx.Response) -> tuple[int, str, str, str]:
    body = reply.json()
    assert list(body) == ["type", "code", "detail", "attr"]
    return reply.status_code, body["type"], body["code"], body["detail"]


def test_following_next_yields_every_meeting_once_newest_first() -> None:
    world = small(70)
    table = world.posthog.desktop_recordings
    for number, key in enumerate(table.keys()):
        table.update(key, {"started_at": f"2026-10-10T10:{number:02}:00Z"})
    rows, url = [], f"{BASE}?limit=30"
    while url:
        reply = ask(world, url).json()
        assert list(reply) == ["count", "next", "previous", "results"]
        assert reply["count"] == 70
        rows += reply["results"]
        url = reply["next"]
    assert rows == table.all()
    assert [row["started_at"] for row in rows] == sorted((row["started_at"] for row in rows), reverse=True)


def test_whole_seconds_sort_before_their_own_fractions() -> None:
    """Catches sorting the text, where Z comes after a dot."""
    world = small(0)
    table = world.posthog.desktop_recordings
    late, early = (table.insert(started_at=f"2026-01-01T00:00:00{fraction}Z") for fraction in (".5", ""))
    assert [row["id"] for row in ask(world).json()["results"]] == [late, early]


def test_links_are_absolute_sorted_and_keep_parameters() -> None:
    world = small(60)
    reply = ask(world, status="ready", offset=10, limit=5).json()
    assert reply["next"] == f"{BASE}?limit=5&offset=15&status=ready"
    assert reply["previous"] == f"{BASE}?limit=5&offset=5&status=ready"
    assert ask(world, offset=5, limit=5).json()["previous"] == f"{BASE}?limit=5"
    world.settings.posthog.next_scheme, world.settings.posthog.next_host = "http", "internal.example:8000"
    odd = urlsplit(ask(world, limit=5).json()["next"])
    assert (odd.scheme, odd.netloc, odd.query) == ("http", "internal.example:8000", "limit=5&offset=5")


@pytest.mark.parametrize(
    ("params", "rows", "offset"),
    [
        ({}, 100, 0), ({"limit": 0}, 100, 0), ({"limit": -3}, 100, 0), ({"limit": "x"}, 100, 0), ({"limit": 120}, 120, 0),
        ({"limit": 1000}, 130, 0), ({"offset": "x"}, 100, 0), ({"offset": -1}, 100, 0), ({"offset": 500}, 0, 500),
    ],
)  # fmt: skip
def test_odd_limits_and_offsets(params: dict[str, Any], rows: int, offset: int) -> None:
    reply = ask(small(130), **params)
    assert (reply.status_code, len(reply.json()["results"]), reply.json()["count"]) == (200, rows, 130)
    assert (reply.json()["previous"] is not None) == (offset > 0)


def test_numbers_beyond_a_database_crash_it() -> None:
    crash = (500, "server_error", "error", "A server error occurred.")
    assert error(ask(small(1), limit=2**63)) == crash
    assert error(ask(small(1), user_id="me")) == crash


def test_ties_come_in_another_order_on_each_request() -> None:
    world = small(0)
    tied = [world.posthog.desktop_recordings.insert(started_at="2026-11-01T09:00:00Z") for _ in range(40)]
    newest = world.posthog.desktop_recordings.insert(started_at="2026-11-02T09:00:00Z")
    orders = [[row["id"] for row in ask(world).json()["results"]] for _ in range(3)]
    assert orders[0] != orders[1] != orders[2]
    for order in orders:
        assert order[0] == newest
        assert sorted(order[1:]) == sorted(tied)
    seen = {row["id"] for offset in range(0, 50, 10) for row in ask(world, limit=10, offset=offset).json()["results"]}
    assert len(seen) < 41, "a walk over ties repeats some and misses some"


def test_filters() -> None:
    world = small(60)
    rows = world.posthog.desktop_recordings.all()
    assert ask(world, status="ready").json()["count"] == sum(row["status"] == "ready" for row in rows)
    assert ask(world, platform="zoom").json()["count"] == sum(row["platform"] == "zoom" for row in rows)
    assert ask(world, platform="carrier-pigeon").json()["results"] == []
    creator = rows[0]["created_by"]
    assert ask(world, user_id=creator).json()["count"] == sum(row["created_by"] == creator for row in rows)
    assert ask(world, search="YES, go ahead").json()["count"] > 0
    assert ask(world, ordering="created_at", updated_after="2026-01-01").json()["count"] == 60


@pytest.mark.parametrize("prefix", ["projects", "environments"])
@pytest.mark.parametrize("slash", ["", "/"])
def test_both_prefixes_with_and_without_slash(prefix: str, slash: str) -> None:
    world = small(3)
    base = f"{HOST}/posthog/api/{prefix}/4242/desktop_recordings{slash}"
    row = world.posthog.desktop_recordings.all()[0]
    assert ask(world, base).json()["count"] == 3
    assert ask(world, base, limit=1).json()["next"] == f"{base}?limit=1&offset=1"
    assert ask(world, f"{base.rstrip('/')}/{row['id']}{slash}").json() == row
    setattr(world.settings.posthog, f"{prefix}_prefix", False)
    assert error(ask(world, base, headers={})) == (404, "invalid_request", "not_found", "Endpoint not found.")


def test_unknown_things_are_404_each_in_its_own_words() -> None:
    world = small(1)
    for project, expected in (("7", "Project not found."), ("abc", "Project not found.")):
        url = f"{HOST}/posthog/api/projects/{project}/desktop_recordings/"
        assert error(ask(world, url)) == (404, "invalid_request", "not_found", expected)
    assert error(ask(world, BASE + "no-such-id/")) == (404, "invalid_request", "not_found", "Not found.")
    assert error(ask(world, f"{HOST}/posthog/api/other/")) == (
        404,
        "invalid_request",
        "not_found",
        "Endpoint not found.",
    )
    assert ask(world, f"{HOST}/posthog/api/projects/@current/desktop_recordings").status_code == 200


def test_missing_and_bad_keys_are_403() -> None:
    world = small(1)
    missing, bad = ask(world, headers={}), ask(world, headers={"Authorization": "Bearer phx_wrong"})
    assert error(missing) == (
        403, "authentication_error", "not_authenticated", "Authentication credentials were not provided.",
    )  # fmt: skip
    assert error(bad)[2] == "authentication_failed"
    assert error(bad)[3] == "Personal API key found in request Authorization header is invalid."


@pytest.mark.parametrize(
    ("refusal", "detail"),
    [
        ("scope", "API key missing required scope 'desktop_recording:read'"),
        ("project", "API key does not have access to the requested project: ID 4242."),
        ("membership", "You don't have access to the project."),
    ],
)
def test_valid_keys_that_may_not_read(refusal: str, detail: str) -> None:
    world = small(1)
    world.settings.posthog.refusal = refusal
    assert error(ask(world)) == (403, "authentication_error", "permission_denied", detail)


def test_throttling_counts_only_authenticated_requests_and_says_when_to_come_back() -> None:
    world = small(1)
    world.settings.posthog.burst_per_minute = 2
    statuses = [ask(world, headers={}).status_code, *(ask(world).status_code for _ in range(3))]
    assert statuses == [403, 200, 200, 429]
    reply = ask(world)
    seconds = reply.headers["retry-after"]
    assert error(reply) == (
        429,
        "throttled_error",
        "throttled",
        f"Request was throttled. Expected available in {seconds} seconds.",
    )
    assert 50 <= int(seconds) <= 60


def test_writing_is_405_after_authentication_and_logged() -> None:
    world = small(2)
    key = world.posthog.desktop_recordings.keys()[0]
    assert error(ask(world, method="POST")) == (
        405,
        "invalid_request",
        "method_not_allowed",
        'Method "POST" not allowed.',
    )
    assert ask(world, f"{BASE}{key}/", "DELETE").status_code == 405
    assert ask(world, f"{BASE}{key}/append_segments/", "POST").status_code == 404
    assert [entry.method for entry in world.requests.non_get()] == ["POST", "DELETE", "POST"]
    assert len(world.posthog.desktop_recordings) == 2

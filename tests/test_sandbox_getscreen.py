"""Getscreen.me over HTTP: offset and limit, what the date filter may mean, details and invitations."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from typing import Any

import httpx
import pytest

from sandbox.app import create_app
from sandbox.credentials import GETSCREEN_KEY
from sandbox.world import World

BASE = "http://sandbox.test/getscreen/v1"
HEADERS = {"X-Api-Key": GETSCREEN_KEY}


def ask(
    world: World, path: str, method: str = "GET", headers: dict[str, str] = HEADERS, **params: Any
) -> httpx.Response:
    async def send() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(create_app(world))) as client:
            return await client.request(method, BASE + path, headers=headers, params=params)

    return asyncio.run(send())


def hand_written(*sessions: tuple[int, int | None]) -> World:
    world = World(recordings=0, connections=0, meetings=0)
    for number, (start, stop) in enumerate(sessions, 1):
        world.getscreen.connections.insert({"id": number, "start": start, "stop": stop, "agent": {"id": number * 10}})
    return world


def found(world: World, **params: Any) -> set[int]:
    return {row["id"] for row in ask(world, "/history/list", **params).json()["data"]}


def test_walking_by_offset_yields_every_connection_once_newest_first() -> None:
    world = World(connections=250)
    rows: list[dict[str, Any]] = []
    while True:
        reply = ask(world, "/history/list", offset=len(rows), limit=100).json()
        rows += reply["data"]
        if len(rows) >= reply["total"]:
            break
    assert rows == world.getscreen.connections.all()
    assert all(newer["start"] >= older["start"] for newer, older in pairwise(rows))


def test_limit_is_20_unless_told_and_100_at_most() -> None:
    world = World(connections=130)
    usual, many, few = (ask(world, "/history/list", **params).json() for params in ({}, {"limit": 500}, {"limit": 3}))
    assert [(reply["limit"], len(reply["data"]), reply["total"]) for reply in (usual, many, few)] == [
        (20, 20, 130), (100, 100, 130), (3, 3, 130),
    ]  # fmt: skip
    assert list(usual) == ["offset", "limit", "total", "filter", "data"]
    assert ask(world, "/history/list", offset=999).json()["data"] == []
    world.settings.getscreen.over_limit = "refuse"
    assert ask(world, "/history/list", limit=500).status_code == 400


def test_the_filter_echo_holds_only_what_was_sent() -> None:
    world = World(connections=5)
    assert ask(world, "/history/list").json()["filter"] == {}
    sent = {"date_from": 1, "date_to": 2_000_000_000, "agent_id": 77, "support_id": 5, "video": "true"}
    assert ask(world, "/history/list", **sent).json()["filter"] == sent | {"video": True}
    world.settings.getscreen.filter_echo = "strings"
    assert ask(world, "/history/list", date_from=5, video=1).json()["filter"] == {"date_from": "5", "video": "true"}
    world.settings.getscreen.filter_echo = "absent"
    assert "filter" not in ask(world, "/history/list", date_from=5).json()


# 1 ends on the lower bound, 2 straddles it, 3 lies inside, 4 straddles the upper bound, 5 begins on it,
# 6 covers everything, 7 lies before, 8 after, 9 is open and began inside, 10 is open and began before
SESSIONS = (
    (10, 100), (50, 150), (120, 180), (150, 250), (200, 260), (10, 900), (10, 20), (300, 400), (150, None), (50, None),
)  # fmt: skip


@pytest.mark.parametrize(
    ("meaning", "bounds", "expected"),
    [
        ("start", "closed", {3, 4, 5, 9}),
        ("start", "open", {3, 4, 9}),
        ("stop", "closed", {1, 2, 3}),
        ("stop", "open", {2, 3}),
        ("overlap", "closed", {1, 2, 3, 4, 5, 6, 9, 10}),
        ("overlap", "open", {2, 3, 4, 6, 9, 10}),
        ("containment", "closed", {3}),
        ("containment", "open", {3}),
        ("ignored", "closed", set(range(1, 11))),
    ],
)
def test_what_the_date_filter_may_mean(meaning: str, bounds: str, expected: set[int]) -> None:
    world = hand_written(*SESSIONS)
    world.settings.getscreen.filter_meaning = meaning
    world.settings.getscreen.bounds = bounds
    assert found(world, date_from=100, date_to=200) == expected


def test_the_vendors_own_sample_fits_a_closed_overlap() -> None:
    assert found(hand_written((1608660273, 1608660281)), date_from=1608660281, date_to=1608660389) == {1}


def test_one_bound_alone() -> None:
    world = hand_written(*SESSIONS)
    assert found(world, date_from=300) == {6, 8, 9, 10}
    assert found(world, date_to=20) == {1, 6, 7}


def test_agent_support_and_video_filters() -> None:
    world = hand_written((1, 2), (3, 4), (5, 6))
    world.getscreen.connections.update(1, {"support_id": 55, "agent.id": "10"})
    world.getscreen.connections.update(2, {"video": "https://st.getscreen.example/video/2.mp4"})
    assert found(world, agent_id=10) == {1}
    assert found(world, support_id=55) == {1}
    assert found(world, video="true") == {2}
    assert found(world, video="false") == {1, 3}


def test_open_connections_can_be_missing_from_the_list_until_closed() -> None:
    world = hand_written((10, 20), (30, None))
    world.settings.getscreen.open_in_list = False
    assert found(world) == {1}
    assert ask(world, "/history/info", session_id=2).json()["stop"] is None
    world.getscreen.connections.close(2, stop=40)
    assert found(world) == {1, 2}


@pytest.mark.parametrize(
    "params", [{"limit": "many"}, {"limit": 0}, {"offset": -1}, {"date_from": "today"}, {"video": "perhaps"}]
)
def test_invalid_parameters_are_400(params: dict[str, Any]) -> None:
    reply = ask(World(connections=1), "/history/list", **params)
    assert (reply.status_code, list(reply.json())) == (400, ["error"])


@pytest.mark.parametrize("headers", [{}, {"X-Api-Key": "wrong"}, {"Authorization": f"Bearer {GETSCREEN_KEY}"}])
def test_a_bad_key_is_403(headers: dict[str, str]) -> None:
    reply = ask(World(connections=1), "/history/list", headers=headers)
    assert (reply.status_code, reply.json()) == (403, {"error": {"code": 403, "message": "Access denied"}})


def test_info_is_the_documented_sample_shape_and_agrees_with_the_row() -> None:
    world = World()
    row = next(row for row in world.getscreen.connections.all() if isinstance(row.get("video"), dict))
    info = ask(world, "/history/info", session_id=row["id"]).json()
    assert list(info) == [
        "id", "uid", "agent_id", "account_id", "agent_account_id", "user_agent", "start", "stop", "video", "video_size",
        "turbo_one_time", "visor_comment", "url", "mode", "client", "agent",
    ]  # fmt: skip
    assert (info["id"], info["start"], info["stop"]) == (row["id"], row["start"], row["stop"])
    assert (info["video"], info["video_size"]) == (row["video"]["url"], row["video"]["size"])
    assert set(info["client"]) == {"ip", "country", "region", "city"}
    assert ask(world, "/history/info", session_uid=info["uid"]).json() == info
    world.settings.getscreen.info_shape = "data"
    world.getscreen.update_info(row["id"], visor_comment="typed later")
    assert ask(world, "/history/info", session_id=row["id"]).json() == {"data": info | {"visor_comment": "typed later"}}


def test_every_connection_has_info_whatever_its_shape() -> None:
    world = World()
    for key in world.getscreen.connections.keys():  # noqa: SIM118
        assert isinstance(world.getscreen.info(key)["agent"], dict)


def test_unknown_and_unnamed_sessions() -> None:
    world = World(connections=3)
    assert ask(world, "/history/info", session_id=1).status_code == 404
    assert ask(world, "/history/info", session_uid="none").status_code == 404
    assert ask(world, "/history/info").status_code == 400


def test_invitations_are_open_ones_only() -> None:
    world = World()
    reply = ask(world, "/support/list").json()
    assert list(reply) == ["remain", "data"]
    first = reply["data"][0]
    assert {"connect_url", "invite_url", "invite_code", "client_preview_url"} < set(first)
    assert ask(world, "/support/info", connection_id=first["id"]).json() == {"data": first}
    world.getscreen.invitations.update(first["id"], {"status": 3})
    assert first["id"] not in [row["id"] for row in ask(world, "/support/list").json()["data"]]
    assert ask(world, "/support/info", connection_id=1).status_code == 404


@pytest.mark.parametrize("path", ["/support/close", "/support/connect", "/history/list", "/agents/update"])
def test_writing_is_an_unknown_address_and_logged(path: str) -> None:
    world = World(connections=1)
    assert ask(world, path, "POST").status_code == 404
    assert [entry.path for entry in world.requests.non_get()] == ["/getscreen/v1" + path]

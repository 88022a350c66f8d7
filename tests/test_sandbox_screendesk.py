"""Screendesk over HTTP: pages, both last-page forms, refusals, details and downloads."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

from sandbox.app import create_app
from sandbox.credentials import SCREENDESK_TOKEN
from sandbox.world import World

BASE = "http://sandbox.test/screendesk/api/v2"
HEADERS = {"Authorization": f"Bearer {SCREENDESK_TOKEN}"}


def ask(
    world: World, path: str, method: str = "GET", headers: dict[str, str] = HEADERS, **params: Any
) -> httpx.Response:
    async def send() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(create_app(world))) as client:
            return await client.request(method, BASE + path, headers=headers, params=params)

    return asyncio.run(send())


def walk(world: World, path: str, key: str) -> list[dict[str, Any]]:
    rows, page = [], 1
    while page is not None:
        reply = ask(world, path, page=page).json()
        assert reply["pagination"]["page"] == page
        rows += reply[key]
        page = reply["pagination"].get("next_page")
    return rows


@pytest.mark.parametrize("form", ["absent", "null"])
@pytest.mark.parametrize("count", [99, 100, 101, 250])
def test_walking_next_page_yields_every_recording_once(form: str, count: int) -> None:
    world = World(recordings=count)
    world.settings.screendesk.last_page_form = form
    assert walk(world, "/recordings", "records") == world.screendesk.recordings.all()


def test_users_come_under_their_own_key() -> None:
    world = World(users=230)
    assert walk(world, "/users", "users") == world.screendesk.users.all()


def test_pagination_objects_of_first_middle_and_last_page() -> None:
    world = World(recordings=250)
    first, middle, last = (ask(world, "/recordings", page=page).json()["pagination"] for page in (1, 2, 3))
    assert first == {
        "count": 250, "page": 1, "items": 100, "pages": 3, "next_page": 2, "last_page": 3, "from": 1, "to": 100,
    }  # fmt: skip
    assert list(middle) == ["count", "page", "items", "pages", "next_page", "prev_page", "last_page", "from", "to"]
    assert last == {
        "count": 250, "page": 3, "items": 100, "pages": 3, "prev_page": 2, "last_page": 3, "from": 201, "to": 250,
    }  # fmt: skip
    world.settings.screendesk.last_page_form = "null"
    world.settings.screendesk.items_shrinks_on_last_page = True
    assert ask(world, "/recordings").json()["pagination"]["prev_page"] is None
    shrunk = ask(world, "/recordings", page=3).json()["pagination"]
    assert (shrunk["next_page"], shrunk["items"]) == (None, 50)


def test_an_empty_account_has_one_empty_page() -> None:
    reply = ask(World(recordings=0), "/recordings").json()
    assert reply["records"] == []
    assert reply["pagination"] == {"count": 0, "page": 1, "items": 100, "pages": 1, "last_page": 1, "from": 0, "to": 0}


def test_past_the_end_is_an_empty_page_the_last_page_or_a_crash() -> None:
    world = World(recordings=150)
    empty = ask(world, "/recordings", page=9).json()
    assert empty["records"] == []
    assert empty["pagination"] == {
        "count": 150, "page": 9, "items": 0, "pages": 2, "prev_page": 2, "last_page": 2, "from": 0, "to": 0,
    }  # fmt: skip
    world.settings.screendesk.past_end = "last_page"
    assert ask(world, "/recordings", page=9).json() == ask(world, "/recordings", page=2).json()
    world.settings.screendesk.past_end = "error"
    assert ask(world, "/recordings", page=9).status_code == 500
    assert ask(world, "/recordings", page=0).status_code == 500


@pytest.mark.parametrize("order", ["created_at_desc", "created_at_asc", "updated_at_desc", "shuffled"])
def test_each_order_is_what_it_says_and_stays_put(order: str) -> None:
    world = World(recordings=150)
    world.settings.screendesk.order = order
    rows = walk(world, "/recordings", "records")
    assert rows == walk(world, "/recordings", "records")
    stamps = [row["metadata"]["updated_at" if "updated" in order else "created_at"] for row in rows]
    ascending = sorted(stamps)
    assert (stamps == ascending) == order.endswith("asc")
    assert (stamps == ascending[::-1]) == order.endswith("desc")


def test_an_unstable_order_differs_between_requests() -> None:
    world = World(recordings=90)
    world.settings.screendesk.order = "unstable"
    first, second = (ask(world, "/recordings").json()["records"] for _ in range(2))
    assert first != second
    assert sorted(row["uuid"] for row in first) == sorted(row["uuid"] for row in second)


@pytest.mark.parametrize(
    "headers", [{}, {"Authorization": "Bearer wrong"}, {"Authorization": f"Token {SCREENDESK_TOKEN}"}]
)
def test_a_bad_token_is_401_with_a_text(headers: dict[str, str]) -> None:
    reply = ask(World(recordings=1), "/recordings", headers=headers)
    assert (reply.status_code, reply.json()) == (401, {"error": "Invalid or missing API token"})


def test_a_revoked_token_stops_working_at_once() -> None:
    world = World(recordings=1)
    assert ask(world, "/recordings").status_code == 200
    world.screendesk.token = "another"
    assert ask(world, "/recordings").status_code == 401


def test_a_plan_without_api_is_403() -> None:
    world = World(recordings=1)
    world.settings.screendesk.api_enabled = False
    assert ask(world, "/users").json() == {"error": "API access not enabled or insufficient permissions"}


def test_a_member_sees_own_recordings_and_no_users() -> None:
    world = World(recordings=400)
    world.settings.screendesk.role = "member"
    world.settings.screendesk.agent = agent = next(
        row["user"]["email"] for row in world.screendesk.recordings.all() if row["user"]
    )
    own = walk(world, "/recordings", "records")
    assert own == [row for row in world.screendesk.recordings.all() if row["user"] and row["user"]["email"] == agent]
    assert 0 < len(own) < 400
    other = next(row["uuid"] for row in world.screendesk.recordings.all() if row not in own)
    assert ask(world, f"/recordings/{own[0]['uuid']}").json() == own[0]
    assert ask(world, f"/recordings/{other}").status_code == 404
    assert ask(world, "/users").status_code == 403
    assert ask(world, "/users/search", email=agent).status_code == 403


def test_a_detail_is_the_list_row_and_an_unknown_one_the_documented_404() -> None:
    world = World(recordings=3)
    row = ask(world, "/recordings").json()["records"][1]
    assert ask(world, f"/recordings/{row['uuid']}").json() == row
    missing = ask(world, "/recordings/no-such-uuid")
    assert missing.status_code == 404
    assert missing.json() == {"error": {"message": "Recording not found or does not exist", "code": 404}}
    world.settings.screendesk.error_shape = "string"
    assert ask(world, "/recordings/no-such-uuid").json() == {"error": "Recording not found or does not exist"}


def test_users_are_found_by_email_in_any_case() -> None:
    world = World()
    user = world.screendesk.users.all()[4]
    assert ask(world, "/users/search", email=user["email"].upper()).json() == user
    assert ask(world, "/users/search", email="nobody@example.com").status_code == 404
    missing = ask(world, "/users/search")
    assert (missing.status_code, missing.json()) == (400, {"error": "Missing email parameter"})


def test_recordings_can_be_asked_for_by_ticket_and_provider() -> None:
    world = World(recordings=300)
    rows = [row for row in world.screendesk.recordings.all() if row["metadata"]["helpdesk_info"]]
    jira = [row for row in rows if row["metadata"]["helpdesk_info"]["platform"] == "jira"]
    assert ask(world, "/recordings", provider="jira").json()["records"] == jira != []
    ticket = next(row for row in rows if row["metadata"]["helpdesk_info"]["ticket_id"])
    found = ask(world, "/recordings", ticket_id=ticket["metadata"]["helpdesk_info"]["ticket_id"]).json()
    assert ticket in found["records"]
    assert found["pagination"]["count"] == len(found["records"]) < 300


def test_a_download_is_a_video_or_a_409_while_it_is_being_made() -> None:
    world = World(recordings=30)
    ready = next(row["uuid"] for row in world.screendesk.recordings.all() if row["metadata"]["duration"])
    reply = ask(world, f"/recordings/{ready}/download")
    assert reply.headers["content-type"] == "video/mp4"
    assert reply.headers["content-disposition"] == f'attachment; filename="recording-{ready}.mp4"'
    assert int(reply.headers["content-length"]) == len(reply.content) > 20_000
    assert reply.content == ask(world, f"/recordings/{ready}/download").content
    processing = world.screendesk.recordings.insert()
    refused = ask(world, f"/recordings/{processing}/download")
    assert (refused.status_code, refused.json()) == (409, {"error": "Video file is not available yet"})
    assert ask(world, "/recordings/none/download").status_code == 404


def test_changes_show_in_the_next_request() -> None:
    """Catches a cached page or order that a change did not clear."""
    world = World(recordings=120)
    ask(world, "/recordings")
    table = world.screendesk.recordings
    key = table.keys()[50]
    table.update(key, {"title": "changed in place"})
    assert ask(world, "/recordings").json()["records"][50]["title"] == "changed in place"
    table.update(key, {"metadata.created_at": "2026-11-20T18:00:00.000Z"})
    assert ask(world, "/recordings").json()["records"][0]["uuid"] == key
    table.delete(key)
    inserted = table.insert()
    reply = ask(world, "/recordings").json()
    assert (reply["pagination"]["count"], reply["records"][0]["uuid"]) == (120, inserted)
    assert ask(world, f"/recordings/{key}").status_code == 404


@pytest.mark.parametrize("method", ["POST", "PATCH", "PUT", "DELETE"])
def test_writing_is_refused_as_an_unknown_route_and_logged(method: str) -> None:
    world = World(recordings=2)
    key = world.screendesk.recordings.keys()[0]
    assert ask(world, f"/recordings/{key}", method).status_code == 404
    assert ask(world, "/nothing", method).json() == {"error": {"message": "Resource not found", "code": 404}}
    assert [entry.method for entry in world.requests.non_get()] == [method, method]
    assert len(world.screendesk.recordings) == 2

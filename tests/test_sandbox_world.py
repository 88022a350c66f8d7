"""The data: the same for a seed, like life, and changeable while it is served."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import pytest

from sandbox.records import ABSENT, look_up
from sandbox.world import World

if TYPE_CHECKING:
    from sandbox.tables import Table

FINGERPRINT = """
from hashlib import sha256
from sandbox.world import World
world = World(11, recordings=120)
world.live_a_day()
tables = (world.screendesk.recordings, world.screendesk.users, world.getscreen.connections,
          world.posthog.desktop_recordings, world.getscreen.invitations)
print(sha256(b"".join(table.dump() for table in tables)).hexdigest())
"""


def tables(world: World) -> dict[str, Table[Any]]:
    return {
        "screendesk.recordings": world.screendesk.recordings,
        "screendesk.users": world.screendesk.users,
        "getscreen.connections": world.getscreen.connections,
        "posthog.desktop_recordings": world.posthog.desktop_recordings,
    }


def dump(world: World) -> bytes:
    return b"".join(table.dump() for table in [*tables(world).values(), world.getscreen.invitations])


def test_one_seed_gives_the_same_bytes_and_another_seed_others() -> None:
    assert dump(World(3, recordings=80)) == dump(World(3, recordings=80))
    assert dump(World(3, recordings=80)) != dump(World(4, recordings=80))


def test_a_seed_gives_the_same_bytes_in_another_process() -> None:
    """Catches an order taken from hash(), which differs between processes."""
    world = World(11, recordings=120)
    world.live_a_day()
    for hash_seed in ("1", "2"):
        command = [sys.executable, "-c", FINGERPRINT]
        printed = subprocess.run(
            command, check=True, capture_output=True, text=True, env={"PYTHONHASHSEED": hash_seed}, cwd="."
        )
        assert printed.stdout.strip() == sha256(dump(world)).hexdigest()


def test_history_lies_in_the_past_of_a_given_now() -> None:
    now = datetime(2025, 3, 1, 9, 30, tzinfo=UTC)
    world = World(recordings=200, now=now)
    stamps = [
        stamp
        for recording in world.screendesk.recordings.all()
        for stamp in (recording["metadata"]["created_at"], recording["metadata"]["updated_at"])
    ]
    assert min(stamps) > "2024-10-31"
    assert max(stamps) <= "2025-03-01T09:30:00.000Z"
    assert all(row["start"] <= now.timestamp() for row in world.getscreen.connections.all())
    for row in world.posthog.desktop_recordings.all():
        moments = [datetime.fromisoformat(row[name]) for name in ("started_at", "created_at", "updated_at")]
        assert moments == sorted(moments)
        assert moments[-1] <= now


def test_recordings_have_live_calls_of_one_to_six_nulls_and_awkward_text() -> None:
    recordings = World(recordings=3000).screendesk.recordings.all()
    live = [row for row in recordings if row["metadata"]["recording_type"] == "Live"]
    assert 0.25 < len(live) / len(recordings) < 0.35
    assert all((row["room_insights"] is not None) == (row in live) for row in recordings[:300])
    people = [row["room_insights"]["participants_insights"] for row in live]
    assert {len(some) for some in people if some} == {1, 2, 3, 4, 5, 6}
    assert None in people
    assert [] in people
    nullable = ["title", "summary", "description", "console_logs", "user", "customer", "technical_details"]
    nullable += ["metadata.duration", "metadata.helpdesk_info", "technical_details.isp", "customer.email"]
    for path in nullable:
        assert any(look_up(row, path, ...) is None for row in recordings), path
    assert any("\x00" in (row["console_logs"] or "") for row in recordings)
    assert any(look_up(row, "metadata.helpdesk_info.platform") == "hubspot" for row in recordings)
    assert sum(len(row["console_logs"] or "") > 1500 for row in recordings) > 100


def test_work_happens_in_working_hours() -> None:
    hours = Counter(
        datetime.fromisoformat(row["metadata"]["created_at"]).hour
        for row in World(recordings=2000).screendesk.recordings.all()
    )
    assert sum(hours[hour] for hour in range(7, 18)) > 0.85 * 2000


def test_connections_take_every_shape_the_facts_list() -> None:
    rows = World().getscreen.connections.all()
    assert all(type(row["id"]) is int for row in rows)
    shapes = {type(row["client"]).__name__ if row["client"] != [] else "empty" for row in rows}
    assert shapes == {"list", "empty", "dict", "NoneType", "str"}
    agents = {"absent" if "agent" not in row else type(row["agent"]).__name__ for row in rows}
    assert agents == {"dict", "list", "NoneType", "absent"}
    assert {"absent" if "video" not in row else type(row["video"]).__name__ for row in rows} == agents | {"str"}
    geos = {type(look_up(row, "agent.geo", ...)).__name__ for row in rows}
    assert geos == {"dict", "list", "NoneType", "ellipsis"}
    assert {type(look_up(row, "agent.id", 0)) for row in rows} == {int, str}
    open_stops = [row.get("stop", "absent") for row in rows if not row.get("stop")]
    assert {None, 0, "absent"} <= set(open_stops)
    assert sum(bool(row.get("stop")) and row["stop"] < row["start"] for row in rows) == 1
    assert any("?sig=" in str(look_up(row, "video.url")) for row in rows)
    assert not any("apikey" in str(row) for row in rows)


def test_meetings_have_the_documented_fields_ties_and_the_odd_segment() -> None:
    meetings = World().posthog.desktop_recordings.all()
    assert {len(row) for row in meetings} == {25}
    assert len({row["started_at"] for row in meetings}) < len(meetings)
    segments = [segment for row in meetings for segment in row["transcript_segments"]]
    assert {tuple(segment) for segment in segments} == {("timestamp", "speaker", "text", "confidence", "is_final")}
    assert {None, ""} <= {segment["speaker"] for segment in segments}
    assert {None, 0.0} <= {segment["timestamp"] for segment in segments}
    for row in meetings:
        assert row["transcript_text"] == " ".join(segment["text"] for segment in row["transcript_segments"])
    assert any(row["transcript_segments"] == [] for row in meetings)
    assert any(row["participants"] == [] for row in meetings)
    assert any("description" not in task for row in meetings for task in row["extracted_tasks"])


def test_names_overlap_so_that_vendors_can_be_joined() -> None:
    world = World()
    users = {str(key).lower() for key in world.screendesk.users.keys()}  # noqa: SIM118
    owners = {(row["user"] or {}).get("email", "").lower() for row in world.screendesk.recordings.all()} - {""}
    logins = {str(look_up(row, "client.0.login", "")).lower() for row in world.getscreen.connections.all()} - {""}
    assert len(owners & users) > 15
    assert owners - users, "some owners have left"
    assert logins <= users | {person.email.lower() for person in world.cast.leavers}
    names = {row["name"] for row in world.screendesk.users.all()}
    assert names & {name for row in world.posthog.desktop_recordings.all() for name in row["participants"]}


def test_an_update_moves_updated_at_only_when_it_touches() -> None:
    world = World(recordings=20)
    table = world.screendesk.recordings
    key = table.keys()[3]
    before = table.get(key)["metadata"]["updated_at"]
    table.update(key, {"metadata.impressions_count": 99}, touch=False)
    assert table.get(key)["metadata"] == table.get(key)["metadata"] | {"impressions_count": 99, "updated_at": before}
    world.advance(timedelta(minutes=1))
    table.update(key, {"title": "new", "technical_details": {"isp": None}, "customer": ABSENT})
    after = table.get(key)
    assert after["metadata"]["updated_at"] == "2026-11-20T18:01:00.000Z"
    assert after["title"] == "new"
    assert "customer" not in after


def test_an_explicit_updated_at_wins_over_touch() -> None:
    world = World(recordings=5)
    key = world.posthog.desktop_recordings.keys()[0]
    world.posthog.desktop_recordings.update(key, {"updated_at": "2020-01-01T00:00:00Z"})
    assert world.posthog.desktop_recordings.get(key)["updated_at"] == "2020-01-01T00:00:00Z"


def test_insert_invents_takes_and_overrides() -> None:
    world = World(recordings=5)
    table = world.screendesk.recordings
    invented = table.insert(metadata__title="inside", title=None)
    assert table.keys()[0] == invented, "a record made now is listed first"
    assert (table.get(invented)["title"], table.get(invented)["metadata"]["title"]) == (None, "inside")
    given = table.insert({"uuid": "u-1", "metadata": {"created_at": "2000-01-01T00:00:00.000Z"}})
    assert table.keys()[-1] == given == "u-1"
    with pytest.raises(KeyError):
        table.insert({"uuid": "u-1"})
    unkeyed = table.insert({"uuid": None, "title": "no key"})
    assert table.get(unkeyed) == {"uuid": None, "title": "no key"}
    assert len(table) == 8


def test_a_changed_email_moves_the_user_and_a_deleted_one_is_gone() -> None:
    world = World()
    users = world.screendesk.users
    first, second = users.keys()[:2]
    users.update(first, {"email": "renamed@support.example"})
    users.delete(second)
    assert first not in users
    assert users.get("renamed@support.example")["email"] == "renamed@support.example"
    assert len(users) == 24
    with pytest.raises(KeyError):
        users.replace(second, {"email": second})


def test_append_keeps_what_the_vendor_keeps() -> None:
    world = World()
    meetings = world.posthog.desktop_recordings
    key = meetings.insert(started_at="2026-11-20T12:00:00Z")
    said = [
        {"timestamp": 1000.0, "text": " one "},
        {"timestamp": 1000.0, "text": "twice in a batch"},
        {"text": "no time"},
    ]
    assert meetings.append_segments(key, said) == 3
    world.advance(timedelta(seconds=1))
    assert (
        meetings.append_segments(key, [{"timestamp": 1000.0, "text": "late"}, {"timestamp": None, "text": "kept"}]) == 1
    )
    row = meetings.get(key)
    assert row["transcript_text"] == "one twice in a batch no time kept"
    assert row["transcript_segments"][0] == {
        "timestamp": 1000.0, "speaker": None, "text": "one", "confidence": None, "is_final": None,
    }  # fmt: skip
    assert row["updated_at"] == "2026-11-20T18:00:01Z"
    with pytest.raises(ValueError, match="text"):
        meetings.append_segments(key, [{"text": "  "}])


def test_closing_ends_an_open_connection() -> None:
    world = World()
    connections = world.getscreen.connections
    first, second = connections.still_open()[:2]
    connections.close(first)
    connections.close(second, stop=1_800_000_000)
    assert connections.get(first)["stop"] == int(world.now.timestamp())
    assert connections.get(second)["stop"] == 1_800_000_000
    assert not {first, second} & set(connections.still_open())


@pytest.mark.parametrize("deletes", [0, 3])
def test_a_day_changes_exactly_as_many_records_as_it_says(deletes: int) -> None:
    world = World(recordings=300)
    before = {name: {key: table.get(key) for key in table.keys()} for name, table in tables(world).items()}  # noqa: SIM118
    counts = world.live_a_day(deletes=deletes)
    for name, table in tables(world).items():
        after = {key: table.get(key) for key in table.keys()}  # noqa: SIM118
        changed = {key for key in before[name].keys() | after.keys() if before[name].get(key) != after.get(key)}
        assert len(changed) == counts[name] > 0, name
        assert len(before[name].keys() - after.keys()) == (deletes if name == "screendesk.recordings" else 0)
    assert world.now == datetime(2026, 11, 21, 18, tzinfo=UTC)


def test_a_day_grows_and_shrinks_participants_edits_silently_and_brings_a_new_field() -> None:
    world = World(recordings=300)
    table = world.screendesk.recordings
    before = {key: table.get(key) for key in table.keys()}  # noqa: SIM118
    world.live_a_day()
    moves, silent, fresh = set(), 0, 0
    for key, old in before.items():
        new = table.get(key)
        path = "room_insights.participants_insights"
        moves.add(len(look_up(new, path) or []) - len(look_up(old, path) or []))
        silent += new != old and new["metadata"]["updated_at"] == old["metadata"]["updated_at"]
        fresh += "sentiment" in new["metadata"]
    assert moves == {-1, 0, 1}
    assert silent >= 3
    assert fresh == 1


def test_days_go_on_being_eventful() -> None:
    world = World(recordings=50, meetings=8, connections=20)
    for _ in range(5):
        assert min(world.live_a_day().values()) > 0

"""Hand-written rows in, rows out: what each analytics table makes of what vendors send."""

from __future__ import annotations

import json
import shutil
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import duckdb
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from pipelines import ledger
from pipelines.database import connect
from pipelines.declare import declare_tables
from pipelines.model_files import MODELS_DIR
from pipelines.sync import ALL_TABLES
from pipelines.transform import ModelRun, run_models

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CALLERS = "screendesk.recordings__room_insights__participants_insights"
CLIENTS = "getscreen.connections__client"
ATTENDEES = "posthog.desktop_recordings__participants"
SEGMENTS = "posthog.desktop_recordings__transcript_segments"
ROOTS = {"screendesk.recordings", "screendesk.users", "getscreen.connections", "posthog.desktop_recordings"}
GONE = "2026-05-01T00:00:00+00:00"


class Warehouse:
    """A private database to put raw rows in, and its analytics tables to look at."""

    def __init__(self, path: Path) -> None:
        self.connection = duckdb.connect(str(path))
        self.connection.execute("SET TimeZone = 'UTC'")
        self.connection.execute("SET threads = 2")

    def add(self, table: str, **values: Any) -> None:
        """Put one raw row in; what is not given is NULL."""
        row = {"_dlt_load_id": "1", **values}
        if table in ROOTS:
            row = {"_row_hash": json.dumps(values, default=str), "_loaded_at": "2026-05-02T00:00:00+00:00", **row}
        names = ", ".join(f'"{name}"' for name in row)
        self.connection.execute(
            f"INSERT INTO {table} ({names}) VALUES ({', '.join('?' * len(row))})", list(row.values())
        )

    def recording(self, uuid: str, made: str | None = None, seconds: int | None = None, **values: Any) -> None:
        """Put a Screendesk recording in."""
        self.add("screendesk.recordings", uuid=uuid, metadata__created_at=made, metadata__duration=seconds, **values)

    def call(self, uuid: str, began: str, ended: str | None, **values: Any) -> None:
        """Put a Screendesk live call in."""
        self.add(
            "screendesk.recordings",
            uuid=uuid,
            **{"metadata__recording_type": "Live", "metadata__created_at": began, **values},
            room_insights__started_at=began,
            room_insights__ended_at=ended,
        )

    def connect(self, number: int, start: str | None, stop: str | None, *logins: str | None, **values: Any) -> None:
        """Put a Getscreen.me connection with these operators in."""
        self.add("getscreen.connections", id=number, start=start, stop=stop, **values)
        for index, login in enumerate(logins):
            self.add(CLIENTS, connection_id=number, _dlt_list_idx=index, login=login)

    def meeting(
        self, key: str, *said: tuple[float | None, str | None, str | None], names: tuple[str, ...] = (), **values: Any
    ) -> None:
        """Put a PostHog meeting with these segments (milliseconds, speaker, text) and participants in."""
        row = {"started_at": "2026-03-02T10:00:00+00:00", "status": "ready", **values}
        self.add("posthog.desktop_recordings", id=key, **row)
        for index, name in enumerate(names):
            self.add(ATTENDEES, desktop_recording_id=key, _dlt_list_idx=index, value=name)
        for index, (at, speaker, text) in enumerate(said):
            self.add(SEGMENTS, desktop_recording_id=key, _dlt_list_idx=index, timestamp=at, speaker=speaker, text=text)

    def run(self, timezone: str = "UTC") -> ModelRun:
        """Make the analytics tables."""
        return run_models(self.connection, timezone=timezone)

    def all(self, sql: str) -> list[tuple[Any, ...]]:
        """The rows of a query."""
        return self.connection.execute(sql).fetchall()

    def rows(self, table: str, columns: str, where: str = "TRUE") -> list[tuple[Any, ...]]:
        """Some columns of an analytics table, in order."""
        return self.all(f"SELECT {columns} FROM analytics.{table} WHERE {where} ORDER BY ALL")


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("template") / "deskhouse.duckdb"
    ledger.prepare(path)
    declare_tables(path, ALL_TABLES)
    with connect(path) as connection:
        connection.execute("CHECKPOINT")
    return path


@pytest.fixture
def house(template: Path, tmp_path: Path) -> Iterator[Warehouse]:
    shutil.copy(template, tmp_path / "deskhouse.duckdb")
    warehouse = Warehouse(tmp_path / "deskhouse.duckdb")
    yield warehouse
    warehouse.connection.close()


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text + "+00:00")


# ---- support_sessions


def test_an_empty_warehouse_gives_empty_models(house: Warehouse) -> None:
    """Catches a check or a sum that needs rows, which would stop the very first run."""
    made = house.run().rows
    assert {name for name, rows in made.items() if rows} == {"people_coverage"}
    assert house.rows("freshness", "verdict, live_rows") == [("never read", 0)] * 4


def test_every_length_a_vendor_sends_is_kept_or_flagged(house: Warehouse) -> None:
    house.recording("plain", "2026-03-02T10:00:00Z", 90)
    house.recording("unprocessed", "2026-03-02T10:00:00Z", 0)
    house.recording("unknown", "2026-03-02T10:00:00Z", None)
    house.recording("nothing at all")
    house.recording("long", "2026-03-02T10:00:00Z", 86_400)
    house.recording("backwards", "2026-03-02T10:00:00Z", -5)
    house.recording("absurd", "2026-03-02T10:00:00Z", 2**62)
    house.connect(1, "2026-03-02T10:00:00Z", "2026-03-02T10:10:30Z")
    house.connect(2, "2026-03-02T10:00:00Z", None)
    house.connect(3, "2026-03-02T10:00:00Z", "2026-03-02T09:59:18Z")
    house.connect(4, "2026-03-02T10:00:00Z", "2026-03-02T10:00:00Z")
    house.connect(5, "2026-03-02T10:00:00Z", "2026-03-04T10:00:00Z")
    house.connect(6, None, "2026-03-02T10:00:00Z")
    house.meeting("timed", duration_seconds=600, completed_at="2026-03-02T10:30:00Z")
    house.meeting("completed", completed_at="2026-03-02T10:30:00Z")
    house.meeting("untimed")
    house.meeting("under way", status="recording")
    house.run()
    found = {
        key: rest
        for key, *rest in house.rows("support_sessions", "session_key, duration_seconds, duration_flag, is_open")
    }
    assert found == {
        "screendesk:plain": [90, "ok", False],
        "screendesk:unprocessed": [None, "missing", False],
        "screendesk:unknown": [None, "missing", False],
        "screendesk:nothing at all": [None, "missing", False],
        "screendesk:long": [86_400, "day_long", False],
        "screendesk:backwards": [None, "negative", False],
        "screendesk:absurd": [2**62, "day_long", False],
        "getscreen:1": [630, "ok", False],
        "getscreen:2": [None, "open", True],
        "getscreen:3": [None, "negative", False],
        "getscreen:4": [0, "zero", False],
        "getscreen:5": [172_800, "day_long", False],
        "getscreen:6": [None, "missing", False],
        "posthog:timed": [600, "ok", False],
        "posthog:completed": [1800, "ok", False],
        "posthog:untimed": [None, "missing", False],
        "posthog:under way": [None, "open", True],
    }
    ends = dict(house.rows("support_sessions", "session_key, ended_at"))
    assert ends["screendesk:plain"] == utc("2026-03-02T10:01:30")
    assert ends["posthog:timed"] == utc("2026-03-02T10:10:00")
    assert ends["getscreen:3"] == utc("2026-03-02T09:59:18")
    assert ends["getscreen:2"] is ends["screendesk:absurd"] is None


def test_a_live_call_is_told_from_a_recording_and_its_times_are_the_rooms(house: Warehouse) -> None:
    house.call(
        "call",
        "2026-03-02T10:00:10Z",
        "2026-03-02T10:05:10Z",
        metadata__created_at="2026-03-02T10:00:00Z",
        metadata__duration=280,
        room_insights__total_unique_participants=3,
        metadata__impressions_count=0,
    )
    house.call("running", "2026-03-02T10:00:00Z", None, metadata__impressions_count=0)
    house.call("typeless", "2026-03-02T10:00:00Z", "2026-03-02T10:01:00Z", metadata__recording_type=None)
    # no room at all: Screendesk leaves it out of some calls
    house.recording("roomless", "2026-03-02T10:00:00Z", 33, metadata__recording_type="Live")
    for index, role in enumerate(("host", "guest", None)):
        house.add(
            CALLERS, recording_uuid="call", _dlt_list_idx=index, role=role, os=f"os {index}", device=f"device {index}"
        )
    house.run()
    assert house.rows(
        "support_sessions", "session_key, kind, started_at, duration_seconds, is_open, participant_count"
    ) == [
        ("screendesk:call", "live_call", utc("2026-03-02T10:00:10"), 300, False, 3),
        ("screendesk:roomless", "live_call", utc("2026-03-02T10:00:00"), 33, False, 0),
        ("screendesk:running", "live_call", utc("2026-03-02T10:00:00"), None, True, 0),
        ("screendesk:typeless", "live_call", utc("2026-03-02T10:00:00"), 60, False, 0),
    ]
    assert house.rows(
        "support_sessions", "device_name, device_os, never_viewed", "session_key = 'screendesk:call'"
    ) == [("device 1", "os 1", True)]
    assert house.rows("support_sessions", "never_viewed", "session_key = 'screendesk:running'") == [(False,)]


def test_the_ticket_of_a_session_is_its_ticket_or_conversation_or_issue(house: Warehouse) -> None:
    info = "metadata__helpdesk_info__"
    for uuid, values in {
        "t": {"platform": "Zendesk", "ticket_id": "7", "conversation_id": "8"},
        "c": {"platform": "zendesk", "ticket_id": "", "conversation_id": "7"},
        "i": {"platform": "jira", "issue_id": "SUP-1"},
        "n": {"ticket_id": "9"},
        "p": {"platform": "intercom", "user_id": "5"},
    }.items():
        house.recording(uuid, **{info + name: value for name, value in values.items()})
    house.run()
    assert house.rows("support_sessions", "session_key, ticket_platform, ticket_id, ticket_key") == [
        ("screendesk:c", "zendesk", "7", "zendesk:conversation:7"),
        ("screendesk:i", "jira", "SUP-1", "jira:issue:SUP-1"),
        ("screendesk:n", "unknown", "9", "unknown:ticket:9"),
        ("screendesk:p", "intercom", None, None),
        ("screendesk:t", "zendesk", "7", "zendesk:ticket:7"),
    ]
    assert len(house.rows("tickets", "ticket_key")) == 4


def test_deleted_rows_stay_and_say_so(house: Warehouse) -> None:
    """A retention rule at the vendor must not erase last year's work from the numbers."""
    agent = {"user__email": "a@x.example", "metadata__helpdesk_info__ticket_id": "1"}
    house.recording("kept", "2026-03-02T10:00:00Z", 60, metadata__impressions_count=0, **agent)
    house.recording("gone", "2026-03-02T11:00:00Z", 120, metadata__impressions_count=0, _deleted_at=GONE, **agent)
    house.meeting("gone", (0, "Ann", "Hello there"), names=("Ann",), _deleted_at=GONE)
    house.run()
    assert house.rows("support_sessions", "session_key, deleted_at, never_viewed") == [
        ("posthog:gone", utc("2026-05-01T00:00:00"), False),
        ("screendesk:gone", utc("2026-05-01T00:00:00"), False),
        ("screendesk:kept", None, True),
    ]
    assert house.rows(
        "daily_activity", "sessions, minutes, never_viewed, deleted_unviewed, deleted_sessions", "kind = 'recording'"
    ) == [(2, 3.0, 1, 1, 1)]
    assert house.rows("agent_days", "sessions, hands_on_minutes") == [(2, 3.0)]
    assert house.rows("tickets", "sessions, total_minutes, deleted_sessions") == [(2, 3.0, 1)]
    for table in ("session_participants", "transcript_segments", "meeting_talk"):
        assert house.rows(table, "deleted_at") == [(utc("2026-05-01T00:00:00"),)], table


def test_a_row_with_every_object_missing_is_one_session_each(house: Warehouse) -> None:
    house.recording("r")
    house.add("getscreen.connections", id=1)
    house.add("posthog.desktop_recordings", id="m")
    house.run()
    assert house.rows("support_sessions", "session_key, kind, started_at, local_day, agent_email, has_video, url") == [
        ("getscreen:1", "remote_session", None, None, None, False, None),
        ("posthog:m", "meeting", None, None, None, False, None),
        ("screendesk:r", "recording", None, None, None, False, None),
    ]
    assert house.rows("daily_activity", "*") == house.rows("agent_days", "*") == house.rows("devices", "*") == []


# ---- people and participants


def test_one_person_is_one_row_whatever_the_case_of_the_address(house: Warehouse) -> None:
    house.add(
        "screendesk.users",
        email="Ann@Desk.example",
        name="Ann Old",
        role="member",
        created_at="2026-01-01T00:00:00Z",
        updated_at="2026-01-01T00:00:00Z",
        _deleted_at=GONE,
    )
    house.add(
        "screendesk.users",
        email="ann@desk.example",
        name="Ann New",
        role="admin",
        created_at="2026-01-05T00:00:00Z",
        updated_at="2026-01-05T00:00:00Z",
    )
    house.recording(
        "r",
        "2026-03-01T10:00:00Z",
        60,
        user__email=" ANN@desk.example ",
        user__name="Ann R",
        customer__email="Cus@Shop.example",
    )
    house.recording("s", "2026-03-02T10:00:00Z", 60, user__email="ann@desk.example", customer__email="cus@shop.EXAMPLE")
    house.connect(1, "2026-03-03T10:00:00Z", "2026-03-03T10:01:00Z", "Ann@Desk.Example", agent__id=5)
    house.meeting("m", names=("ANN@DESK.EXAMPLE", "Somebody"))
    house.run()
    assert house.rows(
        "people",
        "email, name, names, is_agent, is_customer, account_role, left_at, sessions, sessions_screendesk, sessions_getscreen, sessions_posthog, customer_days",
    ) == [
        ("ann@desk.example", "Ann New", "Ann New; Ann Old; Ann R", True, False, "admin", None, 4, 2, 1, 1, 0),
        ("cus@shop.example", None, None, False, True, None, None, 2, 2, 0, 0, 2),
    ]
    assert house.rows("people", "roles, first_seen_at, last_seen_at", "is_agent") == [
        (
            "screendesk user; recording owner; operator; participant",
            utc("2026-01-01T00:00:00"),
            utc("2026-03-03T10:00:00"),
        )
    ]


def test_people_who_left_stay_with_the_time_they_were_found_gone(house: Warehouse) -> None:
    house.add("screendesk.users", email="left@desk.example", created_at="2026-01-01T00:00:00Z", _deleted_at=GONE)
    house.run()
    assert house.rows("people", "email, left_at, is_agent, sessions") == [
        ("left@desk.example", utc("2026-05-01T00:00:00"), True, 0)
    ]


def test_a_name_without_an_address_is_counted_and_matched_to_nobody(house: Warehouse) -> None:
    """Two people may have one name; a guess would give one the other's work."""
    house.add("screendesk.users", email="sam@desk.example", name="Sam Lee")
    house.call("c", "2026-03-02T10:00:00Z", "2026-03-02T10:01:00Z")
    for index, name in enumerate(("Sam Lee", None, "sam lee")):
        house.add(CALLERS, recording_uuid="c", _dlt_list_idx=index, display_name=name)
    house.connect(1, "2026-03-02T10:00:00Z", None, "sam", "sam@desk.example")
    house.run()
    assert house.rows("people", "email, sessions") == [("sam@desk.example", 1)]
    assert house.rows("people_coverage", "vendor, participants, with_email, name_only, anonymous, unmatched_names") == [
        ("getscreen", 2, 1, 1, 0, 1),
        ("posthog", 0, 0, 0, 0, 0),
        ("screendesk", 3, 0, 2, 1, 1),
    ]
    assert house.rows("support_sessions", "agent_email", "vendor = 'getscreen'") == [("sam@desk.example",)]


def test_participants_come_from_all_three_shapes(house: Warehouse) -> None:
    agents = {
        "Mozilla/5.0 (iPad; CPU OS 18_1 like Mac OS X) AppleWebKit/605 CriOS/143.0 Safari/604": ("iOS", "Chrome"),
        "Mozilla/5.0 (Linux; Android 14) AppleWebKit/537 Chrome/143.0 Mobile Safari/537 EdgA/143.0": (
            "Android",
            "Edge",
        ),
        "Mozilla/5.0 (Windows NT 10.0) AppleWebKit/537 Chrome/143.0 Safari/537 OPR/120.0": ("Windows", "Opera"),
        "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605 Version/18 Safari/605": ("macOS", "Safari"),
        "Mozilla/5.0 (X11; Ubuntu; Linux x86_64; rv:143.0) Gecko/2010 Firefox/143.0": ("Linux", "Firefox"),
        "curl/8": (None, None),
    }
    house.call("c", "2026-03-02T10:00:00Z", "2026-03-02T10:01:00Z")
    house.add(
        CALLERS,
        recording_uuid="c",
        _dlt_list_idx=0,
        display_name="Ann",
        role="host",
        os="iOS 18",
        browser="Safari",
        device="iPhone",
        device_type="mobile",
        joined_at="2026-03-02T10:00:00Z",
        left_at="2026-03-02T10:00:30Z",
    )
    house.add("getscreen.connections", id=1)
    for index, agent in enumerate(agents):
        house.add(CLIENTS, connection_id=1, _dlt_list_idx=index, user_agent=agent, geo__country="Spain")
    house.meeting("m", names=("Bo",))
    house.run()
    assert house.rows(
        "session_participants",
        "vendor, position, name, role, joined_at, left_at, os, browser, device, country",
        "vendor <> 'getscreen'",
    ) == [
        ("posthog", 0, "Bo", "participant", None, None, None, None, None, None),
        (
            "screendesk",
            0,
            "Ann",
            "host",
            utc("2026-03-02T10:00:00"),
            utc("2026-03-02T10:00:30"),
            "iOS 18",
            "Safari",
            "iPhone",
            None,
        ),
    ]
    found = house.rows("session_participants", "position, os, browser, country", "vendor = 'getscreen'")
    assert found == [(index, *parsed, "Spain") for index, parsed in enumerate(agents.values())]


# ---- agents, days, tickets, devices


def test_overlapping_sessions_count_once_in_hands_on_minutes(house: Warehouse) -> None:
    agent = "a@x.example"
    house.connect(1, "2026-03-02T10:00:00Z", "2026-03-02T10:30:00Z", agent)
    house.connect(2, "2026-03-02T10:10:00Z", "2026-03-02T10:20:00Z", agent)
    house.connect(3, "2026-03-02T10:25:00Z", "2026-03-02T10:40:00Z", agent)
    house.connect(4, "2026-03-02T12:00:00Z", "2026-03-02T12:05:00Z", agent)
    house.connect(5, "2026-03-02T12:00:00Z", None, agent)
    house.connect(6, "2026-03-02T08:00:00Z", "2026-03-04T08:00:00Z", agent)
    house.recording("r", "2026-03-02T12:04:00Z", 240, user__email=agent, customer__email="c@x.example")
    house.run()
    assert house.rows(
        "agent_days",
        "sessions, remote_sessions, recordings, hands_on_minutes, live_minutes, session_minutes, median_session_minutes, customers, open_sessions, flagged_sessions",
    ) == [(7, 6, 1, 48.0, 45.0, 64.0, 10.0, 1, 1, 1)]


@pytest.mark.parametrize(
    ("timezone", "start", "stop", "minutes"),
    [
        pytest.param(
            "UTC", "2026-03-02T23:50", "2026-03-03T00:20", {"2026-03-02": 10, "2026-03-03": 20}, id="midnight"
        ),
        pytest.param("UTC", "2026-03-02T23:50", "2026-03-03T00:00", {"2026-03-02": 10}, id="ends at midnight"),
        pytest.param(
            "Europe/Berlin",
            "2026-03-02T22:30",
            "2026-03-02T23:30",
            {"2026-03-02": 30, "2026-03-03": 30},
            id="midnight in Berlin",
        ),
        pytest.param(
            "Europe/Berlin",
            "2026-03-28T22:00",
            "2026-03-29T21:30",
            {"2026-03-28": 60, "2026-03-29": 22 * 60 + 30},
            id="day of 23 hours",
        ),
        pytest.param(
            "Europe/Berlin", "2026-10-25T00:30", "2026-10-25T01:30", {"2026-10-25": 60}, id="the hour that comes twice"
        ),
        pytest.param(
            "America/Los_Angeles",
            "2026-03-02T07:59",
            "2026-03-02T08:01",
            {"2026-03-01": 1, "2026-03-02": 1},
            id="west of Greenwich",
        ),
        pytest.param(
            "America/Havana",
            "2026-11-01T03:30",
            "2026-11-01T05:30",
            {"2026-10-31": 30, "2026-11-01": 90},
            id="midnight that comes twice",
        ),
        pytest.param(
            "Africa/Cairo",
            "2026-04-23T21:30",
            "2026-04-23T22:30",
            {"2026-04-23": 30, "2026-04-24": 30},
            id="midnight that does not come",
        ),
    ],
)
def test_minutes_are_split_at_local_midnight(
    house: Warehouse, timezone: str, start: str, stop: str, minutes: dict[str, int]
) -> None:
    house.connect(1, f"{start}:00Z", f"{stop}:00Z", "a@x.example")
    house.run(timezone)
    found = {str(day): rest for day, *rest in house.rows("agent_days", "local_day, hands_on_minutes, sessions")}
    first = min(minutes)
    assert found == {day: [float(expected), int(day == first)] for day, expected in minutes.items()}
    assert house.rows("support_sessions", "local_day") == [(date.fromisoformat(first),)]


ZONES = [
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "America/Havana",
    "America/Santiago",
    "Africa/Cairo",
    "Asia/Beirut",
    "Australia/Lord_Howe",
    "Asia/Kathmandu",
    "Pacific/Auckland",
]
# around days on which one of these zones changes its clocks, and one on which none does
ANCHORS = [
    "2026-03-28",
    "2026-03-08",
    "2026-10-24",
    "2026-11-01",
    "2026-04-04",
    "2026-09-06",
    "2026-04-23",
    "2026-10-29",
    "2026-06-15",
]
INTERVALS = st.lists(
    st.tuples(st.sampled_from(["a", "b"]), st.integers(0, 3 * 24 * 60), st.integers(1, 24 * 60 - 1), st.booleans()),
    min_size=1,
    max_size=6,
)
AGENT_DAYS = (MODELS_DIR / "agent_days.sql").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def bare() -> Iterator[duckdb.DuckDBPyConnection]:
    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'")
    connection.execute("SET threads = 1")
    connection.execute("CREATE SCHEMA analytics")
    connection.execute(
        "CREATE TABLE analytics.support_sessions (session_key VARCHAR, kind VARCHAR, agent_email VARCHAR, "
        "started_at TIMESTAMPTZ, ended_at TIMESTAMPTZ, duration_seconds BIGINT, duration_flag VARCHAR, is_open BOOLEAN, "
        "customer_email VARCHAR, ticket_key VARCHAR, local_day DATE)"
    )
    yield connection
    connection.close()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(zone=st.sampled_from(ZONES), anchor=st.sampled_from(ANCHORS), intervals=INTERVALS)
@example(zone="America/Havana", anchor="2026-11-01", intervals=[("a", 1600, 200, True), ("a", 1650, 60, False)])
@example(zone="UTC", anchor="2026-06-15", intervals=[("a", 1380, 60, True)])
def test_hands_on_minutes_are_the_minutes_a_clock_would_count(
    bare: duckdb.DuckDBPyConnection, zone: str, anchor: str, intervals: list[tuple[str, int, int, bool]]
) -> None:
    """Catches any error in unions or midnights, by asking a clock minute after minute."""
    origin = datetime.fromisoformat(anchor).replace(tzinfo=UTC) - timedelta(days=1)
    local = ZoneInfo(zone)
    expected: dict[tuple[str, date], set[int]] = {}
    live: dict[tuple[str, date], set[int]] = {}
    bare.execute(f"SET VARIABLE deskhouse_timezone = '{zone}'")
    bare.execute("DELETE FROM analytics.support_sessions")
    for agent, start, length, is_live in intervals:
        began = origin + timedelta(minutes=start)
        bare.execute(
            "INSERT INTO analytics.support_sessions VALUES ('k', ?, ?, ?, ?, ?, 'ok', FALSE, NULL, NULL, ?)",
            [
                "remote_session" if is_live else "recording",
                agent,
                began,
                began + timedelta(minutes=length),
                length * 60,
                began.astimezone(local).date(),
            ],
        )
        for minute in range(start, start + length):
            day = (origin + timedelta(minutes=minute)).astimezone(local).date()
            expected.setdefault((agent, day), set()).add(minute)
            if is_live:
                live.setdefault((agent, day), set()).add(minute)
    rows = bare.execute(f"SELECT agent_email, local_day, hands_on_minutes, live_minutes FROM ({AGENT_DAYS})").fetchall()
    assert {(agent, day): minutes for agent, day, minutes, _ in rows} == {k: len(v) for k, v in expected.items()}
    assert {(agent, day): minutes for agent, day, _, minutes in rows if minutes} == {k: len(v) for k, v in live.items()}


def test_days_are_summed_by_vendor_and_kind_with_median_and_p90(house: Warehouse) -> None:
    for number, seconds in enumerate([60, 120, 180, 240, 6000]):
        house.recording(f"r{number}", "2026-03-02T10:00:00Z", seconds, metadata__impressions_count=number)
    house.recording("long", "2026-03-02T10:00:00Z", 90_000)
    house.call("c", "2026-03-02T10:00:00Z", "2026-03-02T10:07:00Z")
    house.run()
    assert house.rows(
        "daily_activity", "kind, sessions, minutes, median_minutes, p90_minutes, never_viewed, flagged_sessions"
    ) == [
        ("live_call", 1, 7.0, 7.0, 7.0, 0, 0),
        ("recording", 6, 110.0, 3.0, pytest.approx(61.6), 1, 1),
    ]


def test_a_ticket_sums_its_sessions_and_takes_the_remote_session_that_followed(house: Warehouse) -> None:
    ticket = {
        "metadata__helpdesk_info__platform": "zendesk",
        "metadata__helpdesk_info__ticket_id": "7",
        "user__email": "A@x.example",
    }
    house.recording("r", "2026-03-02T09:00:00Z", 120, customer__email="c@x.example", **ticket)
    house.call("c", "2026-03-02T10:00:00Z", "2026-03-02T10:10:00Z", **ticket)
    house.call("open", "2026-03-02T10:00:00Z", None, **{**ticket, "user__email": "b@x.example"})
    for index, name in enumerate(("Ann", "ann", None, None)):
        house.add(CALLERS, recording_uuid="c", _dlt_list_idx=index, display_name=name)
    house.recording("other", "2026-03-02T10:30:00Z", 60, **{**ticket, "metadata__helpdesk_info__ticket_id": "8"})
    house.connect(1, "2026-03-02T10:20:00Z", "2026-03-02T10:25:00Z", "a@x.example")
    house.connect(2, "2026-03-02T10:31:00Z", "2026-03-02T10:34:00Z", "a@x.example")
    house.connect(3, "2026-03-02T12:31:00Z", "2026-03-02T12:32:00Z", "a@x.example")
    house.connect(4, "2026-03-02T10:20:00Z", "2026-03-02T10:25:00Z", "nobody@x.example")
    house.connect(5, "2026-03-02T08:59:00Z", "2026-03-02T09:30:00Z", "a@x.example")
    house.run()
    assert house.rows(
        "tickets",
        "ticket_id, sessions, recordings, live_calls, total_minutes, live_call_minutes, agent_count, agents, customer_count, participant_count, open_sessions, likely_remote_sessions, likely_remote_minutes",
    ) == [
        ("7", 3, 1, 2, 12.0, 10.0, 2, "a@x.example; b@x.example", 1, 3, 1, 1, 5.0),
        ("8", 1, 1, 0, 1.0, 0.0, 1, "a@x.example", 0, 0, 0, 1, 3.0),
    ]


def test_a_device_is_called_what_its_newest_connection_calls_it(house: Warehouse) -> None:
    house.connect(
        2,
        "2026-03-02T10:00:00Z",
        "2026-03-02T10:10:00Z",
        "a@x.example",
        "B",
        agent__id=5,
        agent__name="old",
        agent__version="2.9",
        agent__os="win",
    )
    house.connect(
        1,
        "2026-03-05T10:00:00Z",
        None,
        "A@x.example",
        agent__id=5,
        agent__name="new",
        agent__version="2.10",
        agent__owner="Own@x.example",
    )
    house.connect(3, None, None, agent__id=5, agent__name="undated")
    house.connect(4, "2026-03-05T10:00:00Z", "2026-03-05T10:01:00Z", agent__name="without id")
    house.run()
    assert house.rows(
        "devices",
        "device_id, device_name, device_os, owner, latest_version, versions, sessions, session_days, total_minutes, last_seen_at, operator_count, operators, open_sessions",
    ) == [
        (
            5,
            "new",
            "win",
            "own@x.example",
            "2.10",
            "2.10; 2.9",
            3,
            2,
            10.0,
            utc("2026-03-05T10:00:00"),
            2,
            "B; a@x.example",
            2,
        )
    ]
    assert house.rows("people", "email, roles", "roles = 'device owner'") == [("own@x.example", "device owner")]


# ---- meetings


def test_talk_is_estimated_from_starts_and_capped_by_what_was_said(house: Warehouse) -> None:
    house.meeting(
        "m",
        (1000, "Ann", "twenty characters!!!"),  # 4 seconds at most, the next begins after 2
        (3000, "Ann", "twenty characters!!!"),  # 4 seconds, then silence
        (20_000, "Bo", "Hi"),  # a second at least
        (30_000, "Ann", "x" * 100),  # 20 seconds at most, the meeting ends after 5
        duration_seconds=35,
    )
    house.run()
    assert house.rows("transcript_segments", "position, speaker, start_seconds, end_seconds, words, begins_turn") == [
        (1, "Ann", 1.0, 3.0, 2, True),
        (2, "Ann", 3.0, 7.0, 2, False),
        (3, "Bo", 20.0, 21.0, 1, True),
        (4, "Ann", 30.0, 35.0, 1, True),
    ]
    assert house.rows(
        "meeting_talk",
        "speaker, segments, words, talk_seconds, turns, longest_turn_seconds, meeting_seconds, meeting_seconds_from",
    ) == [
        ("Ann", 3, 5, 11.0, 2, 6.0, 35.0, "reported"),
        ("Bo", 1, 1, 1.0, 1, 1.0, 35.0, "reported"),
    ]
    assert house.rows("meeting_talk", "share_of_speech, share_of_meeting", "speaker = 'Bo'") == [
        (pytest.approx(1 / 12), pytest.approx(1 / 35))
    ]


def test_unknown_starts_late_arrivals_and_nameless_speakers_keep_their_place(house: Warehouse) -> None:
    house.meeting(
        "m",
        (0, "", "first"),
        (5000, "Ann", "second"),
        (None, None, "third"),  # begins with the one before
        (0, "(unknown)", "fourth"),  # 0 is what the recorder writes for unknown
        (9000, "Bo", "sixth"),
        (7000, "Bo", None),  # arrived late
        (1e30, "Bo", "seventh"),  # no time at all
    )
    house.run()
    assert house.rows("transcript_segments", "position, arrival, speaker, text, start_seconds, is_start_known") == [
        (1, 0, None, "first", 0.0, False),
        (2, 1, "Ann", "second", 5.0, True),
        (3, 2, None, "third", 5.0, False),
        (4, 3, None, "fourth", 5.0, False),
        (5, 5, "Bo", None, 7.0, True),
        (6, 6, "Bo", "seventh", 7.0, False),
        (7, 4, "Bo", "sixth", 9.0, True),
    ]
    assert house.rows("meeting_talk", "speaker, is_named, segments, turns, words, meeting_seconds_from") == [
        ("(unknown)", False, 3, 2, 3, "transcript"),
        ("Ann", True, 1, 1, 1, "transcript"),
        ("Bo", True, 3, 1, 2, "transcript"),
    ]


def test_people_who_talk_past_the_reported_end_do_not_have_more_than_the_meeting(house: Warehouse) -> None:
    house.meeting("m", (1000, "Ann", "Hello there"), (90_000, "Bo", "Still here"), duration_seconds=10)
    house.run()
    ((seconds, told, shares),) = house.all(
        "SELECT any_value(meeting_seconds), any_value(meeting_seconds_from), sum(share_of_meeting) FROM analytics.meeting_talk"
    )
    assert (seconds, told) == (90.0, "transcript")
    assert shares <= 1


def test_words_are_counted_between_spaces_however_many(house: Warehouse) -> None:
    house.meeting("m", (1, "A", "  two   words "), (2, "A", "one"), (3, "A", ""), (4, "A", "three little words"))
    house.run()
    assert [words for _, words in house.rows("transcript_segments", "position, words")] == [2, 1, 0, 3]


def test_freshness_follows_the_ledger_between_runs(house: Warehouse) -> None:
    house.run()
    columns = "run_id, vendor, table_name, distinct_read, live_rows, inserted, updated, deleted, unchanged, quarantined, passes, requests, retries, throttled_seconds, bytes_read, complete, reason, sweep_kind, sweep_reason, order_held, started_at, finished_at"
    for run, complete, reason in (("run1", True, ""), ("run2", False, "no answer")):
        house.connection.execute(
            f"INSERT INTO ops.receipts ({columns}) VALUES (?, 'getscreen', 'getscreen.connections', 1, 7, 0, 0, 0, 0, 0, "
            "1, 1, 0, 0, 0, ?, ?, 'full', '', TRUE, '2026-03-02 10:00:00+00', '2026-03-02 10:01:00+00')",
            [run, complete, reason],
        )
    assert house.rows(
        "freshness",
        "raw_table, data_through, last_complete_run, live_rows, last_run, verdict, reason",
        "verdict <> 'never read'",
    ) == [("getscreen.connections", utc("2026-03-02T10:00:00"), "run1", 7, "run2", "incomplete", "no answer")]

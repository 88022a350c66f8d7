"""After a sync the published file equals what the vendors hold: every column of every table, whatever happened before."""

from __future__ import annotations

import shutil
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from conftest import Desk, small_world
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from truth import ROOT_NAMES, Truth, check_ledger, query, stored_tables, writes

from pipelines.progress import SilentReporter
from pipelines.settings import Settings, configure_dlt
from pipelines.sync import sync
from sandbox.app import BASE_PATHS, create_app
from sandbox.records import ABSENT, look_up
from sandbox.world import World
from sources._settings import SourceSettings

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from sandbox.server import SandboxServer

    Serve = Callable[[World], SandboxServer]

PEOPLE = "room_insights.participants_insights"
SEEDS = (1, 2, 3, 4, 5)


@pytest.mark.parametrize("seed", SEEDS)
def test_first_sync_equals_the_vendors(seed: int, desk: Desk, serve: Serve) -> None:
    """A value lost, rounded, shifted in time or put in the wrong column on the way from JSON to the file."""
    world = small_world(seed)
    desk.environment = serve(world).environment()
    report = desk.sync().report
    assert (report["status"], report["skipped"]) == ("complete", [])
    assert report["published"] == str(desk.published)
    assert {entry["table"] for entry in report["tables"]} == set(ROOT_NAMES)
    Truth(world).check(desk.published)
    check_ledger(desk.published, world, report["run_id"])
    assert desk.leftovers() == []


@pytest.mark.parametrize("seed", SEEDS[:1])
def test_three_more_syncs_follow_every_change(seed: int, desk: Desk, serve: Serve) -> None:
    """A change that is not noticed, a list that keeps old items, a row written though nothing changed."""
    world = small_world(seed)
    desk.environment = serve(world).environment()
    truth = Truth(world)

    def synced() -> dict[str, dict[str, Any]]:
        report = desk.sync().report
        truth.check(desk.published)
        check_ledger(desk.published, world, report["run_id"])
        return {entry["table"]: entry for entry in report["tables"]}

    synced()
    inserted = change_everything(world)
    tables = synced()
    assert {name: entry["inserted"] for name, entry in tables.items()} == inserted
    assert all(entry["updated"] > 0 for entry in tables.values())

    before = writes(desk.published)
    tables = synced()
    assert {(e["inserted"], e["updated"], e["deleted"]) for e in tables.values()} == {(0, 0, 0)}
    assert writes(desk.published) == before

    world.live_a_day(deletes=4)
    change_back(world)
    assert synced()["screendesk.recordings"]["deleted"] == 4


def change_everything(world: World) -> dict[str, int]:
    """Inserts, updates with and without a new `updated_at`, lists that grow, shrink and empty, fields nobody declared."""
    world.advance(timedelta(hours=3))
    change_screendesk(world)
    change_getscreen(world)
    change_posthog(world)
    return {
        "screendesk.recordings": 2,
        "screendesk.users": 1,
        "getscreen.connections": 1,
        "posthog.desktop_recordings": 1,
    }


def change_screendesk(world: World) -> None:
    recordings, users = world.screendesk.recordings, world.screendesk.users
    keys = recordings.keys()
    calls = [key for key in keys if look_up(recordings.get(key), f"{PEOPLE}.1")]
    quiet = [key for key in keys if recordings.get(key)["room_insights"] is None]
    person = look_up(recordings.get(calls[0]), f"{PEOPLE}.0")
    # lists: emptied, gone, shortened from the front, grown, replaced
    recordings.update(calls[0], {PEOPLE: []}, touch=False)
    recordings.update(calls[1], {PEOPLE: None})
    recordings.update(calls[2], {PEOPLE: look_up(recordings.get(calls[2]), PEOPLE)[1:]}, touch=False)
    recordings.update(calls[3], {PEOPLE: [person, *look_up(recordings.get(calls[3]), PEOPLE), person]})
    recordings.update(calls[4], {"room_insights": None})
    # new fields at every depth, one with a key that must not be kept and one with live access in it
    recordings.update(quiet[0], {"metadata.sentiment": "calm", "labels": ["a", {"b": None}], "score": 0.1}, touch=False)
    recordings.update(quiet[1], {"metadata.helpdesk_info": {"platform": "x", "queue": {"id": 2**60, "name": "é\x00"}}})
    recordings.update(calls[5], {f"{PEOPLE}.0.mood": {"now": 1.0}, f"{PEOPLE}.1.joined_at": 17}, touch=False)
    recordings.update(
        quiet[2], {"metadata__duration": 5, "preview_url": "https://x.example/p", "a": {"invite_code": 1}}
    )
    # values of another type than declared, objects where there was none and the other way round
    recordings.update(quiet[3], {"metadata.duration": "12:30", "title": 7, "customer": "someone"}, touch=False)
    recordings.update(quiet[4], {"metadata.duration": 12.5, "metadata.created_at": "soon", "console_logs": ["x"]})
    recordings.update(quiet[5], {"metadata.duration": 12.0, "room_insights": [], "user": {"email": {"a": 1}}})
    recordings.update(quiet[6], {"metadata.created_at": "2026-03-29T03:30:00.123456+02:00", "title": ""}, touch=False)
    recordings.update(quiet[7], {"metadata.updated_at": None, "metadata.impressions_count": 2**40}, touch=False)
    recordings.update(quiet[8], {"metadata.updated_at": "2001-01-01T00:00:00Z"}, touch=False)
    recordings.update(quiet[9], {"summary": ABSENT, "technical_details": ABSENT, "metadata.url": ABSENT}, touch=False)
    recordings.insert()
    recordings.insert(title="\x00", room_insights__participants_insights=[None, "Ann", 5, person])
    emails = users.keys()
    users.update(emails[0], {"notifications.notify_first_view": True, "has_profile_picture": "yes"}, touch=False)
    users.update(emails[1], {"role": "Watch Only", "notifications": None})
    users.insert()


def change_getscreen(world: World) -> None:
    connections = world.getscreen.connections
    ids = connections.keys()
    connections.update(ids[0], {"client": []})
    connections.update(ids[1], {"client": None, "agent": [], "video": ""})
    connections.update(ids[2], {"client": {"login": "bare", "geo": [], "team": {"id": 0}}, "url": "/one-two-three"})
    connections.update(ids[3], {"client": "nobody", "agent": {"id": "0", "geo": ""}, "support_id": "42"})
    connections.update(ids[4], {"client": [{"geo": "Mars"}, None, {"geo": {"ip": 1}}], "agent.id": "seven"})
    connections.update(ids[5], {"video": "https://st.getscreen.example/v/1.mp4?apikey=k#t", "support_id": 0})
    connections.update(ids[6], {"video": {"url": "https://st.getscreen.example/2.mp4#a?b", "size": "big"}, "stop": 0})
    connections.update(ids[7], {"start": "yesterday", "stop": ABSENT, "agent.geo.ip": ABSENT, "video": False})
    connections.update(ids[8], {"video_preview": "https://st.getscreen.example/3.jpg?sig=1", "mode": "view"})
    connections.insert()


def change_posthog(world: World) -> None:
    meetings = world.posthog.desktop_recordings
    keys = meetings.keys()
    talks = [key for key in keys if len(meetings.get(key)["transcript_segments"]) > 4]
    said = meetings.get(talks[0])["transcript_segments"]
    meetings.update(talks[0], {"transcript_segments": said[:-3]})
    meetings.append_segments(talks[1], world.posthog.meeting_maker.segments(9, after=9e7), touch=False)
    meetings.update(talks[2], {"transcript_segments": [], "participants": [], "extracted_tasks": []}, touch=False)
    meetings.update(talks[3], {"participants": ["Zoë", None, 5, {"name": "x"}, ""], "extracted_tasks": "none"})
    task = {"title": "T", "due": "2026-12-01", "assignee": ["a", "b"]}
    meetings.update(talks[4], {"extracted_tasks": [task, task], "video_url": "https://r.example/1.mp4?X-Sig=1&e=2#f"})
    meetings.update(talks[5], {"transcript_segments.0": {"timestamp": 3, "text": 4, "words": [1]}}, touch=False)
    meetings.insert()


def change_back(world: World) -> None:
    """Odd values become plain again, and lists that were emptied fill up."""
    for table in (world.screendesk.recordings, world.getscreen.connections, world.posthog.desktop_recordings):
        plain = small_world(world.seed)
        same = {
            "uuid": plain.screendesk.recordings,
            "id": plain.getscreen.connections
            if table is world.getscreen.connections
            else plain.posthog.desktop_recordings,
        }[table.key_field]
        for number, key in enumerate(table.keys()):
            if number % 2 and key in same:
                table.replace(key, same.get(key))


def test_a_row_that_comes_back_is_live_again(sandboxed: Desk, world: World) -> None:
    """A deleted row whose return is taken for unchanged, because its content is."""
    truth = Truth(world)
    recordings, meetings = world.screendesk.recordings, world.posthog.desktop_recordings
    sandboxed.sync()
    truth.check(sandboxed.published)
    gone = [(recordings, recordings.get(recordings.keys()[3])), (meetings, meetings.get(meetings.keys()[1]))]
    for table, record in gone:
        table.delete(record[table.key_field])
    report = sandboxed.sync().report
    assert sum(entry["deleted"] for entry in report["tables"]) == len(gone)
    truth.check(sandboxed.published)
    check_ledger(sandboxed.published, world, report["run_id"])
    for table, record in gone:
        table.insert(record)
    report = sandboxed.sync().report
    truth.check(sandboxed.published)
    check_ledger(sandboxed.published, world, report["run_id"])


def test_empty_accounts_still_make_every_table_and_column(desk: Desk, serve: Serve) -> None:
    """A dashboard on a fresh account that fails because a table or column is created with its first row."""
    world = World(1, recordings=0, users=0, connections=0, meetings=0)
    desk.environment = serve(world).environment()
    report = desk.sync().report
    Truth(world).check(desk.published)
    check_ledger(desk.published, world, report["run_id"])
    assert all(stored.rows == [] for stored in stored_tables(desk.published).values())


def test_a_published_file_holds_schemas_that_are_documented_and_no_others(sandboxed: Desk) -> None:
    """What a loader makes for itself, such as empty staging schemas, stands in every list a BI tool shows."""
    sandboxed.sync()
    schemas = query(sandboxed.published, "SELECT schema_name FROM duckdb_schemas() WHERE database_name = 'deskhouse'")
    assert {name for (name,) in schemas} - {"main", "information_schema", "pg_catalog"} == {
        *("screendesk", "getscreen", "posthog", "analytics", "ops")
    }


@pytest.mark.parametrize("package", ["pandas", "requests", "plugin"])
def test_a_run_leaves_alone_what_it_has_no_use_for(sandboxed: Desk, tmp_path: Path, package: str) -> None:
    """DuckDB, Arrow, httpx and dlt import what they find: one that is damaged would end every run, or be slow to come."""
    beside = tmp_path / "beside"
    about = beside / "plugin-1.0.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: plugin\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[dlt]\nplugin = plugin\n")
    imported = tmp_path / "imported"
    (beside / f"{package}.py").write_text(f"open({str(imported)!r}, 'w').close()\nraise RuntimeError\n")
    sandboxed.environment["PYTHONPATH"] = str(beside)
    sandboxed.sync()
    assert not imported.exists()


def test_dlts_own_log_can_be_had(sandboxed: Desk, world: World) -> None:
    """A load that goes wrong within dlt, and a debug log that says nothing of it; or one that is always there."""
    silent = sandboxed.run("sync")
    world.live_a_day()
    told = sandboxed.run("sync", "--log-level", "debug")
    assert ("|dlt|load.py|" in told.output, "|dlt|" in silent.output) == (True, False)


def test_records_without_a_key_are_counted_and_kept_aside(sandboxed: Desk, world: World) -> None:
    """A record that is dropped in silence, or stops the table, because nothing says which row it is."""
    world.screendesk.recordings.insert(uuid=None, title="no key")
    world.getscreen.connections.insert(id="seven", connect_url="https://go.example/secret")
    report = sandboxed.sync().report
    Truth(world).check(sandboxed.published)
    check_ledger(sandboxed.published, world, report["run_id"])
    kept = query(sandboxed.published, "SELECT table_name, raw::VARCHAR FROM ops.quarantine ORDER BY ALL")
    assert [name for name, _ in kept] == ["getscreen.connections", "screendesk.recordings"]
    assert "go.example" not in kept[0][1]
    assert "no key" in kept[1][1]


def test_fields_nobody_declared_and_misfits_are_told(sandboxed: Desk, world: World) -> None:
    """Drift that is kept in `_extra` but that nobody hears about."""
    sandboxed.sync()
    change_everything(world)
    sandboxed.sync()
    told = {tuple(row) for row in query(sandboxed.published, "SELECT table_name, path, kind FROM ops.drift")}
    assert {
        ("screendesk.recordings", "metadata.sentiment", "new field"),
        ("screendesk.recordings", "metadata.duration", "other type"),
        ("screendesk.recordings__room_insights__participants_insights", "mood", "new field"),
        ("getscreen.connections", "agent.id", "other type"),
        ("posthog.desktop_recordings__extracted_tasks", "due", "new field"),
    } <= told


def test_settings_in_files_do_what_the_environment_does(desk: Desk, world: World, serve: Serve) -> None:
    """Tokens in `.dlt/secrets.toml`, or a folder in `.dlt/config.toml`, that are not looked at."""
    environment = serve(world).environment()
    folder = desk.cwd / ".dlt"
    folder.mkdir()
    written: dict[str, dict[str, list[str]]] = {"secrets": {}, "config": {}}
    for name, value in environment.items():
        _, vendor, key = name.lower().split("__")
        kind = "secrets" if key in {"api_token", "api_key"} else "config"
        written[kind].setdefault(f"sources.{vendor}", []).append(f'{key} = "{value}"')
    written["config"]["deskhouse"] = ['warehouse_dir = "warehouse/inner"']
    for kind, sections in written.items():
        text = "\n".join(line for section, lines in sections.items() for line in (f"[{section}]", *lines))
        (folder / f"{kind}.toml").write_text(text + "\n")
    desk.sync()
    Truth(world).check(desk.cwd / "warehouse" / "inner" / "current" / "deskhouse.duckdb")
    assert not desk.published.exists()


# --- random histories, in-process


class Loop:
    """A warehouse in step with a world served without sockets."""

    def __init__(self, root: Path, world: World) -> None:
        self.world, self.truth = world, Truth(world)
        self._root = root
        transport = httpx.ASGITransport(app=create_app(world))
        self._transports = dict.fromkeys(BASE_PATHS, transport)
        secrets = {
            "screendesk": world.screendesk.token,
            "getscreen": world.getscreen.token,
            "posthog": world.posthog.token,
        }
        sources = {
            vendor: SourceSettings(
                vendor,
                secrets[vendor],
                f"http://127.0.0.1:9{path}",
                max_concurrency=4,
                requests_per_second=0,
                # an edit of an old row that leaves no trace is seen by sweeps alone
                full_sweep_every=0,
                project_id=world.posthog.project_id if vendor == "posthog" else "",
            )
            for vendor, path in BASE_PATHS.items()
        }
        self._settings = Settings(root / "warehouse", sources)

    def sync(self) -> None:
        """Sync, and insist on equality."""
        result = sync(self._settings, list(BASE_PATHS), SilentReporter(), transports=self._transports)
        published = self._root / "warehouse" / "current" / "deskhouse.duckdb"
        assert result.exit_code == 0, (result.problems, result.receipts)
        self.truth.check(published)
        check_ledger(published, self.world, result.run_id)


def tiny_world() -> World:
    return World(5, recordings=24, users=5, connections=24, meetings=6)


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A warehouse that has loaded the tiny world once; copied, it saves each example that first load."""
    configure_dlt()
    root = tmp_path_factory.mktemp("loaded")
    loop = Loop(root, tiny_world())
    loop.sync()
    return root


JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False, width=32)
    | st.text(st.characters(codec="utf-8"), max_size=8)
    | st.sampled_from(["2026-01-02T03:04:05.678Z", "12:30", "0", "\x00", "https://video.example/x?sig=1#t"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["id", "url", "video", "é"]), inner),
    max_leaves=4,
)
PATHS = {
    "recordings": ("title", "metadata.duration", "metadata.updated_at", "metadata", "customer", "user.email", "new.deep",
                   PEOPLE, f"{PEOPLE}.0.joined_at", "room_insights", "console_logs"),
    "users": ("name", "has_profile_picture", "notifications", "notifications.notify_first_view", "updated_at", "team"),
    "connections": ("start", "stop", "support_id", "agent", "agent.id", "agent.geo", "client", "video", "video.size"),
    "meetings": ("updated_at", "participants", "transcript_segments", "extracted_tasks", "duration_seconds", "new",
                 "transcript_segments.0.timestamp", "video_url", "team"),
}  # fmt: skip
STEPS = st.lists(
    st.one_of(
        *(
            st.tuples(
                st.just("set"), st.just(table), st.integers(0, 30), st.sampled_from(paths), JSON_VALUES, st.booleans()
            )
            for table, paths in PATHS.items()
        ),
        st.tuples(st.sampled_from(["insert", "delete", "return"]), st.sampled_from(sorted(PATHS)), st.integers(0, 30)),
        st.just(("sync",)),
    ),
    min_size=1,
    max_size=16,
)


@given(steps=STEPS)
@settings(
    max_examples=15,
    # a try takes a second: shrinking would outlast the time limit, which then hides the difference that was found
    phases=[Phase.generate],
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_any_history_ends_in_equality(
    steps: list[tuple[Any, ...]], loaded: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A combination of changes between syncs that no hand-written example thought of."""
    root = tmp_path_factory.mktemp("history")
    shutil.copytree(loaded, root, symlinks=True, dirs_exist_ok=True)
    loop = Loop(root, tiny_world())
    loop.truth.remember()
    synced = 0
    removed: dict[str, list[dict[str, Any]]] = {}
    for kind, *details in steps:
        if kind != "sync":
            take_step(loop.world, removed, kind, *details)
        elif synced < 1:
            synced += 1
            loop.sync()
    loop.sync()
    shutil.rmtree(root)


def take_step(
    world: World, removed: dict[str, list[dict[str, Any]]], kind: str, name: str, number: int, *change: Any
) -> None:
    """One change to one table."""
    table: Any = {
        "recordings": world.screendesk.recordings,
        "users": world.screendesk.users,
        "connections": world.getscreen.connections,
        "meetings": world.posthog.desktop_recordings,
    }[name]
    world.advance(timedelta(minutes=1))
    keys = table.keys()
    key = keys[number % len(keys)]
    if kind == "insert":
        table.insert()
    elif kind == "delete" and len(keys) > 3:
        removed.setdefault(name, []).append(table.get(key))
        table.delete(key)
    elif kind == "return" and removed.get(name):
        table.insert(removed[name].pop())
    elif kind == "set":
        path, value, touch = change
        parent, _, leaf = path.rpartition(".")
        holder = look_up(table.get(key), parent) if parent else table.get(key)
        if isinstance(holder, dict) or not leaf.isdigit():
            if parent and not isinstance(holder, dict):
                return
            table.update(key, {path: value}, touch=touch)

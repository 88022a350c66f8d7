"""The dlt sources on their own: any pipeline, any dataset name, the stock DuckDB destination."""

from __future__ import annotations

import threading
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import dlt
import duckdb
import numpy as np
import pytest
from dlt.pipeline.exceptions import PipelineStepFailed

from sandbox.faults import Fault
from sandbox.server import SandboxServer
from sandbox.world import World
from sources._plan import Outcome, Slice
from sources._reading import Feed
from sources._resource import slice_source
from sources._tables import Converter
from sources.getscreen import getscreen
from sources.posthog import posthog
from sources.screendesk import screendesk
from sources.screendesk import tables as screendesk_tables

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from dlt.extract import DltSource

    from sources._reading import Reading

VENDORS = ("screendesk", "getscreen", "posthog")


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[SandboxServer]:
    monkeypatch.setenv("RUNTIME__DLTHUB_TELEMETRY", "false")
    monkeypatch.setenv("RUNTIME__LOG_LEVEL", "CRITICAL")
    # neither a project's .dlt folder nor one at home has a say
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DLT_DATA_DIR", str(tmp_path / "dlt"))
    world = World(recordings=45, users=6, connections=40, meetings=12)
    world.screendesk.settings.page_size = 10
    with SandboxServer(world) as running:
        yield running


def source(server: SandboxServer, vendor: str) -> DltSource:
    settings = server.environment()
    url = settings[f"SOURCES__{vendor.upper()}__BASE_URL"]
    if vendor == "screendesk":
        return screendesk(settings["SOURCES__SCREENDESK__API_TOKEN"], url, 2, 0.0)
    if vendor == "getscreen":
        return getscreen(settings["SOURCES__GETSCREEN__API_KEY"], url, 1, 0.0)
    return posthog(settings["SOURCES__POSTHOG__API_KEY"], settings["SOURCES__POSTHOG__PROJECT_ID"], url, 2, 0.0)


def run(tmp_path: Path, made: DltSource, name: str = "mine") -> None:
    pipeline = dlt.pipeline(
        name,
        destination=dlt.destinations.duckdb(str(tmp_path / "mine.duckdb")),
        pipelines_dir=str(tmp_path / "pipelines"),
        dataset_name=f"{name}_data",
    )
    pipeline.run(made, loader_file_format="parquet")


def rows(tmp_path: Path, sql: str) -> list[Any]:
    with duckdb.connect(str(tmp_path / "mine.duckdb"), read_only=True) as con:
        return con.execute(sql).fetchall()


def count(tmp_path: Path, table: str) -> int:
    found: int = rows(tmp_path, f"SELECT count(*) FROM mine_data.{table}")[0][0]
    return found


def expected(world: World) -> dict[str, int]:
    recordings, meetings = world.screendesk.recordings.all(), world.posthog.desktop_recordings.all()
    clients = [c["client"] for c in world.getscreen.connections.all()]
    people = [(r.get("room_insights") or {}).get("participants_insights") or [] for r in recordings]
    return {
        "recordings": len(recordings),
        "recordings__room_insights__participants_insights": sum(map(len, people)),
        "users": len(world.screendesk.users),
        "connections": len(clients),
        "connections__client": sum(len(c) if isinstance(c, list) else isinstance(c, dict) for c in clients),
        "desktop_recordings": len(meetings),
        **{
            f"desktop_recordings__{name}": sum(len(m[name]) for m in meetings)
            for name in ("participants", "transcript_segments", "extracted_tasks")
        },
    }


TABLES = {
    "screendesk": ("recordings", "recordings__room_insights__participants_insights", "users"),
    "getscreen": ("connections", "connections__client"),
    "posthog": (
        "desktop_recordings",
        "desktop_recordings__participants",
        "desktop_recordings__transcript_segments",
        "desktop_recordings__extracted_tasks",
    ),
}


@pytest.mark.parametrize("vendor", VENDORS)
def test_a_source_fills_any_pipelines_dataset_and_again_changes_nothing(
    server: SandboxServer, tmp_path: Path, vendor: str
) -> None:
    """Catches SQL that names our own dataset, and items that double with each run."""
    for _ in range(2):
        run(tmp_path, source(server, vendor))
        assert {t: count(tmp_path, t) for t in TABLES[vendor]} == {t: expected(server.world)[t] for t in TABLES[vendor]}
    assert not server.world.requests.non_get()


def test_lists_that_shrink_or_empty_leave_no_item_behind(server: SandboxServer, tmp_path: Path) -> None:
    meetings = server.world.posthog.desktop_recordings
    shrinks, empties, other, *_ = [m["id"] for m in meetings.all() if len(m["transcript_segments"]) > 5]
    run(tmp_path, source(server, "posthog"))
    meetings.update(shrinks, {"transcript_segments": meetings.get(shrinks)["transcript_segments"][:2]})
    meetings.update(empties, {"transcript_segments": [], "participants": []})
    run(tmp_path, source(server, "posthog"))
    found = dict(
        rows(
            tmp_path,
            "SELECT desktop_recording_id, count(*) FROM mine_data.desktop_recordings__transcript_segments GROUP BY 1",
        )
    )
    assert (found[shrinks], found.get(empties)) == (2, None)
    assert found[other] == len(meetings.get(other)["transcript_segments"])
    assert rows(tmp_path, "SELECT min(_dlt_list_idx) FROM mine_data.desktop_recordings__transcript_segments") == [(0,)]


@pytest.mark.parametrize("vendor", VENDORS)
def test_building_a_source_asks_nothing_and_starts_nothing(server: SandboxServer, vendor: str) -> None:
    before = set(threading.enumerate())
    made = source(server, vendor)
    assert sorted(made.resources) == sorted(t for t in TABLES[vendor] if "__" not in t)
    assert len(server.world.requests) == 0
    assert set(threading.enumerate()) <= before


@pytest.mark.parametrize("vendor", VENDORS)
def test_an_error_half_way_loads_nothing_and_ends_the_reading(
    server: SandboxServer, tmp_path: Path, vendor: str
) -> None:
    """Catches a part loaded as if it were the whole, and a thread left behind with its connection."""
    world, database = server.world, tmp_path / "mine.duckdb"
    world.getscreen.settings.max_limit = 10
    world.faults.add(Fault("status", vendor=vendor, status=401, times=None, after=0 if vendor == "posthog" else 2))
    with pytest.raises(PipelineStepFailed, match="refused the credential"):
        run(tmp_path, source(server, vendor))
    loaded = rows(tmp_path, "SELECT table_name, estimated_size FROM duckdb_tables()") if database.exists() else []
    assert not [size for name, size in loaded if name in TABLES[vendor] and size]
    for thread in threading.enumerate():
        if thread.name.startswith("reading-"):
            thread.join(20)
            assert not thread.is_alive()


@pytest.mark.parametrize(("trouble", "says"), [("keys", "no usable key"), ("count", "distinct records were read")])
def test_a_list_that_cannot_be_read_whole_is_not_loaded_in_part(
    server: SandboxServer, tmp_path: Path, trouble: str, says: str
) -> None:
    """Catches trouble that is no failed request: the vendor's format changed, or records are missing."""
    swap = {"keys": (b'"id":', b'"ID":'), "count": (b'"total":40', b'"total":50')}[trouble]
    server.world.faults.add(Fault("replace", vendor="getscreen", times=None, body=lambda body: body.replace(*swap)))
    with pytest.raises(PipelineStepFailed, match=says):
        run(tmp_path, source(server, "getscreen"))


def test_a_source_is_good_for_one_run(server: SandboxServer, tmp_path: Path) -> None:
    """Catches a second run that finds the reading over and loads nothing, in silence."""
    made = source(server, "getscreen")
    run(tmp_path, made)
    with pytest.raises(PipelineStepFailed, match="make a new one for each run"):
        run(tmp_path, made)


def test_one_table_of_a_source_can_be_loaded_alone(server: SandboxServer, tmp_path: Path) -> None:
    run(tmp_path, source(server, "screendesk").with_resources("users"))
    assert count(tmp_path, "users") == len(server.world.screendesk.users)


def test_a_record_read_in_two_versions_is_loaded_in_one(server: SandboxServer, tmp_path: Path) -> None:
    """Catches a transcript mixed of two versions of its meeting, where a list is read again while it changes."""
    meetings = server.world.posthog.desktop_recordings
    key = next(m["id"] for m in meetings.all() if len(m["transcript_segments"]) > 5)
    before = len(meetings.get(key)["transcript_segments"])
    struck = []

    def change(body: bytes) -> bytes:
        # the first pass is unclean, and the meeting shrinks before the second
        if not struck:
            struck.append(body)
            meetings.update(key, {"transcript_segments": meetings.get(key)["transcript_segments"][:1]})
        return body.replace(b'"count":12', b'"count":13')

    server.world.faults.add(Fault("replace", vendor="posthog", body=change))
    run(tmp_path, source(server, "posthog"))
    table = "mine_data.desktop_recordings__transcript_segments"
    assert rows(tmp_path, f"SELECT count(*) FROM {table} WHERE desktop_recording_id = '{key}'") == [(before,)]
    run(tmp_path, source(server, "posthog"))
    assert rows(tmp_path, f"SELECT count(*) FROM {table} WHERE desktop_recording_id = '{key}'") == [(1,)]


def test_a_retired_endpoint_is_told_in_one_sentence(server: SandboxServer, tmp_path: Path) -> None:
    server.world.posthog.settings.projects_prefix = server.world.posthog.settings.environments_prefix = False
    with pytest.raises(PipelineStepFailed, match="PostHog Cloud has retired this endpoint"):
        run(tmp_path, source(server, "posthog"))


def test_a_table_without_rows_takes_no_part_in_a_slice() -> None:
    """It would cost as much as a small one, at each slice of a vendor's other tables."""
    table = next(table for table in screendesk_tables.TABLES if table.name == "users")
    converter, now = Converter(table), datetime.now(UTC)
    feed = Feed(table, Outcome(table, now))
    feed.hand_out(Slice(0, converter.read([{"email": "ann@example.io"}]).take(np.arange(1), now), []))
    feed.hand_out(Slice(1, None, []))
    feed.hand_out(None)
    reading = cast("Reading", SimpleNamespace(vendor="screendesk", feeds={"users": feed}))
    assert [items.num_rows for items in slice_source(reading)] == [1]
    assert not list(slice_source(reading))

"""A large account: what a run costs in requests and writes when next to nothing changed."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest
from truth import query

from pipelines import destination, loading, sync
from pipelines.database import ROW_GROUP
from pipelines.loading import VendorLoader
from pipelines.progress import SilentReporter
from pipelines.settings import load_settings
from sandbox.world import World
from sources._reading import SLICE_ROWS, Reading

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Desk

    from sandbox.server import SandboxServer

RECORDINGS, PAGE = 50_000, 100


def test_fifty_thousand_recordings_cost_a_handful_of_requests_on_a_quiet_run(
    desk: Desk, serve: Callable[[World], SandboxServer]
) -> None:
    """Catches a quiet run that reads or writes in proportion to the account, and a full one that reads twice."""
    world = World(3, recordings=RECORDINGS, users=25, connections=300, meetings=200)
    desk.environment = serve(world).environment()
    first = desk.sync()
    assert first.receipt("screendesk.recordings")["inserted"] == RECORDINGS

    groups = query(
        desk.warehouse / "current" / "deskhouse.duckdb",
        "SELECT row_group_id, sum(count) FROM pragma_storage_info('screendesk.recordings') "
        "WHERE column_name = 'uuid' AND segment_type = 'VARCHAR' GROUP BY ALL ORDER BY ALL",
    )
    # a slice is a row group: else each row is written twice, and the last group again with each slice
    assert [rows for _, rows in groups] == [SLICE_ROWS, SLICE_ROWS, RECORDINGS - 2 * SLICE_ROWS]
    assert SLICE_ROWS == ROW_GROUP

    quiet = desk.sync().report["tables"]
    assert all(t["requests"] <= 5 for t in quiet), quiet
    assert all(t["complete"] and t["inserted"] + t["updated"] + t["deleted"] == 0 for t in quiet)

    recordings = world.screendesk.recordings
    recordings.update(recordings.keys()[7], {"title": "changed"})
    changed = desk.sync().receipt("screendesk.recordings")
    assert (changed["sweep_kind"], changed["inserted"], changed["updated"]) == ("light", 0, 1)

    recordings.update(recordings.keys()[-7], {"metadata.impressions_count": 4711}, touch=False)
    full = {t["table"]: t for t in desk.sync("--full").report["tables"]}
    assert full["screendesk.recordings"]["requests"] <= RECORDINGS // PAGE + 2
    assert full["posthog.desktop_recordings"]["requests"] <= 2 + 2
    assert sum(t["inserted"] + t["updated"] + t["deleted"] for t in full.values()) == 1


@pytest.mark.parametrize("megabytes", [32, 40])
def test_a_slice_that_all_but_fits_is_written_once(
    desk: Desk, serve: Callable[[World], SandboxServer], monkeypatch: pytest.MonkeyPatch, megabytes: int
) -> None:
    """Rows that come twice: a merge that just fits leaves a commit too little memory, if it has no more than that."""
    desk.environment = serve(World(3, recordings=RECORDINGS, users=5, connections=5, meetings=2)).environment()
    desk.run_here(monkeypatch)
    monkeypatch.setattr(destination, "MEMORY", (f"{megabytes}MB", *destination.MEMORY[1:]))
    result = sync.sync(load_settings(), ["screendesk"], SilentReporter())
    assert (result.exit_code, result.problems) == (0, [])
    published = desk.warehouse / "current" / "deskhouse.duckdb"
    assert query(published, "SELECT count(*), count(DISTINCT uuid) FROM screendesk.recordings") == [(RECORDINGS,) * 2]


def test_the_log_does_not_grow_with_the_account(
    desk: Desk, serve: Callable[[World], SandboxServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    """DuckDB keeps a megabyte in memory of each slice that is still in its log: fifty of a million recordings."""
    desk.environment = serve(World(3, recordings=2_000, users=5, connections=5, meetings=2)).environment()
    desk.run_here(monkeypatch)
    monkeypatch.setitem(Reading.__init__.__kwdefaults__ or {}, "slice_rows", 100)
    monkeypatch.setattr(loading, "SLICES_HELD", 5)
    given_back: list[bool] = []
    monkeypatch.setattr(loading, "give_back_large", lambda: given_back.append(True))
    beside = destination.commit_beside

    def slow(commit: Callable[[], None]) -> None:
        # one that is still under way would keep the log from being folded in
        time.sleep(0.05)
        commit()

    monkeypatch.setattr(destination, "commit_beside", lambda vendor, commit: beside(vendor, lambda: slow(commit)))
    load, sizes = VendorLoader.load_slice, list[int]()

    def measured(loader: VendorLoader, *args: Any, **options: Any) -> None:
        load(loader, *args, **options)
        loader.confirm()
        log = desk.warehouse / "work" / "deskhouse.duckdb.wal"
        sizes.append(log.stat().st_size if log.exists() else 0)

    monkeypatch.setattr(VendorLoader, "load_slice", measured)
    assert sync.sync(load_settings(), ["screendesk"], SilentReporter()).exit_code == 0
    assert len(sizes) >= 20
    folded = [number for number, size in enumerate(sizes) if size <= min(sizes)]
    assert len(folded) == len(sizes) // 5, sizes
    assert max(sizes[10:]) < 2 * max(sizes[:10]), sizes
    assert given_back

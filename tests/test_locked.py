"""The private database open in another program, such as a BI tool or DuckDB's own shell: real processes hold it."""

from __future__ import annotations

import contextlib
import hashlib
import sys
from typing import TYPE_CHECKING

import duckdb
import pytest
from faults.process import holding
from truth import Truth

from pipelines import database
from pipelines.database import DatabaseLocked, connect
from pipelines.warehouse import Warehouse

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Desk

    from sandbox.world import World

HASTY = "import pipelines.database as d; d.LOCK_SECONDS = 0.5; from pipelines.cli import main; main()"


def private(desk: Desk) -> Path:
    return Warehouse(desk.warehouse).private_database


def contents(desk: Desk) -> dict[str, str]:
    """Every file of the warehouse but the lock's note, with a hash of what is in it."""
    return {
        str(path): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in desk.warehouse.rglob("*")
        if path.is_file() and path.name != "lock"
    }


@pytest.mark.parametrize("how", ["read", "write"])
def test_a_program_that_lets_go_in_time_costs_a_run_nothing_but_the_wait(
    how: str, sandboxed: Desk, world: World
) -> None:
    """A sync that gives up at once on somebody who looks for a second, or that waits without a word."""
    truth = Truth(world)
    sandboxed.sync()
    world.live_a_day()
    with contextlib.ExitStack() as held:
        pid = held.enter_context(holding(private(sandboxed), how))
        started = sandboxed.start("sync")
        assert started.process.stderr is not None
        told = next(line for line in started.process.stderr if "waiting" in line)
        assert f"(PID {pid}): waiting up to 10 s" in told
        assert str(private(sandboxed)) in told
    assert started.wait().code == 0
    truth.check(sandboxed.published)


@pytest.mark.parametrize("how", ["read", "write"])
def test_a_program_that_keeps_the_file_is_named_and_nothing_is_touched(how: str, sandboxed: Desk, world: World) -> None:
    """A command that waits for ever, changes something before it fails, or does not say what to close."""
    truth = Truth(world)
    sandboxed.sync()
    world.requests.clear()
    before = contents(sandboxed)
    plain, sandboxed.command = sandboxed.command, (sys.executable, "-c", HASTY)
    with holding(private(sandboxed), how) as pid:
        for command in (["sync"], ["sync", "--json"], ["forget", "ann@example.com", "--yes"], ["quarantine", "retry"]):
            finished = sandboxed.run(*command)
            assert (finished.code, len(finished.stderr.splitlines())) == (1, 2), finished.output
            waiting, error = finished.stderr.splitlines()
            assert "waiting up to 0.5 s" in waiting
            assert error.startswith(f"deskhouse: {private(sandboxed)} is open in ")
            assert f"(PID {pid}), which did not let go" in error
            assert "Close it there and run again" in error
    assert contents(sandboxed) == before
    assert world.requests.entries == []
    sandboxed.command = plain
    world.live_a_day()
    sandboxed.sync()
    truth.check(sandboxed.published)


@pytest.mark.parametrize("command", ["status", "quarantine list"])
def test_a_published_file_open_for_writing_elsewhere_is_no_traceback(command: str, sandboxed: Desk) -> None:
    """A tool that may write anywhere and opened the published file without asking to read only."""
    sandboxed.sync()
    sandboxed.command = (sys.executable, "-c", HASTY)
    with holding(sandboxed.published, "write") as pid:
        finished = sandboxed.run(*command.split())
    assert finished.code == 1
    assert f"(PID {pid}), which did not let go" in finished.stderr.splitlines()[-1]


def test_only_a_lock_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A damaged file that is tried for ten seconds and then called locked."""
    monkeypatch.setattr(database, "LOCK_SECONDS", 60.0)
    broken = tmp_path / "deskhouse.duckdb"
    broken.write_bytes(b"no database" * 1000)
    with pytest.raises(duckdb.IOException, match="not a valid DuckDB") as raised, connect(broken):
        pass
    assert not isinstance(raised.value, DatabaseLocked)
    assert caplog.records == []

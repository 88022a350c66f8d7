"""Runs that are cut off, at any moment and in any way, and warehouses that lost a part: one more sync sets it right."""

from __future__ import annotations

import random
import shutil
import signal
import sys
import time
from typing import TYPE_CHECKING

import pytest
from truth import Difference, Truth, check_ledger, query, writes

from sandbox.faults import Fault
from sandbox.world import World

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Desk, Started

    from sandbox.server import SandboxServer

    Serve = Callable[[World], SandboxServer]

MOMENTS = 10
PATIENCE = 60.0
# many slices, so that a kill also falls between two commits of one table
SLICED = (
    "import sources._reading as reading\n"
    "reading.Reading.__init__.__kwdefaults__['slice_rows'] = 60\n"
    "from pipelines.cli import main\n"
    "main()"
)


def wait_until(reached: Callable[[], bool], started: Started) -> None:
    """Return when something has happened, or the run is over."""
    deadline = time.monotonic() + PATIENCE
    while not reached() and started.running:
        assert time.monotonic() < deadline
        time.sleep(0.005)


def start_reading(desk: Desk, world: World) -> Started:
    """A sync that has sent its first request."""
    world.requests.clear()
    started = desk.start("sync", "--json")
    wait_until(lambda: len(world.requests) > 0, started)
    return started


def change(world: World, rng: random.Random) -> None:
    """Enough changes for several slices, some of them to lists."""
    world.live_a_day(deletes=2)
    for key in rng.sample(world.screendesk.recordings.keys(), 130):
        world.screendesk.recordings.update(key, {"title": f"Title {rng.random()}"})
    for key in rng.sample(world.posthog.desktop_recordings.keys(), 6):
        said = world.posthog.desktop_recordings.get(key)["transcript_segments"]
        world.posthog.desktop_recordings.update(key, {"transcript_segments": said[: len(said) // 2]})


@pytest.mark.parametrize("first", [True, False], ids=["first-load", "later-sync"])
def test_killed_at_any_moment_one_sync_repairs(*, first: bool, desk: Desk, serve: Serve) -> None:
    """A moment of a load at which SIGKILL leaves rows out, doubled, half-written, or readers without a file."""
    rng = random.Random(20261122)
    world = World(11, recordings=200, users=12, connections=80, meetings=12)
    desk.environment = serve(world).environment()
    plain, desk.command = desk.command, (sys.executable, "-c", SLICED)
    truth = Truth(world)
    seconds = _seconds_of_a_sync(desk, world)
    truth.check(desk.published)
    if not first:
        change(world, rng)
        seconds = _seconds_of_a_sync(desk, world)
        truth.check(desk.published)
    killed = 0
    for moment in range(MOMENTS // 2):
        if first:
            shutil.rmtree(desk.warehouse)
            truth = Truth(world)
        else:
            change(world, rng)
        before = writes(desk.published) if desk.published.exists() else None
        started = start_reading(desk, world)
        after = (moment + rng.random()) / (MOMENTS // 2) * seconds
        time.sleep(after)
        started.kill(signal.SIGKILL)
        killed += started.wait().code == -signal.SIGKILL
        note = f"killed {after:.3f} s after its first request"
        _check_readers_are_served(desk, truth, before, note)
        desk.command, sliced = plain, desk.command
        run_id = desk.sync().report["run_id"]
        desk.command = sliced
        try:
            truth.check(desk.published)
        except Difference as difference:
            raise Difference(f"{note}: {difference}") from None
        check_ledger(desk.published, world, run_id)
        assert query(desk.published, "SELECT DISTINCT status FROM ops.runs WHERE status = 'running'") == [], note
    assert killed > 0


def _seconds_of_a_sync(desk: Desk, world: World) -> float:
    """How long a sync takes from its first request to its end."""
    started = start_reading(desk, world)
    began = time.monotonic()
    finished = started.wait()
    assert finished.code == 0, finished.output
    return time.monotonic() - began


def _check_readers_are_served(desk: Desk, truth: Truth, before: object, note: str) -> None:
    """Readers have what they had before the kill, or all that the run was about."""
    if not desk.published.exists():
        assert before is None, note
    elif before is None or writes(desk.published) != before:
        truth.check(desk.published)


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["ctrl-c", "terminated"]
)
def test_interrupted_runs_say_so_and_the_next_is_fine(number: int, code: int, sandboxed: Desk, world: World) -> None:
    """A signal that is swallowed, ends in a traceback, or leaves a lock or half a load behind."""
    truth = Truth(world)
    rng = random.Random(number)
    slow = world.faults.add(Fault("slow", path_contains="history/list", times=None, delay=30.0))
    # while a vendor is slow, whose turn comes after another's rows were loaded
    started = sandboxed.start("sync")
    wait_until(lambda: world.faults.struck(slow) > 0, started)
    started.kill(number)
    finished = started.wait()
    assert finished.code == code, finished.output
    assert "run again" in finished.stderr
    world.faults.clear()
    # and at moments nobody chose
    for _ in range(2):
        started = start_reading(sandboxed, world)
        time.sleep(rng.random() * 1.5)
        started.kill(number)
        finished = started.wait()
        assert finished.code in {code, 0}, finished.output
    run_id = sandboxed.sync().report["run_id"]
    truth.check(sandboxed.published)
    check_ledger(sandboxed.published, world, run_id)
    assert sandboxed.leftovers() == []
    statuses = query(sandboxed.published, "SELECT status, exit_code FROM ops.runs ORDER BY started_at")
    assert statuses[0] == ("interrupted", code)


def test_vendors_are_read_while_another_does_not_answer(sandboxed: Desk, world: World) -> None:
    """Vendors read one after the other: the slowest decides when the others' rows are seen, and a run takes their sum."""
    truth = Truth(world)
    world.faults.add(Fault("slow", vendor="screendesk", times=None, delay=2 * PATIENCE))
    started = sandboxed.start("sync")
    # what is not answered is not in the log
    wait_until(lambda: {request.vendor for request in world.requests} >= {"getscreen", "posthog"}, started)
    started.kill(signal.SIGKILL)
    started.wait()
    world.faults.clear()
    sandboxed.sync()
    truth.check(sandboxed.published)


LOSSES = (
    ("work",),
    ("generations", "current"),
    ("work/deskhouse.duckdb",),
    ("work/dlt",),
    ("work/dlt/screendesk/schemas", "work/dlt/posthog/state.json"),
    ("current",),
)


def test_a_lost_part_is_restored_rather_than_loaded_again(sandboxed: Desk, world: World) -> None:
    """A loss after which rows are missing, or all are loaded again although the other half of the warehouse has them."""
    truth = Truth(world)
    sandboxed.sync()
    truth.check(sandboxed.published)
    for number, lost in enumerate(LOSSES):
        before = writes(sandboxed.published)["screendesk.recordings"]
        for name in lost:
            path = sandboxed.warehouse / name
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                # dlt keeps nothing of a vendor of which nothing was loaded
                path.unlink(missing_ok=True)
        edited = world.screendesk.recordings.keys()[number]
        world.screendesk.recordings.update(edited, {"title": f"edited {number}"})
        report = sandboxed.sync().report
        truth.check(sandboxed.published)
        check_ledger(sandboxed.published, world, report["run_id"])
        assert sum(entry["inserted"] for entry in report["tables"]) == 0, lost
        assert sum(entry["updated"] for entry in report["tables"]) == 1, lost
        after = writes(sandboxed.published)["screendesk.recordings"]
        assert {row[0] for row in set(after) - set(before)} == {edited}, lost
        assert sandboxed.leftovers() == [], lost


@pytest.mark.parametrize(
    "missing", [None, "load/normalized", "load/new", "load", "normalize", "schemas", "state.json", "packages"]
)
def test_a_killed_run_leaves_nothing_that_the_next_does_not_take_away(
    sandboxed: Desk, world: World, missing: str | None
) -> None:
    """A half-made package of a killed run, which no later sync takes away; a half-made folder that stops them all."""
    # the first page is being extracted while the second is waited for
    world.faults.add(Fault("slow", path_contains="recordings", query={"page": "2"}, times=None, delay=60.0))
    folder = sandboxed.warehouse / "work" / "dlt" / "screendesk" / "normalize"
    started = sandboxed.start("sync")
    wait_until(lambda: any(path.is_dir() for path in folder.glob("*/*")), started)
    started.kill(signal.SIGKILL)
    assert started.wait().code == -signal.SIGKILL
    world.faults.clear()
    if missing:
        # dlt makes and removes its folder in many steps, and may be killed at each
        path = folder.parent / missing
        if missing == "packages":
            shutil.rmtree(folder)
            shutil.rmtree(folder.parent / "load", ignore_errors=True)
            (folder.parent / "load").mkdir()
            (folder.parent / "load" / ".version").write_text("1.0.2")
        elif path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    truth = Truth(world)
    sandboxed.sync()
    assert sandboxed.leftovers() == []
    truth.check(sandboxed.published)


def test_losing_the_private_file_in_a_killed_run_is_no_loss(sandboxed: Desk, world: World) -> None:
    """A load that dlt holds as pending, finished on top of a database that was restored from before it."""
    truth = Truth(world)
    sandboxed.sync()
    truth.check(sandboxed.published)
    world.live_a_day(deletes=2)
    slow = world.faults.add(Fault("slow", path_contains="history/list", times=None, delay=30.0))
    started = sandboxed.start("sync")
    wait_until(lambda: world.faults.struck(slow) > 0, started)
    started.kill(signal.SIGKILL)
    started.wait()
    world.faults.clear()
    (sandboxed.warehouse / "work" / "deskhouse.duckdb").unlink()
    world.live_a_day()
    run_id = sandboxed.sync().report["run_id"]
    truth.check(sandboxed.published)
    check_ledger(sandboxed.published, world, run_id)

"""Dashboards read while syncs run: no error, no half load, nothing that was there and is not."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from truth import ROOTS, Truth, query

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from conftest import Desk

    from sandbox.world import World

PATIENCE = 60.0

# opens the file anew each time, as a dashboard does on refresh, and keeps one connection from first to last
READER = """
import json, sys, time
from pathlib import Path
import duckdb

database, stop, counts, orphans = Path(sys.argv[1]), Path(sys.argv[2]), *map(json.loads, sys.argv[3:5])
told = {"reads": 0, "versions": 0, "errors": [], "orphans": [], "shorter": []}
before, kept = None, duckdb.connect(str(database), read_only=True)
first = {name: kept.execute(sql).fetchall()[0][0] for name, sql in counts.items()}
print("reading", flush=True)
last = False
while not last:
    # once more after it was told to stop: what was there by then has to be seen
    last = stop.exists()
    time.sleep(0.005)
    try:
        with duckdb.connect(str(database), read_only=True) as connection:
            now = {name: connection.execute(sql).fetchall()[0][0] for name, sql in counts.items()}
            told["orphans"] += [name for name, sql in orphans.items() if connection.execute(sql).fetchall()[0][0]]
    except Exception as error:
        told["errors"].append(str(error))
        continue
    told["reads"] += 1
    told["versions"] += now != before
    told["shorter"] += [[name, before[name], now[name]] for name in now if before and now[name] < before[name]]
    before = now
told["last"] = before
told["kept"] = first == {name: kept.execute(sql).fetchall()[0][0] for name, sql in counts.items()}
print(json.dumps(told))
"""
COUNTS = {
    **{f"{t.schema}.{n}": f"SELECT count(*) FROM {t.schema}.{n}" for t in ROOTS for n in (t.name, *(c.name for c in t.children))},
    "ops.runs": "SELECT count(*) FROM ops.runs",
    "ops.receipts": "SELECT count(*) FROM ops.receipts",
}  # fmt: skip
ORPHANS = {
    f"{t.schema}.{c.name}": f"SELECT count(*) FROM {t.schema}.{c.name} ANTI JOIN {t.qualified_name} ON {c.parent_key} = {t.key}"
    for t in ROOTS
    for c in t.children
}  # fmt: skip


class Reader:
    """A process that reads until it is told to stop."""

    def __init__(self, database: Path, stop: Path) -> None:
        self._stop = stop
        command = [sys.executable, "-c", READER, str(database), str(stop), json.dumps(COUNTS), json.dumps(ORPHANS)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "reading\n"

    def told(self) -> dict[str, Any]:
        """What it saw."""
        self._stop.touch()
        stdout, stderr = self.process.communicate(timeout=PATIENCE)
        assert stderr == ""
        told: dict[str, Any] = json.loads(stdout)
        return told


@contextmanager
def reader(database: Path, stop: Path) -> Iterator[Reader]:
    one = Reader(database, stop)
    try:
        yield one
    finally:
        one.process.kill()
        one.process.communicate()


def grow(world: World, turn: int) -> None:
    """More rows in every table, children included, and none fewer."""
    present = int(world.now.timestamp() * 1000)
    maker, meetings = world.screendesk.recording_maker, world.posthog.meeting_maker
    for _ in range(6):
        world.screendesk.recordings.insert(maker.record(present - 10**8, present))
    for key in world.screendesk.recordings.keys()[:20]:
        people = (world.screendesk.recordings.get(key)["room_insights"] or {}).get("participants_insights")
        if people:
            world.screendesk.recordings.update(key, {"room_insights.participants_insights": [*people, people[0]]})
    if turn % 2:
        world.screendesk.users.insert()
        return
    world.getscreen.connections.insert()
    world.posthog.desktop_recordings.insert(meetings.record(world.now, world.now, rare=3))
    key = world.posthog.desktop_recordings.keys()[-1]
    world.posthog.desktop_recordings.append_segments(key, meetings.segments(20, after=time.monotonic() * 1e6))


def test_readers_see_whole_loads_only(sandboxed: Desk, world: World, tmp_path: Path) -> None:
    """A reader that is locked out, reads between two commits, or follows `current` while it points nowhere."""
    truth = Truth(world)
    sandboxed.sync()
    with reader(sandboxed.published, tmp_path / "stop") as one:
        for turn in range(10):
            grow(world, turn)
            sandboxed.sync()
        told = one.told()
    assert told["errors"] == []
    assert told["orphans"] == []
    assert told["shorter"] == []
    assert told["kept"]
    assert told["reads"] >= told["versions"] > 1
    assert told["last"] == {name: _count(sandboxed.published, sql) for name, sql in COUNTS.items()}
    truth.check(sandboxed.published)


def _count(database: Path, sql: str) -> int:
    return int(query(database, sql)[0][0])

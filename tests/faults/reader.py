"""A dashboard: opens the published file again and again, keeps one connection open throughout, and tells what it saw.

`deskhouse FILE STOP`: the file to read, and the file whose appearance ends it. What it saw is printed as JSON.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import duckdb

PAUSE = 0.12
ORPHANS = {
    "screendesk.recordings__room_insights__participants_insights": ("recording_uuid", "screendesk.recordings", "uuid"),
    "getscreen.connections__client": ("connection_id", "getscreen.connections", "id"),
    "posthog.desktop_recordings__participants": ("desktop_recording_id", "posthog.desktop_recordings", "id"),
    "posthog.desktop_recordings__transcript_segments": ("desktop_recording_id", "posthog.desktop_recordings", "id"),
}
ROOTS = ("screendesk.recordings", "screendesk.users", "getscreen.connections", "posthog.desktop_recordings")
TORN = " UNION ALL ".join(
    [f"SELECT '{name}', count(*) FROM {name}" for name in ROOTS]
    + [f"SELECT 'orphans in {c}', count(*) FROM {c} ANTI JOIN {p} ON {o} = {k}" for c, (o, p, k) in ORPHANS.items()]
    + ["SELECT 'unfinished runs', count(*) FROM ops.runs WHERE status = 'running'"]
    + [f"SELECT 'keys twice in {n}', count(*) - count(DISTINCT {k}) FROM {n}"
       for n, k in (("screendesk.recordings", "uuid"), ("getscreen.connections", "id"))]
)  # fmt: skip
PEER = " UNION ALL ".join(f"SELECT '{name}', count(*) FROM {name}" for name in ROOTS)


def look(connection: duckdb.DuckDBPyConnection, sql: str) -> dict[str, int]:
    return dict(connection.execute(sql).fetchall())


def _open(database: Path) -> duckdb.DuckDBPyConnection:
    return duckdb.connect(str(database), read_only=True, config={"threads": 1})


def read(database: Path, stop: Path, sql: str) -> dict[str, Any]:
    """Read until told to stop; a file that was there once must always be there."""
    told: dict[str, Any] = {"reads": 0, "blocked": [], "torn": []}
    kept, first, before = None, {}, {}
    while True:
        last = stop.exists()
        try:
            if kept or database.exists():
                with _open(database) as connection:
                    now = look(connection, sql)
                if kept is None:
                    kept = _open(database.resolve()) if sql == TORN else connection
                    first = now
                told["reads"] += 1
                told["torn"] += [f"{what}: {n}" for what, n in now.items() if what not in ROOTS and n]
                told["torn"] += [f"{n}: {before[n]} rows, then {now[n]}" for n in ROOTS if now[n] < before.get(n, 0)]
                before = now
        except Exception as error:  # noqa: BLE001 - whatever a dashboard would show instead of numbers
            told["blocked"].append(str(error).partition("\n")[0])
        if last:
            break
        time.sleep(PAUSE)
    if kept is not None and sql == TORN and look(kept, sql) != first:
        told["torn"].append("a connection that was kept open saw its file change")
    return told


def main() -> None:
    database, stop = map(Path, sys.argv[1:3])
    sys.stdout.write(json.dumps(read(database, stop, PEER if sys.argv[3:] == ["peer"] else TORN)))
    sys.stdout.flush()

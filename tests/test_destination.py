"""A load is one transaction: a kill anywhere leaves all of it or none, and the next run finishes it."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import duckdb
import pytest

if TYPE_CHECKING:
    from pathlib import Path

# loads version 1 of two meetings, then version 2, and dies where the test says
LOADER = """
import os, sys, time
from pathlib import Path
from pipelines.settings import configure_dlt
configure_dlt()
from pipelines import destination, ledger
from pipelines.declare import declare_tables
from pipelines.loading import VendorLoader
from pipelines.warehouse import Warehouse
from pipelines.sync import ALL_TABLES
from sources._http import ApiClient, Credential
from sources._pages import ListPage
from sources._reading import Reading
from sources._plan import ListPlan, Presence
from sources._settings import SourceSettings
from sources.posthog.tables import DESKTOP_RECORDINGS, TABLES
import dlt.destinations.sql_client as sql_client
from dlt.destinations.impl.duckdb.sql_client import DuckDbSqlClient

root, version, die_at = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
warehouse = Warehouse(root)
ledger.prepare(warehouse.private_database)
declare_tables(warehouse.private_database, ALL_TABLES)

statements = 0
execute = DuckDbSqlClient.execute_sql
def dying(self, sql, *args, **kwargs):
    global statements
    text = sql if isinstance(sql, str) else str(sql)
    merging = text.startswith(("DELETE FROM", "INSERT INTO", "CREATE TEMP")) and "read_parquet" not in text
    copying = "read_parquet" in text
    if die_at.startswith("copy") and copying or die_at.startswith("merge") and merging:
        statements += 1
        if statements == int(die_at.split(":")[1]):
            if die_at.endswith(":after"):
                execute(self, sql, *args, **kwargs)
            os._exit(9)
    return execute(self, sql, *args, **kwargs)
if die_at.startswith("commit"):
    beside = destination.commit_beside
    def dying_beside(vendor, commit):
        def die():
            # long enough for dlt to be done with the package
            time.sleep(1)
            if die_at.endswith(":after"):
                commit()
            os._exit(9)
        beside(vendor, die)
    destination.commit_beside = dying_beside
elif die_at != "never":
    DuckDbSqlClient.execute_sql = dying

def meeting(key):
    size = 3 if version == 1 else 1
    return {
        "id": key, "status": f"v{version}", "updated_at": f"2026-01-0{version}T00:00:00Z",
        "participants": [f"v{version} p{i}" for i in range(size)],
        "transcript_segments": [{"text": f"v{version} s{i}"} for i in range(size)],
        "extracted_tasks": [{"title": "v1"}] if version == 1 else [],
    }

async def walk(traffic):
    yield ListPage([meeting("a"), meeting("b")], 2, True)

async def ask(key, traffic):
    return Presence.PRESENT

async def sees_everything(traffic):
    return True

def client():
    return ApiClient(vendor="posthog", base_url="https://127.0.0.1", credential=Credential("X", "secret", "sources.x"))

plans = lambda client: [ListPlan(DESKTOP_RECORDINGS, walk, ask, sees_everything)]
known = {"posthog.desktop_recordings": ledger.history_of(warehouse.private_database, DESKTOP_RECORDINGS, same_token=True)}
loader = VendorLoader(warehouse, "posthog")
loader.drain()
with Reading(SourceSettings("posthog", "secret", ""), client, plans, TABLES, known) as reading:
    while any(feed.has_rows() for feed in reading.feeds.values()):
        loader.load_slice(reading, before_commit=lambda: None)
loader.confirm()
print("loaded")
"""

VERSION = {
    1: {("a", "v1"), ("b", "v1")},
    2: {("a", "v2"), ("b", "v2")},
}
CHILDREN = {
    1: {"participants": 6, "transcript_segments": 6, "extracted_tasks": 2},
    2: {"participants": 2, "transcript_segments": 2, "extracted_tasks": 0},
}


def load(folder: Path, version: int, die_at: str = "never") -> int:
    command = [sys.executable, "-c", LOADER, str(folder), str(version), die_at]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)
    assert done.returncode in {0, 9}, done.stderr
    return done.returncode


def held_version(folder: Path) -> int:
    """Which version the database holds, whole; a mixture fails."""
    with duckdb.connect(str(folder / "work" / "deskhouse.duckdb"), read_only=True) as con:
        rows = set(con.execute("SELECT id, status FROM posthog.desktop_recordings").fetchall())
        (version,) = [v for v, expected in VERSION.items() if rows == expected]
        for child, count in CHILDREN[version].items():
            name = f"posthog.desktop_recordings__{child}"
            found = con.execute(f"SELECT count(*), count(DISTINCT (desktop_recording_id, _dlt_list_idx)) FROM {name}")
            assert found.fetchall() == [(count, count)], name
        texts = con.execute("SELECT text FROM posthog.desktop_recordings__transcript_segments").fetchall()
        assert {text.split()[0] for (text,) in texts} == {f"v{version}"}
    return version


@pytest.mark.parametrize(
    "die_at",
    ["copy:1", "copy:2:after", "copy:4", "merge:1", "merge:2:after", "merge:3:after", "merge:5:after", "merge:7:after"],
)
def test_a_load_killed_there_is_seen_whole_or_not_at_all_and_the_next_run_ends_it(tmp_path: Path, die_at: str) -> None:
    assert load(tmp_path, 1) == 0
    assert held_version(tmp_path) == 1
    assert load(tmp_path, 2, die_at) == 9, "the kill point was not reached"
    assert held_version(tmp_path) == 1
    assert load(tmp_path, 2) == 0
    assert held_version(tmp_path) == 2


@pytest.mark.parametrize(("die_at", "held"), [("commit:before", 1), ("commit:after", 2)])
def test_a_load_killed_in_its_commit_is_read_again(tmp_path: Path, die_at: str, held: int) -> None:
    """Rows that dlt is done with and the database does not have: nobody would ever load them, if nobody read them again."""
    assert load(tmp_path, 1) == 0
    assert load(tmp_path, 2, die_at) == 9, "the kill point was not reached"
    assert held_version(tmp_path) == held
    assert load(tmp_path, 2) == 0
    assert held_version(tmp_path) == 2


def test_a_load_imports_nothing_for_the_sake_of_a_name(tmp_path: Path) -> None:
    """dlt tells where it loaded by way of SQLAlchemy, wherever that is installed: a tenth of a second of each run that loads."""
    opening = "loader = VendorLoader(warehouse"
    as_in_a_run = (
        "from pipelines.database import kept_open\nopened = kept_open(warehouse.private_database)\nopened.__enter__()"
    )
    script = LOADER.replace(opening, f"{as_in_a_run}\n{opening}")
    script += "\nassert 'sqlalchemy' not in sys.modules, 'SQLAlchemy was imported'\n"
    command = [sys.executable, "-c", script, str(tmp_path), "1", "never"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def test_dlt_keeps_no_notes_of_earlier_slices(tmp_path: Path) -> None:
    """It writes them all anew after each slice: a first load would take longer and longer for each, and more memory."""
    command = [
        sys.executable,
        "-c",
        LOADER + "\nassert loader._pipeline.last_trace is None",
        str(tmp_path),
        "1",
        "never",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr

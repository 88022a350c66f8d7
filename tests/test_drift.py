"""`ops.drift`, written into a real database."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
from truth import query

from pipelines import ledger, privacy
from pipelines.database import connect
from pipelines.declare import declare_tables
from pipelines.sync import ALL_TABLES
from sources import _reading
from sources._plan import Outcome, Slice
from sources._policy import STANDARD
from sources._reading import Feed
from sources._redact import Redactor
from sources._tables import Converter, Drift
from sources.screendesk.tables import RECORDINGS

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

NAME, OTHER = "screendesk.recordings", "getscreen.connections"
NOW = datetime(2026, 11, 22, tzinfo=UTC)
MOST = 50


def new(path: str, table: str = NAME) -> Drift:
    return Drift(table, path, "new field", "number")


@pytest.fixture
def database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(ledger, "DRIFT_PATHS", MOST)
    path = tmp_path / "work" / "deskhouse.duckdb"
    ledger.prepare(path)
    return path


def note(database: Path, run: str, drift: Mapping[Drift, int]) -> None:
    ledger.note_findings(database, run, NOW, drift, [], redactor=Redactor([]))


def told(database: Path, table: str = NAME) -> dict[tuple[str, str], tuple[int, str, str]]:
    rows = query(
        database,
        "SELECT path, kind, occurrences, first_run_id, last_run_id FROM ops.drift WHERE table_name = ?",
        [table],
    )
    return {(path, kind): tuple(rest) for path, kind, *rest in rows}


def test_ids_used_as_names_do_not_fill_the_ledger(database: Path) -> None:
    """A vendor whose objects have ids for names, each of which would be a row for ever."""
    for run in range(4):
        note(database, f"run-{run}", {new(f"by_id.{run}-{n}"): 3 for n in range(MOST - 10)})
    found = told(database)
    assert len(found) == MOST + 1
    assert found["*", "further fields"] == ((4 * (MOST - 10) - MOST) * 3, "run-1", "run-3")
    assert all(occurrences == 3 for (path, _), (occurrences, *_) in found.items() if path != "*")


def test_a_full_ledger_goes_on_counting_what_it_names_and_what_breaks(database: Path) -> None:
    """A cap that freezes known paths, hides a declared column of another type, or spills into other tables."""
    note(database, "run-1", {new(f"by_id.{n}"): 1 for n in range(MOST)})
    misfit = Drift(NAME, "title", "other type", "number")
    other_form = Drift(NAME, "by_id.8", "new field", "text")
    later = {new("by_id.7"): 5, other_form: 2, new("late"): 9, misfit: 4, new("late", OTHER): 6}
    for run in ("run-2", "run-3"):
        note(database, run, later)
    found = told(database)
    assert found["by_id.7", "new field"] == (11, "run-1", "run-3")
    assert found["title", "other type"] == (8, "run-2", "run-3")
    assert found["*", "further fields"] == (18, "run-2", "run-3")
    assert ("late", "new field") not in found
    assert query(database, "SELECT found, occurrences FROM ops.drift WHERE path = 'by_id.8' ORDER BY ALL") == [
        ("number", 1),
        ("text", 4),
    ]
    assert told(database, OTHER) == {("late", "new field"): (12, "run-2", "run-3")}


def test_a_field_of_many_records_is_named_before_ids_of_one(database: Path) -> None:
    """A new field that nobody hears of because a thousand ids were met before it on the same page."""
    note(database, "run-1", {**{new(f"by_id.{n}"): 1 for n in range(2 * MOST)}, new("mood"): 80})
    assert told(database)["mood", "new field"] == (80, "run-1", "run-1")


def test_ids_used_as_names_do_not_fill_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """A slice of twenty thousand records with ids for names: fifty megabytes of paths that nobody will ever be told."""
    monkeypatch.setattr(_reading, "MOST_DRIFT", 10)
    feed, converter = Feed(RECORDINGS, Outcome(RECORDINGS, NOW)), Converter(RECORDINGS)
    for n in range(4):
        records = [{"uuid": f"{n}-{i}", f"id-{n}-{i}": 1, "known": 1, "title": 7} for i in range(5)]
        feed.hand_out(Slice(0, converter.read(records).take(range(5), NOW), []))
    feed.hand_out(None)
    rows = sum(tables[RECORDINGS.name].num_rows for tables in feed.next_slice())
    drift, _ = feed.take_noted()
    assert (rows, len(drift), sum(drift.values())) == (20, 11, 60)
    assert drift[Drift(NAME, "title", "other type", "number")] == 20
    assert drift[Drift(NAME, "*", "further fields", "any")] == 20 - (10 - 2)


def test_paths_that_become_one_under_a_policy_are_counted_together(tmp_path: Path) -> None:
    """A changed privacy policy that forgets how often a field was met."""
    path = tmp_path / "deskhouse.duckdb"
    ledger.prepare(path)
    privacy.prepare(path)
    declare_tables(path, ALL_TABLES)
    note(path, "run-1", {new("seen 203.0.113.7"): 2, new("seen 203.0.113.9"): 3, new("other"): 4})
    privacy.apply_to_stored(path, [RECORDINGS], STANDARD, NOW)
    with connect(path) as con:
        found = con.execute("SELECT path, occurrences FROM ops.drift ORDER BY path").fetchall()
    assert found == [("other", 4), ("seen 203.0.113.0", 5)]

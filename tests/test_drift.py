"""`ops.drift`, written into a real database."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
from truth import query

from pipelines import ledger
from sources._redact import Redactor
from sources._tables import Drift

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

"""Rows of a model that are made again one by one: always those of a table made whole."""

from __future__ import annotations

import random
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipelines import ledger, model_rows, transform
from pipelines.database import connect
from pipelines.declare import declare_tables
from pipelines.model_files import ModelFailed, load_models
from pipelines.sync import ALL_TABLES
from pipelines.transform import run_models
from tests.test_model_inputs import MADE, ROWS, VALUES, changeable, tables

if TYPE_CHECKING:
    from collections.abc import Iterator

    import duckdb

ONE_CHANGED = "UPDATE screendesk.recordings SET _row_hash = 'x' WHERE uuid = 'n8'"
BY_ROWS = {"support_sessions", "transcript_segments"}
# so many that a few changed ones are few
MANY = f"""
INSERT INTO screendesk.recordings BY NAME
    SELECT 'n' || i AS uuid, 'ann@desk.example' AS user__email, TIMESTAMPTZ '{MADE}' + to_hours(i) AS metadata__created_at,
        CASE WHEN i % 3 = 0 THEN TIMESTAMPTZ '{MADE}' END AS room_insights__started_at,
        'h' AS _row_hash, TIMESTAMPTZ '{MADE}' AS _loaded_at, '1' AS _dlt_load_id
    FROM range(60) AS rows(i);
INSERT INTO screendesk.recordings__room_insights__participants_insights BY NAME
    SELECT 'n' || (i - i % 3) AS recording_uuid, i % 3 AS _dlt_list_idx, 'guest' AS role, 'Phone ' || i AS device,
        '1' AS _dlt_load_id
    FROM range(60) AS rows(i);
INSERT INTO getscreen.connections BY NAME
    SELECT 100 + i AS id, TIMESTAMPTZ '{MADE}' AS start, 7 AS agent__id, 'h' AS _row_hash,
        TIMESTAMPTZ '{MADE}' AS _loaded_at, '1' AS _dlt_load_id
    FROM range(30) AS rows(i);
INSERT INTO getscreen.connections__client BY NAME
    SELECT 100 + i // 2 AS connection_id, i % 2 AS _dlt_list_idx, 'ann@desk.example' AS login, '1' AS _dlt_load_id
    FROM range(60) AS rows(i);
INSERT INTO posthog.desktop_recordings BY NAME
    SELECT 'o' || i AS id, TIMESTAMPTZ '{MADE}' AS started_at, 600 AS duration_seconds, 'ready' AS status,
        'h' AS _row_hash, TIMESTAMPTZ '{MADE}' AS _loaded_at, '1' AS _dlt_load_id
    FROM range(40) AS rows(i);
INSERT INTO posthog.desktop_recordings__transcript_segments BY NAME
    SELECT 'o' || (i // 4) AS desktop_recording_id, i % 4 AS _dlt_list_idx, i * 7000 % 60000 AS "timestamp",
        'Speaker ' || (i % 3) AS speaker, 'well then' AS text, '1' AS _dlt_load_id
    FROM range(160) AS rows(i);
"""


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("rows") / "deskhouse.duckdb"
    ledger.prepare(path)
    declare_tables(path, ALL_TABLES)
    with connect(path) as opened:
        opened.execute(ROWS)
        opened.execute(MANY)
        run_models(opened)
        opened.execute("CHECKPOINT")
    return path


@pytest.fixture
def connection(template: Path, tmp_path: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    (tmp_path / "deskhouse.duckdb").write_bytes(template.read_bytes())
    with connect(tmp_path / "deskhouse.duckdb") as opened:
        yield opened


@pytest.fixture
def made_whole(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the models that were made whole."""
    names: list[str] = []
    real = transform._make

    def noted(connection: duckdb.DuckDBPyConnection, model: Any, timezone: str) -> None:
        names.append(model.name)
        real(connection, model, timezone)

    monkeypatch.setattr(transform, "_make", noted)
    return names


class Vendors:
    """Changes to a warehouse as loading makes them: whole records, each with its lists, marked with a new hash."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, seed: int) -> None:
        self.connection, self.random, self.number = connection, random.Random(seed), 0

    def _some(self, root: Any) -> list[Any]:
        keys = [
            key
            for (key,) in self.connection.execute(
                f"SELECT {root.key} FROM {root.qualified_name} ORDER BY ALL"
            ).fetchall()
        ]
        return self.random.sample(keys, min(len(keys), self.random.randint(1, 2)))

    def _touched(self, root: Any, keys: list[Any]) -> None:
        self.number += 1
        self.connection.execute(
            f"UPDATE {root.qualified_name} SET _row_hash = ? WHERE {root.key} IN (SELECT unnest(?))",
            [f"h{self.number}", keys],
        )

    def change(self) -> None:
        """Another value in one column of a record, or of its lists."""
        root_name, table, column, kind = self.random.choice(changeable())
        root = next(t for t in ALL_TABLES if t.qualified_name == root_name)
        keys = self._some(root)
        child = next((c for c in root.children if f"{root.schema}.{c.name}" == table), None)
        self.connection.execute(
            f'UPDATE {table} SET "{column}" = ? WHERE "{child.parent_key if child else root.key}" IN (SELECT unnest(?))',
            [self.random.choice(VALUES[kind]), keys],
        )
        self._touched(root, keys)

    def shorten(self) -> None:
        """A record's list loses an item."""
        root = self.random.choice([t for t in ALL_TABLES if t.children])
        child = self.random.choice(root.children)
        keys = self._some(root)
        self.connection.execute(
            f"DELETE FROM {root.schema}.{child.name} WHERE {child.parent_key} IN (SELECT unnest(?)) AND _dlt_list_idx > 0",
            [keys],
        )
        self._touched(root, keys)

    def vanish(self) -> None:
        """A record is found gone at the vendor, or is there again."""
        root = self.random.choice(ALL_TABLES)
        self.connection.execute(
            f"UPDATE {root.qualified_name} SET _deleted_at = CASE WHEN _deleted_at IS NULL THEN TIMESTAMPTZ '{MADE}' END "
            f"WHERE {root.key} IN (SELECT unnest(?))",
            [self._some(root)],
        )

    def arrive(self) -> None:
        """A new record."""
        self.number += 1
        self.connection.execute(
            "INSERT INTO screendesk.recordings BY NAME SELECT ? AS uuid, 'new' AS title, 'h' AS _row_hash, "
            f"TIMESTAMPTZ '{MADE}' AS _loaded_at, '1' AS _dlt_load_id",
            [f"new {self.number}"],
        )

    def come_again(self) -> None:
        """A record is written once more with what it held, as when it was changed and changed back within a run."""
        root = self.random.choice(ALL_TABLES)
        self.connection.execute(
            f"UPDATE {root.qualified_name} SET _loaded_at = now() WHERE {root.key} IN (SELECT unnest(?))",
            [self._some(root)],
        )


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 2**32),
    runs=st.lists(
        st.lists(
            st.sampled_from(["change", "change", "shorten", "vanish", "arrive", "come_again"]), min_size=1, max_size=3
        ),
        min_size=1,
        max_size=4,
    ),
)
def test_rows_made_one_by_one_are_those_made_whole(
    template: Path, tmp_path: Path, seed: int, runs: list[list[str]]
) -> None:
    """A row that is not made again shows what the vendor no longer says; one made twice is counted twice."""
    database = Path(tempfile.mkdtemp(dir=tmp_path)) / "deskhouse.duckdb"
    database.write_bytes(template.read_bytes())
    with connect(database) as connection:
        vendors = Vendors(connection, seed)
        for changes in runs:
            for change in changes:
                getattr(vendors, change)()
            run_models(connection)
        by_rows = tables(connection)
        run_models(connection, force=True)
        assert by_rows == tables(connection)


def test_one_changed_row_makes_one_row(connection: duckdb.DuckDBPyConnection, made_whole: list[str]) -> None:
    """Else every test here would pass on tables that are always made whole."""
    before = dict(connection.execute("SELECT session_key, rowid FROM analytics.support_sessions").fetchall())
    connection.execute("UPDATE screendesk.recordings SET title = 'other', _row_hash = 'x' WHERE uuid = 'n7'")
    connection.execute("UPDATE posthog.desktop_recordings SET duration_seconds = 90, _row_hash = 'x' WHERE id = 'o3'")
    run_models(connection)
    after = dict(connection.execute("SELECT session_key, rowid FROM analytics.support_sessions").fetchall())
    assert {key for key in before if before[key] != after[key]} == {"screendesk:n7", "posthog:o3"}
    assert not BY_ROWS & set(made_whole)


def test_a_row_that_is_as_it_was_two_runs_ago_is_made_again(connection: duckdb.DuckDBPyConnection) -> None:
    """A mark that outlives its row lets the table show, from then on, what was true in between."""
    found = []
    for moment in (f"TIMESTAMPTZ '{MADE}'", "NULL"):
        connection.execute(f"UPDATE screendesk.recordings SET _deleted_at = {moment} WHERE uuid = 'n7'")
        connection.execute("UPDATE screendesk.recordings SET _row_hash = gen_random_uuid()::VARCHAR WHERE uuid = 'n8'")
        run_models(connection)
        query = "SELECT deleted_at IS NULL FROM analytics.support_sessions WHERE session_key = 'screendesk:n7'"
        found += connection.execute(query).fetchall()
    assert found == [(False,), (True,)]


@pytest.mark.parametrize(
    ("why", "change"),
    [
        ("a row is gone", f"DELETE FROM screendesk.recordings WHERE uuid = 'n7'; {ONE_CHANGED}"),
        ("too many", "UPDATE screendesk.recordings SET title = 'other', _row_hash = 'x'"),
        ("nothing is known", f"DELETE FROM ops.model_rows; {ONE_CHANGED}"),
    ],
)
def test_where_single_rows_would_not_do_the_table_is_made_whole(
    connection: duckdb.DuckDBPyConnection, made_whole: list[str], why: str, change: str
) -> None:
    """Rows that are gone, or made by another query, are found by no changed row."""
    del why
    connection.execute(change)
    run_models(connection)
    assert "support_sessions" in made_whole


def test_another_time_zone_makes_the_table_whole(connection: duckdb.DuckDBPyConnection, made_whole: list[str]) -> None:
    """Else the rows that changed would have days of one zone, and all others those of another."""
    connection.execute("UPDATE screendesk.recordings SET _row_hash = 'x' WHERE uuid = 'n7'")
    run_models(connection, timezone="Asia/Tokyo")
    assert set(made_whole) >= BY_ROWS


def test_those_and_only_those_models_are_made_by_rows() -> None:
    assert {model.name for model in load_models() if model.rows_from} == BY_ROWS


@pytest.mark.parametrize(
    ("rows_from", "told"),
    [
        ((("screendesk.recordings", "uuid"),), "leaves out"),
        ((("nowhere.at_all", "id"),), "nowhere.at_all"),
    ],
)
def test_a_model_that_reads_more_than_it_says_is_refused(rows_from: tuple[tuple[str, str], ...], told: str) -> None:
    """A table that is read and not named would be read whole, and its changes would be met by no row."""
    model = next(model for model in load_models() if model.name == "support_sessions")
    with pytest.raises(ModelFailed, match=told):
        model_rows.refuse_other_sources(replace(model, rows_from=rows_from))

"""Which models are made again: those that read what changed, and never one too few."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipelines import ledger, model_inputs
from pipelines.database import connect
from pipelines.declare import declare_tables
from pipelines.model_files import load_models
from pipelines.model_queries import query_of
from pipelines.sync import ALL_TABLES
from pipelines.transform import run_models
from sources._schema import every_table

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import duckdb

MADE = "2026-03-02 10:00:00+00"
ROWS = f"""
INSERT INTO screendesk.users BY NAME
    SELECT 'ann@desk.example' AS email, 'Ann' AS name, 'h' AS _row_hash, now() AS _loaded_at, '1' AS _dlt_load_id;
INSERT INTO screendesk.recordings BY NAME
    SELECT 'r' || i AS uuid, 'ann@desk.example' AS user__email, TIMESTAMPTZ '{MADE}' + to_hours(i) AS metadata__created_at,
        60 AS metadata__duration, 0 AS metadata__impressions_count, 'T' || (i % 2) AS metadata__helpdesk_info__ticket_id,
        CASE WHEN i > 2 THEN TIMESTAMPTZ '{MADE}' + to_hours(i) END AS room_insights__started_at,
        'h' AS _row_hash, now() AS _loaded_at, '1' AS _dlt_load_id
    FROM range(5) AS rows(i);
INSERT INTO screendesk.recordings__room_insights__participants_insights BY NAME
    SELECT 'r' || (3 + i // 2) AS recording_uuid, i % 2 AS _dlt_list_idx, 'Guest' AS display_name, 'guest' AS role,
        '1' AS _dlt_load_id
    FROM range(4) AS rows(i);
INSERT INTO getscreen.connections BY NAME
    SELECT i AS id, TIMESTAMPTZ '{MADE}' AS start, TIMESTAMPTZ '{MADE}' + to_minutes(9) AS stop, 7 AS agent__id,
        'PC' AS agent__name, 'h' AS _row_hash, now() AS _loaded_at, '1' AS _dlt_load_id
    FROM range(2) AS rows(i);
INSERT INTO getscreen.connections__client BY NAME
    SELECT i AS connection_id, 0 AS _dlt_list_idx, 'ann@desk.example' AS login, '1' AS _dlt_load_id
    FROM range(2) AS rows(i);
INSERT INTO posthog.desktop_recordings BY NAME
    SELECT 'm' || i AS id, TIMESTAMPTZ '{MADE}' AS started_at, 600 AS duration_seconds, 'ready' AS status,
        'h' AS _row_hash, now() AS _loaded_at, '1' AS _dlt_load_id
    FROM range(2) AS rows(i);
INSERT INTO posthog.desktop_recordings__participants BY NAME
    SELECT 'm' || i AS desktop_recording_id, 0 AS _dlt_list_idx, 'Ann' AS "value", '1' AS _dlt_load_id
    FROM range(2) AS rows(i);
INSERT INTO posthog.desktop_recordings__transcript_segments BY NAME
    SELECT 'm' || (i // 3) AS desktop_recording_id, i % 3 AS _dlt_list_idx, i * 5000 AS "timestamp",
        'Speaker ' || (i % 2) AS speaker, 'well then' AS text, '1' AS _dlt_load_id
    FROM range(6) AS rows(i);
"""
VALUES: dict[str, list[Any]] = {
    "VARCHAR": ["", "Live", "ann@desk.example", "Bob@Desk.example", "a b  c", None],
    "JSON": ["[]", '{"a": 1}', None],
    "BIGINT": [0, 1, 3, 86_400, None],
    "DOUBLE": [0.0, 1.5, 7000.0, None],
    "BOOLEAN": [True, False, None],
    "TIMESTAMP WITH TIME ZONE": [MADE, "2026-03-01 23:59:00+00", None],
}


def changeable() -> list[tuple[str, str, str, str]]:
    """Every declared column that identifies no row: root table, table, column and type."""
    return [
        (table.qualified_name, f"{table.schema}.{name}", column.name, column.type.value)
        for table in ALL_TABLES
        for name, child in every_table(table)
        for column in (child or table).columns
        if column.name != table.key
    ]


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("inputs") / "deskhouse.duckdb"
    ledger.prepare(path)
    declare_tables(path, ALL_TABLES)
    with connect(path) as opened:
        opened.execute(ROWS)
        run_models(opened)
        opened.execute("CHECKPOINT")
    return path


@pytest.fixture
def connection(template: Path, tmp_path: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    shutil.copy(template, tmp_path / "deskhouse.duckdb")
    with connect(tmp_path / "deskhouse.duckdb") as opened:
        yield opened


def tables(connection: duckdb.DuckDBPyConnection) -> dict[str, Any]:
    """Rows of every table the models make."""
    return {
        model.name: connection.execute(f"SELECT * FROM {model.qualified_name} ORDER BY ALL").fetchall()
        for model in load_models()
        if not model.is_view
    }


def change(connection: duckdb.DuckDBPyConnection, at: tuple[str, str, str], value: Any, share: int = 1) -> None:
    """Give one row in `share` another value, as loading a changed record would; `at` is root table, table and column."""
    root, table, column = at
    connection.execute(f'UPDATE {table} SET "{column}" = ? WHERE hash(rowid) % {share} = 0', [value])
    connection.execute(f"UPDATE {root} SET _row_hash = gen_random_uuid()::VARCHAR")


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_what_is_kept_is_what_would_be_made(connection: duckdb.DuckDBPyConnection, data: st.DataObject) -> None:
    """A table kept although a column it reads has changed would show old numbers until something else changes."""
    for _ in range(data.draw(st.integers(1, 3))):
        root, table, column, kind = data.draw(st.sampled_from(changeable()))
        value: Any = data.draw(st.sampled_from(VALUES[kind]))
        change(connection, (root, table, column), value, data.draw(st.integers(1, 3)))
    run_models(connection)
    kept = tables(connection)
    run_models(connection, force=True)
    assert kept == tables(connection)


RECORDINGS = "screendesk.recordings"
PARTICIPANTS = "screendesk.recordings__room_insights__participants_insights"


@pytest.mark.parametrize(
    ("table", "column", "value", "made"),
    [
        (RECORDINGS, "metadata__impressions_count", 5, {"support_sessions", "daily_activity"}),
        (RECORDINGS, "console_logs", "x", {"support_sessions"}),
        (PARTICIPANTS, "participant_id", "x", {"support_sessions"}),
        (PARTICIPANTS, "device_type", "x", {"support_sessions", "session_participants"}),
    ],
)
def test_a_change_makes_only_what_counts_it(
    connection: duckdb.DuckDBPyConnection, table: str, column: str, value: Any, made: set[str]
) -> None:
    """Else one recording that was viewed once more costs as much as a first load's models."""
    change(connection, (RECORDINGS, table, column), value)
    run = run_models(connection)
    assert set(run.rows) - set(run.kept) == made | {"freshness"}


def test_rows_that_are_alike_do_not_hide_each_other(connection: duckdb.DuckDBPyConnection) -> None:
    """Two rows that change alike leave an exclusive or of their hashes as it was."""
    connection.execute(
        "UPDATE screendesk.recordings SET metadata__duration = 120, _row_hash = 'new' WHERE uuid IN ('r0', 'r1')"
    )
    assert "daily_activity" not in run_models(connection).kept


def test_rows_that_vanish_together_do_not_hide_each_other(connection: duckdb.DuckDBPyConnection) -> None:
    """They get the same time, which changes the same bits of their hashes: two of them left an exclusive or as it was."""
    connection.execute(
        f"UPDATE screendesk.recordings SET _deleted_at = TIMESTAMPTZ '{MADE}' WHERE uuid IN ('r0', 'r1')"
    )
    assert not run_models(connection).unchanged


def test_a_large_table_is_told_by_what_it_was_made_from(
    connection: duckdb.DuckDBPyConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hashing a million rows to save making a small table would cost more than the table."""
    monkeypatch.setattr(model_inputs, "MOST_HASHED", 1)
    run_models(connection, force=True)
    change(connection, (RECORDINGS, RECORDINGS, "console_logs"), "y")
    assert run_models(connection).kept == ("transcript_segments",)


@pytest.mark.parametrize(
    ("sql", "whole"),
    [
        ("SELECT x FROM a.b", ()),
        ("SELECT count(*) FROM a.b", ()),
        ("SELECT t.x FROM a.b AS t", ()),
        ("SELECT * FROM a.b", ("a.b",)),
        ("FROM a.b", ("a.b",)),
        ("SELECT t.* FROM a.b AS t", ("a.b",)),
        ("SELECT t FROM a.b AS t", ("a.b",)),
        ("SELECT b FROM a.b", ("a.b",)),
        ("SELECT max(COLUMNS(*)) FROM a.b", ("a.b",)),
        ("SELECT x FROM a.b NATURAL JOIN a.c", ("a.b", "a.c")),
        ("WITH s AS (SELECT * EXCLUDE (y) FROM a.b) SELECT x FROM s, a.c", ("a.b",)),
        ("SELECT x FROM a.c UNION ALL BY NAME SELECT * FROM a.b", ("a.b",)),
    ],
)
def test_columns_that_are_read_without_being_named_count_as_read(sql: str, whole: tuple[str, ...]) -> None:
    """A star reads a column whose name stands nowhere in the query; a table that hides it is kept though it changed."""
    assert query_of(sql).reads_whole == whole

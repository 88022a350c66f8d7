"""Every declared table and column exists, typed and described, whatever the database held before."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipelines import ledger
from pipelines.checks import failed_checks
from pipelines.database import connect
from pipelines.declare import declare_tables
from pipelines.dictionary import PATH, lines
from pipelines.sync import ALL_TABLES
from sources._schema import LOAD_ID, every_table, stored_columns
from sources.screendesk.tables import RECORDINGS

if TYPE_CHECKING:
    from pathlib import Path

DECLARED = {
    (table.schema, name, column.name): (column.type.value, column.description)
    for table in ALL_TABLES
    for name, child in every_table(table)
    for column in (*stored_columns(table, child), LOAD_ID)
}
CHILD = "screendesk.recordings__room_insights__participants_insights"


def columns_of(database: Path) -> dict[tuple[str, str, str], tuple[str, str]]:
    with connect(database, read_only=True) as con:
        rows = con.execute(
            "SELECT schema_name, table_name, column_name, data_type, comment FROM duckdb_columns() "
            "WHERE schema_name IN ('screendesk', 'getscreen', 'posthog')"
        ).fetchall()
    return {(schema, table, name): (kind, comment) for schema, table, name, kind, comment in rows}


def prepared(folder: Path) -> Path:
    database = folder / "work" / "deskhouse.duckdb"
    ledger.prepare(database)
    declare_tables(database, ALL_TABLES)
    return database


def add_recording(database: Path, uuid: str, indexes: list[int]) -> None:
    with connect(database) as con:
        con.execute(
            "INSERT INTO screendesk.recordings (uuid, _row_hash, _loaded_at, _dlt_load_id) VALUES (?, '', now(), '')",
            [uuid],
        )
        for index in indexes:
            con.execute(
                f"INSERT INTO {CHILD} (recording_uuid, _dlt_list_idx, _dlt_load_id) VALUES (?, ?, '')", [uuid, index]
            )


def test_a_new_database_has_every_declared_column_typed_and_described(tmp_path: Path) -> None:
    assert columns_of(prepared(tmp_path)) == DECLARED


def test_a_column_declared_later_is_added_and_the_rows_stay(tmp_path: Path) -> None:
    database = prepared(tmp_path)
    add_recording(database, "a", [])
    with connect(database) as con:
        con.execute("ALTER TABLE screendesk.recordings DROP COLUMN technical_details__isp")
        con.execute("DROP TABLE getscreen.connections__client")
    declare_tables(database, ALL_TABLES)
    assert columns_of(database) == DECLARED
    with connect(database, read_only=True) as con:
        assert con.execute("SELECT uuid, technical_details__isp FROM screendesk.recordings").fetchall() == [("a", None)]


def test_declaring_twice_changes_nothing(tmp_path: Path) -> None:
    database = prepared(tmp_path)
    before = columns_of(database)
    declare_tables(database, ALL_TABLES)
    assert columns_of(database) == before


def test_the_reference_on_disk_is_what_the_declared_tables_say() -> None:
    assert PATH.read_text(encoding="utf-8") == "\n".join(lines())


def test_a_sound_database_passes_the_checks(tmp_path: Path) -> None:
    database = prepared(tmp_path)
    add_recording(database, "a", [0, 1, 2])
    add_recording(database, "b", [])
    assert failed_checks(database, ALL_TABLES) == []


def test_a_repeated_key_fails_the_checks(tmp_path: Path) -> None:
    database = prepared(tmp_path)
    add_recording(database, "a", [])
    add_recording(database, "a", [])
    (failed,) = failed_checks(database, [RECORDINGS])
    assert (failed.invariant, failed.violations, failed.examples) == ("screendesk.recordings.uuid is unique", 1, ["a"])


def test_a_child_without_its_parent_fails_the_checks(tmp_path: Path) -> None:
    database = prepared(tmp_path)
    add_recording(database, "a", [0])
    with connect(database) as con:
        con.execute("DELETE FROM screendesk.recordings")
    (failed,) = failed_checks(database, [RECORDINGS])
    assert failed.examples == ["a"]


def test_a_list_with_a_gap_or_a_repeat_fails_the_checks(tmp_path: Path) -> None:
    database = prepared(tmp_path)
    add_recording(database, "gap", [0, 2])
    add_recording(database, "repeat", [0, 0])
    add_recording(database, "late", [1, 2])
    (failed,) = failed_checks(database, [RECORDINGS])
    assert failed.violations == 3

"""Whether a loaded file holds exactly the rows it must: counts and checksums of every table, against the truth.

A checksum is the sum of the hashes of all rows, so the order of rows does not matter and a doubled row shows. Values
are cast to the declared types on both sides. Every declared column counts, but for the plain script, which keeps no list
positions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import duckdb
from dataset import Dataset  # noqa: TC002 - importing it puts this repository before any installed one
from measure import Failed

from sources._schema import LIST_INDEX, ChildTable, Column, Table, every_table, parent_key_column

if TYPE_CHECKING:
    from pathlib import Path

_MAY_LACK = {"plain": {LIST_INDEX.name}}


def verify(kind: str, data: Dataset, database: Path, changes: dict[str, int] | None = None) -> str:
    """Compare a file with the truth and say in words what was compared.

    Args:
        kind: how the contestant lays out its tables: `deskhouse`, `limit`, `dlt` or `plain`.
        data: what was to be loaded.
        database: the file.
        changes: impressions of recordings that were changed since, by uuid.

    Raises:
        Failed: a table is missing, or its count or checksum is not the truth's.
    """
    said = []
    with duckdb.connect() as con:
        con.execute("SET TimeZone = 'UTC'")
        con.execute(f"ATTACH '{database}' AS loaded (READ_ONLY)")
        for table in data.tables if kind == "deskhouse" else data.tables[:1]:
            for name, child in every_table(table):
                truth = f"read_parquet('{data.truth(name)}')"
                if changes and table.name == "recordings" and child is None:
                    cases = " ".join(f"WHEN '{key}' THEN {count}" for key, count in changes.items())
                    counted = f"CASE uuid {cases} ELSE metadata__impressions_count END AS metadata__impressions_count"
                    truth = f"(SELECT * REPLACE ({counted}) FROM {truth})"
                said.append(_compare(con, name, _declared(kind, table, child), truth, _loaded(kind, table, child)))
    return ", ".join(said)


def _loaded(kind: str, table: Table, child: ChildTable | None) -> str:
    """The contestant's rows, under the declared column names."""
    name = f"loaded.{table.schema}.{child.name if child else table.name}"
    if kind == "deskhouse" and child is None:
        return f"(SELECT * FROM {name} WHERE _deleted_at IS NULL)"
    if kind == "dlt" and child is not None:
        parent = f"loaded.{table.schema}.{table.name}"
        return (
            f"(SELECT p.{table.key} AS {child.parent_key}, c.* "
            f"FROM {name} AS c JOIN {parent} AS p ON c._dlt_parent_id = p._dlt_id)"
        )
    return name


def _declared(kind: str, table: Table, child: ChildTable | None) -> list[Column]:
    columns = [parent_key_column(table, child), LIST_INDEX, *child.columns] if child else [*table.columns]
    return [column for column in columns if column.name not in _MAY_LACK.get(kind, ())]


def _compare(con: duckdb.DuckDBPyConnection, name: str, columns: list[Column], truth: str, loaded: str) -> str:
    try:
        has = {row[0] for row in con.execute(f"DESCRIBE SELECT * FROM {loaded}").fetchall()}
    except duckdb.Error as error:
        raise Failed(f"{name}: {error}") from None
    if lacking := [column.name for column in columns if column.name not in has]:
        raise Failed(f"{name} lacks {', '.join(lacking)}")
    wanted, found = _checksum(con, columns, truth), _checksum(con, columns, loaded)
    if wanted != found:
        different = [c.name for c in columns if _checksum(con, [c], truth) != _checksum(con, [c], loaded)]
        raise Failed(f"{name}: {found[0]:,} rows, {wanted[0]:,} expected; differing columns: {', '.join(different)}")
    return f"{name} {found[0]:,} rows by {len(columns)} columns"


def _checksum(con: duckdb.DuckDBPyConnection, columns: list[Column], rows: str) -> tuple[int, int]:
    values = ", ".join(f'CAST("{c.name}" AS {c.type.value})' for c in columns)
    count, total = con.execute(f"SELECT count(*), sum(hash({values})::HUGEINT) FROM {rows}").fetchall()[0]
    return int(count), int(total or 0)

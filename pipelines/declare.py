"""Declared tables in the database: every table and column exists from the first run, rows or not, with its description."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import duckdb

from pipelines.database import connect
from sources._schema import LOAD_ID, ChildTable, Column, Table, every_table, required_columns, stored_columns


def declare_tables(path: Path, tables: Sequence[Table]) -> None:
    """Create what is missing of the declared tables and columns, and describe what was created.

    dlt finds the tables in place and adds nothing to them; its own bookkeeping tables it makes itself, at a vendor's
    first load.
    """
    with connect(path) as con:
        found = set(con.execute("SELECT schema_name, table_name, column_name FROM duckdb_columns()").fetchall())
        con.begin()
        for table in tables:
            con.execute(f'CREATE SCHEMA IF NOT EXISTS "{table.schema}"')
            for name, child in every_table(table):
                columns = (*stored_columns(table, child), LOAD_ID)
                missing = [c for c in columns if (table.schema, name, c.name) not in found]
                if len(missing) == len(columns):
                    _create(con, table, name, child, columns)
                else:
                    for column in missing:
                        con.execute(
                            f'ALTER TABLE "{table.schema}"."{name}" ADD COLUMN "{column.name}" {column.type.value}'
                        )
                for statement in _comments(table, name, child, missing):
                    con.execute(statement)
        con.commit()


def _create(
    con: duckdb.DuckDBPyConnection, table: Table, name: str, child: ChildTable | None, columns: Sequence[Column]
) -> None:
    required = required_columns(table, child) | {LOAD_ID.name}
    lines = ", ".join(f'"{c.name}" {c.type.value}{" NOT NULL" if c.name in required else ""}' for c in columns)
    con.execute(f'CREATE TABLE "{table.schema}"."{name}" ({lines})')


def _comments(table: Table, name: str, child: ChildTable | None, columns: Sequence[Column]) -> Iterator[str]:
    if columns:
        about = (child or table).description
        yield f'COMMENT ON TABLE "{table.schema}"."{name}" IS {_quoted(about)}'
    for column in columns:
        yield f'COMMENT ON COLUMN "{table.schema}"."{name}"."{column.name}" IS {_quoted(column.description)}'


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"

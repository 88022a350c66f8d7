"""`deskhouse export`: the published tables as files, for tools that read files: Excel, Power BI, R, pandas.

    DIR/<schema>/<table>.parquet    or .csv; the analytics tables and the vendors' tables, views as well

All files are of one generation. Each is replaced whole; what else lies in DIR stays.
"""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

import duckdb

from pipelines.opening import CATALOG, NothingPublishedError, Published, open_published, quoted
from pipelines.query import QueryError, copy_to, one_line
from pipelines.settings import VENDORS

SCHEMAS: Final = ("analytics", *VENDORS)
"""What is exported: not `ops`, which holds records that could not be read, as they came."""
_BOM: Final = b"\xef\xbb\xbf"
_FORMULA: Final = r"^[=+\-@\t\r]"


class ExportFormat(StrEnum):
    """What the files are."""

    PARQUET = "parquet"
    CSV = "csv"


@dataclass(frozen=True)
class Exported:
    """One file that was written."""

    table: str
    rows: int
    path: Path


def export(folder: Path, directory: Path, form: ExportFormat, *, excel: bool = False) -> list[Exported]:
    """Write every table of the published file into a file of its own.

    Args:
        folder: the warehouse.
        directory: where the files go; made if it is missing.
        form: what they are.
        excel: write CSV as Excel expects it: marked as UTF-8, times of the local day without a zone, and an apostrophe
            before text that Excel would run as a formula.

    Returns:
        What was written, in order.

    Raises:
        QueryError: nothing is published, or a file cannot be written; files that were there are untouched.
    """
    if excel and form is not ExportFormat.CSV:
        raise QueryError("--excel is about CSV files: add --format csv")
    try:
        directory.mkdir(parents=True, exist_ok=True)
        # beside what it replaces, so that replacing is a rename
        with open_published(folder) as published, tempfile.TemporaryDirectory(dir=directory, prefix=".tmp-") as scratch:
            made = [
                (_write(published, schema, table, Path(scratch), form, excel=excel), schema)
                for schema, table in _tables(published)
            ]
            return [_replace(one, directory / schema) for one, schema in made]
    except NothingPublishedError as error:
        raise QueryError(str(error), 1) from error
    except duckdb.Error as error:
        raise QueryError(one_line(error), 1) from error
    except OSError as error:
        raise QueryError(f"{error.filename or directory} cannot be written: {error.strerror}", 1) from error


def _tables(published: Published) -> list[tuple[str, str]]:
    rows = published.connection.execute(
        """
        SELECT schema_name, table_name FROM (
            SELECT database_name, schema_name, table_name FROM duckdb_tables()
            UNION ALL
            SELECT database_name, schema_name, view_name FROM duckdb_views()
        )
        WHERE database_name = ? AND schema_name IN ? AND NOT starts_with(table_name, '_dlt_')
        ORDER BY ALL
        """,
        [CATALOG, list(SCHEMAS)],
    ).fetchall()
    return [(str(schema), str(table)) for schema, table in rows]


def _write(
    published: Published, schema: str, table: str, scratch: Path, form: ExportFormat, *, excel: bool
) -> Exported:
    name = f'"{schema}"."{table}"'
    path = scratch / f"{schema}.{table}.{form}"
    columns = _for_excel(published, name) if excel else "*"
    options = "FORMAT csv, HEADER" if form is ExportFormat.CSV else "FORMAT parquet, COMPRESSION zstd"
    copy_to(published.connection, f"SELECT {columns} FROM {name}", path, options)
    if excel:
        _mark_as_utf8(path)
    rows = published.connection.execute(f"SELECT count(*) FROM {name}").fetchall()[0][0]
    return Exported(f"{schema}.{table}", rows, path)


def _for_excel(published: Published, name: str) -> str:
    written = []
    for column, kind, *_ in published.connection.execute(f"DESCRIBE {name}").fetchall():
        quoted_name = '"' + str(column).replace('"', '""') + '"'
        value = quoted_name
        if kind == "TIMESTAMP WITH TIME ZONE":
            value = f"strftime({quoted_name}, '%Y-%m-%d %H:%M:%S')"
        elif kind == "VARCHAR":
            value = (
                f"CASE WHEN regexp_matches({quoted_name}, {quoted(_FORMULA)}) THEN '''' ELSE '' END || {quoted_name}"
            )
        written.append(f"{value} AS {quoted_name}")
    return ", ".join(written)


def _mark_as_utf8(path: Path) -> None:
    marked = path.with_name(f"{path.name}.marked")
    with path.open("rb") as plain, marked.open("wb") as file:
        file.write(_BOM)
        shutil.copyfileobj(plain, file)
    marked.replace(path)


def _replace(made: Exported, folder: Path) -> Exported:
    folder.mkdir(exist_ok=True)
    target = folder / made.path.name.removeprefix(f"{folder.name}.")
    made.path.replace(target)
    return Exported(made.table, made.rows, target)

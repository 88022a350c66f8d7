"""`deskhouse query`: one question to the published file, answered as a table, CSV, JSON or Parquet.

It can read the published tables and nothing else: not other files, not Python's variables, and it can change no setting.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from contextlib import redirect_stdout
from enum import StrEnum
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Final

import duckdb

from pipelines.opening import NothingPublishedError, open_published, quoted

if TYPE_CHECKING:
    from collections.abc import Sequence

MOST_ROWS: Final = 10_000
"""Rows a table shows; the other formats write all."""
_WIDEST: Final = 100_000
_READS: Final = {"SELECT", "EXPLAIN", "CALL"}


class Format(StrEnum):
    """How an answer is written."""

    TABLE = "table"
    CSV = "csv"
    JSON = "json"
    PARQUET = "parquet"


_OPTIONS: Final = {
    Format.CSV: "FORMAT csv, HEADER",
    Format.JSON: "FORMAT json, ARRAY",
    Format.PARQUET: "FORMAT parquet, COMPRESSION zstd",
}


class QueryError(Exception):
    """The question cannot be asked or its answer not written; one line says why. `code` is the exit code."""

    def __init__(self, message: str, code: int = 2) -> None:
        super().__init__(message)
        self.code = code


def run_query(sql: str, folder: Path, form: Format | None, output: Path | None, *, width: int | None = None) -> None:
    """Answer one SQL statement on standard output, or in a file that is there whole or not at all.

    Args:
        sql: one statement that reads.
        folder: the warehouse.
        form: how to write; if left out, as the file's name ends, else a table.
        output: the file; replaced.
        width: columns of the terminal; None elsewhere, where nothing is shortened.

    Raises:
        QueryError: see there.
    """
    form = form or _form_of(output)
    if form is Format.PARQUET and output is None:
        raise QueryError("Parquet is for files: name one with --output FILE.parquet")
    if output is not None and not output.absolute().parent.is_dir():
        raise QueryError(f"{output}: there is no folder {output.absolute().parent}")
    try:
        with open_published(folder) as published, tempfile.TemporaryDirectory(prefix="deskhouse-") as scratch:
            made = Path(scratch) / "answer"
            lock(published.connection, [made])
            statement = _single(published.connection, sql)
            if form is Format.TABLE:
                made.write_text(_as_table(published.connection, statement, width), encoding="utf-8")
            else:
                copy_to(published.connection, statement, made, _OPTIONS[form])
            _hand_over(made, output)
    except NothingPublishedError as error:
        raise QueryError(str(error), 1) from error
    except duckdb.Error as error:
        raise QueryError(one_line(error)) from error
    except OSError as error:
        raise QueryError(f"the answer cannot be written: {error.filename or output}: {error.strerror}", 1) from error


def lock(connection: duckdb.DuckDBPyConnection, writable: Sequence[Path] = ()) -> None:
    """Leave a connection what it has attached, and these files to write; nothing can widen that again."""
    paths = ", ".join(quoted(str(path)) for path in writable)
    connection.execute(
        f"SET allowed_paths = [{paths}]; SET python_enable_replacements = false;"
        " SET enable_external_access = false; SET lock_configuration = true"
    )


def copy_to(connection: duckdb.DuckDBPyConnection, statement: str, file: Path, options: str) -> None:
    """Write the rows of a statement into a file."""
    target = f"TO {quoted(str(file))} ({options}, USE_TMP_FILE false)"
    try:
        connection.execute(f"COPY (\n{statement}\n) {target}")
    except duckdb.ParserException:
        # DESCRIBE, SHOW and the like may stand behind FROM only; a mistake in the statement fails here once more
        connection.execute(f"COPY (FROM (\n{statement}\n)) {target}")


def one_line(error: duckdb.Error) -> str:
    """What DuckDB says, without its picture of the place."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    told = [line for line in lines if not line.startswith(("LINE ", "^"))]
    return " ".join(told) or type(error).__name__


def _form_of(output: Path | None) -> Format:
    suffix = output.suffix.lstrip(".").lower() if output else ""
    return Format(suffix) if suffix in set(Format) else Format.TABLE


def _single(connection: duckdb.DuckDBPyConnection, sql: str) -> str:
    """Return the statement, without a semicolon, if it is one and reads."""
    statements = connection.extract_statements(sql)
    if not statements:
        raise QueryError('there is no SQL in it; try: deskhouse query "FROM analytics.daily_activity LIMIT 5"')
    written = [statement for statement in statements if statement.query.strip()]
    if not written:
        # a PIVOT: DuckDB makes several statements of it, none of which has a text
        return _without_semicolon(sql)
    if len(written) > 1:
        raise QueryError(f"one statement at a time; here are {len(written)}")
    if written[0].type.name not in _READS:
        raise QueryError(f"the published file is only read, and this is a {written[0].type.name} statement")
    return _without_semicolon(written[0].query)


def _without_semicolon(sql: str) -> str:
    """Cut a statement at the semicolon that ends it, if one does; a comment may follow."""
    written = sql.encode()
    end = len(written)
    for offset, _ in reversed(duckdb.tokenize(sql)):
        if written[offset : offset + 1] != b";":
            break
        end = offset
    return written[:end].decode()


def _as_table(connection: duckdb.DuckDBPyConnection, statement: str, width: int | None) -> str:
    if connection.extract_statements(statement)[0].type.name == "EXPLAIN":
        # a drawing of its own, which a table around it would tear apart
        return "\n".join(str(drawing) for _, drawing in connection.execute(statement).fetchall())
    relation = connection.sql(statement)
    text = StringIO()
    with redirect_stdout(text):
        relation.show(max_width=width or _WIDEST, max_rows=MOST_ROWS, max_col_width=None if width else _WIDEST)
    return text.getvalue()


def _hand_over(made: Path, output: Path | None) -> None:
    if output is None:
        try:
            with made.open("rb") as answer:
                shutil.copyfileobj(answer, sys.stdout.buffer)
            sys.stdout.flush()
        except BrokenPipeError:
            # `| head` has seen enough; what is left in the buffer must not fail when the interpreter ends
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return
    beside = output.absolute().with_name(f".tmp-{output.name}")
    try:
        shutil.copyfile(made, beside)
        beside.replace(output)
    finally:
        beside.unlink(missing_ok=True)

"""Connections to the warehouse's database files."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import duckdb

STORAGE_VERSION: Final = "v1.2.0"
"""What BI tools whose DuckDB is older than ours can still open."""


LOADING: Final = "SET wal_autocheckpoint = '256MB'; SET threads = 1"
"""Rows are written out after a log of some 100,000 recordings: whole row groups rather than the same one over and over.

One thread merges and writes out, which takes two thirds of the memory; another reads from vendors meanwhile.
"""
_held: Final[set[Path]] = set()
"""Files this process keeps open for writing: DuckDB has one instance for each, and refuses to share it in another mode."""


@contextmanager
def connect(path: Path, *, read_only: bool = False) -> Iterator[duckdb.DuckDBPyConnection]:
    """A connection to a database file, in UTC, closed at the end.

    What it writes stays in DuckDB's log until something folds it in: publishing does, once a run, where it must.
    """
    config: dict[str, Any] = {} if read_only or path.exists() else {"storage_compatibility_version": STORAGE_VERSION}
    connection = duckdb.connect(str(path), read_only=read_only and path not in _held, config=config)
    try:
        connection.execute("SET TimeZone = 'UTC'")
        if not read_only:
            connection.execute("PRAGMA disable_checkpoint_on_shutdown")
        yield connection
    finally:
        connection.close()


@contextmanager
def kept_open(path: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """A connection that keeps a database open: others made meanwhile need not open it, and read its log, again."""
    if not path.exists():
        # made first, since how is part of the mode that connections share
        with connect(path):
            pass
    with connect(path) as connection:
        _held.add(path)
        try:
            yield connection
        finally:
            _held.discard(path)


@contextmanager
def all_threads(connection: duckdb.DuckDBPyConnection) -> Iterator[None]:
    """Let DuckDB work on as many threads as this process may use."""
    ((before,),) = connection.execute("SELECT current_setting('threads')").fetchall()
    connection.execute(f"SET threads = {os.cpu_count() or 1}")
    try:
        yield
    finally:
        connection.execute(f"SET threads = {before}")


@contextmanager
def limited(connection: duckdb.DuckDBPyConnection, memory: str | None) -> Iterator[None]:
    """Let DuckDB hold so much of the connection's database and no more, e.g. `200MB`; the rest it reads again, or swaps.

    None is as much as DuckDB takes unless told otherwise, most of the machine's.
    """
    if memory is None:
        yield
        return
    ((before,),) = connection.execute("SELECT current_setting('memory_limit')").fetchall()
    connection.execute(f"SET memory_limit = '{memory}'")
    try:
        yield
    finally:
        # RESET changes what the setting says and not what may be held
        connection.execute(f"SET memory_limit = '{before}'")

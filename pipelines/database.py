"""Connections to the warehouse's database files."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import duckdb

STORAGE_VERSION: Final = "v1.2.0"
"""What BI tools whose DuckDB is older than ours can still open."""


@contextmanager
def connect(path: Path, *, read_only: bool = False) -> Iterator[duckdb.DuckDBPyConnection]:
    """A connection to a database file, in UTC, closed at the end.

    What it writes stays in DuckDB's log until something folds it in: publishing does, once a run, where it must.
    """
    config: dict[str, Any] = {} if read_only or path.exists() else {"storage_compatibility_version": STORAGE_VERSION}
    connection = duckdb.connect(str(path), read_only=read_only, config=config)
    try:
        connection.execute("SET TimeZone = 'UTC'")
        if not read_only:
            connection.execute("PRAGMA disable_checkpoint_on_shutdown")
        yield connection
    finally:
        connection.close()

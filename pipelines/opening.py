"""Opening the published file the right way: read-only, from memory, and able to follow the next publish.

Attached to an in-memory connection rather than opened, because DuckDB keeps one database per path and process: with an
old connection still open, a new one would go on showing the old data. By the generation's own path rather than through
`current`, because the link may move between the database and its log, which belong together.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Self

import duckdb

from pipelines import settings as config
from pipelines.warehouse import Generation, Warehouse, current_generation

if TYPE_CHECKING:
    from types import TracebackType

CATALOG = "deskhouse"


class NothingPublishedError(Exception):
    """Nothing can be read. The message says where it was looked for, and what to do."""


class Published:
    """A read-only connection to the published file.

    Attributes:
        connection: use it for any query; `analytics.support_sessions` and the like need no prefix. It stays the same
            object when the file behind it changes.
        generation: what it reads now.
    """

    connection: duckdb.DuckDBPyConnection
    generation: Generation | None = None

    def __init__(self, warehouse: Warehouse) -> None:
        self._warehouse = warehouse
        self.connection = duckdb.connect()
        # what does not fit into memory fails, rather than leave copies of personal data in some folder
        self.connection.execute("SET temp_directory = ''")

    def refresh(self) -> bool:
        """Go over to the newest generation and say whether there was one; temporary tables stay.

        Raises:
            NothingPublishedError: nothing is published, or it cannot be read.
        """
        newest = current_generation(self._warehouse)
        if newest is not None and newest == self.generation:
            return False
        try:
            self._attach(newest)
        except duckdb.Error:
            # replaced and cleared away since it was looked up: then another one is there now
            self._attach_or_explain(current_generation(self._warehouse))
        return True

    def close(self) -> None:
        """Let go of the file."""
        self.connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _attach_or_explain(self, generation: Generation | None) -> None:
        try:
            self._attach(generation)
        except duckdb.Error as error:
            raise NothingPublishedError(
                f"{self._warehouse.published_database} cannot be read: {str(error).splitlines()[0]}"
            ) from error

    def _attach(self, generation: Generation | None) -> None:
        if generation is None:
            raise NothingPublishedError(
                f"nothing is published in {self._warehouse.root} yet: run `deskhouse sync`,"
                f" or name another folder in {config.setting_name('deskhouse.warehouse_dir')}"
            )
        self.generation = None
        self.connection.execute(f"USE memory; DETACH DATABASE IF EXISTS {CATALOG}")
        self.connection.execute(f"ATTACH {quoted(str(generation.database))} AS {CATALOG} (READ_ONLY); USE {CATALOG}")
        self.connection.execute(f"SET TimeZone = {quoted(self._timezone())}")
        self.generation = generation

    def _timezone(self) -> str:
        """The zone whose days the tables count; of the file, not of whoever reads it."""
        found = self.connection.execute(
            "SELECT count(*) FROM duckdb_columns() WHERE schema_name = 'ops' AND table_name = 'models'"
            f" AND column_name = 'timezone' AND database_name = '{CATALOG}'"
        ).fetchall()
        if found == [(0,)]:
            return "UTC"
        rows = self.connection.execute("SELECT timezone FROM ops.models ORDER BY built_at DESC LIMIT 1").fetchall()
        return str(rows[0][0]) if rows else "UTC"


def open_published(warehouse_dir: str | Path | None = None) -> Published:
    """Open the published file for reading; it never blocks a sync, and a sync never blocks it.

    Args:
        warehouse_dir: the warehouse's folder; the configured one if left out.

    Raises:
        NothingPublishedError: nothing is published there, or it cannot be read.
    """
    folder = config.warehouse_dir() if warehouse_dir is None else Path(warehouse_dir).expanduser().absolute()
    published = Published(Warehouse(folder))
    try:
        published.refresh()
    except BaseException:
        published.close()
        raise
    return published


def quoted(text: str) -> str:
    """A text as SQL writes it."""
    return "'" + text.replace("'", "''") + "'"

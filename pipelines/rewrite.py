"""The private database written anew, so that values which were removed do not stay in it as bytes nobody refers to.

Before anything is removed, a file in `work/` notes that old values are about. It stays until the database has been
rebuilt and published and every older generation is gone, so a run that is killed anywhere in between leaves the rest to
the next one. The database is replaced by rename: at every moment the old file or the new one is there, whole.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from datetime import timedelta
from typing import TYPE_CHECKING, Final

import duckdb

from pipelines.database import STORAGE_VERSION, open_database
from pipelines.publish import publish
from pipelines.warehouse import Generation, PublishError, Warehouse

if TYPE_CHECKING:
    from pathlib import Path

    from pipelines.permissions import Access

_NOTE: Final = "old-values"
_HALF_MADE: Final = ".tmp-rebuilt.duckdb"
_ROWS: Final = (
    "SELECT schema_name || '.' || table_name, has_primary_key, column_count, index_count, comment FROM duckdb_tables() "
    "WHERE database_name = ? ORDER BY ALL"
)


def require(warehouse: Warehouse) -> None:
    """Note, before values are removed, that they must not survive."""
    note = warehouse.work / _NOTE
    descriptor = os.open(note, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    os.fsync(descriptor)
    os.close(descriptor)
    _sync_directory(warehouse.work)


def is_required(warehouse: Warehouse) -> bool:
    """Whether values that were removed may still be in a file."""
    return (warehouse.work / _NOTE).exists()


def sweep(warehouse: Warehouse) -> None:
    """Remove what a killed rebuild left half-made."""
    for path in warehouse.work.glob(f"{_HALF_MADE}*"):
        path.unlink()


def publish_rebuilt(warehouse: Warehouse, run_id: str, access: Access) -> Generation:
    """Rebuild the private database, publish it and remove every older generation.

    Every connection this process has to the private database must be closed before.

    Raises:
        PublishError: it could not be done; the next run tries again.
    """
    rebuild(warehouse.private_database)
    generation = publish(warehouse, run_id, access=access, keep=1, min_age=timedelta(0))
    _remove_remains(warehouse)
    others = [path for path in warehouse.generations.glob("*") if path.name != generation.name]
    if others:
        raise PublishError(
            f"{others[0]} could not be removed, or is not of deskhouse's making, and may hold values that were to be removed: "
            "remove it and run again"
        )
    (warehouse.work / _NOTE).unlink(missing_ok=True)
    return generation


def rebuild(database: Path) -> None:
    """Copy all that a database holds into a new file and put it in the old one's place.

    Raises:
        PublishError: the disk is full, or the copy is not equal; the database is as it was.
    """
    half_made = database.with_name(_HALF_MADE)
    _unlink(half_made)
    try:
        with open_database(database) as connection:
            connection.execute("CHECKPOINT")
        if logs := sorted(database.parent.glob(f"{database.name}.wal*")):
            raise PublishError(f"{logs[0]} is still there after a checkpoint: find what has {database.name} open")
        _copy(database, half_made)
        os.chmod(half_made, database.stat().st_mode & 0o777)  # noqa: PTH101 - beside the other calls of os
        _sync_file(half_made)
        half_made.replace(database)
        _sync_directory(database.parent)
    except (duckdb.Error, OSError) as error:
        raise PublishError(f"{database}: it could not be rebuilt: {str(error).splitlines()[0]}") from error
    finally:
        _unlink(half_made)


def _copy(database: Path, target: Path) -> None:
    with duckdb.connect() as connection:
        # where what a killed run left is looked for
        connection.execute(
            f"SET TimeZone = 'UTC'; SET temp_directory = {_quoted(database.with_name(f'{database.name}.tmp'))}"
        )
        connection.execute(f"ATTACH {_quoted(database)} AS old (READ_ONLY)")
        connection.execute(f"ATTACH {_quoted(target)} AS new (STORAGE_VERSION '{STORAGE_VERSION}')")
        connection.execute("COPY FROM DATABASE old TO new")
        before, after = (connection.execute(_ROWS, [name]).fetchall() for name in ("old", "new"))
        same = before == after and all(
            _count(connection, "old", name) == _count(connection, "new", name) for name, *_ in before
        )
        if not same:
            raise PublishError(f"{database}: its copy is not equal to it, so nothing was replaced")
        connection.execute("CHECKPOINT new")


def _count(connection: duckdb.DuckDBPyConnection, database: str, table: str) -> int:
    schema, _, name = table.partition(".")
    ((rows,),) = connection.execute(f'SELECT count(*) FROM {database}."{schema}"."{name}"').fetchall()
    return int(rows)


def _remove_remains(warehouse: Warehouse) -> None:
    """What lies beside the private database and may hold rows: set-aside logs, and what DuckDB swapped out when killed."""
    for path in (*warehouse.work.glob("lost-*"), *warehouse.work.glob("*.tmp")):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def _unlink(database: Path) -> None:
    for path in (database, database.with_name(f"{database.name}.wal")):
        with contextlib.suppress(FileNotFoundError):
            path.unlink()


def _sync_file(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        # some network file systems cannot, and order their renames by themselves
        with contextlib.suppress(OSError):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _quoted(path: Path) -> str:
    return "'" + str(path).replace("'", "''") + "'"

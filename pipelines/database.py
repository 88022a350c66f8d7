"""Connections to the warehouse's database files."""

import logging
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import duckdb
from tenacity import RetryCallState, Retrying, retry_if_exception, stop_before_delay, wait_exponential

log = logging.getLogger("deskhouse.database")

STORAGE_VERSION: Final = "v1.2.0"
"""What BI tools whose DuckDB is older than ours can still open."""
ROW_GROUP: Final = 20_480
"""Rows that DuckDB compresses and writes together: those of one slice, which then go straight into the file.

With DuckDB's own, six times as many, every row is written into the log first, and from there into the file: once more
for each time the log is folded in before the row group is full. And two threads share the work from two groups on.
"""

LOADING: Final = "SET wal_autocheckpoint = '256MB'; SET threads = 1"
"""Rows are written out after a log of some 100,000 recordings: whole row groups rather than the same one over and over.

One thread merges and writes out, which takes two thirds of the memory; another reads from vendors meanwhile.
"""
LOCK_SECONDS = 10.0
"""How long a file that another program has open is waited for: somebody who only looks is gone by then."""
_LOCKED: Final = "Conflicting lock is held in "
_HOLDER: Final = re.compile(_LOCKED + r"(?P<who>(?:.+ \(PID [1-9]\d*\)|PID [1-9]\d*)(?: by user .+?)?)(?:\. |\.?$)")
_held: Final[dict[Path, duckdb.DuckDBPyConnection]] = {}
"""Files this process keeps open for writing, and what keeps them open."""


class DatabaseLocked(duckdb.IOException):
    """Another program has a database file open, and kept it open. The message says which one, and what to do."""


def open_database(
    path: Path, *, read_only: bool = False, config: dict[str, Any] | None = None
) -> duckdb.DuckDBPyConnection:
    """A connection to a database file, as DuckDB opens it; where another program has the file open, it is waited for.

    Raises:
        DatabaseLocked: the other program did not let go in time.
    """
    return _once_free(path, lambda: duckdb.connect(str(path), read_only=read_only, config=config or {}))


def _once_free(path: Path, opened: Callable[[], duckdb.DuckDBPyConnection]) -> duckdb.DuckDBPyConnection:
    def tell(state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        if state.attempt_number == 1:
            log.warning("%s is open in %s: waiting up to %g s", path, _holder(error), LOCK_SECONDS)

    retrying = Retrying(
        retry=retry_if_exception(_is_locked),
        wait=wait_exponential(multiplier=0.1, max=1.0),
        stop=stop_before_delay(LOCK_SECONDS),
        before_sleep=tell,
        reraise=True,
    )
    try:
        return retrying(opened)
    except duckdb.IOException as error:
        if not _is_locked(error):
            raise
        who = _holder(error)
    raise DatabaseLocked(
        f"{path} is open in {who}, which did not let go of it within {LOCK_SECONDS:g} s. Close it there and run again; "
        "nothing is lost. To look at the data, open the published file instead: current/deskhouse.duckdb, read-only."
    )


def _is_locked(error: BaseException) -> bool:
    return isinstance(error, duckdb.IOException) and _LOCKED in str(error)


def _holder(error: BaseException | None) -> str:
    """The program that DuckDB says has the file, which it cannot tell of one in another container or just gone."""
    found = _HOLDER.search(str(error))
    return found["who"] if found else "another program"


@contextmanager
def connect(path: Path, *, read_only: bool = False) -> Iterator[duckdb.DuckDBPyConnection]:
    """A connection to a database file, in UTC, closed at the end; opened as `open_database` does.

    What it writes stays in DuckDB's log until something folds it in: publishing does, once a run, where it must.
    """
    if path in _held:
        connection = _held[path].cursor()
        connection.execute(f"USE {catalog(path)}")
    else:
        config = {} if read_only or path.exists() else {"storage_compatibility_version": STORAGE_VERSION}
        connection = open_database(path, read_only=read_only, config=config)
    try:
        connection.execute("SET TimeZone = 'UTC'")
        if not read_only:
            connection.execute("PRAGMA disable_checkpoint_on_shutdown")
        yield connection
    finally:
        connection.close()


@contextmanager
def kept_open(path: Path, *, read_only: bool = False) -> Iterator[None]:
    """Keep a database open: connections made meanwhile need not open it, and read its log, again."""
    _held[path] = _once_free(path, lambda: _attached(path, read_only=read_only))
    try:
        yield
    finally:
        _held.pop(path).close()


def held(path: Path) -> duckdb.DuckDBPyConnection | None:
    """What keeps a database open in this process, for whoever makes connections by themselves; None if nothing does."""
    return _held.get(path)


def catalog(path: Path) -> str:
    """What DuckDB calls the database in a file, unless told otherwise."""
    return path.stem


def columns_of(connection: duckdb.DuckDBPyConnection, table: str) -> list[str]:
    """Names of a table's or view's columns in their order; DuckDB's list of all columns takes ten times as long."""
    return [column[0] for column in connection.execute(f"FROM {table} LIMIT 0").description or ()]


def _attached(path: Path, *, read_only: bool) -> duckdb.DuckDBPyConnection:
    # attached, since the size of row groups cannot be said where a file is opened
    connection = duckdb.connect(config={"temp_directory": f"{path}.tmp"})
    try:
        quoted = str(path).replace("'", "''")
        connection.execute("SET TimeZone = 'UTC'; PRAGMA disable_checkpoint_on_shutdown")
        connection.execute(LOADING)
        kind = "READ_ONLY" if read_only else f"STORAGE_VERSION '{STORAGE_VERSION}', ROW_GROUP_SIZE {ROW_GROUP}"
        connection.execute(f"ATTACH '{quoted}' AS {catalog(path)} ({kind})")
        connection.execute(f"USE {catalog(path)}")
    except BaseException:
        connection.close()
        raise
    return connection


@contextmanager
def on_threads(connection: duckdb.DuckDBPyConnection, threads: int | None = None) -> Iterator[None]:
    """Let DuckDB work on so many threads, or on as many as the machine has cores."""
    ((before,),) = connection.execute("SELECT current_setting('threads')").fetchall()
    connection.execute(f"SET threads = {threads or os.cpu_count() or 1}")
    try:
        yield
    finally:
        connection.execute(f"SET threads = {before}")


@contextmanager
def limited(connection: duckdb.DuckDBPyConnection, memory: str | None) -> Iterator[None]:
    """Let DuckDB hold so much of the connection's database and no more, e.g. `200MB`; the rest it reads again, or swaps.

    None is as much as DuckDB takes unless told otherwise, most of the machine's. A transaction is committed after this,
    not within: where a commit runs out of memory, DuckDB 1.5 writes some of its rows with the next one.
    """
    if memory is None:
        yield
        return
    # the connection itself may be in a transaction that failed, in which nothing can be set
    with connection.cursor() as settings:
        before = _limit_of(settings)
        _limit(settings, memory)
        try:
            yield
        finally:
            # RESET changes what the setting says and not what may be held
            _limit(settings, before)


def _limit(connection: duckdb.DuckDBPyConnection, memory: str) -> None:
    # where what is held cannot be let go of just now, the limit stays as it is
    with suppress(duckdb.OutOfMemoryException):
        connection.execute(f"SET memory_limit = '{memory}'")


def most_memory() -> str:
    """What DuckDB holds unless told otherwise: most of the machine's memory, or of the container's."""
    with duckdb.connect() as fresh:
        return _limit_of(fresh)


def _limit_of(connection: duckdb.DuckDBPyConnection) -> str:
    """The limit, in a form that is the same when it was set and is asked for again, which DuckDB's own is not.

    It leaves out what follows the first decimal, so that each time it is set as it is told it loses up to 0.1 GiB.
    """
    ((told,),) = connection.execute("SELECT current_setting('memory_limit')").fetchall()
    number, unit = str(told).split()
    return f"{number}1 {unit}"

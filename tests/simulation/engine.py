"""The fast level: everything real but dlt, files and publishing.

`_Run._sync_vendors` of `pipelines.sync` runs as it is, with the real reading, sweeps, comparer, history, settling and
ledger. Only two things are replaced: the database is one DuckDB in memory, kept for all histories (opening a file ten times
a run would be most of the time), and dlt's part is `MemoryLoader`, which commits a slice in one transaction, keeps an
extracted slice for the next run when killed before that, and drains it then, as `VendorLoader` does (those promises
of dlt's part are tested for themselves, and the `whole` level has the real one).

A publication is a copy of all tables. The reading is run to its end before the first slice is taken, so a
history always plays the same way, whatever the threads do; what is durable at a kill is the same as if it were not.
"""

from __future__ import annotations

import contextlib
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import duckdb
import pyarrow as pa

from pipelines import declare, ledger, sync
from pipelines.progress import SilentReporter
from pipelines.settings import Settings
from simulation.judge import state_of
from sources._schema import every_table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    import httpx
    import pytest

    from pipelines.ledger import Receipt
    from simulation.judge import State
    from sources._reading import Reading
    from sources._schema import Table
    from sources._settings import SourceSettings

Rows = dict[str, pa.Table]
NEVER: Final = 1_000_000
PATIENCE: Final = 60.0


class Killed(BaseException):
    """The process is no more."""


class _Place(NamedTuple):
    private_database: Path


class MemoryLoader:
    """dlt's part of a run: a slice is one transaction."""

    def __init__(self, _: _Place, vendor: str) -> None:
        self._vendor = vendor

    def confirm(self) -> None:
        """A slice is committed when it is loaded."""

    def load_slice(self, reading: Reading, before_commit: Callable[[], None]) -> None:
        """Take a slice of every table and commit it."""
        reading._thread.join(PATIENCE)
        _ENGINE.pending = []
        for feed in reading.feeds.values():
            tables = list(feed.next_slice())
            _ENGINE.pending += [(feed.table, t) for t in tables]
        before_commit()
        _ENGINE.passed()
        self.drain()
        _ENGINE.passed()

    def tidy(self) -> None:
        """Nothing is left behind in memory."""

    def drain(self) -> None:
        """Commit what was extracted."""
        con = _ENGINE.connection
        con.begin()
        for table, rows in _ENGINE.pending:
            merge(con, table, rows)
        con.commit()
        _ENGINE.pending = []


def merge(con: duckdb.DuckDBPyConnection, table: Table, rows: Rows) -> None:
    """Write rows by key, their lists replaced as a whole."""
    keys = rows[table.name][table.key].to_pylist()
    assert len(set(keys)) == len(keys), f"{table.qualified_name}: one slice holds a key twice"
    for name, child in every_table(table):
        incoming = rows[name]
        owner = child.parent_key if child else table.key
        con.execute(f'DELETE FROM "{table.schema}"."{name}" WHERE "{owner}" IN (SELECT unnest(?))', [keys])
        if len(incoming):
            con.execute(
                f'INSERT INTO "{table.schema}"."{name}" BY NAME SELECT *, \'load\' AS _dlt_load_id FROM incoming'
            )


class Engine:
    """The warehouse of one history after another."""

    def __init__(self) -> None:
        self.connection = duckdb.connect()
        # databases in memory that spill into one folder overwrite each other's rows
        self._spill = tempfile.TemporaryDirectory(prefix="simulation-")
        self.connection.execute(f"SET TimeZone = 'UTC'; SET threads = 1; SET temp_directory = '{self._spill.name}'")
        self.pending: list[tuple[Table, Rows]] = []
        self._place = _Place(Path(tempfile.gettempdir()) / "unused.duckdb")
        self._left = NEVER
        self._published: dict[str, pa.Table] | None = None
        self._names: list[str] = []
        self._declared: Mapping[str, Table] = {}
        self._runs = 0
        self.publishes = True

    def open(self, declared: Mapping[str, Table]) -> None:
        """An empty warehouse, whatever the history before it broke off in."""
        with contextlib.suppress(duckdb.TransactionException):
            self.connection.rollback()
        if not self._names:
            ledger.prepare(self._place.private_database)
            declare.declare_tables(self._place.private_database, sync.ALL_TABLES)
            found = self.connection.execute("SELECT schema_name || '.' || table_name FROM duckdb_tables()").fetchall()
            self._names = sorted(name for (name,) in found)
        self._write({})
        self._declared, self._published, self.pending, self._runs = declared, None, [], 0
        self._write({})

    def sync(
        self,
        source: SourceSettings,
        transport: httpx.AsyncBaseTransport,
        clock: Callable[[], Any],
        *,
        full: bool,
        kill: int | None,
    ) -> dict[str, Receipt] | None:
        """One run; None when it was killed."""
        self._left = NEVER if kill is None else kill
        self._runs += 1
        place, vendor = self._place, source.vendor
        result = sync.RunResult(f"run-{self._runs}", clock())
        try:
            MemoryLoader(place, vendor).drain()
            origin = sync._origin(source)
            ledger.remember_origins(place.private_database, {vendor: origin}, result.run_id)
            run = sync._Run(
                Settings(Path(), {vendor: source}),
                place,  # type: ignore[arg-type]
                result,
                reporter=SilentReporter(),
                transports={vendor: transport},
                full=full,
                clock=clock,
            )
            run._sync_vendors([vendor])
            self.passed()
        except Killed:
            return None
        finally:
            self._left = NEVER
        if self.publishes:
            self._published = {n: self.connection.execute(f"FROM {n}").to_arrow_table() for n in self._own()}
        return {receipt.table_name: receipt for receipt in result.receipts}

    def lose_work(self) -> None:
        """Back to what was published."""
        self.pending = []
        self._write(self._published or {})

    def state(self) -> State:
        """Every row of the warehouse."""
        return state_of(self.connection, self._declared)

    def passed(self) -> None:
        """A durable step is done."""
        self._left -= 1
        if self._left < 0:
            raise Killed

    def _write(self, tables: Mapping[str, pa.Table]) -> None:
        for name in self._own():
            self.connection.execute(f"DELETE FROM {name}")
            if name in tables and len(tables[name]):
                rows = tables[name]  # noqa: F841 - duckdb reads it by its name
                self.connection.execute(f"INSERT INTO {name} FROM rows")

    def _own(self) -> list[str]:
        schemas = {"ops", *(table.schema for table in self._declared.values())}
        return [name for name in self._names if name.partition(".")[0] in schemas]


class _NoPandas:
    """DuckDB looks for pandas at each statement, and Python for what it has not found, all along its path."""

    def find_spec(self, name: str, *_: object) -> None:
        if name == "pandas":
            raise ModuleNotFoundError(name)


_ENGINE = Engine()


@contextmanager
def _connection(path: Path, *, read_only: bool = False) -> Iterator[duckdb.DuckDBPyConnection]:
    del path, read_only
    yield _ENGINE.connection


@contextmanager
def engine(patch: pytest.MonkeyPatch) -> Iterator[Engine]:
    """The engine, in place of database files and dlt."""
    settle = ledger.settle

    def settle_or_die(*arguments: Any, **named: Any) -> list[Receipt]:
        _ENGINE.passed()
        receipts = settle(*arguments, **named)
        _ENGINE.passed()
        return receipts

    for module in (ledger, declare, sync):
        patch.setattr(module, "connect", _connection)
    patch.setattr(sys, "meta_path", [_NoPandas(), *sys.meta_path])
    patch.setattr(sync, "open_loader", MemoryLoader)
    patch.setattr(ledger, "settle", settle_or_die)
    # the database is in memory, all of it
    patch.setattr(sync, "CACHE_MEMORY", None)
    yield _ENGINE

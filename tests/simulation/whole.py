"""The slow level: `pipelines.sync.sync` itself, with dlt, database files and publishing, in a folder of its own.

A kill is an exception that nobody catches, raised after a step of a load, around the settling of receipts, or around
publishing. (`test_sync_kills` kills processes for real, at moments nobody chose.)
"""

from __future__ import annotations

import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from truth import reading

from pipelines import ledger, sync
from pipelines.loading import VendorLoader
from pipelines.progress import SilentReporter
from pipelines.settings import DLT_ENVIRONMENT, Settings
from pipelines.warehouse import Warehouse, current_generation
from simulation.engine import NEVER, Killed
from simulation.judge import Wrong, state_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from datetime import datetime

    import httpx
    import pytest

    from pipelines.ledger import Receipt
    from simulation.judge import State
    from sources._schema import Table
    from sources._settings import SourceSettings


class Whole:
    """A warehouse folder for one history after another."""

    publishes = True

    def __init__(self, root: Path) -> None:
        self._root, self._number = root, 0
        self._declared: Mapping[str, Table] = {}
        self._left = NEVER

    @property
    def _warehouse(self) -> Warehouse:
        return Warehouse(self._root / str(self._number))

    def open(self, declared: Mapping[str, Table]) -> None:
        """An empty warehouse."""
        shutil.rmtree(self._warehouse.root, ignore_errors=True)
        self._number += 1
        self._declared = declared

    def sync(
        self,
        source: SourceSettings,
        transport: httpx.AsyncBaseTransport,
        clock: Callable[[], datetime],
        *,
        full: bool,
        kill: int | None,
    ) -> dict[str, Receipt] | None:
        """One run; None when it was killed."""
        self._left = NEVER if kill is None else kill
        before = current_generation(self._warehouse)
        settings, vendor = Settings(self._warehouse.root, {source.vendor: source}), source.vendor
        receipts = None
        try:
            result = sync.sync(
                settings, [vendor], SilentReporter(), full=full, transports={vendor: transport}, clock=clock
            )
            receipts = {receipt.table_name: receipt for receipt in result.receipts}
            complete = all(receipt.complete for receipt in result.receipts)
            assert result.exit_code == (0 if complete else 1)
            assert result.generation is not None, result.problems
        except Killed:
            pass
        finally:
            self._left = NEVER
        after = current_generation(self._warehouse)
        if after != before and self._published() != self._private():
            raise Wrong("untrue", "what was published is not what the run left")
        return receipts

    def lose_work(self) -> None:
        """The folder with the private database and dlt's files is gone."""
        shutil.rmtree(self._warehouse.work, ignore_errors=True)

    def state(self) -> State:
        """Every row: of the private database, or of the published one where that is lost."""
        return self._private() if self._warehouse.private_database.exists() else self._published()

    def passed(self) -> None:
        """A durable step is done."""
        self._left -= 1
        if self._left < 0:
            raise Killed

    def _private(self) -> State:
        return self._read(self._warehouse.private_database)

    def _published(self) -> State:
        generation = current_generation(self._warehouse)
        return self._read(generation.database) if generation else {name: {} for name in self._declared}

    def _read(self, database: Path) -> State:
        with reading(database) as con:
            tables = {
                name
                for (name,) in con.execute("SELECT schema_name || '.' || table_name FROM duckdb_tables()").fetchall()
            }
            if not tables.issuperset(self._declared):
                # killed before the tables were declared
                return {name: {} for name in self._declared}
            return state_of(con, self._declared)


@contextmanager
def whole(patch: pytest.MonkeyPatch) -> Iterator[Whole]:
    """Warehouses in a temporary folder."""
    with tempfile.TemporaryDirectory(prefix="simulation-") as root:
        level = Whole(Path(root))

        def deadly(step: Callable[..., Any]) -> Callable[..., Any]:
            def or_die(*arguments: Any, **named: Any) -> Any:
                level.passed()
                done = step(*arguments, **named)
                level.passed()
                return done

            return or_die

        for name, value in {**DLT_ENVIRONMENT, "RUNTIME__LOG_LEVEL": "CRITICAL"}.items():
            patch.setenv(name, value)
        patch.setattr(VendorLoader, "_step", deadly(VendorLoader._step))
        patch.setattr(ledger, "settle", deadly(ledger.settle))
        patch.setattr(sync, "publish", deadly(sync.publish))
        yield level

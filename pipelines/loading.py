"""dlt's part of a run: one pipeline per vendor on the private database, loaded slice by slice."""

import logging
from collections.abc import Callable
from contextlib import suppress
from typing import Final

import dlt
import dlt.common.libs.pyarrow
import duckdb
from dlt.common.configuration import resolve_configuration
from dlt.common.configuration.container import Container
from dlt.common.configuration.specs import RuntimeConfiguration
from dlt.common.configuration.specs.pluggable_run_context import PluggableRunContext
from dlt.common.exceptions import SignalReceivedException
from dlt.common.runtime import signals
from dlt.common.runtime.run_context import RunContext
from dlt.destinations.impl.duckdb.configuration import DuckDbCredentials
from dlt.pipeline.exceptions import PipelineStepFailed

from pipelines import commits
from pipelines.database import LOADING, catalog, connect, held
from pipelines.destination import atomic_duckdb
from pipelines.interrupt import Interrupted, signals_heeded
from pipelines.leftovers import LoadFailed, has_leftovers
from pipelines.memory import give_back_large
from pipelines.settings import NO_LOG
from pipelines.warehouse import Warehouse
from sources._causes import causes_of
from sources._reading import Reading
from sources._resource import slice_source

log = logging.getLogger("deskhouse.load")

SLICES_HELD: Final = 8
"""Slices after which the log is folded in: until then DuckDB keeps a megabyte of each in memory."""


class _RunContext(RunContext):
    """dlt's own, without what dlt sets up for reading vendors itself, nor plugins of its command line.

    That is a client of its own, with requests and urllib3, and every package there is looked through: 40 ms of each load.
    """

    def initialize_runtime(self, runtime_config: RuntimeConfiguration | None = None) -> None:
        """Read the settings; set up the rest as well where somebody wants to see dlt's log."""
        self._runtime_config = runtime_config or resolve_configuration(RuntimeConfiguration())
        if self._runtime_config.log_level != NO_LOG:
            super().initialize_runtime(self._runtime_config)


class VendorLoader:
    """Loads one vendor's tables into the schema named for it."""

    def __init__(self, warehouse: Warehouse, vendor: str) -> None:
        self._vendor = vendor
        self._warehouse = warehouse
        self._slices = 0
        if PluggableRunContext not in Container():
            Container()[PluggableRunContext] = PluggableRunContext(_RunContext(None))
        database = warehouse.private_database
        credentials = DuckDbCredentials(
            held(database) or str(database),
            # dlt sets a log of its own at each connection, and runs statements after that
            statements=[LOADING],
            # what is kept open is not what its connections look at first
            local_config={"schema": f"{catalog(database)}.main"},
        )
        self._pipeline = dlt.pipeline(
            vendor,
            pipelines_dir=str(warehouse.pipelines_dir),
            destination=atomic_duckdb(credentials, destination_name="duckdb"),
            dataset_name=vendor,
        )

    def drain(self) -> bool:
        """Finish what an earlier run left between reading and commit, and remove what it left beside.

        A package that cannot be loaded is dropped: its rows are not in the warehouse, so this run reads them again.

        Returns:
            Whether there was anything to finish.
        """
        pending = self._is_pending()
        if pending:
            log.info("finishing what an earlier run of %s left", self._vendor)
            try:
                self._normalize_and_load()
                self.confirm()
            except LoadFailed as failure:
                log.warning("dropping a load of %s that cannot be finished: %s", self._vendor, failure)
        self.tidy()
        return pending

    def _is_pending(self) -> bool:
        try:
            return bool(self._pipeline.has_pending_data)
        except FileNotFoundError:
            # killed while dlt made its folder, which it does before anything lies in it, or while it took it away
            log.info("making the folder of %s anew, which a killed run left half-made", self._vendor)
            self._pipeline.drop()
            return False

    def tidy(self) -> None:
        """Empty dlt's folder: once nothing is pending, the database holds all that matters, and what is left is copies."""
        if has_leftovers(self._warehouse, self._vendor):
            self._pipeline.drop()

    def load_slice(self, reading: Reading, before_commit: Callable[[], None]) -> None:
        """Load the next slice of every table, all of it in one transaction, which `confirm` waits for.

        Args:
            reading: the vendor being read.
            before_commit: called when the slice has been read, before it is loaded.

        Raises:
            LoadFailed: the slice was not committed, or the one before was not. Nothing is under way.
            duckdb.Error: neither was it, and the database must be opened anew before anything is written into it.
        """
        self._pipeline.activate()
        try:
            if self._pipeline.first_run:
                self._step(self._pipeline.sync_destination)
            self._step(lambda: self._pipeline.extract(slice_source(reading), loader_file_format="parquet"))
            before_commit()
            self._normalize_and_load()
        except LoadFailed:
            with suppress(LoadFailed):
                self.confirm()
            raise

    def confirm(self) -> None:
        """Wait until the last slice is committed.

        Raises:
            LoadFailed: it was not.
            duckdb.Error: neither was it, and the database must be opened anew before anything is written into it.
        """
        try:
            commits.confirm(self._vendor)
        except duckdb.Error as error:
            if commits.spoils_database(error):
                raise
            raise LoadFailed(f"load failed: {_in_a_line(error)}") from error

    def _normalize_and_load(self) -> None:
        self._undisturbed(self._pipeline.normalize)
        self.confirm()
        self._undisturbed(self._pipeline.load)
        self._slices += 1
        if self._slices % SLICES_HELD == 0:
            give_back_large()
            self.confirm()
            # whoever writes next, or publishes, says why it cannot
            with suppress(duckdb.Error), connect(self._warehouse.private_database) as con:
                con.execute("CHECKPOINT")

    def _undisturbed(self, step: Callable[[], object]) -> None:
        """Take a step that dlt keeps signals from, and heed afterwards the one it would forget."""
        with signals_heeded(), signals.intercepted_signals():
            self._step(step)

    def _step(self, step: Callable[[], object]) -> None:
        try:
            step()
        except PipelineStepFailed as failure:
            for cause in causes_of(failure):
                if isinstance(cause, Interrupted) or commits.spoils_database(cause):
                    raise cause from None
                if isinstance(cause, SignalReceivedException):
                    raise Interrupted(cause.signal_code) from None
            raise LoadFailed(_explain(failure)) from failure


def _explain(failure: PipelineStepFailed) -> str:
    """The innermost cause in one line: dlt's own text spans many and repeats the data's location."""
    return f"{failure.step} failed: {_in_a_line(causes_of(failure)[-1])}"


def _in_a_line(error: BaseException) -> str:
    first = next(iter(str(error).strip().splitlines()), type(error).__name__)
    return f"{type(error).__name__}: {first[:300]}"

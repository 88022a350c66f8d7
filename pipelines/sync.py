"""One run: lock, drain, read and load each vendor, settle the receipts, check, publish."""

import logging
import os
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from types import ModuleType
from typing import TYPE_CHECKING, Final

import duckdb
import httpx

from pipelines import commits, ledger, privacy, rewrite
from pipelines.checks import FailedCheck, failed_checks
from pipelines.database import connect, kept_open, limited, on_threads
from pipelines.declare import declare_tables
from pipelines.interrupt import interruption_behind
from pipelines.ledger import Origin, Receipt
from pipelines.leftovers import LoadFailed, has_leftovers
from pipelines.lock import run_lock
from pipelines.memory import importing
from pipelines.permissions import keep_private, make_root, private_files
from pipelines.progress import Reporter
from pipelines.publish import is_published, publish
from pipelines.restore import restore_private, sweep_leftovers
from pipelines.settings import VENDOR_NAMES, VENDORS, Settings, SettingsError, setting_name
from pipelines.transform import ModelFailed, ModelTooLarge, run_models
from pipelines.warehouse import Generation, PublishError, Warehouse, current_generation, refuse_unsafe_layout
from sources import getscreen, posthog, screendesk
from sources._errors import WrongSetting
from sources._policy import STANDARD, Policy
from sources._reading import Reading, side_by_side
from sources._redact import Redactor
from sources._schema import Table
from sources._settings import SourceSettings

if TYPE_CHECKING:
    from pipelines.loading import VendorLoader

log = logging.getLogger("deskhouse.sync")

SOURCES: Final[dict[str, ModuleType]] = {"screendesk": screendesk, "getscreen": getscreen, "posthog": posthog}
ALL_TABLES: Final[list[Table]] = [table for module in SOURCES.values() for table in module.TABLES]
CACHE_MEMORY: Final = "48MB"
"""What DuckDB may hold where it passes over rows once, for which a cache of them does nothing."""
MODELS_MEMORY: Final = ("220MB", "1GB", None)
"""What DuckDB may hold while models are made, and then what the next try needs."""
MANY_ROWS: Final = 400_000
"""Records from which on models and checks are left to one thread, which needs half of the memory that two do."""
LEAN_BYTES_A_ROW: Final = 140
"""What that thread may hold for each record while it makes models."""
Transports = Mapping[str, httpx.AsyncBaseTransport]


@dataclass
class RunResult:
    """What a run came to."""

    run_id: str
    started_at: datetime
    exit_code: int = 0
    finished_at: datetime | None = None
    receipts: list[Receipt] = field(default_factory=list)
    skipped: tuple[str, ...] = ()
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    replayed: int = 0
    generation: Generation | None = None

    @property
    def status(self) -> str:
        """The run in one word."""
        return {0: "complete", 1: "incomplete"}.get(self.exit_code, "interrupted")


def tables_of(vendor: str) -> Sequence[Table]:
    """The declared root tables of a vendor."""
    tables: Sequence[Table] = SOURCES[vendor].TABLES
    return tables


def sync(
    settings: Settings,
    vendors: Sequence[str],
    reporter: Reporter,
    *,
    full: bool = False,
    transports: Transports | None = None,
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> RunResult:
    """Bring the warehouse in step with the vendors and publish it.

    Args:
        settings: all settings.
        vendors: which vendors to read; each has settings.
        reporter: told what happens.
        full: read every list whole.
        transports: HTTP transports by vendor, for tests.
        clock: the current time, aware.

    Returns:
        What the run came to; `exit_code` as in DESIGN §9.

    Raises:
        SettingsError: a setting cannot be used, or the warehouse belongs to another account. Nothing was touched.
        LockHeld: another run is at work. Nothing was touched.
        PublishError: the warehouse folder cannot be used.
        Interrupted: a signal asked the run to stop. Safe to run again.
    """
    refuse_unusable_settings([settings.sources[v] for v in vendors])
    with open_run(settings, vendors, reporter, full=full, transports=transports, clock=clock) as run:
        run.sync_all(vendors)
        run.finish()
    return run.result


@contextmanager
def open_run(
    settings: Settings,
    vendors: Sequence[str],
    reporter: Reporter,
    *,
    full: bool = False,
    transports: Transports | None = None,
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> Iterator["_Run"]:
    """A run under the lock, with the private database in order and a row in the ledger; what it makes is private.

    Arguments, result code and exceptions are those of `sync`. The caller ends the run with `finish`.
    """
    warehouse = Warehouse(settings.warehouse_dir)
    refuse_unsafe_layout(warehouse)
    make_root(warehouse.root)
    with private_files(), run_lock(warehouse.lock_file), ExitStack() as held:
        with (
            kept_open(warehouse.private_database, read_only=True)
            if warehouse.private_database.exists()
            else nullcontext()
        ):
            refuse_other_account(warehouse, [settings.sources[v] for v in vendors])
            settings = privacy.in_force(settings, warehouse, vendors, full=full)
        keep_private(warehouse.work)
        result = RunResult(f"{clock():%Y%m%dT%H%M%S}-{uuid.uuid4().hex[:8]}", clock(), skipped=settings.skipped)
        sweep_leftovers(warehouse)
        rewrite.sweep(warehouse)
        published = is_published(warehouse)
        if restored := restore_private(warehouse):
            log.warning("the private database was missing; it was restored from generation %s", restored)
            # dlt's folder may be ahead of what was restored; what it held is read from the vendors again
            shutil.rmtree(warehouse.pipelines_dir, ignore_errors=True)
        database = warehouse.private_database
        held.enter_context(kept_open(database))
        held.callback(commits.end)
        ledger.prepare(database)
        privacy.prepare(database)
        ledger.begin_run(
            database,
            result.run_id,
            result.started_at,
            vendors=list(vendors),
            skipped=list(settings.skipped),
            full=full,
            version=version("deskhouse"),
            pid=os.getpid(),
        )
        ledger.remember_origins(database, {v: _origin(settings.sources[v]) for v in vendors}, result.run_id)
        run = _Run(settings, warehouse, result, reporter=reporter, transports=transports or {}, full=full, clock=clock)
        run.rows_changed = not published
        run.let_go = held.close
        try:
            yield run
        except BaseException as error:
            interruption = interruption_behind(error)
            if interruption is None:
                raise
            result.exit_code = 128 + interruption.signal
            run.close("interrupted")
            raise interruption from None


def refuse_unusable_settings(sources: Sequence[SourceSettings]) -> None:
    """Stop before anything is touched where an address or a token can never work.

    Raises:
        SettingsError: names the setting.
    """
    for source in sources:
        try:
            SOURCES[source.vendor].open_client(source)
        except WrongSetting as error:
            raise SettingsError(error.message) from None


def refuse_other_account(warehouse: Warehouse, sources: Sequence[SourceSettings]) -> None:
    """Stop before rows of two accounts mix, which would look like mass deletion.

    Raises:
        SettingsError: the warehouse was filled from another base URL or project.
    """
    generation = current_generation(warehouse)
    if warehouse.private_database.exists():
        remembered = ledger.origins(warehouse.private_database)
    elif generation is not None:
        remembered = ledger.origins(generation.database)
    else:
        return
    for source in sources:
        before, now = remembered.get(source.vendor), _origin(source)
        if before is None or (before.base_url, before.project_id) == (now.base_url, now.project_id):
            continue
        part, old, new = ("base_url", before.base_url, now.base_url)
        if before.base_url == now.base_url:
            part, old, new = ("project_id", before.project_id, now.project_id)
        raise SettingsError(
            f"This warehouse was filled from {old}; the settings now point {VENDOR_NAMES[source.vendor]} at {new}. "
            "Mixing two accounts would look like mass deletion, so nothing was touched. Either set "
            f"{setting_name(f'sources.{source.vendor}.{part}')} back, or keep the other account in a warehouse of its "
            f"own: set {setting_name('deskhouse.warehouse_dir')} to a new folder (now {warehouse.root})."
        )


def _origin(source: SourceSettings) -> Origin:
    url = httpx.URL(source.base_url)
    return Origin(str(url).rstrip("/"), source.project_id, ledger.mark_of(source.secret))


def open_loader(warehouse: Warehouse, vendor: str) -> "VendorLoader":
    """What loads a vendor's tables; imports dlt, which a run that loads nothing does without."""
    with importing("pipelines.loading"):
        from pipelines.loading import VendorLoader  # noqa: PLC0415
    return VendorLoader(warehouse, vendor)


class _Run:
    """The steps of one run, under the lock."""

    def __init__(
        self,
        settings: Settings,
        warehouse: Warehouse,
        result: RunResult,
        *,
        reporter: Reporter,
        transports: Transports,
        full: bool,
        clock: Callable[[], datetime],
    ) -> None:
        self._settings, self._warehouse, self._result, self._full = settings, warehouse, result, full
        self._reporter, self._transports, self._clock = reporter, transports, clock
        self._database = warehouse.private_database
        self._redactor = Redactor(settings.secrets)
        self._under_old_policy: list[Table] = []
        self._loaders: dict[str, VendorLoader] = {}
        self._new_tokens: set[str] = set()
        self.let_go: Callable[[], None] = lambda: None
        """Closes what is kept open of the private database."""
        self.rows_changed = True
        """Whether a row may differ from what is published; where none does, there is nothing to check."""

    @property
    def result(self) -> RunResult:
        """What the run came to so far."""
        return self._result

    @property
    def policy(self) -> Policy:
        """What is stored of personal data."""
        return self._settings.privacy or STANDARD

    def sync_all(self, vendors: Sequence[str]) -> None:
        """Finish what earlier runs left, make every declared table exist, then read and load the vendors asked for."""
        for vendor in VENDORS:
            if has_leftovers(self._warehouse, vendor):
                self.rows_changed |= open_loader(self._warehouse, vendor).drain()
        declare_tables(self._database, ALL_TABLES)
        self._bring_under_policy(vendors)
        self._sync_vendors(vendors)

    def _bring_under_policy(self, vendors: Sequence[str]) -> None:
        """Say which rows a changed privacy policy has not reached, or with `full` bring them under it."""
        policy, run_id = self.policy, self._result.run_id
        waiting = privacy.not_applied(self._database, policy, run_id, self._clock())
        self._under_old_policy = [table for table in waiting if table.schema in vendors]
        if self._full and self._under_old_policy:
            self._reporter.step("applying the privacy policy")
            rewrite.require(self._warehouse)
            changed = privacy.apply_to_stored(self._database, self._under_old_policy, policy, self._clock())
            self.rows_changed = self.rows_changed or changed > 0
        elif self._under_old_policy:
            self._result.problems.append(privacy.reload_line([t.qualified_name for t in self._under_old_policy]))

    def _note_policy(self) -> None:
        """Tables that were read whole and brought under the policy are stored under it."""
        read = {r.table_name for r in self._result.receipts if r.complete and r.sweep_kind == "full"}
        done = [table for table in self._under_old_policy if self._full and table.qualified_name in read]
        privacy.note_applied(self._database, done, self.policy, self._result.run_id, self._clock())

    def finish(self) -> None:
        """Check the database and publish it; close the run."""
        result = self._result
        broken: list[FailedCheck] = []
        if self.rows_changed or any(receipt.written for receipt in result.receipts):
            self._reporter.step("checking")
            broken = failed_checks(self._database, ALL_TABLES, threads=1 if self._records() > MANY_ROWS else None)
        for check in broken:
            self.problem(f"not published, because a check failed: {check}")
        publishable = not broken and self._make_models()
        if any(not receipt.complete for receipt in result.receipts):
            result.exit_code = 1
        self._note_policy()
        self.close(result.status)
        if not publishable:
            return
        self._reporter.step("publishing")
        self._fold_log()
        self.let_go()
        try:
            publishing = rewrite.publish_rebuilt if rewrite.is_required(self._warehouse) else publish
            result.generation = publishing(self._warehouse, result.run_id, access=self._settings.access)
        except PublishError as error:
            self.problem(f"not published: {error}")
            self.close(result.status)

    def _fold_log(self) -> None:
        """Take a log that holds rows into the file while it need not be read again for that."""
        if self.rows_changed:
            # publishing tries again, and says why it cannot
            with (
                suppress(duckdb.Error),
                connect(self._database) as con,
                limited(con, MODELS_MEMORY[0]),
                on_threads(con),
            ):
                con.execute("CHECKPOINT")

    def _make_models(self) -> bool:
        """Bring the analytics tables in step with the rows; says whether they may be published."""
        self._reporter.step("modelling")
        attempts: list[tuple[str | None, int | None]] = [(memory, None) for memory in MODELS_MEMORY]
        if (rows := self._records()) > MANY_ROWS:
            attempts.insert(0, (f"{rows * LEAN_BYTES_A_ROW // 1_000_000}MB", 1))
        for memory, threads in attempts:
            try:
                with connect(self._database) as con, on_threads(con, threads):
                    run_models(con, timezone=self._settings.timezone, memory=memory)
            except ModelTooLarge as failure:
                if memory == MODELS_MEMORY[-1]:
                    self.problem(f"not published, because {failure}")
            except ModelFailed as failure:
                self.problem(f"not published, because {failure}")
                return False
            else:
                return True
        return False

    def _records(self) -> int:
        """Records held of all vendors, without what is in their lists; roughly, which costs nothing."""
        names = [[table.schema, table.name] for table in ALL_TABLES]
        with connect(self._database) as con:
            ((rows,),) = con.execute(
                "SELECT coalesce(sum(estimated_size), 0) FROM duckdb_tables() "
                "WHERE database_name = current_database() AND list_contains(?, [schema_name, table_name])",
                [names],
            ).fetchall()
        return int(rows)

    def close(self, status: str) -> None:
        """Write how the run ended."""
        result = self._result
        result.finished_at = self._clock()
        ledger.end_run(
            self._database,
            result.run_id,
            finished_at=result.finished_at,
            status=status,
            exit_code=result.exit_code,
            rows_written=sum(receipt.written for receipt in result.receipts) + result.replayed,
            message="; ".join([*result.notes, *result.problems]) or None,
        )

    def problem(self, text: str) -> None:
        """Note what went wrong; the run ends with exit code 1."""
        text = self._redactor.text(text)
        log.info("%s", text)
        self._result.problems.append(text)
        self._result.exit_code = 1

    def _sync_vendors(self, vendors: Sequence[str]) -> None:
        """Read the vendors side by side, and load what comes, a slice of one of them at a time."""
        with connect(self._database) as con, limited(con, CACHE_MEMORY):
            readings = [self._open_reading(vendor) for vendor in vendors]
        for vendor in (reading.vendor for reading in readings if reading.is_first):
            # there will be rows to load, and importing dlt while pages are read takes three times as long; see LOAD_LATER_SECONDS
            self._loader(vendor)
        with self._reporter.watching(readings), side_by_side(readings) as next_ready:
            while (reading := next_ready()) is not None:
                failure = ""
                try:
                    if self._load_slice(reading):
                        continue
                except LoadFailed as error:
                    failure = self._redactor.text(str(error))
                reading.end()
                self._settle(reading, failure)
        self._result.receipts.sort(key=lambda receipt: VENDORS.index(receipt.vendor))

    def _open_reading(self, vendor: str) -> Reading:
        database, source = self._database, self._settings.sources[vendor]
        same_token = ledger.origins(database)[vendor].read_with(source.secret)
        histories = {t.qualified_name: ledger.history_of(database, t, same_token=same_token) for t in tables_of(vendor)}
        if not same_token:
            self._new_tokens.add(vendor)
        reading: Reading = SOURCES[vendor].open_reading(
            source, histories, self._transports.get(vendor), full=self._full, clock=self._clock
        )
        return reading

    def _settle(self, reading: Reading, failure: str) -> None:
        """Write the receipts of a vendor that has been read, or whose rows could not be loaded."""
        result, database, vendor = self._result, self._database, reading.vendor
        source = self._settings.sources[vendor]
        if vendor in self._loaders and not failure:
            # what could not be loaded is tried once more by the next run
            self._loaders.pop(vendor).tidy()
        self._keep_findings(reading)
        outcomes = [feed.outcome for feed in reading.feeds.values()]
        for outcome in outcomes:
            if failure:
                outcome.complete, outcome.reason, outcome.gone = False, failure, []
        receipts = ledger.settle(database, result.run_id, outcomes, self._clock())
        if not any(r.complete or r.live_rows or r.cursor_before for r in receipts):
            # nothing was ever read from this address, which may be a typing mistake: it must be free to change
            ledger.forget_origin(database, vendor)
        elif vendor in self._new_tokens and all(outcome.error is None for outcome in outcomes):
            ledger.remember_token(database, vendor, ledger.mark_of(source.secret))
        result.receipts += receipts
        for receipt in receipts:
            if not receipt.complete:
                result.exit_code = 1
                log.info("%s is not complete: %s", receipt.table_name, receipt.reason)
            self._reporter.settled(receipt)

    def load(self, reading: Reading) -> None:
        """Load all that a reading hands out.

        Raises:
            LoadFailed: a slice was not committed.
        """
        while self._load_slice(reading):
            pass
        if reading.vendor in self._loaders:
            self._loaders.pop(reading.vendor).tidy()

    def _load_slice(self, reading: Reading) -> bool:
        """Load the next slice of a reading; False if there is none, and all before are committed."""
        if not any(feed.has_rows() for feed in reading.feeds.values()):
            if reading.vendor in self._loaders:
                self._loaders[reading.vendor].confirm()
            return False
        self.rows_changed = True
        self._loader(reading.vendor).load_slice(reading, before_commit=lambda: self._keep_findings(reading))
        return True

    def _loader(self, vendor: str) -> "VendorLoader":
        if vendor not in self._loaders:
            self._loaders[vendor] = open_loader(self._warehouse, vendor)
        return self._loaders[vendor]

    def _keep_findings(self, reading: Reading) -> None:
        for feed in reading.feeds.values():
            drift, quarantined = feed.take_noted()
            ledger.note_findings(
                self._database, self._result.run_id, self._clock(), drift, quarantined, redactor=self._redactor
            )

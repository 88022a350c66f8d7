"""`deskhouse quarantine`: records that had no usable key when they were read, shown and tried again.

A retry reads the stored JSON as a page of the vendor's would be read. What has a usable key now is loaded like a slice of
a sync and leaves the quarantine; the rest stays, with the reason of today. Only a row that the warehouse does not hold,
or holds in a version dated earlier, is written: where nothing says which is newer, the row that is there stays. The
vendor has the last word either way, because the next sync reads the table whole.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, NoReturn

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table as RichTable

from pipelines import ledger
from pipelines.database import connect
from pipelines.leftovers import LoadFailed
from pipelines.progress import Reporter
from pipelines.settings import VENDORS, Settings, SettingsError
from pipelines.sync import RunResult, open_run, tables_of
from pipelines.warehouse import Generation, Warehouse, current_generation
from sources._body import parse
from sources._known import NONE, Known
from sources._plan import Slice
from sources._reading import Reading
from sources._schema import Table
from sources._settings import SourceSettings
from sources._tables import Converter, Page
from sources.getscreen import in_declared_shape

SHOWN: Final = 50
"""Records listed on a terminal; `--json` lists all."""
CHUNK_RECORDS: Final = 5_000
CHUNK_BYTES: Final = 32 << 20
_PREPARED: Final = {"getscreen.connections": in_declared_shape}


class NothingStored(Exception):
    """There is no warehouse to look into; the message says what to do."""


@dataclass(frozen=True)
class Entry:
    """A record in quarantine."""

    table: str
    reason: str
    digest: str
    bytes: int
    first_seen_at: datetime
    last_seen_at: datetime
    first_run_id: str
    last_run_id: str
    raw: str

    def as_json(self, *, raw: bool) -> dict[str, Any]:
        """JSON-ready values; the record itself only with `raw`."""
        seen = {name: getattr(self, name).astimezone(UTC).isoformat() for name in ("first_seen_at", "last_seen_at")}
        return {name: value for name, value in {**vars(self), **seen}.items() if raw or name != "raw"}


@dataclass(frozen=True)
class Listing:
    """What is in quarantine in a published generation."""

    generation: Generation
    database: Path
    entries: list[Entry]

    def as_json(self, *, raw: bool) -> dict[str, Any]:
        """JSON-ready values; the records themselves only with `raw`."""
        return {
            "published": str(self.database),
            "published_at": self.generation.published_at.isoformat(),
            "quarantine": [entry.as_json(raw=raw) for entry in self.entries],
        }


@dataclass
class Replayed:
    """What a retry came to for one table.

    Attributes:
        table: its qualified name.
        tried: records that were in quarantine.
        inserted: rows that the warehouse did not hold.
        updated: rows that it held in a version dated earlier.
        held: records whose row it holds in a version that is as new, or may be.
        remaining: records that still have no usable key, or could not be loaded.
    """

    table: str
    tried: int = 0
    inserted: int = 0
    updated: int = 0
    held: int = 0

    @property
    def remaining(self) -> int:
        """Records that stay in quarantine."""
        return self.tried - self.inserted - self.updated - self.held

    def as_json(self) -> dict[str, Any]:
        """JSON-ready values."""
        return {**vars(self), "remaining": self.remaining}

    def __str__(self) -> str:
        return (
            f"{self.table}: {self.tried:,} tried, {self.inserted:,} new and {self.updated:,} changed rows loaded, "
            f"{self.held:,} held already, {self.remaining:,} left in quarantine"
        )


def check_table(name: str | None) -> None:
    """Refuse a table that there is not.

    Raises:
        SettingsError: names those there are.
    """
    names = [table.qualified_name for vendor in VENDORS for table in tables_of(vendor)]
    if name is not None and name not in names:
        raise SettingsError(f"There is no table {name!r} that keeps a quarantine. Tables are: {', '.join(names)}.")


def listing(folder: Path, table: str | None = None) -> Listing:
    """What the published file says is in quarantine, last seen first.

    Raises:
        NothingStored: nothing is published.
    """
    warehouse = Warehouse(folder)
    generation = current_generation(warehouse)
    if generation is None:
        raise NothingStored(f"Nothing is published in {folder} yet. Run `deskhouse sync` first.")
    with connect(generation.database, read_only=True) as con:
        rows = con.execute(
            "SELECT table_name, reason, record_digest, strlen(raw), first_seen_at, last_seen_at, first_run_id, "
            "last_run_id, raw::VARCHAR FROM ops.quarantine WHERE table_name = coalesce(?, table_name) "
            "ORDER BY last_seen_at DESC, table_name, record_digest",
            [table],
        ).fetchall()
    return Listing(generation, warehouse.published_database, [Entry(*row) for row in rows])


def show_listing(found: Listing, console: Console, *, raw: bool) -> None:
    """The same for people; the records themselves only with `raw`."""
    if not found.entries:
        console.print("Nothing is in quarantine.", highlight=False)
        return
    table = RichTable(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("table", "first seen", "last seen", "bytes", "digest", "reason"):
        table.add_column(heading, justify="right" if heading == "bytes" else "left", no_wrap=heading != "reason")
    for entry in found.entries[:SHOWN]:
        seen = [f"{at.astimezone(UTC):%Y-%m-%d %H:%M}" for at in (entry.first_seen_at, entry.last_seen_at)]
        table.add_row(entry.table, *seen, f"{entry.bytes:,}", entry.digest[:12], entry.reason)
    console.print(table, markup=False)
    if raw:
        for entry in found.entries[:SHOWN]:
            console.print(f"{entry.digest[:12]} {entry.raw}", markup=False, highlight=False, soft_wrap=True)
    if len(found.entries) > SHOWN:
        console.print(f"... and {len(found.entries) - SHOWN:,} more; --json lists all of them.", highlight=False)
    console.print(
        "Times are UTC. After an upgrade, `deskhouse quarantine retry` tries these records again.", highlight=False
    )


def retry(
    settings: Settings,
    reporter: Reporter,
    *,
    table: str | None = None,
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> tuple[RunResult, list[Replayed]]:
    """Try the records in quarantine again, load what has a key now, and publish.

    Args:
        settings: all settings; no token is needed.
        reporter: told what happens.
        table: only this one.
        clock: the current time, aware.

    Returns:
        The run, and what became of the records of each table that had any.

    Raises:
        SettingsError: there is no such table.
        NothingStored: there is no warehouse.
        LockHeld, PublishError, Interrupted: as for a sync.
    """
    check_table(table)
    warehouse = Warehouse(settings.warehouse_dir)
    if not warehouse.private_database.exists() and current_generation(warehouse) is None:
        raise NothingStored(f"There is no warehouse in {settings.warehouse_dir}, so there is nothing to try again.")
    replayed: list[Replayed] = []
    with open_run(replace(settings, skipped=()), [], reporter, clock=clock) as run:
        run.sync_all([])
        result = run.result
        for vendor in VENDORS:
            for one in tables_of(vendor):
                if table not in {None, one.qualified_name}:
                    continue
                attempt = _Attempt(replace(one, policy=run.policy), warehouse.private_database, result.run_id, clock)
                try:
                    for reading in attempt.readings():
                        reporter.step(f"loading what came back to {one.qualified_name}")
                        run.load(reading)
                        attempt.loaded()
                except LoadFailed as error:
                    run.problem(f"{one.qualified_name}: records could not be loaded and stay in quarantine: {error}")
                if attempt.came_to.tried:
                    replayed.append(attempt.came_to)
        result.replayed = sum(one.inserted + one.updated for one in replayed)
        result.notes += [f"quarantine retry: {one}" for one in replayed]
        run.finish()
    return result, replayed


@dataclass
class _Attempt:
    """One table's quarantine being tried, a chunk at a time."""

    table: Table
    database: Path
    run_id: str
    clock: Callable[[], datetime]
    came_to: Replayed = field(init=False)
    _inserted: int = 0
    _updated: int = 0
    _settled: list[str] = field(default_factory=list)
    _reasons: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.came_to = Replayed(self.table.qualified_name)

    def readings(self) -> Iterator[Reading]:
        """What is to be loaded, chunk by chunk; call `loaded` after each."""
        chunks = list(self._chunks())
        if not chunks:
            return
        self.came_to.tried = sum(map(len, chunks))
        known = ledger.history_of(self.database, self.table, same_token=True).known
        converter = Converter(self.table, _PREPARED.get(self.table.qualified_name))
        for digests in chunks:
            usable, self._reasons = _sorted_out(converter, ledger.quarantined(self.database, digests))
            page = converter.read([record for _, record in usable])
            inserts, updates = _to_write(known, page)
            self._inserted, self._updated = len(inserts), len(updates)
            self._settled = [digest for digest, _ in usable]
            positions = sorted([*inserts, *updates])
            if positions:
                ledger.begin_replay(self.database, self.run_id, self.table, self.clock())
                yield self._reading(page, positions)
            else:
                self.loaded()

    def loaded(self) -> None:
        """The chunk is durable: its records leave the quarantine, the others get the reason of today."""
        ledger.settle_replay(
            self.database,
            self.run_id,
            self.table,
            inserted=self._inserted,
            updated=self._updated,
            settled=self._settled,
            reasons=self._reasons,
        )
        self.came_to.inserted += self._inserted
        self.came_to.updated += self._updated
        self.came_to.held += len(self._settled) - self._inserted - self._updated

    def _chunks(self) -> Iterator[list[str]]:
        chunk: list[str] = []
        size = 0
        for digest, length in ledger.quarantine_sizes(self.database, self.table):
            if chunk and (len(chunk) == CHUNK_RECORDS or size + length > CHUNK_BYTES):
                yield chunk
                chunk, size = [], 0
            chunk.append(digest)
            size += length
        if chunk:
            yield chunk

    def _reading(self, page: Page, positions: Sequence[int]) -> Reading:
        """A reading that has ended and hands out these rows."""

        def no_client() -> NoReturn:
            raise RuntimeError("a retry asks no vendor")

        vendor = self.table.schema
        settings = SourceSettings(vendor, secret="", base_url="")
        reading = Reading(settings, no_client, lambda _: [], tables_of(vendor), {}, clock=self.clock)
        reading.feeds[self.table.name].hand_out(Slice(1, page.take(positions, self.clock()), []))
        for feed in reading.feeds.values():
            feed.hand_out(None)
        return reading


def _sorted_out(
    converter: Converter, stored: Sequence[tuple[str, str]]
) -> tuple[list[tuple[str, Any]], dict[str, str]]:
    """Records that have a usable key now, by digest, and the reasons why others have none."""
    usable: list[tuple[str, Any]] = []
    reasons: dict[str, str] = {}
    records: list[tuple[str, Any]] = []
    for digest, raw in stored:
        try:
            records.append((digest, parse(raw.encode())))
        except (ValueError, RecursionError):
            reasons[digest] = "its stored text is not JSON"
    waiting = [records] if records else []
    while waiting:
        some = waiting.pop()
        found = converter.read([record for _, record in some])
        if not found.quarantined:
            usable += some
        elif not len(found):
            reasons |= {digest: one.reason for (digest, _), one in zip(some, found.quarantined, strict=True)}
        else:
            # a page says which reasons there were, in order, and not whose they are: halves that are of one kind do
            middle = len(some) // 2
            waiting += [some[middle:], some[:middle]]
    return usable, reasons


def _to_write(known: Known, page: Page) -> tuple[list[int], list[int]]:
    """Positions of rows that the warehouse lacks, and of those it holds in a version dated earlier; notes them as held."""
    rows = known.place(page.keys)
    newest: dict[int, int] = {}
    for position, row in enumerate(rows.tolist()):
        rival = newest.get(row)
        if rival is None or page.cursors[position] >= page.cursors[rival]:
            newest[row] = position
    inserts = [position for row, position in newest.items() if not known.stored[row]]
    updates = [
        position
        for row, position in newest.items()
        if known.stored[row] and not known.deleted[row] and NONE < known.cursors[row] < page.cursors[position]
    ]
    written = np.array([*inserts, *updates], np.int64)
    known.write(rows[written], page.words[written], page.cursors[written])
    return inserts, updates


def as_dict(result: RunResult, replayed: Sequence[Replayed], settings: Settings) -> dict[str, Any]:
    """A retry as JSON-ready values."""
    return {
        "run_id": result.run_id,
        "status": result.status,
        "exit_code": result.exit_code,
        "tables": [one.as_json() for one in replayed],
        "problems": result.problems,
        "published": str(Warehouse(settings.warehouse_dir).published_database) if result.generation else None,
        "generation": result.generation.name if result.generation else None,
    }


def print_retry(result: RunResult, replayed: Sequence[Replayed], settings: Settings, console: Console) -> None:
    """A retry for people."""
    lines = [str(one) for one in replayed] or ["Nothing is in quarantine."]
    lines += result.problems
    if any(one.inserted or one.updated for one in replayed):
        lines.append("The next sync reads these tables whole.")
    if result.generation is not None:
        lines.append(f"Published {Warehouse(settings.warehouse_dir).published_database}.")
    else:
        lines.append("Nothing was published; readers keep what was published before.")
    for line in lines:
        console.print(line, markup=False, highlight=False, soft_wrap=True)

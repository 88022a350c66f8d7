"""A verified pass over a list: what the vendor has, against what the warehouse holds.

A pass is *clean* when the vendor's count is the same on every page, the distinct keys read (and the records in
quarantine) equal that count, and each page is the one that was asked for. Otherwise the list moved while it was read:
it is read again, a bounded number of times, and the union of all passes is kept. Only rows whose content hash differs
from the warehouse are handed on. Rows the warehouse holds and a clean pass did not show are asked for one by one; the
vendor's "no such record" alone marks a row as gone.
"""

from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import Enum
from typing import Any, Final

from sources._http import ApiError, Traffic
from sources._pages import ListPage, Walk
from sources._schema import Table
from sources._tables import Batch, Converter, Key, Page, Quarantined

MOST_PASSES: Final = 3
VANISHED_BRAKE: Final = (20, 0.05)
"""Rows, and share of rows, of which the larger may vanish in one run before nothing is believed."""


class Presence(Enum):
    """The vendor's answer for one key, where it is not a record in the list's shape."""

    GONE = "gone"
    PRESENT = "present"


Answer = dict[str, Any] | Presence
Ask = Callable[[Key, Traffic], Awaitable[Answer]]


@dataclass(frozen=True, slots=True)
class KnownRow:
    """What the warehouse holds of one row: content hash, cursor in microseconds since 1970, whether marked deleted."""

    row_hash: str
    cursor: int | None
    deleted: bool


@dataclass(frozen=True)
class ListPlan:
    """How one table is read.

    Attributes:
        table: the declared table.
        walk: starts one pass over the vendor's list.
        ask: asks the vendor for one record by key.
        sees_everything: whether the token may see the whole account; asked only before rows are marked deleted.
        prepare: brings a record into the declared shape.
    """

    table: Table
    walk: Walk
    ask: Ask
    sees_everything: Callable[[Traffic], Awaitable[bool]]
    prepare: Callable[[dict[str, Any]], dict[str, Any]] | None = None


@dataclass
class Outcome:
    """What reading one table came to; the source of its receipt."""

    table: Table
    started_at: datetime
    finished_at: datetime | None = None
    vendor_count: int | None = None
    distinct_read: int = 0
    inserted: int = 0
    updated: int = 0
    unchanged: int = 0
    quarantined: int = 0
    passes: int = 0
    pages: int = 0
    complete: bool = False
    reason: str = ""
    error: ApiError | None = None
    newest_cursor: int | None = None
    gone: list[Key] = field(default_factory=list)
    present_unlisted: int = 0
    traffic: Traffic = field(default_factory=Traffic)


@dataclass(frozen=True)
class Slice:
    """A piece of a table on its way to the loader; rows of one slice are committed together and have distinct keys."""

    number: int
    batch: Batch | None
    quarantined: list[Quarantined]


class TooMuchQuarantine(Exception):
    """More than half of a page is no row: the vendor changed its contract."""


class Sweep:
    """One run's reading of one table.

    Args:
        plan: how the table is read.
        known: what the warehouse holds, by key; updated as rows are handed on.
        slice_rows: rows after which a slice ends.
        clock: the current time, aware.
    """

    def __init__(
        self,
        plan: ListPlan,
        known: dict[Key, KnownRow],
        *,
        slice_rows: int,
        slice_seconds: float,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._plan, self._known, self._clock = plan, known, clock
        self._slice_rows, self._slice_seconds = slice_rows, slice_seconds
        self._converter = Converter(plan.table, plan.prepare)
        self._slice_number = 0
        self._slice_keys: set[Key] = set()
        self._slice_began = clock()
        self._quarantined: set[str] = set()
        self._held = sum(not row.deleted for row in known.values())
        self._written: set[Key] = set()
        self._ever_seen: set[Key] = set()
        self.outcome = Outcome(plan.table, clock())

    async def slices(self) -> AsyncGenerator[Slice, None]:
        """Read the table; `outcome` is final when this ends. Vendor errors end the reading and are kept there."""
        try:
            async with aclosing(self._passes()) as pieces:
                async for piece in pieces:
                    yield piece
        except ApiError as error:
            self.outcome.error, self.outcome.reason = error, error.message
        except TooMuchQuarantine as error:
            self.outcome.reason = str(error)
        self.outcome.finished_at = self._clock()

    async def _passes(self) -> AsyncGenerator[Slice, None]:
        outcome = self.outcome
        problem, seen = "", _Pass()
        for _ in range(MOST_PASSES):
            outcome.passes += 1
            seen = _Pass()
            async with aclosing(self._one_pass(seen)) as pieces:
                async for piece in pieces:
                    yield piece
            problem = seen.problem()
            if not problem:
                break
        if problem:
            outcome.reason = f"after {outcome.passes} passes: {problem}"
            return
        # rows that only an earlier, unclean pass showed may be gone by now
        outcome.distinct_read = len(seen.keys)
        outcome.unchanged = len(seen.keys - self._written)
        async with aclosing(self._settle_vanished(seen.keys)) as pieces:
            async for piece in pieces:
                yield piece
        outcome.complete = not outcome.reason

    async def _one_pass(self, seen: "_Pass") -> AsyncGenerator[Slice, None]:
        async with aclosing(self._plan.walk(self.outcome.traffic)) as pages:
            async for page in pages:
                self.outcome.pages += 1
                if page.count is not None:
                    self.outcome.vendor_count = page.count
                seen.add(page)
                async with aclosing(self._compare(page.records, seen)) as pieces:
                    async for piece in pieces:
                        yield piece

    async def _compare(self, records: list[Any], seen: "_Pass") -> AsyncGenerator[Slice, None]:
        """Hand on what differs from the warehouse."""
        outcome = self.outcome
        page = self._converter.read(records)
        # one bad record alone on the last page is bad luck
        if len(page.quarantined) > max(1, len(records) / 2):
            raise TooMuchQuarantine(
                f"{len(page.quarantined)} of the {len(records)} records of a page have no usable key "
                f"({page.quarantined[0].reason}): the vendor's format changed; nothing of that page was loaded"
            )
        seen.keys.update(page.keys)
        # the same record met on two pages is one; twice on one page, it is two
        seen.quarantined |= Counter(q.digest for q in page.quarantined)
        self._ever_seen.update(page.keys)
        outcome.distinct_read = len(self._ever_seen)
        poison = {q.digest: q for q in page.quarantined if q.digest not in self._quarantined}
        self._quarantined |= poison.keys()
        outcome.quarantined = len(self._quarantined)
        self._note_cursors(page)
        changed, doubtful = self._changed(page)
        if changed or poison:
            yield self._piece(page, changed, list(poison.values()))
        for key in doubtful:
            answer = await self._plan.ask(key, outcome.traffic)
            if isinstance(answer, dict):
                truth = self._converter.read([answer])
                if truth.keys != [key]:
                    seen.unsettled += 1
                elif self._differs(truth):
                    yield self._piece(truth, [0], [])
        # every row written so far was seen
        outcome.unchanged = len(self._ever_seen) - len(self._written)

    def _differs(self, truth: Page) -> bool:
        """Whether the one record the vendor gave when asked for its key differs from the stored row."""
        known = self._known[truth.keys[0]]
        return truth.hashes[0] != known.row_hash or known.deleted

    def _changed(self, page: Page) -> tuple[list[int], list[Key]]:
        """Positions of new and changed rows, newest copy of each key; keys whose copy is older than the stored row."""
        newest: dict[Key, int] = {}
        for position, key in enumerate(page.keys):
            rival = newest.get(key)
            if rival is None or (page.cursors[position] or 0) >= (page.cursors[rival] or 0):
                newest[key] = position
        changed, doubtful = [], []
        for key, position in newest.items():
            known, cursor = self._known.get(key), page.cursors[position]
            if known is not None and known.row_hash == page.hashes[position] and not known.deleted:
                continue
            if known is not None and known.cursor is not None and cursor is not None and cursor < known.cursor:
                doubtful.append(key)
            else:
                changed.append(position)
        return changed, doubtful

    def _piece(self, page: Page, positions: list[int], quarantined: list[Quarantined]) -> Slice:
        keys = [page.keys[i] for i in positions]
        full = len(self._slice_keys) + len(keys) > self._slice_rows and self._slice_keys
        old = (self._clock() - self._slice_began).total_seconds() > self._slice_seconds
        if full or old or not self._slice_keys.isdisjoint(keys):
            self._slice_number += 1
            self._slice_keys.clear()
            self._slice_began = self._clock()
        self._slice_keys.update(keys)
        for position, key in zip(positions, keys, strict=True):
            if key in self._known:
                self.outcome.updated += key not in self._written
            else:
                self.outcome.inserted += 1
            self._written.add(key)
            self._known[key] = KnownRow(page.hashes[position], page.cursors[position], deleted=False)
        batch = page.take(positions, self._clock()) if positions else None
        return Slice(self._slice_number, batch, quarantined)

    def _note_cursors(self, page: Page) -> None:
        """Keep the newest cursor that is not in the future: a row dated 2099 must not speak for the table."""
        now = int(self.outcome.started_at.timestamp() * 1_000_000)
        past = [c for c in page.cursors if c is not None and c <= now]
        if past:
            self.outcome.newest_cursor = max(
                past + ([self.outcome.newest_cursor] if self.outcome.newest_cursor else [])
            )

    async def _settle_vanished(self, listed: set[Key]) -> AsyncGenerator[Slice, None]:
        outcome = self.outcome
        live = [key for key, row in self._known.items() if not row.deleted]
        vanished = [key for key in live if key not in listed]
        if not vanished:
            return
        rows, share = VANISHED_BRAKE
        # rows found in this run say nothing about those held before: another account's list would be full of them
        lost = sum(key not in self._written for key in vanished)
        if (lost and lost == self._held) or len(vanished) > max(rows, share * self._held):
            outcome.reason = (
                f"{len(vanished)} of {len(live)} rows vanished at once; none was marked deleted. "
                "If they were really deleted at the vendor, they will need a closer look"
            )
            return
        if not await self._plan.sees_everything(outcome.traffic):
            outcome.reason = (
                f"{len(vanished)} rows vanished, but the token may not see everything; none was marked deleted"
            )
            return
        for key in vanished:
            answer = await self._plan.ask(key, outcome.traffic)
            if answer is Presence.GONE:
                outcome.gone.append(key)
                continue
            outcome.present_unlisted += 1
            if isinstance(answer, dict):
                truth = self._converter.read([answer])
                if truth.keys == [key] and self._differs(truth):
                    yield self._piece(truth, [0], [])


@dataclass
class _Pass:
    """What one pass showed."""

    keys: set[Key] = field(default_factory=set)
    quarantined: Counter[str] = field(default_factory=Counter)
    counts: set[int] = field(default_factory=set)
    uncounted: bool = False
    misplaced: str = ""
    unsettled: int = 0

    def add(self, page: ListPage) -> None:
        """Count a page in."""
        if page.count is None:
            self.uncounted = True
        else:
            self.counts.add(page.count)
        self.misplaced = self.misplaced or page.problem

    def problem(self) -> str:
        """Why the pass is not clean; empty when it is."""
        if self.misplaced:
            return self.misplaced
        if self.uncounted or not self.counts:
            return "the vendor sent no count, so nothing proves the list complete"
        if len(self.counts) != 1:
            return f"the vendor's count changed while the list was read ({min(self.counts)} to {max(self.counts)})"
        (count,) = self.counts
        read = len(self.keys) + self.quarantined.total()
        if read != count:
            return f"the vendor counts {count} and {read} distinct records were read"
        if self.unsettled:
            return f"{self.unsettled} rows look older than those held, and asking for them gave other records"
        return ""

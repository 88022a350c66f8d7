"""Records against what the warehouse holds: only new and changed rows go on, the newest version of each.

Content hashes decide what changed, not dates. A copy older than the stored row may be a stale replica or the truth: the
vendor is asked for the record itself, and that answer decides.
"""

from collections import Counter
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

from sources._pages import ListPage
from sources._plan import History, KnownRow, ListPlan, Outcome, Slice
from sources._tables import Converter, Drift, Key, Page, Quarantined

CLOCK_SKEW: Final = timedelta(days=1)
"""A date further ahead than this is no clock that runs a little fast."""

ITEMS_LIKE_A_ROW: Final = 10
"""List items that weigh as much as a row when a slice is measured: meetings carry a hundred segments each."""


class TooMuchQuarantine(Exception):
    """More than half of a page is no row: the vendor changed its contract."""


@dataclass
class Seen:
    """What one pass over a list showed."""

    started_at: datetime
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
        if trouble := self.unsteady():
            return trouble
        (count,) = self.counts
        read = len(self.keys) + self.quarantined.total()
        if read != count:
            return f"the vendor counts {count} and {read} distinct records were read"
        if self.unsettled:
            return f"{self.unsettled} rows look older than those held, and asking for them gave other records"
        return ""

    def unsteady(self) -> str:
        """Why the list cannot have stood still, or cannot be counted; empty when it may have."""
        if self.misplaced:
            return self.misplaced
        if self.uncounted or not self.counts:
            return "the vendor sent no count, so nothing proves the list complete"
        if len(self.counts) != 1:
            return f"the vendor's count changed while the list was read ({min(self.counts)} to {max(self.counts)})"
        return ""


class Comparer:
    """Takes records in, hands rows on that differ from the warehouse, and keeps the counts of the outcome."""

    def __init__(
        self,
        plan: ListPlan,
        history: History,
        outcome: Outcome,
        *,
        slice_rows: int,
        slice_seconds: float,
        clock: Callable[[], datetime],
    ) -> None:
        self.plan, self.known, self.outcome = plan, history.known, outcome
        self.written: set[Key] = set()
        self.ever_seen: set[Key] = set()
        self.converter = Converter(plan.table, plan.prepare)
        self._clock = clock
        self._slice_rows, self._slice_seconds = slice_rows, slice_seconds
        self._slice_number, self._slice_size, self._slice_began = 0, 0, clock()
        self._slice_keys: set[Key] = set()
        self._quarantined: set[str] = set()
        self._latest = int((outcome.started_at + CLOCK_SKEW).timestamp() * 1_000_000)

    async def compare(self, page: Page, records: int, seen: Seen) -> AsyncGenerator[Slice, None]:
        """Hand on what of a page differs from the warehouse.

        Args:
            page: the page, read.
            records: how many records the vendor sent on it.
            seen: the pass the page belongs to.

        Raises:
            TooMuchQuarantine: the page is mostly no rows.
            ApiError: the vendor could not be asked about an older copy.
        """
        outcome = self.outcome
        # one bad record alone on the last page is bad luck
        if len(page.quarantined) > max(1, records / 2):
            raise TooMuchQuarantine(
                f"{len(page.quarantined)} of the {records} records of a page have no usable key "
                f"({page.quarantined[0].reason}): the vendor's format changed; nothing of that page was loaded"
            )
        seen.keys.update(page.keys)
        # the same record met on two pages is one; twice on one page, it is two
        seen.quarantined |= Counter(q.digest for q in page.quarantined)
        self.ever_seen.update(page.keys)
        outcome.distinct_read = len(self.ever_seen)
        poison = {q.digest: q for q in page.quarantined if q.digest not in self._quarantined}
        self._quarantined |= poison.keys()
        outcome.quarantined = len(self._quarantined)
        self._note_cursors(page)
        changed, doubtful = self._changed(page)
        if changed or poison:
            yield self._piece(page, changed, list(poison.values()))
        for key in doubtful:
            answer = await self.plan.ask(key, outcome.traffic)
            if isinstance(answer, dict):
                truth = self.converter.read([answer])
                if truth.keys != [key]:
                    seen.unsettled += 1
                elif self._differs(truth):
                    yield self._piece(truth, [0], [])
        # every row written so far was seen
        outcome.unchanged = len(self.ever_seen) - len(self.written)

    def replacement(self, key: Key, record: dict[str, Any]) -> Slice | None:
        """The record the vendor gave when asked for `key`, if it is that one and differs from the stored row."""
        truth = self.converter.read([record])
        return self._piece(truth, [0], []) if truth.keys == [key] and self._differs(truth) else None

    def _differs(self, truth: Page) -> bool:
        known = self.known[truth.keys[0]]
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
            known, cursor = self.known.get(key), page.cursors[position]
            if known is not None and known.row_hash == page.hashes[position] and not known.deleted:
                continue
            if known is not None and known.cursor is not None and cursor is not None and cursor < known.cursor:
                doubtful.append(key)
            else:
                changed.append(position)
        return changed, doubtful

    def _piece(self, page: Page, positions: list[int], quarantined: list[Quarantined]) -> Slice:
        keys = [page.keys[i] for i in positions]
        full = self._slice_keys and self._slice_size + len(keys) > self._slice_rows
        old = (self._clock() - self._slice_began).total_seconds() > self._slice_seconds
        if full or old or not self._slice_keys.isdisjoint(keys):
            self._slice_number += 1
            self._slice_keys.clear()
            self._slice_size, self._slice_began = 0, self._clock()
        self._slice_keys.update(keys)
        for position, key in zip(positions, keys, strict=True):
            if key in self.known:
                self.outcome.updated += key not in self.written
            else:
                self.outcome.inserted += 1
            self.written.add(key)
            self.known[key] = KnownRow(page.hashes[position], page.cursors[position], deleted=False)
        batch = page.take(positions, self._clock()) if positions else None
        if batch is not None:
            items = sum(rows.num_rows for rows in batch.tables.values()) - batch.rows
            self._slice_size += batch.rows + items // ITEMS_LIKE_A_ROW
            self._flag_odd_times(page, positions, batch.drift)
        return Slice(self._slice_number, batch, quarantined)

    def _flag_odd_times(self, page: Page, positions: list[int], drift: Counter[Drift]) -> None:
        """Report rows whose cursor says nothing, or is far in the future; they load like any other."""
        table = self.plan.table
        if table.cursor is None:
            return
        path = table.cursor.replace("__", ".")
        for position in positions:
            cursor = page.cursors[position]
            if cursor is None:
                drift[Drift(table.qualified_name, path, "no time", "null")] += 1
            elif cursor > self._latest:
                drift[Drift(table.qualified_name, path, "future time", "text")] += 1

    def _note_cursors(self, page: Page) -> None:
        """Keep the newest cursor that is not in the future: a row dated 2099 must not speak for the table."""
        now = int(self.outcome.started_at.timestamp() * 1_000_000)
        past = [c for c in page.cursors if c is not None and c <= now]
        if past:
            newest = self.outcome.newest_cursor
            self.outcome.newest_cursor = max(past if newest is None else [*past, newest])

"""Records against what the warehouse holds: only new and changed rows go on, the newest version of each.

Content hashes decide what changed, not dates. A copy older than the stored row may be a stale replica or the truth: the
vendor is asked for the record itself, and that answer decides.
"""

from collections import Counter
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa

from sources._known import NONE, Marks, count_distinct
from sources._pages import ListPage
from sources._plan import History, ListPlan, Outcome, Slice
from sources._tables import Converter, Drift, Key, Page, Quarantined

if TYPE_CHECKING:
    import numpy.typing as npt

    Numbers = npt.NDArray[np.int64]

CLOCK_SKEW: Final = timedelta(days=1)
"""A date further ahead than this is no clock that runs a little fast."""

ITEMS_LIKE_A_ROW: Final = 10
ITEMS_OF_A_ROW: Final = 5
"""List items that weigh as much as a row when a slice is measured, beyond those that every row may have: meetings carry
a hundred segments each."""


class TooMuchQuarantine(Exception):
    """More than half of a page is no row: the vendor changed its contract."""


@dataclass
class Seen:
    """What one pass over a list showed; `rows` are those of `History.known`."""

    started_at: datetime
    rows: Marks = field(default_factory=Marks)
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
        read = len(self.rows) + self.quarantined.total()
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
        self.written, self.ever_seen = Marks(), Marks()
        self.converter = Converter(plan.table, plan.prepare)
        self._held_before = len(history.known)
        self._clock = clock
        self._slice_rows, self._slice_seconds = slice_rows, slice_seconds
        self._slice_number, self._slice_size, self._slice_began = 0, 0, clock()
        self._in_slice = Marks()
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
        rows = self.known.place(page.keys)
        seen.rows.add(rows)
        # the same record met on two pages is one; twice on one page, it is two
        seen.quarantined |= Counter(q.digest for q in page.quarantined)
        self.ever_seen.add(rows)
        outcome.distinct_read = len(self.ever_seen)
        poison = {q.digest: q for q in page.quarantined if q.digest not in self._quarantined}
        self._quarantined |= poison.keys()
        outcome.quarantined = len(self._quarantined)
        self._note_cursors(page)
        changed, doubtful = self._changed(page, rows)
        quarantined = list(poison.values())
        for part in self._cut(changed) if changed.size or poison else ():
            yield self._piece(page, rows, part, quarantined)
            quarantined = []
        for key in self.known.keys(rows[doubtful]):
            answer = await self.plan.ask(key, outcome.traffic)
            if isinstance(answer, dict):
                truth = self.converter.read([answer])
                if truth.keys.to_pylist() != [key]:
                    seen.unsettled += 1
                elif (piece := self._if_different(truth)) is not None:
                    yield piece
        # every row written so far was seen
        outcome.unchanged = len(self.ever_seen) - len(self.written)

    def replacement(self, key: Key, record: dict[str, Any]) -> Slice | None:
        """The record the vendor gave when asked for `key`, if it is that one and differs from the stored row."""
        truth = self.converter.read([record])
        return self._if_different(truth) if truth.keys.to_pylist() == [key] else None

    def row_of(self, key: Key) -> int:
        """The number of a row that is known."""
        return int(self.known.find(pa.array([key], self.plan.table.key_column.type.arrow))[0])

    def _if_different(self, truth: Page) -> Slice | None:
        rows, known = self.known.place(truth.keys), self.known
        same = known.stored[rows[0]] and not known.deleted[rows[0]] and known.hashes[rows[0]] == truth.words[0]
        return None if same else self._piece(truth, rows, np.zeros(1, np.int64), [])

    def _changed(self, page: Page, rows: "Numbers") -> tuple["Numbers", "Numbers"]:
        """Positions of new and changed rows, newest copy of each key; of those whose copy is older than the stored row."""
        known, newest = self.known, _newest_copies(rows, page.cursors)
        at, cursors = rows[newest], page.cursors[newest]
        stored = known.stored[at]
        same = stored & ~known.deleted[at] & (known.hashes[at] == page.words[newest])
        # NONE is older than any date, and no date at all makes no copy older
        older = stored & ~same & (cursors != NONE) & (cursors < known.cursors[at])
        return newest[~same & ~older], newest[older]

    def _cut(self, positions: "Numbers") -> list["Numbers"]:
        """Cut so that the slice begun is filled to its last row."""
        room = self._slice_rows - self._slice_size
        return np.split(positions, range(room if room > 0 else self._slice_rows, len(positions), self._slice_rows))

    def _piece(self, page: Page, rows: "Numbers", positions: "Numbers", quarantined: list[Quarantined]) -> Slice:
        at = rows[positions]
        full = len(self._in_slice) and self._slice_size + len(at) > self._slice_rows
        old = (self._clock() - self._slice_began).total_seconds() > self._slice_seconds
        if full or old or self._in_slice.has(at).any():
            self._slice_number += 1
            self._in_slice = Marks()
            self._slice_size, self._slice_began = 0, self._clock()
        self._in_slice.add(at)
        held = at < self._held_before
        first_time = ~self.written.has(at)
        self.outcome.updated += int(np.count_nonzero(held & first_time))
        self.outcome.inserted += int(np.count_nonzero(~held & first_time))
        self.written.add(at)
        self.known.write(at, page.words[positions], page.cursors[positions])
        batch = page.take(positions, self._clock()) if len(positions) else None
        if batch is not None:
            items = sum(rows.num_rows for rows in batch.tables.values()) - batch.rows
            self._slice_size += batch.rows + max(0, items - ITEMS_OF_A_ROW * batch.rows) // ITEMS_LIKE_A_ROW
            self._flag_odd_times(page, positions, batch.drift)
        return Slice(self._slice_number, batch, quarantined)

    def _flag_odd_times(self, page: Page, positions: "Numbers", drift: Counter[Drift]) -> None:
        """Report rows whose cursor says nothing, or is far in the future; they load like any other."""
        table = self.plan.table
        if table.cursor is None:
            return
        path, cursors = table.cursor.replace("__", "."), page.cursors[positions]
        odd = {("no time", "null"): cursors == NONE, ("future time", "text"): cursors > self._latest}
        for (kind, found), rows in odd.items():
            if count := int(np.count_nonzero(rows)):
                drift[Drift(table.qualified_name, path, kind, found)] += count

    def _note_cursors(self, page: Page) -> None:
        """Keep the newest cursor that is not in the future: a row dated 2099 must not speak for the table."""
        now = int(self.outcome.started_at.timestamp() * 1_000_000)
        past = page.cursors[(page.cursors != NONE) & (page.cursors <= now)]
        if past.size:
            newest, here = self.outcome.newest_cursor, int(past.max())
            self.outcome.newest_cursor = here if newest is None else max(here, newest)


def _newest_copies(rows: "Numbers", cursors: "Numbers") -> "Numbers":
    """Positions of the newest copy of each row, the last of equals, in order of their first appearance."""
    if count_distinct(rows) == len(rows):
        return np.arange(len(rows))
    newest: dict[int, int] = {}
    for position, row in enumerate(rows.tolist()):
        rival = newest.get(row)
        if rival is None or cursors[position] >= cursors[rival]:
            newest[row] = position
    return np.fromiter(newest.values(), np.int64, len(newest))

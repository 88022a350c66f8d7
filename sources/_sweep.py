"""A verified pass over a list: what the vendor has, against what the warehouse holds.

A pass is *clean* when the vendor's count is the same on every page, the distinct keys read (and the records in
quarantine) equal that count, and each page is the one that was asked for. Otherwise the list moved while it was read:
it is read again, a bounded number of times, and the union of all passes is kept. Rows the warehouse holds and a clean
pass did not show are asked for one by one; the vendor's "no such record" alone marks a row as gone.

A *light* pass reads a long list from its newest row until a whole page holds nothing new, and proves by the vendor's
count that no row is missing or too many. It is allowed only while the last full sweep saw the order it relies on; any
doubt turns it into a full sweep in the same run.
"""

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from sources._columns import Columns
from sources._compare import Comparer, Seen, TooMuchQuarantine
from sources._http import ApiError
from sources._known import NONE, Marks
from sources._pages import ListPage, Walk
from sources._plan import History, ListPlan, Outcome, Presence, Slice

if TYPE_CHECKING:
    import numpy.typing as npt

    from sources._tables import Page

    Numbers = npt.NDArray[np.int64]

MOST_PASSES: Final = 3
VANISHED_BRAKE: Final = (20, 0.05)
"""Rows, and share of rows, of which the larger may vanish in one run before nothing is believed."""
GROUP_ROWS: Final = 2_000
GROUP_SECONDS: Final = 1.0
"""Pages are taken together until they hold so many rows, or for so long."""
LIGHT_FROM_ROWS: Final = 5_000
"""Shorter lists are read whole every time: some fifty requests buy that no change stays unseen for a day."""


class Sweep:
    """One run's reading of one table.

    Args:
        plan: how the table is read.
        history: what is known from earlier runs.
        full: read the list whole, whatever the history allows.
        settle: how old a row must be before a light pass may leave it unread.
        full_sweep_every: how old the last full sweep may be for a light pass.
        slice_rows: rows after which a slice ends.
        slice_seconds: seconds after which a slice ends.
        clock: the current time, aware.
    """

    def __init__(
        self,
        plan: ListPlan,
        history: History,
        *,
        full: bool = False,
        settle: timedelta = timedelta(0),
        full_sweep_every: timedelta = timedelta(0),
        slice_rows: int,
        slice_seconds: float,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._plan, self._history, self._clock = plan, history, clock
        self._full, self._settle, self._full_sweep_every = full, settle, full_sweep_every
        self.outcome = Outcome(plan.table, clock())
        self._comparer = Comparer(
            plan, history, self.outcome, slice_rows=slice_rows, slice_seconds=slice_seconds, clock=clock
        )
        self._held = history.known.live

    async def slices(self) -> AsyncGenerator[Slice, None]:
        """Read the table; `outcome` is final when this ends. Vendor errors end the reading and are kept there."""
        try:
            async with aclosing(self._read()) as pieces:
                async for piece in pieces:
                    yield piece
        except ApiError as error:
            self.outcome.error, self.outcome.reason = error, error.message
        except TooMuchQuarantine as error:
            self.outcome.reason = str(error)
        self.outcome.finished_at = self._clock()

    async def _read(self) -> AsyncGenerator[Slice, None]:
        outcome = self.outcome
        outcome.sweep_reason = self._why_full()
        if not outcome.sweep_reason:
            outcome.sweep_kind = "light"
            async with aclosing(self._light_pass()) as pieces:
                async for piece in pieces:
                    yield piece
            if outcome.complete:
                return
            outcome.sweep_kind, outcome.sweep_reason = "full", f"a light pass would not do: {outcome.sweep_reason}"
        async with aclosing(self._full_passes()) as pieces:
            async for piece in pieces:
                yield piece

    # -- light

    def _why_full(self) -> str:
        """Why the list must be read whole; empty when a light pass will do."""
        history, table, began = self._history, self._plan.table, self.outcome.started_at
        last = history.last_full_at
        reasons = {
            "asked for": self._full,
            "this list is always read whole": table.order is None or self._plan.step is None,
            "a short list is always read whole": self._held < LIGHT_FROM_ROWS,
            "the first full sweep": last is None,
            "the last run was not complete": not history.last_complete,
            f"the list is not ordered by {table.order}": not history.order_held,
            "the token changed": not history.same_token,
            "the last full sweep is old enough": last is not None and began - last >= self._full_sweep_every,
            "the last full sweep is dated in the future": last is not None and last > began,
        }
        return next((reason for reason, holds in reasons.items() if holds), "")

    async def _light_pass(self) -> AsyncGenerator[Slice, None]:
        """Read from the newest row until a whole page is known and settled; leaves the reason where that proves nothing."""
        outcome, comparer = self.outcome, self._comparer
        assert self._plan.step is not None
        seen, order = Seen(outcome.started_at), _Order()
        settled_before = int((outcome.started_at - self._settle).timestamp() * 1_000_000)
        outcome.passes += 1
        ended_early = False
        async with aclosing(self._plan.step(outcome.traffic)) as pages:
            async for page in pages:
                written = len(comparer.written)
                read, dates = self._take([page], seen)
                order.see(dates)
                async with aclosing(comparer.compare(read, len(page.records), seen)) as pieces:
                    async for piece in pieces:
                        yield piece
                oldest = min(dates[dates != NONE], default=settled_before)
                if len(comparer.written) == written and len(page.records) and oldest < settled_before:
                    ended_early = True
                    break
        trouble = seen.unsteady() or ("" if order.held else "the list was not in order")
        if not trouble:
            (count,) = seen.counts
            held = comparer.known.live
            quarantined = max(self._history.quarantined, outcome.quarantined)
            if held + quarantined != count:
                trouble = f"the vendor counts {count} and the warehouse holds {held}"
            outcome.expected_live = held
        outcome.complete, outcome.order_held = not trouble, order.held
        outcome.sweep_reason = trouble or (
            "newest rows until a whole page was known" if ended_early else "the whole list was new or recent"
        )

    # -- full

    async def _full_passes(self) -> AsyncGenerator[Slice, None]:
        outcome = self.outcome
        problem, seen = "", Seen(self._clock())
        for attempt in range(MOST_PASSES):
            outcome.passes += 1
            seen = Seen(self._clock())
            walk = self._plan.rewalk if attempt and self._plan.rewalk else self._plan.walk
            async with aclosing(self._one_pass(walk, seen)) as pieces:
                async for piece in pieces:
                    yield piece
            problem = seen.problem() or self._across_midnight(seen)
            if not problem:
                break
        if problem:
            outcome.reason = f"after {outcome.passes} passes: {problem}"
            return
        # rows that only an earlier, unclean pass showed may be gone by now
        async with aclosing(self._conclude(seen.rows)) as pieces:
            async for piece in pieces:
                yield piece

    async def _conclude(self, listed: Marks) -> AsyncGenerator[Slice, None]:
        """The list was seen whole: settle what it did not show, and say what the warehouse must hold now."""
        outcome = self.outcome
        outcome.distinct_read = len(listed)
        count = len(self._comparer.known)
        outcome.unchanged = int(np.count_nonzero(listed.first(count) & ~self._comparer.written.first(count)))
        async with aclosing(self._settle_vanished(self._vanished(listed))) as pieces:
            async for piece in pieces:
                yield piece
        outcome.expected_live = outcome.distinct_read + outcome.present_unlisted
        outcome.complete = not outcome.reason

    async def _one_pass(self, walk: Walk, seen: Seen) -> AsyncGenerator[Slice, None]:
        order = _Order()
        async with aclosing(_grouped(walk(self.outcome.traffic))) as groups:
            async for pages in groups:
                read, dates = self._take(pages, seen)
                order.see(dates)
                records = sum(len(page.records) for page in pages)
                async with aclosing(self._comparer.compare(read, records, seen)) as pieces:
                    async for piece in pieces:
                        yield piece
        self.outcome.order_held = order.held

    def _take(self, pages: list[ListPage], seen: Seen) -> "tuple[Page, Numbers]":
        """Read pages that belong together; the dates by which their rows are listed, without those the next page repeats."""
        self.outcome.pages += len(pages)
        for page in pages:
            if page.count is not None:
                self.outcome.vendor_count = page.count
            seen.add(page)
        read = self._comparer.converter.read(_records(pages))
        ends = np.cumsum([len(page.records) for page in pages])
        repeated = [np.arange(end - page.overlap, end) for page, end in zip(pages, ends, strict=True)]
        return read, read.orders[~np.isin(read.places, np.concatenate(repeated))]

    # -- vanished

    def _vanished(self, listed: Marks) -> "Numbers":
        known = self._comparer.known
        return np.flatnonzero(known.live_rows() & ~listed.first(len(known)))

    def _across_midnight(self, seen: Seen) -> str:
        """A pass during which the vendor may have cleaned up counts for what it showed, not for what it did not."""
        if not self._plan.cleaned_at_midnight or self._clock().date() == seen.started_at.date():
            return ""
        vanished = len(self._vanished(seen.rows))
        return f"{vanished} rows vanished while midnight UTC passed, when the vendor cleans up" if vanished else ""

    async def _settle_vanished(
        self, vanished: "Numbers", *, until_present: bool = False
    ) -> AsyncGenerator[Slice, None]:
        """Ask for rows that were not shown, unless too many are missing; `until_present`: stop at one that exists."""
        outcome, comparer = self.outcome, self._comparer
        if not vanished.size:
            return
        rows, share = VANISHED_BRAKE
        # rows found in this run say nothing about those held before: another account's list would be full of them
        lost = int(np.count_nonzero(~comparer.written.has(vanished)))
        if (lost and lost == self._held) or len(vanished) > max(rows, share * self._held):
            outcome.reason = (
                f"{len(vanished)} of {self._held} rows vanished at once; none was marked deleted. "
                "If they were really deleted at the vendor, they will need a closer look"
            )
        elif not self._history.same_token:
            outcome.reason = (
                f"{len(vanished)} rows vanished and the token is not the one that read them; none was marked deleted. "
                "If the new token sees as much as the old one, the next run will settle them"
            )
        elif not await self._plan.sees_everything(outcome.traffic):
            outcome.reason = (
                f"{len(vanished)} rows vanished, but the token may not see everything; none was marked deleted"
            )
        if outcome.reason:
            return
        for key in comparer.known.keys(vanished):
            answer = await self._plan.ask(key, outcome.traffic)
            if answer is Presence.GONE:
                outcome.gone.append(key)
                continue
            outcome.present_unlisted += 1
            piece = comparer.replacement(key, answer) if isinstance(answer, dict) else None
            if piece is not None:
                yield piece
            if until_present:
                return


class _Order:
    """Whether a list runs from newest to oldest; rows without a date break it."""

    def __init__(self) -> None:
        self.held = True
        self._last: int | None = None

    def see(self, dates: "Numbers") -> None:
        dated = dates[dates != NONE]
        before = dated if self._last is None else np.concatenate([[self._last], dated])
        if dated.size < dates.size or (np.diff(before) > 0).any():
            self.held = False
        if dated.size:
            self._last = int(dated[-1])


async def _grouped(pages: AsyncGenerator[ListPage, None]) -> AsyncGenerator[list[ListPage], None]:
    """Pages that came as `Columns`, several together: Arrow's work is in the call, not in the rows."""
    together: list[ListPage] = []
    began = 0.0
    failure: ApiError | None = None
    try:
        async with aclosing(pages):
            async for page in pages:
                if not isinstance(page.records, Columns):
                    if together:
                        yield together
                    together = []
                    yield [page]
                    continue
                began = began if together else monotonic()
                together.append(page)
                if sum(len(p.records) for p in together) >= GROUP_ROWS or monotonic() - began > GROUP_SECONDS:
                    yield together
                    together = []
    except ApiError as error:
        failure = error
    # what came before the failure is not lost
    if together:
        yield together
    if failure is not None:
        raise failure


def _records(pages: list[ListPage]) -> "Columns | list[Any]":
    first = pages[0].records
    return Columns.joined([p.records for p in pages if isinstance(p.records, Columns)]) if len(pages) > 1 else first

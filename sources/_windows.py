"""A list read by dates: what changed lately, proven by the vendor's count of everything.

A *window* asks for the records of a period. Nothing says whether the vendor compares a record's start, its end, both or
neither, nor whether bounds are in: so windows overlap and have a margin, and only a record that lies well inside one
must come back. What a window cannot show is covered in three ways. A record that has not ended is asked for by itself
until it has. The vendor's count of the whole list must equal what the warehouse holds in the end. And a sweep without
dates is made every so often, and at once where any of this leaves a doubt.

The checkpoint, from which the next window reaches back, is the time the run began less a clock's skew. It is never a
date found in a record: one dated 2099 would hide all that follow.
"""

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from math import ceil, floor
from typing import TYPE_CHECKING, Final

import numpy as np

from sources._compare import CLOCK_SKEW, Seen
from sources._known import NONE
from sources._pages import ListPage
from sources._plan import DatePlan, Presence, Slice, Span
from sources._sweep import LIGHT_FROM_ROWS, MOST_PASSES, Sweep
from sources._tables import Key, Page

if TYPE_CHECKING:
    import numpy.typing as npt

    Numbers = npt.NDArray[np.int64]

CHECKPOINT_SKEW: Final = timedelta(minutes=5)
"""How far the vendor's clock may be behind ours without a record falling between two windows."""
ASKED_FOR: Final = timedelta(days=30)
"""How long a record that has not ended is asked for by itself; later only sweeps without dates see it end."""
BACKFILL_STEP: Final = timedelta(days=30)
BACKFILL_EMPTY: Final = 3
"""Empty windows in a row after which a backfill takes the list to have begun."""
_MARGIN: Final = 1
_MICROSECOND: Final = 1_000_000
_FIRST: Final = "the first full sweep"
_SHORT: Final = "a short list is always read whole"


class Windows(Sweep):
    """One run's reading of a table by dates; made like a `Sweep`, whose `settle` is how far windows reach back.

    An ordinary run reads one window. The first load reads windows from the newest to the oldest, so that recent rows
    are there first. `outcome.sweep_kind` is `full` where the whole list was seen, in one sweep or in many windows.
    """

    _doubt = ""
    """Why what was read is not proven to be everything; empty while nothing speaks against it."""
    _whole: int | None = None
    """The vendor's count of the whole list, while windows are read."""

    async def _read(self) -> AsyncGenerator[Slice, None]:
        outcome = self.outcome
        why = self._why_full()
        if why == _FIRST and not self._held:
            await self._total()
            if self._whole is not None and self._whole < LIGHT_FROM_ROWS:
                why, self._whole = _SHORT, None
        outcome.sweep_reason = why
        if not why or (why == _FIRST and not self._held):
            outcome.sweep_kind = "full" if why else "windows"
            async with aclosing(self._backfill() if why else self._window()) as pieces:
                async for piece in pieces:
                    yield piece
            if not outcome.complete:
                why = f"{why}, and windows would not do" if why else "a window would not do"
                outcome.sweep_kind, outcome.sweep_reason = "full", f"{why}: {self._doubt}"
                outcome.gone, outcome.present_unlisted, outcome.reason, self._whole = [], 0, "", None
        if not outcome.complete:
            async with aclosing(self._full_passes()) as pieces:
                async for piece in pieces:
                    yield piece
        if outcome.complete:
            outcome.newest_cursor = int((outcome.started_at - CHECKPOINT_SKEW).timestamp()) * _MICROSECOND

    def _why_full(self) -> str:
        """Why one window will not do; empty when it will."""
        history, began = self._history, self.outcome.started_at
        last, checkpoint = history.last_full_at, history.checkpoint
        reasons = {
            "asked for": self._full,
            _FIRST: last is None,
            _SHORT: self._held < LIGHT_FROM_ROWS,
            "the last run was not complete": not history.last_complete,
            "no earlier run left a checkpoint": checkpoint is None,
            "the token changed": not history.same_token,
            "the last full sweep is old enough": last is not None and began - last >= self._full_sweep_every,
            "the last full sweep is dated in the future": last is not None and last > began,
            "the checkpoint lies in the future": checkpoint is not None and checkpoint > began,
        }
        return next((reason for reason, holds in reasons.items() if holds), "")

    @property
    def _dates(self) -> DatePlan:
        assert self._plan.dates is not None
        return self._plan.dates

    @property
    def _now(self) -> int:
        """The end of the newest window: the run's start with a margin."""
        return floor(self.outcome.started_at.timestamp()) + _MARGIN

    @property
    def _lookback(self) -> int:
        return ceil(self._settle.total_seconds()) + _MARGIN

    def _take(self, pages: list[ListPage], seen: Seen) -> "tuple[Page, Numbers]":
        taken = super()._take(pages, seen)
        if self._whole is not None:
            # a window's count says nothing about the list
            self.outcome.vendor_count = self._whole
        return taken

    async def _total(self) -> None:
        self._whole = self.outcome.vendor_count = await self._dates.total(self.outcome.traffic)
        if self._whole is None:
            self._doubt = "the vendor sent no count of the whole list"

    # -- one window

    async def _window(self) -> AsyncGenerator[Slice, None]:
        """Read what changed since the checkpoint; leaves a doubt where that cannot be proven to be everything."""
        outcome, checkpoint = self.outcome, self._history.checkpoint
        assert checkpoint is not None
        since, until = max(0, floor(checkpoint.timestamp()) - self._lookback), self._now
        # what the warehouse held before: rows written from here on were shown by the vendor
        still_open, inside = self._still_open(), self._well_inside(since, until)
        outcome.sweep_reason = f"dates from {datetime.fromtimestamp(since, UTC):%Y-%m-%d %H:%M:%S} UTC on"
        seen, gone = Seen(outcome.started_at), list[int]()
        await self._total()
        steps: tuple[Callable[[], AsyncGenerator[Slice, None]], ...] = (
            lambda: self._read_window(since, until, seen),
            lambda: self._ask_open(still_open, seen, gone),
            lambda: self._settle_lost([*gone, *inside[~seen.rows.has(inside)].tolist()]),
        )
        for step in steps:
            if not self._doubt:
                async with aclosing(step()) as pieces:
                    async for piece in pieces:
                        yield piece
        if not self._doubt:
            await self._prove()
        outcome.complete = not self._doubt
        if outcome.complete:
            asked = int(np.count_nonzero(~seen.rows.has(still_open)))
            outcome.sweep_reason += f", and {asked} open before asked for one by one" if asked else ""

    async def _read_window(self, since: int, until: int, shown: Seen) -> AsyncGenerator[Slice, None]:
        """Read a window to its end, again while its count moves; `shown` gets the keys of the clean pass."""
        for _ in range(MOST_PASSES):
            self.outcome.passes += 1
            seen = Seen(self._clock())
            async with aclosing(self._one_pass(self._dates.between(since, until), seen)) as pieces:
                async for piece in pieces:
                    yield piece
            self._doubt = seen.problem()
            if not self._doubt or seen.misplaced:
                shown.rows, shown.quarantined = seen.rows, seen.quarantined
                return

    def _still_open(self) -> "Numbers":
        """Rows that have not ended and are young enough to be asked for."""
        known = self._history.known
        starts, stops = known.spans()
        oldest = int((self.outcome.started_at - ASKED_FOR).timestamp() * _MICROSECOND)
        unended = (stops == NONE) | (stops <= starts)
        return np.flatnonzero(known.live_rows() & (starts != NONE) & (starts > oldest) & unended)

    def _well_inside(self, since: int, until: int) -> "Numbers":
        """Rows the window shows whatever the vendor compares, and whether bounds are in or not."""
        known = self._history.known
        low, high = (since + _MARGIN) * _MICROSECOND, (until - _MARGIN) * _MICROSECOND
        inside = known.live_rows()
        for dates in known.spans():
            inside &= (dates != NONE) & (dates >= low) & (dates <= high)
        return np.flatnonzero(inside)

    async def _ask_open(self, still_open: "Numbers", shown: Seen, gone: list[int]) -> AsyncGenerator[Slice, None]:
        """Ask whether rows the window did not show have ended, and read those that have; `gone` gets what is no more."""
        latest = (self.outcome.started_at + CLOCK_SKEW).timestamp()
        known = self._history.known
        unseen = still_open[~shown.rows.has(still_open)]
        starts = (known.spans()[0][unseen] // _MICROSECOND).tolist()
        for row, key, start in zip(unseen.tolist(), known.keys(unseen), starts, strict=True):
            span = await self._dates.span(key, self.outcome.traffic)
            if span is Presence.GONE:
                gone.append(row)
            elif not isinstance(span, Span):
                self._doubt = f"the vendor does not say whether {key} has ended"
            elif span.stop is not None and span.stop > latest:
                self._doubt = f"{key} ended in the future"
            elif span.stop is not None:
                reading = self._read_ended(key, max(0, start - _MARGIN), ceil(span.stop) + _MARGIN)
                async with aclosing(reading) as pieces:
                    async for piece in pieces:
                        yield piece
            if self._doubt:
                return

    async def _read_ended(self, key: Key, since: int, until: int) -> AsyncGenerator[Slice, None]:
        """Read a record that has ended from the list, in a window around it: asked for by itself it has another shape."""
        seen = Seen(self._clock())
        async with aclosing(self._dates.between(since, until)(self.outcome.traffic)) as pages:
            async for page in pages:
                read, _ = self._take([page], seen)
                async with aclosing(self._comparer.compare(read, len(page.records), seen)) as pieces:
                    async for piece in pieces:
                        yield piece
                if seen.rows.has(np.array([self._comparer.row_of(key)]))[0]:
                    return
        self._doubt = seen.misplaced or f"{key} has ended, and the list does not show it"

    async def _settle_lost(self, missing: list[int]) -> AsyncGenerator[Slice, None]:
        """Confirm what is missing from the window; a row that exists all the same says that the window is not to be trusted."""
        async with aclosing(
            self._settle_vanished(np.array(list(dict.fromkeys(missing)), np.int64), until_present=True)
        ) as pieces:
            async for piece in pieces:
                yield piece
        self._doubt = self.outcome.reason
        if self.outcome.present_unlisted:
            self._doubt = "a row that lies inside the window did not come back, and exists all the same"

    async def _prove(self) -> None:
        """Whether the warehouse holds as many rows as the vendor counts, before the window or after it."""
        outcome = self.outcome
        held = self._comparer.known.live - len(outcome.gone)
        quarantined = max(self._history.quarantined, outcome.quarantined)
        if held + quarantined != self._whole:
            # the list may have changed since it was counted
            await self._total()
        if held + quarantined != self._whole:
            self._doubt = self._doubt or f"the vendor counts {self._whole} and the warehouse holds {held}"
        outcome.expected_live = held

    # -- the first load

    async def _backfill(self) -> AsyncGenerator[Slice, None]:
        """Read window after window, newest first, until all that the vendor counts (`_whole`) has been read."""
        counted_before = self._whole or 0
        async with aclosing(self._backfill_windows()) as pieces:
            async for piece in pieces:
                yield piece
        read_by_windows = self._read_so_far
        if not self._doubt and read_by_windows < (self._whole or 0):
            # what began or ended since the first window was asked for
            now, seen = floor(self._clock().timestamp()) + _MARGIN, Seen(self._clock())
            async with aclosing(self._backfill_window(self._now - self._lookback, now, seen)) as pieces:
                async for piece in pieces:
                    yield piece
            if not self._doubt:
                await self._total()
        self._doubt = self._doubt or self._uncounted(counted_before, self._read_so_far - read_by_windows)
        if self._doubt:
            return
        async with aclosing(self._conclude(self._comparer.ever_seen)) as pieces:
            async for piece in pieces:
                yield piece
        self._doubt = self.outcome.reason

    async def _backfill_windows(self) -> AsyncGenerator[Slice, None]:
        outcome, until, windows, empty = self.outcome, self._now, 0, 0
        width = floor(BACKFILL_STEP.total_seconds()) + self._lookback
        while not self._doubt and empty < BACKFILL_EMPTY and self._read_so_far < (self._whole or 0):
            seen, before = Seen(self._clock()), self._read_so_far
            async with aclosing(self._backfill_window(max(0, until - width), until, seen)) as pieces:
                async for piece in pieces:
                    yield piece
            windows += 1
            # a vendor that ignores the filter shows the same rows for ever
            empty = 0 if self._read_so_far > before else empty + 1
            until -= width - self._lookback
        outcome.sweep_reason = f"{_FIRST}: backfill in {windows} window{'s'[: windows != 1]}"
        if not self._doubt:
            await self._total()

    def _uncounted(self, counted_before: int, new: int) -> str:
        """Why the vendor's count does not prove a backfill; `new` records were read after its windows."""
        if self._read_so_far != self._whole:
            return f"the vendor counts {self._whole} and {self._read_so_far} distinct records were read"
        # a record that was read and is gone since would stand in for one that no window shows
        if self._whole - counted_before != new:
            return f"the vendor's count changed while windows were read ({counted_before} to {self._whole})"
        return ""

    async def _backfill_window(self, since: int, until: int, seen: Seen) -> AsyncGenerator[Slice, None]:
        """One window of a backfill; all of them make one pass, and what is read again makes more."""
        before = self.outcome.passes
        async with aclosing(self._read_window(since, until, seen)) as pieces:
            async for piece in pieces:
                yield piece
        self.outcome.passes = max(1, self.outcome.passes - min(1, before))

    @property
    def _read_so_far(self) -> int:
        return len(self._comparer.ever_seen) + self.outcome.quarantined

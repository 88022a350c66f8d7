"""Vendors being read in the background, each handed to the loader slice by slice.

A reading runs in a thread of its own with its own event loop, so that pages are fetched and converted while the
loader writes the slice before. A bounded number of batches waits in between, which keeps memory flat.
"""

import asyncio
import contextlib
import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final, Self

import pyarrow as pa

from sources._http import ApiClient, ApiError
from sources._plan import History, ListPlan, Outcome, Slice
from sources._relist import under_policy
from sources._schema import Table
from sources._settings import SourceSettings
from sources._sweep import Sweep
from sources._tables import FURTHER_PATHS, NEW_FIELD, Batch, Drift, Quarantined
from sources._windows import Windows

SLICE_ROWS: Final = 20_480
"""Rows committed together: what a kill costs at most. As many as a row group of the warehouse, which is written whole."""
SLICE_SECONDS: Final = 60.0
"""A slow vendor's rows are committed at least this often."""
BATCH_ROWS: Final = 20_480
"""Rows handed to the loader at a time: large enough for Arrow to pay, small enough to keep memory flat."""
WAITING_BATCHES: Final = 4
MOST_DRIFT: Final = 5_000
"""New fields told apart within a slice: a vendor that uses ids as names would send one for each record."""
LOAD_LATER_SECONDS: Final = 1.0
"""How long reading goes on undisturbed once there is a first row to load, where there may be none: importing what loads it
takes from reading as much time as it takes, and half as much again. A vendor that takes longer leaves time enough."""
STOP_SECONDS: Final = 10.0
WAKE_SECONDS: Final = 1.0


class ReadingStopped(Exception):
    """The reading was stopped before its end."""


@dataclass
class Feed:
    """One table's slices on their way from the reading thread to the loader."""

    table: Table
    outcome: Outcome
    slices: "queue.Queue[Slice | BaseException | None]" = field(default_factory=queue.Queue)
    drift: dict[Drift, int] = field(default_factory=dict)
    quarantined: list[Quarantined] = field(default_factory=list)
    finished: bool = False
    handed_out: bool = False
    _held: Slice | None = None
    _task: "asyncio.Task[None] | None" = None
    _release: Callable[[], object] = field(default=lambda: None)
    _news: threading.Event = field(default_factory=threading.Event)

    def next_slice(self) -> Iterator[dict[str, pa.Table]]:
        """Arrow tables of the next slice, by table name; blocks while the vendor is being read."""
        number = None
        gathered: list[Batch] = []
        while (piece := self._peek()) is not None:
            if number is not None and piece.number != number:
                break
            number, self._held = piece.number, None
            self.quarantined += piece.quarantined
            if piece.batch is not None:
                gathered.append(piece.batch)
                if sum(b.rows for b in gathered) >= BATCH_ROWS:
                    yield self._joined(gathered)
                    gathered = []
        if gathered:
            yield self._joined(gathered)

    def has_rows(self) -> bool:
        """Whether there is a row to load; blocks until there is one or the table has been read."""
        while (piece := self._peek()) is not None:
            if piece.batch is not None:
                return True
            self._pass_over(piece)
        return False

    def rows_waiting(self) -> bool | None:
        """As `has_rows`, without blocking: None while it cannot be told."""
        while True:
            if self._held is None and not self.finished and self.slices.empty():
                return None
            piece = self._peek()
            if piece is None or piece.batch is not None:
                return piece is not None
            self._pass_over(piece)

    def is_held_up(self) -> bool:
        """Whether as much waits to be taken as may wait."""
        return self.slices.qsize() >= WAITING_BATCHES

    def take_noted(self) -> tuple[dict[Drift, int], list[Quarantined]]:
        """Drift and quarantine noted since the last call."""
        noted = self.drift, self.quarantined
        self.drift, self.quarantined = {}, []
        return noted

    def hand_out(self, piece: "Slice | BaseException | None") -> None:
        """Give the loader a piece, the failure that ended the reading, or None at the end of the table."""
        self.slices.put(piece)
        self.handed_out = self.handed_out or not isinstance(piece, Slice)
        self._news.set()

    def _pass_over(self, piece: Slice) -> None:
        self.quarantined += piece.quarantined
        self._held = None

    def _joined(self, batches: Sequence[Batch]) -> dict[str, pa.Table]:
        for batch in batches:
            for found, count in batch.drift.items():
                further = found.kind == NEW_FIELD and found not in self.drift and len(self.drift) >= MOST_DRIFT
                drift = Drift(found.table, *FURTHER_PATHS) if further else found
                self.drift[drift] = self.drift.get(drift, 0) + count
        return {name: pa.concat_tables([b.tables[name] for b in batches]) for name in batches[0].tables}

    def _wait(self) -> "Slice | BaseException | None":
        # Python misses a signal that arrives just as it goes to sleep for good: it must wake by itself to be stopped
        while True:
            with contextlib.suppress(queue.Empty):
                return self.slices.get(timeout=WAKE_SECONDS)

    def _peek(self) -> Slice | None:
        if self._held is None and not self.finished:
            got = self._wait()
            self._release()
            if isinstance(got, BaseException):
                self.finished = True
                raise got
            self._held, self.finished = got, got is None
        return self._held


class Reading:
    """One vendor's tables being read; use as a context manager.

    Args:
        settings: the vendor's settings.
        open_client: makes the client, inside the reading thread.
        plan_tables: how each table is read with that client.
        tables: the declared tables, in the order of the plans.
        histories: what is known of each table from earlier runs, by qualified name; nothing where one is missing.
        full: read every list whole.
        slice_rows: rows after which a slice ends.
        slice_seconds: seconds after which a slice ends.
        clock: the current time, aware.
    """

    def __init__(
        self,
        settings: SourceSettings,
        open_client: Callable[[], ApiClient],
        plan_tables: Callable[[ApiClient], Sequence[ListPlan]],
        tables: Sequence[Table],
        histories: Mapping[str, History],
        *,
        full: bool = False,
        slice_rows: int = SLICE_ROWS,
        slice_seconds: float = SLICE_SECONDS,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.vendor = settings.vendor
        self._open_client, self._plan_tables = open_client, plan_tables
        self._histories, self._settings, self._full, self._clock = histories, settings, full, clock
        self._slice_rows, self._slice_seconds = slice_rows, slice_seconds
        self.feeds = {t.name: Feed(t, Outcome(t, clock())) for t in tables}
        self._thread = threading.Thread(target=self._run, name=f"reading-{self.vendor}", daemon=True)
        self._started = self.ended = False
        self._load_later = 0.0 if self.is_first else LOAD_LATER_SECONDS
        self._first_row_at: float | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None
        self._stop = threading.Event()
        self._client: ApiClient | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def end(self) -> None:
        """Stop reading and wait until that has happened; what was handed out stays valid."""
        self.ended = True
        self.stop()
        if self._started:
            # a name that is being resolved cannot be interrupted; the thread does not keep the process alive
            self._thread.join(timeout=STOP_SECONDS)
        if not self._thread.is_alive():
            # fifty megabytes where there are a million rows, which whoever still holds this has no more use for
            self._histories = {}

    def start(self) -> None:
        """Begin to read, if that has not happened yet."""
        if not self._started:
            self._started = True
            self._thread.start()

    @property
    def is_first(self) -> bool:
        """Whether none of its tables has ever been read whole; before it has been started."""
        return all(history.last_full_at is None for history in self._histories.values())

    @property
    def finished(self) -> bool:
        """Whether every table has been read to its end and handed out."""
        return all(feed.finished for feed in self.feeds.values())

    @property
    def waiting(self) -> float:
        """Seconds the vendor has asked to wait, from now."""
        return self._client.waiting if self._client else 0.0

    @property
    def ready(self) -> bool:
        """Whether it is time to load a row, or everything has been read.

        The first row waits until nothing more can be read, or until reading has gone on for a while; where a vendor is
        read for the first time, there will be many, and none waits.
        """
        waiting = [feed.rows_waiting() for feed in self.feeds.values()]
        if True not in waiting:
            return None not in waiting
        feeds, now = self.feeds.values(), time.monotonic()
        if self._first_row_at is None:
            self._first_row_at = now
        if all(feed.handed_out for feed in feeds) or any(feed.is_held_up() for feed in feeds):
            self._load_later = 0.0
        return now - self._first_row_at >= self._load_later

    def tell(self, news: threading.Event) -> None:
        """Set `news` whenever something may have become ready."""
        for feed in self.feeds.values():
            feed._news = news  # noqa: SLF001 - a feed and its reading are one mechanism

    def stop(self) -> None:
        """Stop reading at the next request; what was handed out stays valid."""
        stopped = self._stop.is_set()
        self._stop.set()
        # a second time would break off what the first has begun: connections to be closed
        if self._loop is not None and not stopped:
            _call(self._loop, self._cancel_all)

    def leave(self, feed: Feed) -> None:
        """Stop reading one table, which nobody takes from any more; the reading ends with the last of them."""
        task = feed._task  # noqa: SLF001 - a feed and its reading are one mechanism
        if task is not None and self._loop is not None:
            _call(self._loop, task.cancel)

    def _cancel_all(self) -> None:
        # this task alone, which takes along those it started: asyncio may be closing its threads in another by now
        if self._task is not None:
            self._task.cancel()

    def _run(self) -> None:
        try:
            asyncio.run(self._read())
        except BaseException as error:  # noqa: BLE001 - whatever it was is raised again where the loader waits
            cause: BaseException = error
            while isinstance(cause, BaseExceptionGroup):
                cause = cause.exceptions[0]
            for feed in self.feeds.values():
                feed.hand_out(ReadingStopped() if isinstance(cause, asyncio.CancelledError) else cause)

    async def _read(self) -> None:
        self._task = asyncio.current_task()
        self._loop = asyncio.get_running_loop()
        if self._stop.is_set():
            raise asyncio.CancelledError
        try:
            client = self._open_client()
        except ApiError as error:
            for feed in self.feeds.values():
                feed.outcome.error, feed.outcome.reason = error, error.message
                feed.outcome.finished_at = self._clock()
                feed.hand_out(None)
            return
        async with client:
            self._client = client
            async with asyncio.TaskGroup() as group:
                for plan in self._plan_tables(client):
                    group.create_task(self._feed(plan))

    async def _feed(self, plan: ListPlan) -> None:
        feed = self.feeds[plan.table.name]
        plan = under_policy(plan, self._settings.privacy)
        loop, room = asyncio.get_running_loop(), asyncio.Semaphore(WAITING_BATCHES)
        feed._release = lambda: _call(loop, room.release)  # noqa: SLF001 - a feed and its reading are one mechanism
        feed._task = asyncio.current_task()  # noqa: SLF001
        sweep = (Sweep if plan.dates is None else Windows)(
            plan,
            self._histories.get(plan.table.qualified_name) or History(),
            full=self._full,
            settle=timedelta(days=self._settings.lookback_days),
            full_sweep_every=timedelta(days=self._settings.full_sweep_every),
            slice_rows=self._slice_rows,
            slice_seconds=self._slice_seconds,
            clock=self._clock,
        )
        feed.outcome = sweep.outcome
        async with contextlib.aclosing(sweep.slices()) as pieces:
            async for piece in pieces:
                await room.acquire()
                feed.hand_out(piece)
        feed.hand_out(None)


@contextlib.contextmanager
def side_by_side(readings: Sequence[Reading]) -> Iterator[Callable[[], Reading | None]]:
    """Read all of them at once, and end them all.

    Yields:
        What returns, whenever it is called, one of those not yet ended that has a row to load or has been read whole,
        each in its turn; it blocks until there is one, and returns None when all have ended.
    """
    news = threading.Event()
    waiting = list(readings)

    def next_ready() -> Reading | None:
        waiting[:] = [reading for reading in waiting if not reading.ended]
        while waiting:
            news.clear()
            for reading in waiting:
                if reading.ready:
                    waiting.remove(reading)
                    waiting.append(reading)
                    return reading
            # not for good: see `Feed._wait`
            news.wait(WAKE_SECONDS)
        return None

    try:
        for reading in readings:
            reading.tell(news)
            reading.start()
        yield next_ready
    finally:
        for reading in readings:
            reading.stop()
        for reading in readings:
            reading.end()


def _call(loop: asyncio.AbstractEventLoop, what: Callable[[], object]) -> None:
    with contextlib.suppress(RuntimeError):  # the reading may have ended since
        loop.call_soon_threadsafe(what)

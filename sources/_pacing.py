"""How fast one vendor is asked: concurrency, request rate and pauses, all of which give way when the vendor says so."""

from __future__ import annotations

import asyncio
import math
import re
from collections import deque
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
    from datetime import datetime

_SUCCESSES_TO_RECOVER = 10  # answered requests before one more may run at a time
_FIRST_INTERVAL = 0.1  # the first slow-down of a client that had no rate limit
_LONGEST_INTERVAL = 1.0  # pauses keep to what the vendor asks; this only thins out what comes between them
_LONGEST_WAIT = 1e9  # seconds; keeps dates made from it within the calendar


@dataclass(frozen=True)
class RetryPolicy:
    """How long to keep trying. A wait is random between zero and a bound that doubles with each attempt."""

    attempts: int = 6
    base_seconds: float = 0.5
    cap_seconds: float = 30
    deadline_seconds: float = 300
    """For one request with all its attempts and waits, from its first attempt."""
    retry_after_floor: float = 0.5
    retry_after_cap: float = 120


def retry_after(header: str, now: datetime) -> float | None:
    """Seconds a Retry-After header asks for, in either of its forms; None where it makes no sense."""
    if re.fullmatch(r"[+-]?[0-9]+(\.[0-9]*)?", header.strip(), re.ASCII):
        seconds = float(header)
    else:
        try:
            date = parsedate_to_datetime(header)
            seconds = ((date if date.tzinfo else date.replace(tzinfo=UTC)) - now).total_seconds()
        except (ValueError, TypeError, IndexError, OverflowError):
            return None
    return max(-_LONGEST_WAIT, min(seconds, _LONGEST_WAIT))


@dataclass
class Traffic:
    """What was asked of a vendor, and what it cost."""

    requests: int = 0
    """HTTP requests sent, retries included."""
    retries: int = 0
    throttled_seconds: float = 0.0
    """Time during which at least one request waited because the vendor asked to slow down."""
    bytes_read: int = 0
    """Body bytes as received, before decompression."""

    def __post_init__(self) -> None:
        self._waiters = 0
        self._since = 0.0

    @contextmanager
    def throttled(self, clock: Callable[[], float]) -> Iterator[None]:
        """Counts the time inside as throttled; waits that overlap count once."""
        if self._waiters == 0:
            self._since = clock()
        self._waiters += 1
        try:
            yield
        finally:
            self._waiters -= 1
            if self._waiters == 0:
                self.throttled_seconds += clock() - self._since


class Pacing:
    """Lets requests through: so many at a time, so far apart, and none while the vendor has asked for a pause.

    A 429 halves the number of requests at a time (never below one) and doubles the time between them; runs of
    successes take both back step by step.
    """

    def __init__(
        self,
        *,
        max_concurrency: int,
        requests_per_second: float,
        clock: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]],
    ) -> None:
        self._most = max(1, max_concurrency)
        self._shortest_interval = 1 / requests_per_second if requests_per_second > 0 else 0.0
        self._longest_interval = max(_LONGEST_INTERVAL, 4 * self._shortest_interval)
        self._clock = clock
        self._sleep = sleep
        self.limit = self._most
        self.interval = self._shortest_interval
        self._active = 0
        self._queue: deque[asyncio.Future[None]] = deque()
        self._next_start = -math.inf
        self._paused_until = -math.inf
        self._era = 0
        self._successes = 0
        self._woken = asyncio.Event()

    @property
    def waiting(self) -> float:
        """Seconds left of the pause the vendor asked for."""
        return max(0.0, self._paused_until - self._clock())

    def wake(self) -> None:
        """Ends every rest, now and later: there is nothing left to wait for."""
        self._woken.set()

    @asynccontextmanager
    async def slot(self, counters: Sequence[Traffic]) -> AsyncIterator[int]:
        """Waits for a turn and holds it. Yields the era, which `slow_down` wants back."""
        while True:
            await self._sit_out_pause(counters)
            await self._acquire()
            try:
                await self._keep_distance()
            except BaseException:
                self._release()
                raise
            # a pause may have begun while this request queued
            if not self.waiting or self._woken.is_set():
                break
            self._release()
        try:
            yield self._era
        finally:
            self._release()

    async def rest(self, seconds: float, counters: Sequence[Traffic] = ()) -> None:
        """Sleeps, unless woken. Time is counted as throttled in the counters given."""
        if seconds <= 0 or self._woken.is_set():
            return
        nap = asyncio.ensure_future(self._sleep(seconds))
        woken = asyncio.ensure_future(self._woken.wait())
        with ExitStack() as stack:
            for counter in counters:
                stack.enter_context(counter.throttled(self._clock))
            try:
                await asyncio.wait({nap, woken}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                nap.cancel()
                woken.cancel()
        if nap.done() and not nap.cancelled():
            nap.result()

    def pause(self, seconds: float) -> None:
        """No request starts for so long."""
        self._paused_until = max(self._paused_until, self._clock() + seconds)

    def slow_down(self, era: int) -> None:
        """Halves concurrency and rate, once for all the requests that were under way together."""
        if era != self._era:
            return
        self._era += 1
        self._successes = 0
        self.limit = max(1, self.limit // 2)
        self.interval = min(self._longest_interval, max(2 * self.interval, _FIRST_INTERVAL))

    def succeeded(self) -> None:
        """Takes back a little of what `slow_down` took."""
        shorter = self.interval * 7 / 8
        self.interval = max(self._shortest_interval, shorter if shorter >= _FIRST_INTERVAL / 2 else 0.0)
        self._successes += 1
        if self._successes % _SUCCESSES_TO_RECOVER == 0:
            self.limit = min(self._most, self.limit + 1)
            self._hand_out()

    async def _sit_out_pause(self, counters: Sequence[Traffic]) -> None:
        while (left := self.waiting) > 0 and not self._woken.is_set():
            until = self._paused_until
            await self.rest(left, counters)
            if self._paused_until == until:
                # slept through it, whatever the clock's resolution says
                self._paused_until = -math.inf

    async def _keep_distance(self) -> None:
        now = self._clock()
        start = max(now, self._next_start)
        self._next_start = start + self.interval
        await self.rest(start - now)

    async def _acquire(self) -> None:
        if self._active < self.limit and not self._queue:
            self._active += 1
            return
        turn = asyncio.get_running_loop().create_future()
        self._queue.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                # the turn was handed over just before the cancellation: pass it on
                self._release()
            else:
                with suppress(ValueError):
                    self._queue.remove(turn)
            raise

    def _release(self) -> None:
        self._active -= 1
        self._hand_out()

    def _hand_out(self) -> None:
        while self._queue and self._active < self.limit:
            turn = self._queue.popleft()
            if not turn.done():
                self._active += 1
                turn.set_result(None)

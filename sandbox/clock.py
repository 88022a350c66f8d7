"""The world's virtual clock, and each vendor's way of writing an instant."""

from __future__ import annotations

from bisect import bisect
from datetime import UTC, datetime, timedelta
from itertools import accumulate
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import random

DEFAULT_NOW = datetime(2026, 11, 20, 18, 0, tzinfo=UTC)
HISTORY = timedelta(days=120)

# relative amount of support work begun in each hour of the day, UTC
_HOURS = (2, 1, 1, 1, 2, 4, 12, 30, 62, 88, 96, 84, 58, 80, 97, 92, 74, 46, 24, 13, 9, 7, 5, 3)
_WEEKEND = 0.12
_SATURDAY = 5


class Clock:
    """A settable instant that only moves when told to."""

    def __init__(self, now: datetime) -> None:
        if now.tzinfo is None:
            raise ValueError("the sandbox clock needs a time zone; use datetime(..., tzinfo=UTC)")
        self.now = now.astimezone(UTC)


class WorkingHours:
    """Draws instants of the history before `now`, weighted by weekday and hour."""

    def __init__(self, now: datetime, history: timedelta = HISTORY) -> None:
        first = (now - history).replace(minute=0, second=0, microsecond=0)
        hours = int((now - first) / timedelta(hours=1))
        begins = [first + timedelta(hours=n) for n in range(hours)]
        self._first = round(first.timestamp() * 1000)
        self._cumulative = list(
            accumulate(_HOURS[at.hour] * (_WEEKEND if at.weekday() >= _SATURDAY else 1.0) for at in begins)
        )

    def millis(self, rng: random.Random) -> int:
        """An instant as milliseconds since the epoch."""
        hour = bisect(self._cumulative, rng.random() * self._cumulative[-1])
        return self._first + hour * 3_600_000 + int(rng.random() * 3_600_000)


def from_millis(millis: int) -> datetime:
    """The instant a number of milliseconds after the epoch."""
    return datetime.fromtimestamp(millis // 1000, UTC).replace(microsecond=millis % 1000 * 1000)


def to_millis(instant: datetime) -> int:
    """Whole milliseconds since the epoch."""
    return int(instant.timestamp()) * 1000 + instant.microsecond // 1000


def rails_time(millis: int) -> str:
    """Screendesk: ISO 8601 with milliseconds and Z."""
    return from_millis(millis).isoformat(timespec="milliseconds")[:23] + "Z"


def rails_stamp(instant: datetime) -> str:
    """`rails_time` of an instant."""
    return rails_time(to_millis(instant))


def django_time(instant: datetime) -> str:
    """PostHog: ISO 8601 with Z and microseconds, which are left out when they are zero."""
    return instant.astimezone(UTC).isoformat()[:-6] + "Z"

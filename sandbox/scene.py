"""What the three accounts of a world share."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import threading

    from sandbox.clock import Clock, WorkingHours
    from sandbox.people import Cast


class Scene(NamedTuple):
    """One seed, one clock, one lock, one cast."""

    seed: int
    clock: Clock
    lock: threading.RLock
    cast: Cast
    hours: WorkingHours

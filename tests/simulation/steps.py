"""Histories as plain data, and how hypothesis makes them.

Everything that happens is one of few small dataclasses with numbers in them: so hypothesis shrinks a failing history to
its gist, and what it prints can be pasted into a regression test.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeVar

from hypothesis import strategies as st

if TYPE_CHECKING:
    from collections.abc import Sequence

T = TypeVar("T")
VENDORS: Final = ("screendesk", "getscreen", "posthog")


@dataclass(frozen=True)
class Do:
    """Something happens at the vendor; `pick` and `n` say to which row and how much, counted round."""

    what: str
    pick: int = 0
    n: int = 1


@dataclass(frozen=True)
class Fault:
    """A run's requests go wrong, `times` of them in a row (0: for good, within the run)."""

    kind: str
    times: int = 1


@dataclass(frozen=True)
class At:
    """Something happens just before the N-th request of a run is answered."""

    request: int
    event: Do | Fault


@dataclass(frozen=True)
class Sync:
    """A run. `pace` is the seconds that pass with each request; `kill` is the durable step after which it dies."""

    full: bool = False
    events: tuple[At, ...] = ()
    kill: int | None = None
    pace: int = 1


@dataclass(frozen=True)
class LoseWork:
    """The folder with the private database and dlt's files is lost."""


@dataclass(frozen=True)
class Wait:
    """Hours pass."""

    hours: int


@dataclass(frozen=True)
class Skew:
    """The clock of the machine deskhouse runs on is so many days off."""

    days: int


Step = Do | Sync | LoseWork | Wait | Skew


@dataclass(frozen=True)
class Story:
    """An account and what happens to it."""

    vendor: str
    steps: tuple[Step, ...]
    seed: int = 0
    rows: int = 12
    page: int = 5
    slice_rows: int = 4
    ties: int = 0

    @property
    def length(self) -> int:
        """Steps, events within runs included."""
        return len(self.steps) + sum(len(step.events) for step in self.steps if isinstance(step, Sync))


_ROWS: Final = [
    "insert",
    "insert",
    "insert_old",
    "update",
    "update",
    "update_silently",
    "update_silently",
    "append",
    "empty",
    "shrink",
    "delete",
    "delete",
    "restore",
    "swap",
    "swap_old",
    "move",
    "tie",
    "burst",
    "poison",
]
_OWN: Final = {
    "screendesk": "member admin page_size page_size last_page_form order past_end user_insert user_update user_delete",
    "getscreen": "close close video filter filter max_limit order info_shape echo",
    "posthog": "tie tie next_host",
}
_ONCE: Final = ("keyless", "rotate")
_BETWEEN_PAGES: Final = [
    "slip",
    "slip",
    "slip",
    "slip",
    "slip",
    "swap_old",
    "swap",
    "delete",
    "delete",
    "delete",
    "insert",
    "insert_old",
    "move",
    "revoke",
    "member",
    "admin",
]
_FAULTS: Final = ("429", "500", "503", "reset", "cut", "truncated", "html", "empty_list")


def things(vendor: str, more: Sequence[str] = ()) -> st.SearchStrategy[Do]:
    """What may happen at a vendor."""
    own = _OWN[vendor].split()
    return _picked([*_ROWS, *_ROWS, *own, *own, *more])


def _weighted(*choices: tuple[int, st.SearchStrategy[T]]) -> st.SearchStrategy[T]:
    """One of several, some more often: `one_of` takes a strategy that is named twice for one."""
    drawn = [strategy for weight, strategy in choices for _ in range(weight)]
    return st.sampled_from(range(len(drawn))).flatmap(drawn.__getitem__)


def _evenly(least: int, most: int) -> st.SearchStrategy[int]:
    """A number; hypothesis' own integers are small more often than not, and two pages of rows are the least of it."""
    return st.sampled_from(range(least, most + 1))


def _picked(names: Sequence[str]) -> st.SearchStrategy[Do]:
    return st.builds(Do, st.sampled_from(names), _evenly(0, 30), _evenly(1, 4))


def events(vendor: str) -> st.SearchStrategy[At]:
    """What may happen while a run reads."""
    mishap = st.builds(Fault, st.sampled_from(_FAULTS), st.sampled_from([1, 1, 1, 2, 3, 0]))
    between = _picked([name for name in _BETWEEN_PAGES if vendor == "screendesk" or name not in {"member", "admin"}])
    return st.builds(
        At, _weighted((2, _evenly(1, 4)), (1, _evenly(0, 8))), _weighted((4, between), (2, things(vendor)), (1, mishap))
    )


def runs(vendor: str) -> st.SearchStrategy[Sync]:
    """Runs: some quiet, many with one thing happening meanwhile, for which a single pass may be right or wrong, or more."""
    event = events(vendor)
    return st.builds(
        Sync,
        st.sampled_from([False, False, True]),
        _weighted((2, st.just(())), (5, event.map(lambda e: (e,))), (2, st.lists(event, max_size=4).map(tuple))),
        _weighted((3, st.none()), (1, _evenly(0, 6))),
        st.sampled_from([1, 1, 1, 60, 7_200]),
    )


def stories(most_steps: int = 12, vendors: Sequence[str] = VENDORS) -> st.SearchStrategy[Story]:
    """Whole histories."""

    least = min(5, most_steps)

    def of(vendor: str) -> st.SearchStrategy[Story]:
        change, run = things(vendor, _ONCE), runs(vendor)
        # nothing comes first, so that it is what a step shrinks to
        step: st.SearchStrategy[Step | None] = _weighted(
            (1, st.none()),
            (8, run),
            (8, change),
            (1, st.just(LoseWork())),
            (2, st.builds(Wait, _evenly(1, 60))),
            (1, st.builds(Skew, _evenly(-1, 1))),
        )
        return st.builds(
            Story,
            vendor=st.just(vendor),
            steps=st.tuples(
                _weighted((1, st.just(())), (2, st.just((Sync(),))), (2, run.map(lambda first: (first,)))),
                st.lists(step, min_size=least, max_size=most_steps).map(tuple),
            ).map(lambda parts: parts[0] + tuple(step for step in parts[1] if step is not None)),
            seed=_evenly(0, 50),
            rows=_weighted((1, _evenly(1, 8)), (3, _evenly(9, 26))),
            page=_evenly(2, 6),
            slice_rows=st.sampled_from([3, 8, 1000]),
            ties=st.sampled_from([0, 0, 3, 9]),
        )

    return st.sampled_from(list(vendors)).flatmap(of)

"""Many histories on one level, and the smallest one that goes wrong."""

from __future__ import annotations

import logging
import time
import traceback
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from hypothesis import HealthCheck, Phase, given, seed, settings

from simulation.engine import engine
from simulation.judge import KINDS
from simulation.play import Player, small_and_instant
from simulation.steps import VENDORS, stories
from simulation.whole import whole

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import pytest

    from simulation.play import Level
    from simulation.steps import Story

LEVELS: Final = {"engine": engine, "whole": whole}
MOST_STEPS: Final = {"engine": 12, "whole": 3}


@dataclass
class Tally:
    """What was played, and what was found."""

    histories: int = 0
    steps: int = 0
    found: Counter[str] = field(default_factory=Counter)
    log: Counter[str] = field(default_factory=Counter)
    story: Story | None = None
    error: Exception | None = None
    first: str = ""
    """The first failure with its traceback, before anything was made smaller."""

    def __add__(self, other: Tally) -> Tally:
        return Tally(
            self.histories + other.histories, self.steps + other.steps, self.found + other.found, self.log + other.log
        )

    def __str__(self) -> str:
        said = ", ".join(f"{self.found[kind]} {kind}" for kind in KINDS if kind != "untrue" or self.found[kind])
        return f"{self.histories} histories, {self.steps} steps: {said}"


@contextmanager
def at(level: str) -> Iterator[tuple[Level, pytest.MonkeyPatch]]:
    """A level to play on, in a world where waits return at once."""
    with small_and_instant() as patch, LEVELS[level](patch) as opened:
        yield opened, patch


def search(
    level: Level,
    histories: int,
    start: int,
    *,
    most_steps: int = 12,
    shrink: bool = True,
    vendors: Sequence[str] = VENDORS,
) -> Tally:
    """Play so many histories; stop at the first that goes wrong, and find the smallest like it."""
    tally = Tally()
    phases = [Phase.generate, *([Phase.shrink] if shrink else [])]

    @seed(start)
    @settings(
        max_examples=histories,
        database=None,
        deadline=None,
        phases=phases,
        suppress_health_check=list(HealthCheck),
        report_multiple_bugs=False,
        print_blob=False,
    )
    @given(stories(most_steps, vendors))
    def explore(story: Story) -> None:
        if tally.error is None:
            tally.histories += 1
            tally.steps += story.length
        try:
            player = Player(story, level)
            player.play()
            tally.log.update(player.log)
        except Exception as error:
            tally.first = tally.first or f"{story!r}\n{''.join(traceback.format_exception(error))}"
            tally.story, tally.error = story, error
            raise

    try:
        explore()
    except Exception:
        # hypothesis adds to what it found; the original is in the tally
        if tally.error is None:
            raise
        tally.found[getattr(tally.error, "kind", "untrue")] += 1
    return tally


def report(tally: Tally) -> str:
    """The failing history, ready to be replayed, and where it failed the first time."""
    return f"{type(tally.error).__name__}: {tally.error}\n{tally.story!r}\nfirst met as {tally.first}"


def play_some(level: str, histories: int, seed: int, vendors: Sequence[str], ends: float) -> tuple[Tally, str]:
    """Play in a process of its own: what was found as text, since exceptions do not travel well."""
    logging.disable(logging.WARNING)
    if time.monotonic() >= ends:
        return Tally(), ""
    with at(level) as (opened, _):
        tally = search(opened, histories, seed, most_steps=MOST_STEPS[level], vendors=vendors)
    failure = f"seed {seed}: {report(tally)}" if tally.error else ""
    tally.story = tally.error = None
    return tally, failure

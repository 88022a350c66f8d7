"""Carries a history out on a level, and judges every run."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Protocol

import pytest

from simulation.account import Account
from simulation.chronicle import Chronicle
from simulation.judge import Ran, judge_end, judge_run, judge_state
from simulation.steps import Do, LoseWork, Skew, Sync, Wait
from simulation.wire import Wire
from sources import _reading, _sweep, _windows, posthog
from sources._http import ApiClient
from sources._reading import Reading

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from datetime import datetime

    import httpx

    from pipelines.ledger import Receipt
    from simulation.judge import State
    from simulation.steps import Step, Story
    from sources._schema import Table
    from sources._settings import SourceSettings

LIGHT_FROM_ROWS = 8


class Level(Protocol):
    """A deskhouse with a warehouse.

    Attributes:
        publishes: whether a published copy will be wanted back.
    """

    publishes: bool

    def open(self, declared: Mapping[str, Table]) -> None:
        """An empty warehouse."""

    def sync(
        self,
        source: SourceSettings,
        transport: httpx.AsyncBaseTransport,
        clock: Callable[[], datetime],
        *,
        full: bool,
        kill: int | None,
    ) -> dict[str, Receipt] | None:
        """One run; None when it was killed."""

    def lose_work(self) -> None:
        """The work folder is lost."""

    def state(self) -> State:
        """Every row of the warehouse that may be looked at."""


async def _at_once(_: float) -> None:
    await asyncio.sleep(0)


@contextmanager
def small_and_instant() -> Iterator[pytest.MonkeyPatch]:
    """Waits return at once, and lists of a few rows are treated like long ones."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(ApiClient.__init__.__kwdefaults__, "sleep", _at_once)
        patch.setitem(Reading.__init__.__kwdefaults__, "slice_rows", 1000)
        for module in (_sweep, _windows):
            patch.setattr(module, "LIGHT_FROM_ROWS", LIGHT_FROM_ROWS)
        # the engine level lets a reading end before it takes from it
        patch.setattr(_reading, "WAITING_BATCHES", 100_000)
        patch.setattr(posthog.DesktopRecordings.__init__, "__defaults__", (5,))
        patch.setattr(posthog, "OVERLAP", 2)
        yield patch


def play(story: Story, level: Level) -> None:
    """Carry out a history.

    Raises:
        Wrong: what is wrong, the first time it is.
    """
    Player(story, level).play()


class Player:
    """One history being carried out."""

    def __init__(self, story: Story, level: Level) -> None:
        self.story, self.level = story, level
        self.account = Account(story)
        self.account.unconfirmed = self._unconfirmed
        self.chronicle = Chronicle(self.account)
        self.wire = Wire(self.account, self._happen)
        self.skew = timedelta(0)
        self.receipts: dict[str, Any] = {}
        self.log: Counter[str] = Counter()
        Reading.__init__.__kwdefaults__["slice_rows"] = story.slice_rows
        level.publishes = LoseWork() in story.steps
        level.open(self.account.declared)
        self.state = level.state()

    def play(self) -> None:
        """All steps, then rest, two undisturbed runs, and the last judgement."""
        for step in self.story.steps:
            self._take(step)
        self.account.calm()
        self.skew = timedelta(0)
        self.chronicle.observe()
        for full in (False, True):
            self._take(Sync(full=full))
        judge_end(self.chronicle.pages, self.state)
        for receipt in self.receipts.values():
            assert receipt.complete, f"{receipt.table_name} does not come to rest: {receipt.reason}"

    def _take(self, step: Step) -> None:
        self.account.world.advance(timedelta(minutes=1))
        match step:
            case Do():
                self._happen(step)
            case Wait(hours):
                self.account.world.advance(timedelta(hours=hours))
            case Skew(days):
                self.skew = timedelta(days=days)
            case LoseWork():
                self.level.lose_work()
                self.state = self.level.state()
                judge_state(self.chronicle.pages, self.state)
            case Sync():
                self._sync(step)

    def _sync(self, step: Sync) -> None:
        chronicle, account = self.chronicle, self.account
        first, began = chronicle.moment, self._clock()
        self.wire.begin(step.events, step.pace)
        receipts = self.level.sync(account.settings, self.wire, self._clock, full=step.full, kill=step.kill)
        self.receipts = receipts or {}
        self.log.update(f"{r.sweep_kind} {'complete' if r.complete else 'incomplete'}" for r in self.receipts.values())
        self.log["killed"] += receipts is None
        settle = timedelta(days=account.settings.lookback_days)
        ran = Ran(first, chronicle.moment, began, settle, self.receipts, self.wire.lied)
        account.token = account.adopted
        before, self.state = self.state, self.level.state()
        judge_state(chronicle.pages, self.state)
        judge_run(chronicle.pages, before, self.state, ran)

    def _clock(self) -> datetime:
        return self.account.world.now + self.skew

    def _happen(self, thing: Do) -> None:
        self.account.do(thing)
        self.chronicle.observe()

    def _unconfirmed(self, name: str) -> int:
        page, held = self.chronicle.pages[name], self.state[name]
        return sum(k not in page.bodies and not (k in held and held[k].deleted) for k in page.versions)

"""Plays faults, in processes side by side, and says what each came to."""

from __future__ import annotations

import shutil
import tempfile
import time
import traceback
from collections import Counter
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import ExitStack
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING

from faults.case import Case, Site
from faults.count import COUNTERS
from faults.launch import Launcher, NeverEnds
from faults.table import FAULTS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

PATIENCE = {"deskhouse": 90.0, "peer": 25.0}
"""Seconds after which a run counts as one that never ends."""
BY_NUMBER = {entry.number: entry for entry in FAULTS}


@dataclass(frozen=True)
class Result:
    """What a fault with a seed came to."""

    number: int
    seed: int
    subject: str
    counts: Counter[str]
    problems: tuple[str, ...]
    seconds: float
    skipped: str = ""

    @property
    def passed(self) -> bool:
        """Whether all counters are zero and the outcome is the one it must be."""
        return not self.problems and not self.counts.total()

    @property
    def wrong(self) -> str:
        """The counters that are not zero."""
        return ", ".join(f"{self.counts[name]} {name}" for name in COUNTERS if self.counts[name])

    def __str__(self) -> str:
        entry = BY_NUMBER[self.number]
        verdict = f"skipped: {self.skipped}" if self.skipped else "passed" if self.passed else "FAILED"
        line = f"{self.number:>2}  {verdict:<7} {entry.outcome:<17} seed {self.seed:<3} {self.seconds:5.1f} s  {entry.name}"
        return "\n      ".join([line, *([self.wrong] if self.wrong else []), *self.problems])


@dataclass
class _Place:
    """What a process keeps from one case to the next."""

    stack: ExitStack = field(default_factory=ExitStack)
    site: Site | None = None


_PLACE = _Place()


def play_all(
    numbers: Iterable[int],
    seeds: Sequence[int],
    *,
    subject: str = "deskhouse",
    jobs: int = 2,
    cold: bool = False,
    deep: bool = False,
) -> Iterator[Result]:
    """Play faults with seeds; results come as they are known."""
    cases = [(number, seed) for seed in seeds for number in numbers]
    # the longest first, so that no process is left alone with one at the end
    cases.sort(key=lambda case: (case[1], -BY_NUMBER[case[0]].weight))
    folder = Path(tempfile.mkdtemp(prefix="deskhouse-faults-"))
    try:
        with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
            plays = [pool.submit(_play_here, folder, subject, n, seed, cold, deep) for n, seed in cases]
            for play in as_completed(plays):
                yield play.result()
            for _ in range(jobs):
                pool.submit(_leave).result()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def summary(results: Sequence[Result]) -> list[str]:
    """`N passed, M failed`, and the eight counters over all."""
    total: Counter[str] = sum((result.counts for result in results), Counter())
    faults = {result.number: True for result in results}
    for result in results:
        faults[result.number] &= result.passed
    skipped = {result.number for result in results if result.skipped}
    passed = sum(ok for number, ok in faults.items() if number not in skipped)
    lines = [f"{passed} passed, {len(faults) - passed - len(skipped)} failed"]
    if skipped:
        lines[0] += f", {len(skipped)} skipped"
    if len(results) > len(faults):
        lines[0] += f" ({sum(r.passed for r in results)} of {len(results)} plays)"
    return [*lines, ", ".join(f"{name} {total[name]}" for name in COUNTERS)]


def _play_here(folder: Path, subject: str, number: int, seed: int, cold: bool, deep: bool) -> Result:  # noqa: FBT001, PLR0917
    if _PLACE.site is None:
        launcher = _PLACE.stack.enter_context(Launcher(cold=cold, patience=PATIENCE[subject]))
        _PLACE.site = Site(Path(tempfile.mkdtemp(dir=folder)), launcher)
    return play(_PLACE.site, subject, number, seed, deep=deep)


def _leave() -> None:
    _PLACE.stack.close()


def play(site: Site, subject: str, number: int, seed: int, *, deep: bool = False) -> Result:
    """Play one fault with one seed."""
    entry, began = BY_NUMBER[number], time.monotonic()
    if subject == "peer" and entry.peer:
        return Result(number, seed, subject, Counter(), (), 0.0, skipped=entry.peer)
    problems: list[str] = []
    counts: Counter[str] = Counter()
    try:
        site.warehouse(subject, seed)
        # a dashboard that opens the one file plain dlt loads into blocks the load: it is judged for that once, by fault 8
        reading = subject == "deskhouse" or entry.peer_reads
        with Case(site, subject, number, seed, deep=deep, reading=reading) as case:
            problems, counts = case.problems, case.counts
            entry.play(case)
            case.finish()
            counts = case.counts
            case.expect(case.words == entry.words, f"came to {sorted(case.words)}, not {sorted(entry.words)}")
    except NeverEnds as error:
        problems.append(str(error))
    except Exception as error:  # noqa: BLE001 - a fault that cannot be played has not been survived
        trace = traceback.extract_tb(error.__traceback__)[-1]
        problems.append(
            f"could not be played: {type(error).__name__}: {error} ({Path(trace.filename).name}:{trace.lineno})"
        )
    return Result(number, seed, subject, counts, tuple(problems), time.monotonic() - began)

"""What a run tells the person who watches: progress bars on a terminal, plain lines elsewhere, nothing for machines."""

import threading
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime
from typing import Final, Protocol

from rich.console import Console

from pipelines.ledger import Receipt
from pipelines.settings import VENDOR_NAMES
from sources._plan import Outcome
from sources._reading import Feed, Reading

REFRESH_SECONDS: Final = 0.2
PLAIN_SECONDS: Final = 10.0


class Reporter(Protocol):
    """Told what happens during a run."""

    @abstractmethod
    def watching(self, readings: Sequence[Reading]) -> AbstractContextManager[None]:
        """A context in which the progress of readings is shown."""

    def settled(self, receipt: Receipt) -> None:  # noqa: ARG002 - for those who show it
        """A table has its receipt."""
        return

    def step(self, name: str) -> None:  # noqa: ARG002 - for those who show it
        """A step after reading begins."""
        return


class SilentReporter(Reporter):
    """Shows nothing."""

    @contextmanager
    def watching(self, readings: Sequence[Reading]) -> Iterator[None]:  # noqa: ARG002 - the protocol's argument
        """Nothing."""
        yield


class PlainReporter(Reporter):
    """One line when something happens, and every few seconds while a vendor is read."""

    def __init__(self, console: Console) -> None:
        self._console = console

    @contextmanager
    def watching(self, readings: Sequence[Reading]) -> Iterator[None]:
        """A line for each at the start, then one every few seconds."""
        for reading in readings:
            self._line(f"{VENDOR_NAMES[reading.vendor]}: reading")

        def tell() -> None:
            for reading, name, feed in _feeds(readings):
                if feed.outcome.finished_at is None:
                    self._line(f"{reading.vendor}.{name}: {_counts(feed.outcome)}{_waiting(reading)}")

        with _ticking(tell, PLAIN_SECONDS):
            yield

    def settled(self, receipt: Receipt) -> None:
        """One line."""
        verdict = "complete" if receipt.complete else "NOT COMPLETE"
        self._line(
            f"{receipt.table_name}: {receipt.distinct_read:,} read, {receipt.inserted:,} new, {receipt.updated:,} changed, "
            f"{receipt.deleted:,} deleted, {receipt.live_rows:,} live; {verdict}"
        )

    def step(self, name: str) -> None:
        """One line."""
        self._line(name)

    def _line(self, text: str) -> None:
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)


class BarReporter(Reporter):
    """Progress bars: rows, pages, rate, and how long the vendor makes us wait."""

    def __init__(self, console: Console) -> None:
        self._console = console

    @contextmanager
    def watching(self, readings: Sequence[Reading]) -> Iterator[None]:
        """A bar for each table."""
        from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn  # noqa: PLC0415 - a scheduled run has none

        progress = Progress(
            SpinnerColumn(finished_text="✓"),
            TextColumn("{task.description:<28}"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[counts]}", style="dim"),
            console=self._console,
            transient=True,
        )
        names = [f"{reading.vendor}.{name}" for reading, name, _ in _feeds(readings)]
        tasks = [progress.add_task(name, total=None, counts="") for name in names]

        def show() -> None:
            for task, (reading, _, feed) in zip(tasks, _feeds(readings), strict=True):
                outcome = feed.outcome
                progress.update(
                    task,
                    completed=outcome.distinct_read,
                    total=outcome.vendor_count,
                    counts=_counts(outcome) + _waiting(reading),
                )

        with progress, _ticking(show, REFRESH_SECONDS):
            yield

    def settled(self, receipt: Receipt) -> None:
        """One line, kept above the bars."""
        mark = "[green]✓[/]" if receipt.complete else "[red]✗[/]"
        self._console.print(
            f"{mark} {receipt.table_name}: {receipt.distinct_read:,} read, {receipt.inserted:,} new, "
            f"{receipt.updated:,} changed, {receipt.deleted:,} deleted",
            highlight=False,
        )


def _feeds(readings: Sequence[Reading]) -> Iterator[tuple[Reading, str, Feed]]:
    for reading in readings:
        for name, feed in reading.feeds.items():
            yield reading, name, feed


def _counts(outcome: Outcome) -> str:
    of = f" of {outcome.vendor_count:,}" if outcome.vendor_count is not None else ""
    pages = f"{outcome.pages:,} page{'' if outcome.pages == 1 else 's'}"
    seconds = ((outcome.finished_at or datetime.now(UTC)) - outcome.started_at).total_seconds()
    rate = f", {outcome.distinct_read / seconds:,.0f}/s" if seconds > 1 else ""
    again = f", pass {outcome.passes}" if outcome.passes > 1 else ""
    return f"{outcome.distinct_read:,}{of} rows, {pages}{rate}{again}"


def _waiting(reading: Reading) -> str:
    return f", waiting {reading.waiting:.0f} s as asked by the vendor" if reading.waiting >= 1 else ""


@contextmanager
def _ticking(tick: Callable[[], None], seconds: float) -> Iterator[None]:
    done = threading.Event()

    def run() -> None:
        while not done.wait(seconds):
            tick()

    thread = threading.Thread(target=run, name="progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        tick()

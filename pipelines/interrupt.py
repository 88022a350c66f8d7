"""Signals that ask a run to stop."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager

from sources._causes import causes_of


class Interrupted(BaseException):
    """A signal asked the run to stop; `signal` is its number. Like KeyboardInterrupt, no `except Exception` swallows it."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.signal = number


def interruption_behind(error: BaseException) -> Interrupted | None:
    """The signal an error comes from, if any: DuckDB's client, for one, makes a RuntimeError of what a signal raises."""
    return next((cause for cause in causes_of(error) if isinstance(cause, Interrupted)), None)


def signals_ignored() -> None:
    """From here on Ctrl-C and SIGTERM do nothing."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


@contextmanager
def signals_interrupt() -> Iterator[None]:
    """Within this context Ctrl-C and SIGTERM raise `Interrupted`, unless they are ignored by its end."""

    def interrupt(number: int, _: object) -> None:
        raise Interrupted(number)

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            if signal.getsignal(number) is interrupt:
                signal.signal(number, handler)

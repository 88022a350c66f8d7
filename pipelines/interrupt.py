"""Signals that ask a run to stop."""

import os
import signal
import threading
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


@contextmanager
def signals_heeded() -> Iterator[None]:
    """At the end of this context, raise `Interrupted` if Ctrl-C or SIGTERM came meanwhile, whoever took it.

    Code that takes over the handlers for a while looks for a signal one last time and then hands them back: one that comes
    in between is lost, and the run goes on as if nobody had asked it to stop. Python's own note of it is not lost.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    reader, writer = os.pipe()
    for end in (reader, writer):
        os.set_blocking(end, False)
    before = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        os.close(writer)
        came = set(os.read(reader, 4096))
        os.close(reader)
        for number in (signal.SIGINT, signal.SIGTERM):
            if number in came:
                raise Interrupted(number)

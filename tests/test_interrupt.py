"""Signals that reach a run while C code is at work."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

import duckdb
import pytest
from dlt.common.runtime import signals

from pipelines.interrupt import Interrupted, interruption_behind, signals_heeded, signals_interrupt


def test_a_signal_within_a_query_is_known_for_a_signal() -> None:
    """DuckDB raises an error of its own in place of ours: a run that took it for one would end in a traceback."""
    query = "SELECT count(*) FROM range(1_000_000_000_000) WHERE hash(range) = 0"
    threading.Timer(0.3, os.kill, [os.getpid(), signal.SIGTERM]).start()
    with signals_interrupt(), duckdb.connect() as connection:
        # while another thread works, DuckDB does not look for signals in this one
        connection.execute("SET threads = 1")
        with pytest.raises(BaseException) as caught:  # noqa: PT011
            connection.execute(query)
    found = interruption_behind(caught.value)
    assert found is not None
    assert found.signal == signal.SIGTERM


def test_another_error_is_no_signal() -> None:
    """Any failure reported as `interrupted, run again` would hide what is wrong."""
    with pytest.raises(duckdb.Error) as caught, duckdb.connect() as connection:
        connection.execute("SELECT * FROM nowhere")
    assert interruption_behind(caught.value) is None


def test_an_error_met_while_ending_does_not_hide_the_signal() -> None:
    def ends_badly() -> None:
        try:
            raise Interrupted(signal.SIGINT)
        finally:
            raise OSError("the disk is full")

    with pytest.raises(OSError, match="full") as caught:
        ends_badly()
    found = interruption_behind(caught.value)
    assert found is not None
    assert found.signal == signal.SIGINT


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_that_dlt_takes_and_forgets_ends_the_run_all_the_same(number: int) -> None:
    """One that comes after dlt has looked for the last time: the run goes on, and waits for a slow vendor, for minutes."""
    with pytest.raises(Interrupted) as caught, signals_interrupt(), signals_heeded(), signals.intercepted_signals():
        signal.raise_signal(number)
    assert caught.value.signal == number


def test_a_signal_counts_for_more_than_the_failure_it_comes_with() -> None:
    """A run that was asked to stop would try the next vendor."""

    def broken_off() -> None:
        signal.raise_signal(signal.SIGTERM)
        raise OSError("a load that was broken off")

    with pytest.raises(Interrupted), signals_interrupt(), signals_heeded(), signals.intercepted_signals():
        broken_off()


def test_without_a_signal_nothing_is_raised_and_everything_is_as_before() -> None:
    """A child that ended, say, is no reason to stop; and a pipe left open at each slice ends a long load."""
    open_before, wakeup = _open_files(), signal.set_wakeup_fd(-1)
    chained = signal.signal(signal.SIGCHLD, lambda *_: None)
    try:
        with signals_heeded():
            signal.raise_signal(signal.SIGCHLD)
        with pytest.raises(OSError, match="full"), signals_heeded():
            raise OSError("the disk is full")
        assert _open_files() == open_before
        assert signal.set_wakeup_fd(-1) == -1
    finally:
        signal.signal(signal.SIGCHLD, chained)
        signal.set_wakeup_fd(wakeup)


def test_other_threads_are_left_alone() -> None:
    """Python lets the main thread alone ask for its note of signals."""
    done: list[bool] = []

    def run() -> None:
        with signals_heeded():
            done.append(True)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert done == [True]


def _open_files() -> int:
    return len(list(Path("/dev/fd").iterdir()))

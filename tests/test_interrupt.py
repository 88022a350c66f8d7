"""Signals that reach a run while C code is at work."""

from __future__ import annotations

import os
import signal
import threading

import duckdb
import pytest

from pipelines.interrupt import Interrupted, interruption_behind, signals_interrupt


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

"""The run lock, held and contended by real processes."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import tempfile
import threading
from contextlib import contextmanager
from datetime import UTC
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.lock import LockHeld, LockNote, _read_note, lock_holder, run_lock

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_HOLD = """
import sys, time
from pathlib import Path
from pipelines.lock import run_lock
with run_lock(Path(sys.argv[1])):
    {inside}
    print("held", flush=True)
    time.sleep(60)
"""


@contextmanager
def _holder(path: Path, inside: str = "pass") -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", _HOLD.format(inside=inside), str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "held\n"
            yield process
        finally:
            process.kill()


def _kill(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGKILL)
    process.wait()


def test_a_second_run_is_refused_and_told_the_pid_and_start_of_the_first(tmp_path: Path) -> None:
    lock = tmp_path / "work" / "lock"
    with _holder(lock) as first:
        with pytest.raises(LockHeld) as refused, run_lock(lock):
            pytest.fail("two runs held the lock")
        note = lock_holder(lock)
    assert refused.value.pid == first.pid
    assert note is not None
    assert note.pid == first.pid
    since = refused.value.since
    assert since is not None
    assert since.tzinfo is UTC
    expected = f"another run holds the lock: pid {first.pid}, since {since:%Y-%m-%d %H:%M:%S} UTC ({lock})"
    assert str(refused.value) == expected


def test_a_refused_run_leaves_the_note_of_the_holder_alone(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    with run_lock(lock):
        for _ in range(2):
            with pytest.raises(LockHeld) as refused, run_lock(lock):
                pytest.fail("two runs held the lock")
            assert refused.value.pid == os.getpid()


def test_kill_9_of_the_holder_frees_the_lock_and_its_stale_note_is_overwritten(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    with _holder(lock) as first:
        _kill(first)
        assert str(first.pid) in lock.read_text()
        assert lock_holder(lock) is None
        with run_lock(lock):
            holder = lock_holder(lock)
    assert holder is not None
    assert holder.pid == os.getpid()


@pytest.mark.parametrize(
    "inside",
    [
        pytest.param("import subprocess; child = subprocess.Popen(['sleep', '60']).pid", id="subprocess"),
        pytest.param("import os; child = os.fork() or time.sleep(60)", id="fork"),
    ],
)
def test_a_child_that_outlives_a_killed_run_does_not_keep_the_lock(tmp_path: Path, inside: str) -> None:
    lock, child = tmp_path / "lock", tmp_path / "child"
    tell = f"{inside}; Path({str(child)!r}).write_text(str(child))"
    with _holder(lock, tell) as first:
        _kill(first)
        try:
            os.kill(int(child.read_text()), 0)  # it does outlive it
            with run_lock(lock):
                pass
        finally:
            os.kill(int(child.read_text()), signal.SIGKILL)


def test_a_forked_child_that_unwinds_empties_neither_the_note_nor_a_file_of_its_own(tmp_path: Path) -> None:
    lock, own = tmp_path / "lock", tmp_path / "own"
    own.write_text("keep")
    # the file the child opens gets the number that the lock's descriptor had
    unwind = (
        f"    if not child:\n        os.open({str(own)!r}, os.O_RDWR)\n        sys.exit()\n    os.waitpid(child, 0)"
    )
    with _holder(lock, f"import os; child = os.fork()\n{unwind}") as first:
        note = lock_holder(lock)
    assert note is not None
    assert note.pid == first.pid
    assert own.read_text() == "keep"


def test_an_error_inside_the_block_frees_the_lock_and_empties_the_note(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    with pytest.raises(ZeroDivisionError), run_lock(lock):
        raise ZeroDivisionError
    assert lock.read_bytes() == b""
    with run_lock(lock):
        pass


def test_a_status_check_at_the_wrong_moment_does_not_fail_a_run(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    lock.touch()
    status = os.open(lock, os.O_RDONLY)
    fcntl.flock(status, fcntl.LOCK_SH)
    done = threading.Timer(0.05, os.close, [status])
    done.start()
    with run_lock(lock):
        pass
    done.join()


def test_status_of_a_warehouse_that_never_ran_creates_nothing(tmp_path: Path) -> None:
    assert lock_holder(tmp_path / "work" / "lock") is None
    assert list(tmp_path.iterdir()) == []


def test_a_lock_file_that_is_a_link_does_not_empty_the_file_it_names(tmp_path: Path) -> None:
    precious, lock = tmp_path / "precious", tmp_path / "lock"
    precious.write_text("keep")
    lock.symlink_to(precious)
    with pytest.raises(OSError, match="lock"), run_lock(lock):
        pytest.fail("the lock followed a link")
    assert precious.read_text() == "keep"


@pytest.mark.parametrize(
    ("note", "expected"),
    [
        pytest.param(b"", LockNote(), id="empty"),
        pytest.param(b'{"pid": 12, "sin', LockNote(), id="cut off"),
        pytest.param(b'{"pid": "12", "since": "noon", "host": 7}', LockNote(), id="wrong types"),
        pytest.param(b'{"pid": 12, "since": "0001-01-01T00:00:00+14:00"}', LockNote(pid=12), id="before year one"),
        pytest.param(b"[" * 5000, LockNote(), id="deeply nested"),
        pytest.param(b"\xff\x00", LockNote(), id="not text"),
    ],
)
def test_a_broken_note_is_refused_without_a_pid_rather_than_crash(
    tmp_path: Path, note: bytes, expected: LockNote
) -> None:
    lock = tmp_path / "lock"
    with run_lock(lock):
        lock.write_bytes(note)
        assert lock_holder(lock) == expected
        with pytest.raises(LockHeld) as refused, run_lock(lock):
            pytest.fail("two runs held the lock")
    assert refused.value.pid == expected.pid


@given(
    st.binary() | st.recursive(st.none() | st.integers() | st.text(), st.lists).map(lambda value: repr(value).encode())
)
def test_no_note_whatever_its_bytes_makes_reading_raise(note: bytes) -> None:
    with tempfile.TemporaryFile() as file:
        file.write(note)
        file.flush()
        assert isinstance(_read_note(file.fileno()), LockNote)

"""One run at a time: a lock file held with `flock`, and a note in it that says who holds it.

The kernel frees the lock when its holder ends, however it ends. The note is a courtesy for people: a stale or broken
one never blocks a run, and never makes reading it fail.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from typing import TYPE_CHECKING

import orjson

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_NOTE_BYTES = 4096
_STATUS_CHECK_SECONDS = 5.0


@dataclass(frozen=True)
class LockNote:
    """What the holder wrote about itself. A field is None where the note does not say it readably."""

    pid: int | None = None
    since: datetime | None = None
    host: str | None = None


class LockHeld(Exception):
    """Another run holds the lock."""

    def __init__(self, path: Path, note: LockNote) -> None:
        self.pid = note.pid
        self.since = note.since
        super().__init__(f"another run holds the lock: {_describe(note)} ({path})")


@contextlib.contextmanager
def run_lock(path: Path) -> Iterator[None]:
    """Hold the lock for as long as the block runs; raise LockHeld at once if another run has it."""
    path.parent.mkdir(0o700, parents=True, exist_ok=True)
    # the file is emptied and written to: never through a link, to a file that is not ours
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    owner = os.getpid()
    held = _descriptors_closed_in_children()
    held.add(descriptor)
    try:
        if not _acquire(descriptor):
            raise LockHeld(path, _read_note(descriptor))
        _write_note(descriptor)
        try:
            yield
        finally:
            if os.getpid() == owner:
                _empty(descriptor)
    finally:
        # a forked child that unwinds through here holds a copy that was closed when it started
        if os.getpid() == owner:
            held.discard(descriptor)
            os.close(descriptor)


def lock_holder(path: Path) -> LockNote | None:
    """Say who holds the lock now, or None if nobody does or the caller may not know."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except (FileNotFoundError, PermissionError):
        # readers of what is published may not look into work/
        return None
    except OSError as error:
        if error.errno == errno.ELOOP:
            return None
        raise
    try:
        return None if _try_lock(descriptor, fcntl.LOCK_SH) else _read_note(descriptor)
    finally:
        os.close(descriptor)


def _acquire(descriptor: int) -> bool:
    deadline = time.monotonic() + _STATUS_CHECK_SECONDS
    while not _try_lock(descriptor, fcntl.LOCK_EX):
        # a shared lock is only `lock_holder` looking: it is gone in a moment and must not fail a run
        if not _try_lock(descriptor, fcntl.LOCK_SH) or time.monotonic() > deadline:
            return False
        fcntl.flock(descriptor, fcntl.LOCK_UN)
        time.sleep(0.005)
    return True


def _try_lock(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@cache
def _descriptors_closed_in_children() -> set[int]:
    """Return the set of lock descriptors, which every forked child closes first.

    `exec` closes them by itself. A child that only forks (a process pool) would keep the lock after the run was killed.
    """
    held: set[int] = set()

    def close_in_child() -> None:
        while held:
            os.close(held.pop())

    os.register_at_fork(after_in_child=close_in_child)
    return held


def _write_note(descriptor: int) -> None:
    _empty(descriptor)
    note = {"pid": os.getpid(), "since": datetime.now(UTC).isoformat(timespec="seconds"), "host": socket.gethostname()}
    # the lock is held with or without a note, even on a full disk
    with contextlib.suppress(OSError):
        os.pwrite(descriptor, orjson.dumps(note), 0)


def _empty(descriptor: int) -> None:
    with contextlib.suppress(OSError):
        os.ftruncate(descriptor, 0)


def _read_note(descriptor: int) -> LockNote:
    try:
        note = orjson.loads(os.pread(descriptor, _NOTE_BYTES, 0))
    except (OSError, ValueError):
        return LockNote()
    if not isinstance(note, dict):
        return LockNote()
    pid, host = note.get("pid"), note.get("host")
    return LockNote(
        pid=pid if isinstance(pid, int) else None,
        since=_parse_time(note.get("since")),
        host=host if isinstance(host, str) else None,
    )


def _parse_time(text: object) -> datetime | None:
    if not isinstance(text, str):
        return None
    try:
        return datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def _describe(note: LockNote) -> str:
    who = "pid unknown" if note.pid is None else f"pid {note.pid}"
    where = "" if note.host in {None, socket.gethostname()} else f" on {note.host}"
    since = "" if note.since is None else f", since {note.since:%Y-%m-%d %H:%M:%S} UTC"
    return f"{who}{where}{since}"

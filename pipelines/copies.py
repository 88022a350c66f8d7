"""A database file copied with its log, brought to disk and checked, while nobody can write it.

DuckDB's log of a file is beside it, in a `.wal`. A copy's log has a note with it, as a `.wal` without one was left by some
other tool and would be replayed into the copy.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import duckdb

from pipelines.database import open_database
from pipelines.interrupt import interruption_behind
from pipelines.permissions import PRIVATE_FOLDER, create_private
from pipelines.warehouse import DATABASE_NAME, PublishError, file_size

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from concurrent.futures import Future

    from pipelines.warehouse import Generation

log = logging.getLogger("deskhouse.copies")

LOG_NAME = f"{DATABASE_NAME}.wal"
_LOG_NOTE = "log-bytes"
READERS_SAFE = "readers keep the last published generation"
_PIECE = 32 << 20
# linux/fs.h; Python names it from 3.12 on
_FICLONE = 0x40049409
_DISK_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_LOCKED = {errno.EACCES, errno.EAGAIN}


@contextlib.contextmanager
def kept_from_writers(database: Path) -> Iterator[BinaryIO]:
    """Open a database file for copying, under DuckDB's own kind of lock: nobody can open it for writing meanwhile."""
    with database.open("rb") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError as error:
            # any other answer is a file system without locks, where DuckDB has none either
            if error.errno in _LOCKED:
                raise PublishError(
                    f"{database} is open for writing in another process: close that one (`fuser {database}` names it)"
                    " and run again"
                ) from error
        yield file


def copy_file(source: BinaryIO, target: Path) -> None:
    """Copy a file, which is not to change meanwhile, sharing its blocks where the file system can, and bring it to disk."""
    size = os.fstat(source.fileno()).st_size
    try:
        with create_private(target) as file:
            if not _reflink(source, file):
                _require_space(target, size)
                _copy_bytes(source, file, size)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        if error.errno in _DISK_FULL:
            raise _disk_full(target, size) from error
        raise
    if file_size(target) != os.fstat(source.fileno()).st_size:
        raise PublishError(
            f"{source.name} changed while it was copied to {target}: find what writes to it, and run again"
        )


def _reflink(source: BinaryIO, target: BinaryIO) -> bool:
    try:
        fcntl.ioctl(target, _FICLONE, source.fileno())
    except OSError:
        return False
    return True


def _copy_bytes(source: BinaryIO, target: BinaryIO, size: int) -> None:
    done = 0
    if sys.platform == "linux":
        on_disk: list[Future[None]] = []
        # inside the kernel where it can; what it will not do, and its real errors, are left to the plain copy
        with ThreadPoolExecutor(1) as disk, contextlib.suppress(OSError):
            while step := os.copy_file_range(source.fileno(), target.fileno(), min(size - done, _PIECE), done, done):
                done += step
                if done < size:
                    # the disk takes one piece while the next is copied
                    on_disk.append(disk.submit(os.fdatasync, target.fileno()))
        for piece in on_disk:
            # the system tells of a failure once, so a later call would not
            piece.result()
    source.seek(done)
    target.seek(done)
    shutil.copyfileobj(source, target, 1 << 20)


def _require_space(target: Path, needed: int) -> None:
    if shutil.disk_usage(target.parent).free < needed:
        raise _disk_full(target, needed)


def _disk_full(target: Path, needed: int) -> PublishError:
    free = shutil.disk_usage(target.parent).free
    return PublishError(
        f"{target}: the disk is full: this copy needs {needed:,} bytes and {free:,} are free:"
        " make room and run again; nothing that was published or loaded is lost"
    )


def copy_log(database: Path, folder: Path) -> None:
    """Copy a database's log, and note that it belongs there."""
    log_file = database.with_name(LOG_NAME)
    if not log_file.exists():
        return
    with log_file.open("rb") as source:
        copy_file(source, folder / LOG_NAME)
    with create_private(folder / _LOG_NOTE) as note:
        note.write(str(file_size(folder / LOG_NAME)).encode())


def has_own_log(generation: Generation) -> bool:
    """Whether the log beside a generation's database is the one it was published with."""
    try:
        return (generation.path / _LOG_NOTE).read_text() == str(file_size(generation.path / LOG_NAME))
    except OSError:
        return False


def link_file(file: Path, name: Path) -> bool:
    """Give a file a second name, and say whether the file system could."""
    try:
        name.hardlink_to(file)
    except OSError:
        # not every file system has links; a copy does the same
        return False
    return True


def logs_of(database: Path) -> list[Path]:
    """The write-ahead logs beside a database: DuckDB also has `.wal.checkpoint` and `.wal.recovery`."""
    return sorted(database.parent.glob(f"{database.name}.wal*"))


def fold_log(database: Path) -> None:
    """Take the log into the database file, as DuckDB does it."""
    if not logs_of(database):
        return
    try:
        with open_database(database) as connection:
            connection.execute("CHECKPOINT")
    except duckdb.Error as error:
        raise PublishError(f"{database}: its log could not be taken in: {error}; {READERS_SAFE}") from error
    if wals := logs_of(database):
        raise PublishError(f"{wals[0]} is still there after a checkpoint: find what has {database.name} open")


def verify_copy(copy: Path, verify: Callable[[Path], None] | None) -> None:
    """Open the copy, which has an inode of its own, so no lock of DuckDB's is at stake."""
    logs = logs_of(copy)
    try:
        _refuse_no_tables(copy)
        if verify is not None:
            verify(copy)
    except PublishError:
        raise
    except Exception as error:
        if interruption := interruption_behind(error):
            raise interruption from None
        raise PublishError(f"{copy}: the copy failed its check: {error}; {READERS_SAFE}") from error
    if logs_of(copy) != logs or is_open_here(copy.stat()):
        raise PublishError(f"{copy}: its check left it open or left a .wal: a check reads and closes; {READERS_SAFE}")


def _refuse_no_tables(copy: Path) -> None:
    with duckdb.connect(str(copy), read_only=True) as connection:
        tables = connection.execute("SELECT count(*) FROM duckdb_tables()").fetchall()
    if tables == [(0,)]:
        raise PublishError(f"{copy}: the copy holds no table; {READERS_SAFE}")


def is_open_here(status: os.stat_result) -> bool:
    """Whether this process has a file open, told without opening it, which would drop DuckDB's lock on it."""
    try:
        descriptors = [int(entry.name) for entry in Path("/dev/fd").iterdir()]
    except OSError:
        # a bare container may not have it; the check is a safeguard, not a need
        return False
    return any(_is_same_file(descriptor, status) for descriptor in descriptors)


def _is_same_file(descriptor: int, status: os.stat_result) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), status)
    except OSError:
        return False


def make_directory(path: Path) -> None:
    """Make a folder only its owner may enter, where there is none yet, and bring its name to disk."""
    if not path.is_dir():
        path.mkdir(PRIVATE_FOLDER, parents=True, exist_ok=True)
        sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """Bring the names in a folder to disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # some network file systems cannot, and order their renames by themselves
        if error.errno not in {errno.EINVAL, errno.ENOTSUP}:
            raise
    finally:
        os.close(descriptor)


def remove(path: Path) -> bool:
    """Remove a folder or a link and say whether it is gone."""
    try:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
    except FileNotFoundError:
        return False
    except OSError as error:
        log.warning("%s could not be removed: %s", path, error)
        return False
    return True

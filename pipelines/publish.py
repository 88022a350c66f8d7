"""From the private database to the file that dashboards read, and back when one of the two is lost.

    <root>/current -> generations/<utc>-<run>/     what readers open: current/deskhouse.duckdb
    <root>/generations/<utc>-<run>/                one complete copy each, a few of them kept: the database, and DuckDB's
                                                   log of what was written since, which every reader takes in
    <root>/generations/.tmp-…  .tmp-current-…      half-made: swept when the next run starts
    <root>/work/                                   the private database, dlt's folder, the lock

A new folder and a flipped link, rather than one replaced file: DuckDB caches open databases by resolved path, so a
process with an old connection would go on reading the old file, and a `.wal` that some tool left beside a replaced file
would be replayed into the new one.

A run that changed no row has written a few lines to the ledger, which DuckDB keeps in the log beside the database. Then
the new generation shares the database file of the last one and has a log of its own: nothing large is copied, and
readers see when the run was all the same. Everything here but `current_generation` runs while the caller holds the run lock.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import logging
import os
import re
import shutil
import stat
import sys
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import duckdb

from pipelines.database import open_database
from pipelines.interrupt import interruption_behind
from pipelines.permissions import PRIVATE_FOLDER, Access, create_private, first_link, open_to_readers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

log = logging.getLogger("deskhouse.publish")

DATABASE_NAME = "deskhouse.duckdb"

_TMP = ".tmp-"
_STAMP = "%Y%m%dT%H%M%S.%fZ"
_NAME = re.compile(r"(?P<stamp>\d{8}T\d{6}\.\d{6}Z)-(?P<run>[A-Za-z0-9._-]{1,150})")
_LOG_NAME = f"{DATABASE_NAME}.wal"
_LOG_NOTE = "log-bytes"
_LONGEST_LOG = 1 << 20
"""Bytes past which the log is folded into the database: every reader replays it."""
_RUN_ID = re.compile(r"[A-Za-z0-9._-]{1,150}")
# linux/fs.h; Python names it from 3.12 on
_FICLONE = 0x40049409
_DISK_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_LOCKED = {errno.EACCES, errno.EAGAIN}
_READERS_SAFE = "readers keep the last published generation"


class PublishError(Exception):
    """Publishing or restoring stopped. The message names the path, what it means and what to do."""


@dataclass(frozen=True)
class Warehouse:
    """Where everything in one warehouse folder lives."""

    root: Path

    @property
    def work(self) -> Path:
        """The folder only runs use."""
        return self.root / "work"

    @property
    def private_database(self) -> Path:
        """The database runs load into."""
        return self.work / DATABASE_NAME

    @property
    def pipelines_dir(self) -> Path:
        """Where dlt keeps its pipelines."""
        return self.work / "dlt"

    @property
    def lock_file(self) -> Path:
        """The file a run locks."""
        return self.work / "lock"

    @property
    def generations(self) -> Path:
        """The folder of published copies."""
        return self.root / "generations"

    @property
    def last_published(self) -> Path:
        """What the private database was when it was last published."""
        return self.work / "published.json"

    @property
    def current(self) -> Path:
        """The link to the copy readers should open."""
        return self.root / "current"

    @property
    def published_database(self) -> Path:
        """The path readers open."""
        return self.current / DATABASE_NAME


@dataclass(frozen=True)
class Generation:
    """One published copy."""

    name: str
    path: Path
    database: Path
    published_at: datetime
    run_id: str
    bytes: int


def publish(
    warehouse: Warehouse,
    run_id: str,
    *,
    access: Access = Access.OWNER,
    keep: int = 3,
    min_age: timedelta = timedelta(minutes=10),
    now: Callable[[], datetime] | None = None,
    verify: Callable[[Path], None] | None = None,
) -> Generation:
    """Copy the private database into a new generation, check the copy, and point `current` at it.

    Every connection this process has to the private database must be closed before. `access` says who may read the
    copies that are kept, this one and older ones. `verify` gets the path of the copy and refuses it by raising. A failure
    leaves readers what they had.
    """
    if not _RUN_ID.fullmatch(run_id):
        raise ValueError(f"a run id becomes part of a folder name, so {run_id!r} cannot be one")
    refuse_unsafe_layout(warehouse)
    _refuse_unready(warehouse.private_database)
    try:
        base = _shared_base(warehouse)
        if base is None:
            _fold_log(warehouse.private_database)
        generation = _make_generation(warehouse, run_id, _utc(now), base, verify)
        kept = [one.path for one in _generations(warehouse)]
        open_to_readers(warehouse.root, warehouse.generations, kept, access)
        _flip(warehouse, generation)
        _remember(warehouse, generation)
    except OSError as error:
        raise PublishError(f"{warehouse.root}: could not publish: {error}; {_READERS_SAFE}") from error
    _prune(warehouse, generation.name, _utc(now), keep, min_age)
    return generation


def current_generation(warehouse: Warehouse) -> Generation | None:
    """Return the generation readers see, or None if they see none."""
    try:
        target = warehouse.root / warehouse.current.readlink()
        if target.resolve().parent != warehouse.generations.resolve():
            return None
    except (OSError, RuntimeError):
        return None
    return _complete(warehouse, target.name)


def is_published(warehouse: Warehouse) -> bool:
    """Whether the private database is, to the byte, what readers see."""
    if _shared_base(warehouse) is None:
        return False
    return _remembered(warehouse).get("log_bytes") == _size(warehouse.private_database.with_name(_LOG_NAME))


def sweep_leftovers(warehouse: Warehouse) -> list[Path]:
    """Remove what a killed publish or restore left half-made, and return it."""
    refuse_unsafe_layout(warehouse)
    found = [
        *warehouse.root.glob(f"{_TMP}current-*"),
        *warehouse.generations.glob(f"{_TMP}*"),
        *warehouse.work.glob(f"{_TMP}restore*"),
        *warehouse.work.glob(f"{_TMP}published*"),
    ]
    return [path for path in sorted(found) if _remove(path)]


def restore_private(warehouse: Warehouse) -> str | None:
    """Copy a generation back if the private database is lost, and return that generation's name.

    The current generation is taken, or else the newest that opens, with its log; a `.wal` beside it that it was not
    published with was left by some other tool. None means that there was nothing to do, or nothing to restore from.
    """
    refuse_unsafe_layout(warehouse)
    try:
        _make_directory(warehouse.work)
        # an empty file is what a full disk or a careless tool leaves: it holds no data to protect
        if _size(warehouse.private_database) > 0:
            return None
        return _restore_first(warehouse, _restorable(warehouse))
    except OSError as error:
        raise PublishError(f"{warehouse.private_database}: could not be restored: {error}") from error


def refuse_unsafe_layout(warehouse: Warehouse) -> None:
    """Stop before something is written or deleted through a link.

    The warehouse folder itself may be one; `work` and `generations` may lead elsewhere inside it. Links that are removed
    or replaced without being followed, like `current`, do no harm wherever they lead.

    Raises:
        PublishError: names the link.
    """
    root = warehouse.root.resolve()
    for folder in (warehouse.work, warehouse.generations):
        if not folder.resolve().is_relative_to(root):
            raise PublishError(
                f"{folder} is a link that leads outside the warehouse, where nothing is written or deleted:"
                f" replace it by a folder, or move all of {warehouse.root}"
            )
    if link := first_link(warehouse.work):
        raise PublishError(
            f"{link} is a link, and a run would write or delete what it leads to: remove it, or put the thing itself there"
        )


def _utc(now: Callable[[], datetime] | None) -> datetime:
    return (datetime.now(UTC) if now is None else now()).astimezone(UTC)


def _refuse_unready(database: Path) -> None:
    """Refuse a private database that is missing or that this process has not closed."""
    try:
        status = database.lstat()
    except FileNotFoundError:
        raise PublishError(f"{database} does not exist, so there is nothing to publish: run `deskhouse sync`") from None
    if not stat.S_ISREG(status.st_mode):
        raise PublishError(f"{database} is not a plain file: put the database itself there, not a link to it")
    # looked up without opening it, which is the very thing that must not happen
    if _is_open_here(status):
        raise PublishError(
            f"{database} is still open in this process, and reading it now would drop DuckDB's lock on it:"
            " close every connection to it before publishing"
        )


def _identity(database: Path) -> dict[str, int]:
    status = database.stat()
    return {"inode": status.st_ino, "bytes": status.st_size, "written_ns": status.st_mtime_ns}


def _remember(warehouse: Warehouse, generation: Generation) -> None:
    """Note what was published; losing the note costs a copy."""
    note = {
        "generation": generation.name,
        **_identity(warehouse.private_database),
        "log_bytes": _size(warehouse.private_database.with_name(_LOG_NAME)),
        "copy": _identity(generation.database),
    }
    half_made = warehouse.last_published.with_name(f"{_TMP}published")
    half_made.unlink(missing_ok=True)
    with create_private(half_made) as file:
        file.write(json.dumps(note).encode())
    half_made.replace(warehouse.last_published)


def _remembered(warehouse: Warehouse) -> dict[str, object]:
    try:
        note = json.loads(warehouse.last_published.read_text())
    except (OSError, ValueError):
        return {}
    return note if isinstance(note, dict) else {}


def _shared_base(warehouse: Warehouse) -> Path | None:
    """The current generation's database file, where the private one has not been written since and its log is short."""
    generation, note = current_generation(warehouse), _remembered(warehouse)
    if generation is None or not warehouse.private_database.exists():
        return None
    now = {"generation": generation.name, "copy": _identity(generation.database)}
    if any(note.get(name) != value for name, value in {**now, **_identity(warehouse.private_database)}.items()):
        return None
    logs = _wals(warehouse.private_database)
    short = all(log.name == _LOG_NAME and _size(log) <= _LONGEST_LOG for log in logs)
    return generation.database if short else None


def _fold_log(database: Path) -> None:
    """Take the log into the database file, as DuckDB does it."""
    if not _wals(database):
        return
    try:
        with open_database(database) as connection:
            connection.execute("CHECKPOINT")
    except duckdb.Error as error:
        raise PublishError(f"{database}: its log could not be taken in: {error}; {_READERS_SAFE}") from error
    if wals := _wals(database):
        raise PublishError(f"{wals[0]} is still there after a checkpoint: find what has {database.name} open")


def _is_open_here(status: os.stat_result) -> bool:
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


def _make_generation(
    warehouse: Warehouse, run_id: str, at: datetime, base: Path | None, verify: Callable[[Path], None] | None
) -> Generation:
    if not warehouse.current.is_symlink() and os.path.lexists(warehouse.current):
        raise PublishError(
            f"{warehouse.current} should be a link to a generation but is a real file or folder:"
            " move it away and publish again"
        )
    _make_directory(warehouse.generations)
    name = _free_name(warehouse, run_id, at)
    half_made = warehouse.generations / f"{_TMP}{name}"
    try:
        half_made.mkdir(PRIVATE_FOLDER)
        with _kept_from_writers(warehouse.private_database) as source:
            if base is None or not _link(base, half_made / DATABASE_NAME):
                _copy(source, half_made / DATABASE_NAME)
            _copy_log(warehouse.private_database, half_made)
        _sync_directory(half_made)
        _verify(half_made / DATABASE_NAME, verify)
        half_made.rename(warehouse.generations / name)
    except BaseException:
        shutil.rmtree(half_made, ignore_errors=True)
        raise
    _sync_directory(warehouse.generations)
    generation = _complete(warehouse, name)
    if generation is None:
        raise PublishError(f"{warehouse.generations / name} vanished while it was published; {_READERS_SAFE}")
    return generation


def _free_name(warehouse: Warehouse, run_id: str, at: datetime) -> str:
    """Return a name nothing has yet: a clock that stood still or jumped back may give the same time again."""
    while True:
        name = f"{at.strftime(_STAMP)}-{run_id}"
        if not any(os.path.lexists(warehouse.generations / prefix) for prefix in (name, f"{_TMP}{name}")):
            return name
        at += timedelta(microseconds=1)


def _flip(warehouse: Warehouse, generation: Generation) -> None:
    link = warehouse.root / f"{_TMP}current-{generation.name}"
    try:
        link.symlink_to(Path(warehouse.generations.name) / generation.name)
        link.replace(warehouse.current)
    except OSError:
        link.unlink(missing_ok=True)
        # nobody reads it, and pruning comes only after a flip: left behind, one would pile up at each try
        if current_generation(warehouse) != generation:
            _remove(generation.path)
        raise
    _sync_directory(warehouse.root)


def _prune(warehouse: Warehouse, current: str, now: datetime, keep: int, min_age: timedelta) -> None:
    """Drop old generations. What cannot be dropped now is logged and tried again at the next publish."""
    try:
        present = list(_generations(warehouse))
    except OSError as error:
        log.warning("%s: old generations were not looked for: %s", warehouse.generations, error)
        return
    for generation in _expendable(present, current, now, keep=keep, min_age=min_age):
        half_gone = generation.path.with_name(f"{_TMP}{generation.name}")
        try:
            # renamed first: a kill half-way leaves something the next sweep takes, not half a generation
            generation.path.rename(half_gone)
        except OSError as error:
            log.warning("%s: this old generation could not be removed: %s", generation.path, error)
        else:
            _remove(half_gone)


def _expendable(
    generations: Sequence[Generation], current: str, now: datetime, *, keep: int, min_age: timedelta
) -> list[Generation]:
    """Choose what to drop: never the current one, one of the `keep` newest complete ones, or one younger than `min_age`.

    A time in the future comes from a clock that was wrong. Such a generation counts as young, since its true age is
    unknown, and not as one of the newest, or a few of them would push out every later one.
    """
    ranked = sorted(generations, key=lambda one: (one.bytes > 0, one.published_at <= now, one.published_at))
    beyond = ranked[: max(len(ranked) - keep, 0)]
    return [one for one in beyond if one.name != current and now - one.published_at >= min_age]


def _generations(warehouse: Warehouse) -> Iterator[Generation]:
    """Yield every generation by name, complete or not, and nothing that somebody else put there."""
    for path in sorted(warehouse.generations.glob("*")):
        parts = _NAME.fullmatch(path.name)
        if parts is None or path.is_symlink() or not path.is_dir():
            continue
        with contextlib.suppress(ValueError):
            yield Generation(
                name=path.name,
                path=path,
                database=path / DATABASE_NAME,
                published_at=datetime.strptime(parts["stamp"], _STAMP).replace(tzinfo=UTC),
                run_id=parts["run"],
                bytes=_size(path / DATABASE_NAME),
            )


def _complete(warehouse: Warehouse, name: str) -> Generation | None:
    return next((one for one in _generations(warehouse) if one.name == name and one.bytes > 0), None)


def _size(path: Path) -> int:
    """Return the size of a plain file, or 0 if there is none."""
    try:
        status = path.lstat()
    except OSError:
        return 0
    return status.st_size if stat.S_ISREG(status.st_mode) else 0


def _restorable(warehouse: Warehouse) -> list[Generation]:
    current = current_generation(warehouse)
    newest_first = [one for one in reversed(list(_generations(warehouse))) if one.bytes > 0]
    return newest_first if current is None else [current, *(one for one in newest_first if one != current)]


def _restore_first(warehouse: Warehouse, candidates: Sequence[Generation]) -> str | None:
    refusals = []
    for generation in candidates:
        half_made = warehouse.work / f"{_TMP}restore"
        _remove(half_made)
        try:
            half_made.mkdir(PRIVATE_FOLDER)
            with _kept_from_writers(generation.database) as source:
                _copy(source, half_made / DATABASE_NAME)
                if _has_own_log(generation):
                    _copy_log(generation.database, half_made)
            _verify(half_made / DATABASE_NAME, None)
            _fold_log(half_made / DATABASE_NAME)
            _set_aside_wal(warehouse.private_database)
            (half_made / DATABASE_NAME).replace(warehouse.private_database)
            _sync_directory(warehouse.work)
        except (PublishError, OSError) as error:
            log.warning("%s: not restored from: %s", generation.path, error)
            refusals.append(str(error))
        else:
            return generation.name
        finally:
            shutil.rmtree(half_made, ignore_errors=True)
    if refusals:
        raise PublishError(
            f"{warehouse.private_database} is lost and no generation could take its place ({'; '.join(refusals)}):"
            f" repair one of them, or move {warehouse.generations} away to load everything again"
        )
    return None


def _set_aside_wal(database: Path) -> None:
    """Keep the log of the lost database from being replayed into the restored one."""
    for wal in _wals(database):
        wal.replace(wal.with_name(f"lost-{wal.name}"))


def _copy_log(database: Path, folder: Path) -> None:
    """Copy a database's log, and note that it belongs there."""
    log_file = database.with_name(_LOG_NAME)
    if not log_file.exists():
        return
    with log_file.open("rb") as source:
        _copy(source, folder / _LOG_NAME)
    with create_private(folder / _LOG_NOTE) as note:
        note.write(str(_size(folder / _LOG_NAME)).encode())


def _has_own_log(generation: Generation) -> bool:
    try:
        return (generation.path / _LOG_NOTE).read_text() == str(_size(generation.path / _LOG_NAME))
    except OSError:
        return False


def _link(file: Path, name: Path) -> bool:
    try:
        name.hardlink_to(file)
    except OSError:
        # not every file system has links; a copy does the same
        return False
    return True


def _wals(database: Path) -> list[Path]:
    """Return the write-ahead logs beside a database: DuckDB also has `.wal.checkpoint` and `.wal.recovery`."""
    return sorted(database.parent.glob(f"{database.name}.wal*"))


def _refuse_no_tables(copy: Path) -> None:
    with duckdb.connect(str(copy), read_only=True) as connection:
        tables = connection.execute("SELECT count(*) FROM duckdb_tables()").fetchall()
    if tables == [(0,)]:
        raise PublishError(f"{copy}: the copy holds no table; {_READERS_SAFE}")


def _verify(copy: Path, verify: Callable[[Path], None] | None) -> None:
    """Open the copy, which has an inode of its own, so no lock of DuckDB's is at stake."""
    logs = _wals(copy)
    try:
        _refuse_no_tables(copy)
        if verify is not None:
            verify(copy)
    except PublishError:
        raise
    except Exception as error:
        if interruption := interruption_behind(error):
            raise interruption from None
        raise PublishError(f"{copy}: the copy failed its check: {error}; {_READERS_SAFE}") from error
    if _wals(copy) != logs or _is_open_here(copy.stat()):
        raise PublishError(f"{copy}: its check left it open or left a .wal: a check reads and closes; {_READERS_SAFE}")


@contextlib.contextmanager
def _kept_from_writers(database: Path) -> Iterator[BinaryIO]:
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


def _copy(source: BinaryIO, target: Path) -> None:
    """Copy a file, sharing its blocks where the file system can, and bring it to disk."""
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
    if _size(target) != os.fstat(source.fileno()).st_size:
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
        # inside the kernel where it can; what it will not do, and its real errors, are left to the plain copy
        with contextlib.suppress(OSError):
            while step := os.copy_file_range(source.fileno(), target.fileno(), size - done, done, done):
                done += step
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


def _make_directory(path: Path) -> None:
    if not path.is_dir():
        path.mkdir(PRIVATE_FOLDER, parents=True, exist_ok=True)
        _sync_directory(path.parent)


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # some network file systems cannot, and order their renames by themselves
        if error.errno not in {errno.EINVAL, errno.ENOTSUP}:
            raise
    finally:
        os.close(descriptor)


def _remove(path: Path) -> bool:
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

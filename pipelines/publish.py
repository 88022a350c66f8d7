"""From the private database to the file that dashboards read.

A new folder and a flipped link, rather than one replaced file: DuckDB caches open databases by resolved path, so a
process with an old connection would go on reading the old file, and a `.wal` that some tool left beside a replaced file
would be replayed into the new one. `pipelines.warehouse` says what lies where.

A run that changed no row has written a few lines to the ledger, which DuckDB keeps in the log beside the database. Then
the new generation shares the database file of the last one and has a log of its own: nothing large is copied, and
readers see when the run was all the same. Everything here runs while the caller holds the run lock.
"""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.copies import (
    LOG_NAME,
    READERS_SAFE,
    copy_file,
    copy_log,
    fold_log,
    is_open_here,
    kept_from_writers,
    link_file,
    logs_of,
    make_directory,
    remove,
    sync_directory,
    verify_copy,
)
from pipelines.permissions import PRIVATE_FOLDER, Access, create_private, open_to_readers
from pipelines.warehouse import (
    DATABASE_NAME,
    HALF_MADE,
    STAMP,
    Generation,
    PublishError,
    complete_generation,
    current_generation,
    file_size,
    generations,
    refuse_unsafe_layout,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pipelines.warehouse import Warehouse

log = logging.getLogger("deskhouse.publish")

_LONGEST_LOG = 1 << 20
"""Bytes past which the log is folded into the database: every reader replays it."""
_RUN_ID = re.compile(r"[A-Za-z0-9._-]{1,150}")


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
            fold_log(warehouse.private_database)
        generation = _make_generation(warehouse, run_id, _utc(now), base, verify)
        kept = [one.path for one in generations(warehouse)]
        open_to_readers(warehouse.root, warehouse.generations, kept, access)
        _flip(warehouse, generation)
        _remember(warehouse, generation)
    except OSError as error:
        raise PublishError(f"{warehouse.root}: could not publish: {error}; {READERS_SAFE}") from error
    _prune(warehouse, generation.name, _utc(now), keep, min_age)
    return generation


def is_published(warehouse: Warehouse) -> bool:
    """Whether the private database is, to the byte, what readers see."""
    if _shared_base(warehouse) is None:
        return False
    return _remembered(warehouse).get("log_bytes") == file_size(warehouse.private_database.with_name(LOG_NAME))


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
    if is_open_here(status):
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
        "log_bytes": file_size(warehouse.private_database.with_name(LOG_NAME)),
        "copy": _identity(generation.database),
    }
    half_made = warehouse.last_published.with_name(f"{HALF_MADE}published")
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
    logs = logs_of(warehouse.private_database)
    short = all(log.name == LOG_NAME and file_size(log) <= _LONGEST_LOG for log in logs)
    return generation.database if short else None


def _make_generation(
    warehouse: Warehouse, run_id: str, at: datetime, base: Path | None, verify: Callable[[Path], None] | None
) -> Generation:
    if not warehouse.current.is_symlink() and os.path.lexists(warehouse.current):
        raise PublishError(
            f"{warehouse.current} should be a link to a generation but is a real file or folder:"
            " move it away and publish again"
        )
    make_directory(warehouse.generations)
    name = _free_name(warehouse, run_id, at)
    half_made = warehouse.generations / f"{HALF_MADE}{name}"
    try:
        half_made.mkdir(PRIVATE_FOLDER)
        with kept_from_writers(warehouse.private_database) as source:
            if base is None or not link_file(base, half_made / DATABASE_NAME):
                copy_file(source, half_made / DATABASE_NAME)
            copy_log(warehouse.private_database, half_made)
        sync_directory(half_made)
        verify_copy(half_made / DATABASE_NAME, verify)
        half_made.rename(warehouse.generations / name)
    except BaseException:
        shutil.rmtree(half_made, ignore_errors=True)
        raise
    sync_directory(warehouse.generations)
    generation = complete_generation(warehouse, name)
    if generation is None:
        raise PublishError(f"{warehouse.generations / name} vanished while it was published; {READERS_SAFE}")
    return generation


def _free_name(warehouse: Warehouse, run_id: str, at: datetime) -> str:
    """Return a name nothing has yet: a clock that stood still or jumped back may give the same time again."""
    while True:
        name = f"{at.strftime(STAMP)}-{run_id}"
        if not any(os.path.lexists(warehouse.generations / prefix) for prefix in (name, f"{HALF_MADE}{name}")):
            return name
        at += timedelta(microseconds=1)


def _flip(warehouse: Warehouse, generation: Generation) -> None:
    link = warehouse.root / f"{HALF_MADE}current-{generation.name}"
    try:
        link.symlink_to(Path(warehouse.generations.name) / generation.name)
        link.replace(warehouse.current)
    except OSError:
        link.unlink(missing_ok=True)
        # nobody reads it, and pruning comes only after a flip: left behind, one would pile up at each try
        if current_generation(warehouse) != generation:
            remove(generation.path)
        raise
    sync_directory(warehouse.root)


def _prune(warehouse: Warehouse, current: str, now: datetime, keep: int, min_age: timedelta) -> None:
    """Drop old generations. What cannot be dropped now is logged and tried again at the next publish."""
    try:
        present = list(generations(warehouse))
    except OSError as error:
        log.warning("%s: old generations were not looked for: %s", warehouse.generations, error)
        return
    for generation in _expendable(present, current, now, keep=keep, min_age=min_age):
        half_gone = generation.path.with_name(f"{HALF_MADE}{generation.name}")
        try:
            # renamed first: a kill half-way leaves something the next sweep takes, not half a generation
            generation.path.rename(half_gone)
        except OSError as error:
            log.warning("%s: this old generation could not be removed: %s", generation.path, error)
        else:
            remove(half_gone)


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

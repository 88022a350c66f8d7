"""The private database brought back from what readers have, and what a killed run left half-made taken away.

Everything here runs while the caller holds the run lock.
"""

from __future__ import annotations

import logging
import shutil
from typing import TYPE_CHECKING

from pipelines.copies import (
    copy_file,
    copy_log,
    fold_log,
    has_own_log,
    kept_from_writers,
    logs_of,
    make_directory,
    remove,
    sync_directory,
    verify_copy,
)
from pipelines.permissions import PRIVATE_FOLDER
from pipelines.warehouse import (
    DATABASE_NAME,
    HALF_MADE,
    PublishError,
    current_generation,
    file_size,
    generations,
    refuse_unsafe_layout,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from pipelines.warehouse import Generation, Warehouse

log = logging.getLogger("deskhouse.restore")


def sweep_leftovers(warehouse: Warehouse) -> list[Path]:
    """Remove what a killed publish or restore left half-made, and return it."""
    refuse_unsafe_layout(warehouse)
    found = [
        *warehouse.root.glob(f"{HALF_MADE}current-*"),
        *warehouse.generations.glob(f"{HALF_MADE}*"),
        *warehouse.work.glob(f"{HALF_MADE}restore*"),
        *warehouse.work.glob(f"{HALF_MADE}published*"),
    ]
    return [path for path in sorted(found) if remove(path)]


def restore_private(warehouse: Warehouse) -> str | None:
    """Copy a generation back if the private database is lost, and return that generation's name.

    The current generation is taken, or else the newest that opens, with its log; a `.wal` beside it that it was not
    published with was left by some other tool. None means that there was nothing to do, or nothing to restore from.
    """
    refuse_unsafe_layout(warehouse)
    try:
        make_directory(warehouse.work)
        # an empty file is what a full disk or a careless tool leaves: it holds no data to protect
        if file_size(warehouse.private_database) > 0:
            return None
        return _restore_first(warehouse, _restorable(warehouse))
    except OSError as error:
        raise PublishError(f"{warehouse.private_database}: could not be restored: {error}") from error


def _restorable(warehouse: Warehouse) -> list[Generation]:
    current = current_generation(warehouse)
    newest_first = [one for one in reversed(list(generations(warehouse))) if one.bytes > 0]
    return newest_first if current is None else [current, *(one for one in newest_first if one != current)]


def _restore_first(warehouse: Warehouse, candidates: Sequence[Generation]) -> str | None:
    refusals = []
    for generation in candidates:
        half_made = warehouse.work / f"{HALF_MADE}restore"
        remove(half_made)
        try:
            half_made.mkdir(PRIVATE_FOLDER)
            with kept_from_writers(generation.database) as source:
                copy_file(source, half_made / DATABASE_NAME)
                if has_own_log(generation):
                    copy_log(generation.database, half_made)
            verify_copy(half_made / DATABASE_NAME, None)
            fold_log(half_made / DATABASE_NAME)
            _set_aside_wal(warehouse.private_database)
            (half_made / DATABASE_NAME).replace(warehouse.private_database)
            sync_directory(warehouse.work)
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
    for wal in logs_of(database):
        wal.replace(wal.with_name(f"lost-{wal.name}"))

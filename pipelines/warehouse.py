"""Where everything in one warehouse folder lives, and which copies of the database readers have.

<root>/current -> generations/<utc>-<run>/     what readers open: current/deskhouse.duckdb
<root>/generations/<utc>-<run>/                one complete copy each, a few of them kept: the database, and DuckDB's
                                               log of what was written since, which every reader takes in
<root>/generations/.tmp-…  .tmp-current-…      half-made: swept when the next run starts
<root>/work/                                   the private database, dlt's folder, the lock
"""

from __future__ import annotations

import contextlib
import re
import stat
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from pipelines.permissions import first_link

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

DATABASE_NAME = "deskhouse.duckdb"
HALF_MADE = ".tmp-"
"""How names begin of what is not finished yet, or half removed."""
STAMP = "%Y%m%dT%H%M%S.%fZ"
"""How a generation's name begins: when it was published."""
_NAME = re.compile(r"(?P<stamp>\d{8}T\d{6}\.\d{6}Z)-(?P<run>[A-Za-z0-9._-]{1,150})")


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


def current_generation(warehouse: Warehouse) -> Generation | None:
    """Return the generation readers see, or None if they see none."""
    try:
        target = warehouse.root / warehouse.current.readlink()
        if target.resolve().parent != warehouse.generations.resolve():
            return None
    except (OSError, RuntimeError):
        return None
    return complete_generation(warehouse, target.name)


def generations(warehouse: Warehouse) -> Iterator[Generation]:
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
                published_at=datetime.strptime(parts["stamp"], STAMP).replace(tzinfo=UTC),
                run_id=parts["run"],
                bytes=file_size(path / DATABASE_NAME),
            )


def complete_generation(warehouse: Warehouse, name: str) -> Generation | None:
    """The generation of that name, if it is there and holds a database."""
    return next((one for one in generations(warehouse) if one.name == name and one.bytes > 0), None)


def file_size(path: Path) -> int:
    """Return the size of a plain file, or 0 if there is none."""
    try:
        status = path.lstat()
    except OSError:
        return 0
    return status.st_size if stat.S_ISREG(status.st_mode) else 0


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

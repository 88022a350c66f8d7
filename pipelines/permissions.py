"""Who may read what a run writes, and the links it refuses to follow.

    <root>/                          as made, or 0700; opened to readers where they need to pass
    <root>/generations/ and below    folders 0700, files 0400; for a group 0750 and 0440; for everyone 0755 and 0444
    <root>/work/ and below           folders 0700, files 0600, whoever may read the rest

A folder's set-group-ID bit stays: it is how a folder hands its group on to what is made inside it.
"""

from __future__ import annotations

import contextlib
import logging
import os
import stat
from enum import StrEnum
from typing import TYPE_CHECKING, BinaryIO, Final

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

log = logging.getLogger("deskhouse.permissions")

PRIVATE_FOLDER: Final = 0o700
_OTHERS: Final = 0o077
_SPECIAL: Final = stat.S_ISUID | stat.S_ISGID | stat.S_ISVTX


class Access(StrEnum):
    """Who may read what is published, besides its owner."""

    OWNER = "owner"
    GROUP = "group"
    EVERYONE = "everyone"

    @property
    def folder(self) -> int:
        """The mode of a published folder."""
        return {Access.OWNER: 0o700, Access.GROUP: 0o750, Access.EVERYONE: 0o755}[self]

    @property
    def file(self) -> int:
        """The mode of a published file: nobody writes to it any more."""
        return self.folder & 0o444


@contextlib.contextmanager
def private_files() -> Iterator[None]:
    """Whatever this process makes meanwhile, DuckDB's and dlt's files included, is for its owner alone."""
    before = os.umask(_OTHERS)
    try:
        yield
    finally:
        os.umask(before)


def make_root(root: Path) -> None:
    """Make the warehouse folder for its owner alone; folders above it are made as the user's umask says."""
    root.parent.mkdir(parents=True, exist_ok=True)
    root.mkdir(mode=PRIVATE_FOLDER, exist_ok=True)


def create_private(path: Path) -> BinaryIO:
    """A new file, open for writing, for its owner alone.

    Raises:
        FileExistsError: there is something at `path`, be it a link.
    """
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb")


def keep_private(folder: Path) -> None:
    """Take away what others may do with a folder and everything in it; what cannot be changed is logged."""
    for path in [folder, *_below(folder)]:
        with contextlib.suppress(FileNotFoundError):
            status = path.lstat()
            if not stat.S_ISLNK(status.st_mode) and stat.S_IMODE(status.st_mode) & _OTHERS:
                _change(path, status, stat.S_IMODE(status.st_mode) & ~_OTHERS)


def open_to_readers(root: Path, generations: Path, published: list[Path], access: Access) -> None:
    """Give published folders and files the modes of `access`, and the group the root hands on.

    Args:
        root: the warehouse folder; it gains what readers need to pass, and loses nothing.
        generations: the folder of published copies.
        published: the copies; files that several share are the same file, so they all follow the setting.
        access: who may read.
    """
    outer = root.stat()
    if access is not Access.OWNER:
        _change(root, outer, stat.S_IMODE(outer.st_mode) | access.folder & 0o055)
    group = outer.st_gid if outer.st_mode & stat.S_ISGID else None
    for folder in (generations, *published):
        _set(folder, access.folder, group)
    for folder in published:
        for path in folder.iterdir():
            with contextlib.suppress(FileNotFoundError):
                if stat.S_ISREG(path.lstat().st_mode):
                    _set(path, access.file, group)


def first_link(folder: Path) -> Path | None:
    """A link somewhere below a folder, or None where there is none."""
    return next((path for path in _below(folder) if path.is_symlink()), None)


def _below(folder: Path) -> Iterator[Path]:
    """Everything below a folder, outer things first; links are shown and not followed."""
    try:
        entries = sorted(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return
    for entry in entries:
        yield entry
        if entry.is_dir() and not entry.is_symlink():
            yield from _below(entry)


def _set(path: Path, mode: int, group: int | None) -> None:
    status = path.lstat()
    if group is not None and status.st_gid != group:
        with contextlib.suppress(PermissionError):
            # not a member of it any more: the files keep the group they have
            os.chown(path, -1, group)
            status = path.lstat()
    _change(path, status, stat.S_IMODE(status.st_mode) & _SPECIAL | mode)


def _change(path: Path, status: os.stat_result, mode: int) -> None:
    if mode == stat.S_IMODE(status.st_mode):
        return
    try:
        path.chmod(mode)
    except PermissionError as error:
        log.warning("%s: its permissions could not be set to %o: %s", path, mode, error.strerror)

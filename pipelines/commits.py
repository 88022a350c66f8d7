"""Commits under way: a vendor's slice is committed in a thread of its own, while the next one is read and packed.

DuckDB compresses rows in the commit that writes them, a third of the time it takes to load them. There is one private
database, and one commit under way at a time: nothing else is merged, checked or published until it has ended.
"""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Final

import duckdb

_THREAD: Final = ThreadPoolExecutor(1, thread_name_prefix="commit")
_under_way: Final[dict[str, Future[None]]] = {}
"""The last commit of each vendor, until somebody has been told how it ended."""


def commit_beside(vendor: str, commit: Callable[[], None]) -> None:
    """Start a vendor's commit; how its last one ended has been told."""
    _under_way[vendor] = _THREAD.submit(commit)


def confirm(vendor: str) -> None:
    """Wait for a vendor's commit, if one is under way.

    Raises:
        duckdb.Error: nothing of it was committed.
    """
    if vendor in _under_way:
        wait([_under_way[vendor]])
        _under_way.pop(vendor).result()


def wait_for_all() -> None:
    """Wait until no commit is under way; `confirm` tells each vendor how its own ended.

    Raises:
        duckdb.Error: one ended in such a way that nothing more may be written.
    """
    for commit in wait(_under_way.values()).done:
        error = commit.exception()
        if error is not None and spoils_database(error):
            raise error


def end() -> None:
    """Wait until no commit is under way, and forget how they ended: the run is over."""
    wait(_under_way.values())
    _under_way.clear()


def spoils_database(error: BaseException) -> bool:
    """Whether nothing more may be written into the database while it is open; what is in its files is sound."""
    if isinstance(error, duckdb.TransactionException):
        # a commit that ran out of memory, of which only the advice tells: see `pipelines.database.limited`
        return "SET memory_limit" in str(error)
    return isinstance(error, duckdb.FatalException)

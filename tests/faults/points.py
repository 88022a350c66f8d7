"""Named moments within a run, and what happens there. Production code knows nothing of this: functions are wrapped.

A run is prepared with a plain dictionary, so that it can be sent to another process:

    at, nth, act      at the nth time the moment `at` is reached: `kill` (SIGKILL to itself), `fill` (the file system
                      that holds `filler` is filled to its last byte)
    hasten            waits between attempts are a fiftieth; their number is the same
    deadline          seconds one request may take
    retry_after_cap   seconds that are waited at most when a vendor asks for a pause, and for a request with all attempts
    slice_rows        rows committed together
    dns_fails         so many look-ups of host names fail
    clock_shift       seconds by which this machine's clock is wrong
    file_limit        bytes a file may have at most
    lock_seconds      seconds a database that another program has open is waited for
"""

from __future__ import annotations

import importlib
import os
import resource
import signal
import socket
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

SMALL_PAGES = 20
"""Meetings on a page, ten of them shared with the next: a small world should have several pages of everything."""


@dataclass(frozen=True)
class Point:
    """A moment: before or after a call of a function, which is found by name."""

    owner: str
    name: str
    before: bool = False
    where: Callable[[tuple[Any, ...]], bool] = lambda _: True


def _named(prefix: str) -> Callable[[tuple[Any, ...]], bool]:
    return lambda arguments: Path(arguments[0]).name.startswith(prefix)


_MERGE = "dlt.destinations.sql_jobs:SqlMergeFollowupJob"
_PIPELINE = "dlt.pipeline.pipeline:Pipeline"
_CLIENT = "pipelines.destination:AtomicDuckDbClient"

POINTS = {
    "lock-taken": Point("pipelines.sync", "sweep_leftovers", before=True),
    "drained": Point("pipelines.sync", "declare_tables", before=True),
    "declared": Point("pipelines.sync", "declare_tables"),
    "slice-extracted": Point(_PIPELINE, "extract"),
    "normalizing": Point("dlt.normalize.normalize:Normalize", "spool_files"),
    "slice-normalized": Point(_PIPELINE, "normalize"),
    "slice-staged": Point(_CLIENT, "complete_load", before=True),
    "between-tables": Point(_MERGE, "generate_sql", before=True),
    "slice-merged": Point("dlt.destinations.impl.duckdb.duck:DuckDbClient", "complete_load", before=True),
    "slice-committed": Point(_CLIENT, "complete_load"),
    "slice-loaded": Point(_PIPELINE, "load"),
    "settled": Point("pipelines.ledger", "settle"),
    "checked": Point("pipelines.sync", "failed_checks"),
    "modelling": Point("pipelines.transform", "_make"),
    "modelled": Point("pipelines.sync", "run_models"),
    "closed": Point("pipelines.ledger", "end_run"),
    "copied": Point("pipelines.publish", "copy_file"),
    "verified": Point("pipelines.publish", "verify_copy"),
    "renamed": Point("pipelines.publish", "_flip", before=True),
    "linked": Point("pathlib:Path", "replace", before=True, where=_named(".tmp-current-")),
    "flipped": Point("pipelines.publish", "_flip"),
    "pruning": Point("pipelines.publish", "remove", before=True, where=_named(".tmp-2")),
    "pruned": Point("pipelines.publish", "_prune"),
}
"""In the order in which a run meets them."""


def prepare(plan: Mapping[str, Any]) -> None:
    """Make this process one in which the plan happens."""
    _small_pages()
    if plan.get("at"):
        _watch(POINTS[plan["at"]], plan.get("nth", 1), _ACTS[plan.get("act", "kill")](plan))
    if plan.get("at") in {"pruning", "pruned"}:
        _defaults("pipelines.publish:publish", keep=1, min_age=timedelta(0))
    if plan.get("slice_rows"):
        _defaults("sources._reading:Reading.__init__", slice_rows=plan["slice_rows"])
    if plan.get("deadline"):
        _defaults("sources._http:ApiClient.__init__", request_deadline=plan["deadline"])
    if plan.get("clock_shift"):
        shift = timedelta(seconds=plan["clock_shift"])
        _defaults("pipelines.sync:sync", clock=lambda: datetime.now(UTC) + shift)
    if plan.get("file_limit"):
        resource.setrlimit(resource.RLIMIT_FSIZE, (plan["file_limit"], resource.RLIM_INFINITY))
    if plan.get("lock_seconds"):
        database = importlib.import_module("pipelines.database")
        database.LOCK_SECONDS = plan["lock_seconds"]  # type: ignore[attr-defined,unused-ignore]
    _patience(plan)
    _names(plan.get("dns_fails", 0))


def _small_pages() -> None:
    recordings = _found("sources.posthog:DesktopRecordings")
    recordings.__init__.__defaults__ = (SMALL_PAGES - _found("sources.posthog:OVERLAP"),)


def _patience(plan: Mapping[str, Any]) -> None:
    policy = _found("sources._pacing:RetryPolicy")
    names = ["attempts", "base_seconds", "cap_seconds", "deadline_seconds", "retry_after_floor", "retry_after_cap"]
    values = dict(zip(names, policy.__init__.__defaults__, strict=True))
    if plan.get("hasten"):
        values |= {"base_seconds": values["base_seconds"] / 50, "cap_seconds": values["cap_seconds"] / 50}
    if plan.get("retry_after_cap"):
        values |= {"retry_after_cap": plan["retry_after_cap"], "deadline_seconds": 3 * plan["retry_after_cap"]}
    policy.__init__.__defaults__ = tuple(values.values())


def _names(failing: int) -> None:
    if not failing:
        return
    real, left = socket.getaddrinfo, [failing]

    def look_up(host: Any, *more: Any, **options: Any) -> Any:
        if left[0] > 0:
            left[0] -= 1
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        return real(host, *more, **options)

    socket.getaddrinfo = look_up


def _kill(_: Mapping[str, Any]) -> Callable[[], None]:
    return lambda: os.kill(os.getpid(), signal.SIGKILL)


def _fill(plan: Mapping[str, Any]) -> Callable[[], None]:
    filler = Path(plan["filler"])

    def fill() -> None:
        with filler.open("ab", buffering=0) as file, suppress(OSError):
            for size in (1 << 20, 1 << 12, 1):
                with suppress(OSError):
                    while file.write(b"\0" * size):
                        pass

    return fill


_ACTS: dict[str, Callable[[Mapping[str, Any]], Callable[[], None]]] = {"kill": _kill, "fill": _fill}


def _watch(point: Point, nth: int, act: Callable[[], None]) -> None:
    owner, seen = _found(point.owner), [0]
    # a class may have inherited it
    owner = next(one for one in getattr(owner, "__mro__", (owner,)) if point.name in vars(one))
    original = vars(owner)[point.name]
    called = original.__func__ if isinstance(original, classmethod) else original

    def reached(arguments: tuple[Any, ...]) -> None:
        if point.where(arguments):
            seen[0] += 1
            if seen[0] == nth:
                act()

    def wrapper(*arguments: Any, **options: Any) -> Any:
        if point.before:
            reached(arguments)
        answer = called(*arguments, **options)
        if not point.before:
            reached(arguments)
        return answer

    setattr(owner, point.name, classmethod(wrapper) if isinstance(original, classmethod) else wrapper)


def _defaults(target: str, **values: Any) -> None:
    function = _found(target)
    known = function.__kwdefaults__
    if not values.keys() <= known.keys():
        raise AttributeError(f"{target} has no such options: {sorted(values.keys() - known.keys())}")
    function.__kwdefaults__ = known | values


def _found(target: str) -> Any:
    module, _, path = target.partition(":")
    found: Any = importlib.import_module(module)
    for name in filter(None, path.split(".")):
        found = getattr(found, name)
    return found

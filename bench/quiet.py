"""Runs on a warehouse that is up to date: nothing changed, or one row in all."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from contestants.commands import pages_alone, published, sync
from dataset import WORK, Dataset, changed_page
from measure import Failed
from verify import verify

if TYPE_CHECKING:
    from nginx import Server
    from report import Results

MAIN_TABLE = "screendesk.recordings"


def measure_quiet(server: Server, data: Dataset, runs: int, results: Results) -> None:
    """A first load, then in turn: quiet and changed, each with `--full` and lightly, and the pages alone.

    For a full run a row in the middle of the list changes, for a light one a row on the first page; what changed in one
    turn is changed back in the next, so exactly one row differs each time.

    Raises:
        Failed: a run wrote other rows than those that changed, read in another way than meant, or left wrong rows.
    """
    address, changes = server.address(data), {}
    bodies: dict[int, bytes] = {}
    with tempfile.TemporaryDirectory(prefix="run-", dir=WORK) as name:
        folder = Path(name)
        sync(data, address, folder)
        for turn in range(1, runs + 1):
            for case, options, page in (
                ("quiet full", ("--full",), None),
                ("one row changed, full", ("--full",), data.pages // 2),
                ("quiet light", (), None),
                ("one row changed, light", (), 1),
                ("pages alone", (), None),
            ):
                if page is not None:
                    _flip(server, data, page, bodies, changes)
                os.sync()
                if case == "pages alone":
                    cost, checked = pages_alone(data, address, folder), "all records counted"
                else:
                    cost, summary = sync(data, address, folder, *options)
                    _as_meant(summary, case, 0 if page is None else 1)
                    checked = verify("deskhouse", data, published(folder), changes)
                if refused := server.refusals():
                    raise Failed(f"{case}: asked for what is not there: {'; '.join(refused[:5])}")
                results.add("quiet", data, case, cost, checked)
                print(
                    f"quiet {data.size:>9,} {turn}/{runs} {case:<24}{cost.wall:8.2f} s {cost.cpu:8.2f} s CPU "
                    f"{cost.peak / 1e6:8,.0f} MB",
                    flush=True,
                )
    server.lay_over(data, {})


def _flip(server: Server, data: Dataset, page: int, bodies: dict[int, bytes], changes: dict[str, int]) -> None:
    """Change one row of a page, or change it back."""
    body, key, count = changed_page(data, page)
    if page in bodies:
        del bodies[page], changes[key]
    else:
        bodies[page], changes[key] = body, count
    server.lay_over(data, bodies)


def _as_meant(summary: dict[str, Any], case: str, updated: int) -> None:
    for table in summary["tables"]:
        wanted = updated if table["table"] == MAIN_TABLE else 0
        if (table["inserted"], table["updated"], table["deleted"]) != (0, wanted, 0):
            raise Failed(f"{case}: {table['table']} wrote other rows than those that changed: {table}")
        kind = "light" if case.endswith("light") else "full"
        if table["table"] == MAIN_TABLE and table["sweep_kind"] != kind:
            raise Failed(f"{case}: the sweep was {table['sweep_kind']}: {table['sweep_reason']}")

"""Faults 1 to 9: processes that die, stop or meet, and disks that fill up."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import duckdb

from faults.case import tables_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from faults.case import Case, Started

LISTS = {"screendesk": "recordings", "getscreen": "history/list", "posthog": "desktop_recordings"}
SLICED = {"slice_rows": 25}


def killed_while_reading(case: Case) -> None:
    """1: at a page nobody chose, of a vendor nobody chose, in a first load and in a later one."""
    for fresh in (True, False):
        if fresh:
            case.stop_reader()
            with contextlib.suppress(FileNotFoundError):
                shutil.rmtree(case.desk / "peer" if not case.ours else case.warehouse)
        else:
            case.change(*LISTS)
        vendor = case.rng.choice(list(LISTS))
        started: list[Started] = []
        page = case.rng.randrange(3)
        before = case.digest()
        case.meanwhile(
            lambda started=started: started[0].kill(), vendor=vendor, path_contains=LISTS[vendor], after=page
        )
        started.append(case.start(plan=SLICED))
        run = started[0].wait()
        case.expect(run.code == -signal.SIGKILL, f"page {page} of {vendor} was never asked for: {run.code}")
        case.expect_ours(case.digest() == before, "a run that was killed while reading was published")
        case.resumed(run)
        if fresh:
            # from here on there is something to read
            case.world.faults.clear()
            case.recovered(case.sync(), "the run after a killed first load")
            case.words.discard("recover")
            case.start_reader()


def killed_while_normalizing(case: Case) -> None:
    """2: half-way, and before and after it."""
    points = ["normalizing", case.rng.choice(["slice-extracted", "slice-normalized"])]
    for point in points:
        case.change(case.rng.choice(list(LISTS)))
        before = case.digest()
        case.resumed(case.kill_at(point, **SLICED))
        case.expect_ours(case.digest() == before, f"a run killed at {point} was published")


def killed_while_loading(case: Case) -> None:
    """3: between two tables, and around the commit."""
    for point in (
        "between-tables",
        case.rng.choice(["slice-staged", "slice-merged", "slice-committed", "slice-loaded"]),
    ):
        case.change(case.rng.choice(list(LISTS)))
        before = case.digest()
        if not case.ours and not point.startswith("between"):
            point = "slice-normalized"  # noqa: PLW2901 - the peer has no such moments of its own
        case.resumed(case.kill_at(point, nth=2 if point == "between-tables" else 1, **SLICED))
        case.expect_ours(case.digest() == before, f"a run killed at {point} was published")


PUBLISHING = (
    "settled", "checked", "modelling", "modelled", "closed", "copied", "verified", "renamed", "linked", "flipped",
    "pruning", "pruned",
)  # fmt: skip
AFTER_FLIP = {"flipped", "pruning", "pruned"}


def killed_while_publishing(case: Case) -> None:
    """4: at each step from the receipts, over models and copy, to the last old generation."""
    points = (
        list(PUBLISHING) if case.deep else ["modelling", case.rng.choice(["copied", "renamed", "linked"]), "pruning"]
    )
    for point in points:
        case.change(case.rng.choice(list(LISTS)))
        before = case.digest()
        run = case.kill_at(point)
        case.resumed(run)
        case.expect((case.digest() != before) == (point in AFTER_FLIP), f"killed at {point}, readers see the other one")
        known = case.query("SELECT count(*) FROM screendesk.recordings")[0][0]
        case.expect(known > 0, f"killed at {point}, the published file is empty")


def interrupted(case: Case) -> None:
    """5: Ctrl-C and SIGTERM, while a vendor is slow."""
    for number, code in ((signal.SIGINT, 130), (signal.SIGTERM, 143)):
        case.change("screendesk")
        vendor = case.rng.choice(list(LISTS))
        slow = case.fault("slow", path_contains=LISTS[vendor], times=None, delay=60.0)
        started = case.start()
        if case.ours:
            case.expect(started.until(lambda slow=slow: case.world.faults.struck(slow) > 0), "the run ended early")
        else:
            started.until(lambda slow=slow: case.world.faults.struck(slow) > 0)
        started.kill(number)
        run = started.wait()
        case.world.faults.clear()
        case.expect_ours(run.code == code, f"the run ended with {run.code}, not {code}")
        case.expect_ours("run again" in run.stderr, "the run does not say that it may be run again")
        case.resumed(run)


def pipelines_folder_lost(case: Case) -> None:
    """6: dlt's folder is deleted after a kill that left a load in it; and all of `work/`."""
    case.change(case.rng.choice(list(LISTS)))
    case.kill_at("slice-normalized", **SLICED)
    shutil.rmtree(case.warehouse / "work" / "dlt" if case.ours else case.desk / "peer" / "dlt")
    case.recovered(case.sync(), "the run without dlt's folder")
    if case.ours:
        case.change(case.rng.choice(list(LISTS)))
        shutil.rmtree(case.warehouse / "work")
        case.recovered(case.sync(), "the run without work/")


def two_at_once(case: Case) -> None:
    """7: the second starts while the first is reading."""
    case.change(case.rng.choice(list(LISTS)))
    gate = case.fault("slow", path_contains="recordings", delay=2.5)
    first = case.start()
    first.until(lambda: case.world.faults.struck(gate) > 0)
    second = case.sync()
    case.expect_ours(second.code == 3, f"the second ended with {second.code}, not 3: {second.output[-300:]}")
    case.expect_ours(
        f"pid {first.pid}" in second.stderr and "since" in second.stderr, "the second does not name the first"
    )
    case.recovered(first.wait(), "the first of two runs")


HOLDER = """
import sys, time, duckdb
connection = duckdb.connect(sys.argv[1], read_only=sys.argv[2] == "read")
connection.execute("SELECT count(*) FROM screendesk.recordings").fetchall()
print("holding", flush=True)
time.sleep(600)
"""


@contextlib.contextmanager
def holding(database: Path, how: str) -> Iterator[int]:
    """Another program that has a database file open."""
    command = [sys.executable, "-c", HOLDER, str(database), how]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        try:
            yield process.pid
        finally:
            process.kill()


def locked(case: Case) -> None:
    """8: dashboards that hold the published file, one of them for writing; and a tool that holds the private one."""
    case.change(case.rng.choice(list(LISTS)))
    with holding(case.published, "read"):
        case.recovered(case.sync(), "a run while a dashboard holds the published file")
    if not case.ours:
        return
    case.stop_reader()
    case.change(case.rng.choice(list(LISTS)))
    with holding(case.published, "write"):
        case.recovered(case.sync(), "a run while a tool holds the published file for writing")
    case.start_reader()
    case.change(case.rng.choice(list(LISTS)))
    before = case.digest()
    with holding(case.private, "write") as pid:
        run = case.sync(plan={"lock_seconds": 1.0})
    case.resumed(run)
    case.expect(f"PID {pid}" in run.stderr, f"the run does not name the process that holds the file: {run.stderr}")
    case.expect(case.digest() == before, "something was published")


FULL_AT = ("slice-extracted", "slice-staged", "closed")
DISK_MEGABYTES = 64


def disk_full(case: Case) -> None:
    """9: the file system fills up while pages are kept, while they are loaded, and while the copy is made."""
    disk, how = small_disk(case)
    case.stop_reader()
    plan: dict[str, object] = {}
    if disk is not None:
        place = disk / "desk"
        shutil.move(case.desk, place)
        case.desk.symlink_to(place)
        plan = {"act": "fill", "filler": str(disk / "filler")}
    case.start_reader()
    for point in FULL_AT if case.ours else ("slice-extracted", "slice-normalized"):
        case.change(case.rng.choice(list(LISTS)))
        before = case.digest()
        if disk is None:
            # no file may grow: what a quota looks like from inside
            run = case.sync(plan={"file_limit": 1 << 20})
        else:
            run = case.sync(plan={**plan, "at": point, **SLICED})
        case.expect(run.code == 1, f"disk full at {point} ({how}): the run ended with {run.code}: {run.output[-300:]}")
        case.words.add("resume")
        said = run.reasons()
        case.expect_ours(
            "space" in said.lower() or "disk is full" in said or "File too large" in said,
            f"disk full at {point} is not said: {' '.join(said.split())[-400:]}",
        )
        case.expect_ours(str(case.warehouse) in said or "/warehouse" in said, f"no path is named: {said[-300:]}")
        case.expect_ours(case.digest() == before, f"disk full at {point}, and something was published")
        if disk is not None:
            (disk / "filler").unlink(missing_ok=True)


def small_disk(case: Case) -> tuple[Path | None, str]:
    """A file system of a few megabytes, where one may be mounted."""
    place = case.folder / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MEGABYTES}m", "tmpfs", str(place)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        return None, "by a limit on file sizes: mounting needs root"

    def unmount() -> None:
        subprocess.run(["umount", "--lazy", str(place)], check=False, capture_output=True)

    case.enter(contextlib.ExitStack()).callback(unmount)
    return place, "on a tmpfs"


def leave_one_vendor(case: Case, vendor: str) -> list[str]:
    """The tables of all other vendors."""
    return [name for other in LISTS if other != vendor for name in tables_of(other)]


def opened(path: Path) -> bool:
    """Whether a database file can be opened."""
    with contextlib.suppress(duckdb.Error), duckdb.connect(str(path), read_only=True):
        return True
    return False

"""Where the time of a run goes: one run of deskhouse, sampled from within.

Run: python bench/where.py [--size 100000] [--run first|quiet|changed]

A quiet run is a full one in which nothing has changed, a changed one a light one in which one row has.

Every 5 ms, the CPU time that each thread has used since the last sample (the kernel's account of it) goes to what the
thread is at: the first entry of the list below that stands in its stack. DuckDB's threads have no stack in Python; they
are the rest of the process. The second table is the main thread's wall time by the same entries: a run is as long as that,
and what other threads do counts only where it makes the main thread wait.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Final

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from contestants.commands import settings_of, sync  # noqa: E402 - found through the path above
from dataset import WORK, Dataset, changed_page, ensure, warm  # noqa: E402
from measure import timed  # noqa: E402
from nginx import serving  # noqa: E402

if TYPE_CHECKING:
    from types import FrameType

EVERY: Final = 0.005
TICK: Final = os.sysconf("SC_CLK_TCK")
OPTIONS: Final = {"first": "", "quiet": "--full", "changed": ""}
PARTS: Final = (
    ("importlib._bootstrap", "", "importing Python modules, dlt most of all"),
    ("pipelines/transform.py", "", "analytics tables and their checks"),
    ("pipelines/checks.py", "", "checks of keys, parents and lists"),
    ("pipelines/publish.py", "", "publishing: copy and check"),
    ("pipelines/copies.py", "", "publishing: copy and check"),
    ("pipelines/sync.py", "_fold_log", "DuckDB writing its log into the file"),
    ("pipelines/destination.py", "complete_load", "DuckDB merging rows"),
    ("pipelines/destination.py", "commit", "DuckDB compressing and committing what was merged"),
    ("pipelines/commits.py", "", "waiting for a commit"),
    ("pipelines/ledger.py", "", "ledger and receipts"),
    ("sources/_reading.py", "_wait", "waiting for rows"),
    ("sources/_reading.py", "next_ready", "waiting for rows"),
    ("sources/_tables.py", "_page", "hashing rows"),
    ("sources/_columns.py", "", "JSON to Arrow"),
    ("sources/_tables.py", "", "columns to declared types"),
    ("sources/_compare.py", "", "comparing with what is known"),
    ("pyarrow/parquet", "", "writing parquet"),
    ("dlt/", "", "dlt's own Python: packages, schemas, jobs"),
    ("httpx/", "", "HTTP client"),
    ("sources/_http.py", "", "HTTP client"),
    ("sources/_replies.py", "", "HTTP client"),
    ("sources/", "", "sweep, slices, hand-over"),
    ("asyncio/", "", "HTTP client"),
)
"""Part of a file's path, a function in it or any, and what they are part of; the first that stands in a stack counts."""


def main() -> int:
    """Run the load in a process of its own, or be that process."""
    if os.environ.get("WHERE_NOTE"):
        return _sampled()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=100_000, help="recordings")
    parser.add_argument("--run", choices=tuple(OPTIONS), default="first", help="which run")
    options = parser.parse_args()
    data = Dataset("screendesk", options.size)
    with serving() as server, tempfile.TemporaryDirectory(dir=WORK) as name:
        ensure(data)
        warm(data)
        folder = Path(name)
        note = folder / "where.json"
        if options.run != "first":
            sync(data, server.address(data), folder)
        if options.run == "changed":
            server.lay_over(data, {1: changed_page(data, 1)[0]})
        environment = {**settings_of(data, server.address(data), folder), "WHERE_NOTE": str(note)}
        environment["WHERE_OPTIONS"] = OPTIONS[options.run]
        cost = timed([sys.executable, __file__], cwd=folder, env=environment)
        noted = json.loads(note.read_text())
    print(f"{cost.wall:.1f} s wall, {cost.cpu:.1f} s CPU, {cost.peak / 1e6:,.0f} MB")
    _print("CPU s", noted["spent"], cost.cpu)
    _print("wall s of the main thread", noted["main"], cost.wall)
    return 0


def _print(title: str, parts: dict[str, float], whole: float) -> None:
    print(f"\n| {title} | share | |\n|--:|--:|---|")
    for part, seconds in Counter(parts).most_common():
        print(f"| {seconds:.2f} | {seconds / whole:.0%} | {part} |")
    print(f"| {whole - sum(parts.values()):.2f} | | before the first sample and after the last |")


def _sampled() -> int:
    spent, main_thread = Counter[str](), Counter[str]()
    ended = threading.Event()
    sampler = threading.Thread(target=_sample, args=(spent, main_thread, ended), daemon=True)
    sampler.start()
    sys.argv = ["deskhouse", "sync", "screendesk", "--json", *os.environ["WHERE_OPTIONS"].split()]
    from pipelines.cli import main as command  # noqa: PLC0415 - its imports are part of what is measured

    try:
        command()
    except SystemExit as end:
        return int(end.code or 0)
    finally:
        ended.set()
        sampler.join()
        spent["DuckDB's own threads"] = max(0.0, time.process_time() - sum(spent.values()))
        Path(os.environ["WHERE_NOTE"]).write_text(json.dumps({"spent": spent, "main": main_thread}))
    return 0


def _sample(spent: Counter[str], main_thread: Counter[str], ended: threading.Event) -> None:
    used: dict[int, float] = {}
    before = time.perf_counter()
    while not ended.wait(EVERY):
        frames = sys._current_frames()  # noqa: SLF001 - the way to it
        before, passed = time.perf_counter(), time.perf_counter() - before
        main_thread[_part(frames.get(threading.main_thread().ident or 0))] += passed
        for thread in threading.enumerate():
            now = _used(thread.native_id or 0)
            delta = now - used.get(thread.native_id or 0, 0.0)
            used[thread.native_id or 0] = now
            if delta > 0:
                spent[_part(frames.get(thread.ident or 0))] += delta


def _used(native_id: int) -> float:
    """CPU seconds of a thread."""
    try:
        fields = Path(f"/proc/self/task/{native_id}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / TICK


def _part(frame: FrameType | None) -> str:
    stack = []
    while frame is not None:
        stack.append((frame.f_code.co_filename, frame.f_code.co_name))
        frame = frame.f_back
    for place, function, part in PARTS:
        if any(place in file and function in {"", name} for file, name in stack):
            return part
    return "rest of the run"


if __name__ == "__main__":
    sys.exit(main())

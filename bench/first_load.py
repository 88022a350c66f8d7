"""How fast, and in how much memory, a first load of Screendesk recordings runs from the sandbox.

Run: python bench/first_load.py [--recordings 20000]

The sandbox and `deskhouse sync` are processes of their own. The time is that of the whole command, from process start
to the published file; memory is the peak of the command's process tree. Exits 1 below the wanted figures.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import duckdb
import psutil
from sandbox_pages import REPOSITORY, read_environment

WANTED_PER_SECOND = 5_000
WANTED_MEGABYTES = 500


def main() -> int:
    """Load once, verify the rows, print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recordings", type=int, default=20_000)
    options = parser.parse_args()
    command = [sys.executable, "-m", "sandbox", "--port", "0", "--recordings", str(options.recordings)]
    with (
        tempfile.TemporaryDirectory() as folder,
        subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True) as sandbox,
    ):
        try:
            environment = {**os.environ, **read_environment(sandbox), "DESKHOUSE__WAREHOUSE_DIR": f"{folder}/warehouse"}
            for run in ("first load", "again, nothing changed"):
                seconds, megabytes, summary = timed_sync(environment, folder)
                rate = options.recordings / seconds
                table = next(t for t in summary["tables"] if t["table"] == "screendesk.recordings")
                print(
                    f"{run:<24}{seconds:6.2f} s {rate:9,.0f} recordings/s {megabytes:6.0f} MB peak   "
                    f"{table['inserted']:,} new, {table['updated']:,} changed, complete: {table['complete']}"
                )
                if run == "first load":
                    good = rate >= WANTED_PER_SECOND and megabytes < WANTED_MEGABYTES
                good = good and summary["exit_code"] == 0
            rows = verified_rows(Path(folder) / "warehouse/current/deskhouse.duckdb")
        finally:
            sandbox.terminate()
    print(f"rows in the published file: {rows:,}; load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    return 0 if good and rows == options.recordings else 1


def timed_sync(environment: dict[str, str], folder: str) -> tuple[float, float, dict[str, object]]:
    """Wall seconds, peak megabytes of the process tree, and the run's own summary."""
    command = [sys.executable, "-m", "pipelines.cli", "sync", "screendesk", "--json"]
    began, peak = time.perf_counter(), 0
    with subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True) as process:
        root = psutil.Process(process.pid)
        while process.poll() is None:
            peak = max(peak, tree_memory(root))
            time.sleep(0.02)
        seconds = time.perf_counter() - began
        assert process.stdout is not None
        return seconds, peak / 1e6, json.loads(process.stdout.read())


def tree_memory(root: psutil.Process) -> int:
    """Resident bytes of a process and its children."""
    try:
        return sum(p.memory_info().rss for p in (root, *root.children(recursive=True)))
    except psutil.NoSuchProcess:
        return 0


def verified_rows(database: Path) -> int:
    """Distinct recordings in the published file."""
    with duckdb.connect(str(database), read_only=True) as con:
        return int(con.execute("SELECT count(DISTINCT uuid) FROM screendesk.recordings").fetchall()[0][0])


if __name__ == "__main__":
    sys.exit(main())

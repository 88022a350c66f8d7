"""The benchmark: what it costs to get these APIs into DuckDB, with deskhouse, with others, and at the least.

Run: python bench/run.py [--quick] [--parts first,slow] [--sizes 10000] [--contestants deskhouse,limit] [--runs 5]

Everything runs in turn, as whole processes, against the same nginx with the same pages. A time counts only after the
loaded file was compared with the truth. A whole run writes bench/RESULTS.md; a part of it is only printed.
"""

from __future__ import annotations

import argparse
import compileall
import os
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from contestants.commands import CONTESTANTS, first_load
from dataset import REPOSITORY, WORK, Dataset, ensure, warm
from measure import Failed
from nginx import serving
from quiet import measure_quiet
from report import Results, machine, tables, written
from targets import judge

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nginx import Server

PARTS = ("first", "slow", "meetings", "quiet", "million")
QUICK = {"parts": "first", "sizes": "10000,100000", "contestants": "deskhouse,limit"}
RESULTS = Path(__file__).with_name("RESULTS.md")
MILLION = 1_000_000
QUIET_TURNS = 3
"""Turns of what takes two seconds, for one of what takes a minute: a difference of two such times is asked for."""


def main() -> int:
    """Run what was asked for, print the tables and the verdicts; 1 when a target was missed, 2 when a load was wrong."""
    options = _options()
    # an end by signal stops nginx and the contestant as well
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    results = Results(began=time.time(), runs=options.runs, load_before=os.getloadavg()[0])
    WORK.mkdir(parents=True, exist_ok=True)
    for package in ("pipelines", "sources"):
        # as pip compiles whatever it installs: where nothing may be kept of that, a clone is compiled in each run
        compileall.compile_dir(REPOSITORY / package, quiet=1)
    try:
        with serving() as server:
            for part, data, slow, contestants, runs in _plan(options):
                ensure(data)
                warm(data)
                if part == "quiet":
                    measure_quiet(server, data, runs, results)
                else:
                    _first_loads(server, results, part, data, contestants=contestants, runs=runs, slow=slow)
    except Failed as failed:
        print(f"FAILED: {failed}", file=sys.stderr)
        return 2
    verdicts = judge(results)
    text = tables(results) + "".join(f"{verdict}\n" for verdict in verdicts)
    print(text)
    if options.whole or options.write:
        RESULTS.write_text(written(results, verdicts, machine(results), [p for p in PARTS if p not in options.parts]))
        print(f"written to {RESULTS}")
    return int(any(not verdict.passed for verdict in verdicts))


def _first_loads(
    server: Server, results: Results, part: str, data: Dataset, *, contestants: Sequence[str], runs: int, slow: bool
) -> None:
    """Alternating first loads, each into a folder of its own."""
    for turn in range(1, runs + 1):
        for name in contestants:
            with tempfile.TemporaryDirectory(prefix="run-", dir=WORK) as folder:
                # what earlier runs wrote is on disk before the clock starts
                os.sync()
                cost, checked = first_load(name, data, server.address(data, slow=slow), Path(folder), slow=slow)
            if refused := server.refusals():
                raise Failed(f"{name} asked for what is not there: {'; '.join(refused[:5])}")
            results.add(part, data, name, cost, checked)
            print(
                f"{part} {data.vendor} {data.size:>9,} {'+100 ms' if slow else ''} {turn}/{runs} {name:<14}"
                f"{cost.wall:8.2f} s {cost.cpu:8.2f} s CPU {cost.peak / 1e6:8,.0f} MB   {checked}",
                flush=True,
            )


def _plan(options: argparse.Namespace) -> list[tuple[str, Dataset, bool, list[str], int]]:
    chosen = [name for name in CONTESTANTS if name in options.contestants]
    plan: list[tuple[str, Dataset, bool, list[str], int]] = []
    for part in options.parts:
        if part == "first":
            plan += [("first", Dataset("screendesk", size), False, chosen, options.runs) for size in options.sizes]
        elif part == "slow":
            # with defaults dlt waits as long as tuned and then works longer: the faster one stands for all
            among = [name for name in chosen if name not in {"dlt", "dlt-older"}]
            plan.append(("slow", Dataset("screendesk", max(options.sizes)), True, among, options.runs))
        elif part == "meetings":
            among = [name for name in chosen if name not in {"plain", "dlt-older"}]
            plan.append(("meetings", Dataset("posthog", options.meetings), False, among, options.runs))
        elif part == "quiet":
            plan.append(("quiet", Dataset("screendesk", max(options.sizes)), False, [], options.runs * QUIET_TURNS))
        else:
            plan.append(("million", Dataset("screendesk", MILLION), False, ["deskhouse"], 1))
    return plan


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="first loads of 10,000 and 100,000, deskhouse and limit")
    parser.add_argument("--parts", help=f"some of {','.join(PARTS)}")
    parser.add_argument("--sizes", help="recordings, default 10000,100000")
    parser.add_argument("--meetings", type=int, default=20_000, help="meetings of 50 segments")
    parser.add_argument("--contestants", help=f"some of {','.join(CONTESTANTS)}")
    parser.add_argument("--runs", type=int, default=3, help="alternating runs of each (default: %(default)s)")
    parser.add_argument("--write", action="store_true", help="write RESULTS.md though it is not everything; it says so")
    parser.add_argument("--clean", action="store_true", help=f"remove the generated data in {WORK} and end")
    options = parser.parse_args()
    if options.clean:
        shutil.rmtree(WORK, ignore_errors=True)
        raise SystemExit(0)
    given = {name: getattr(options, name) for name in ("parts", "sizes", "contestants")}
    options.whole = not options.quick and not any(given.values()) and options.meetings == parser.get_default("meetings")
    whole = {"parts": ",".join(PARTS), "sizes": "10000,100000", "contestants": ",".join(CONTESTANTS)}
    for name, value in given.items():
        chosen = (value or (QUICK if options.quick else whole)[name]).split(",")
        known = {"parts": PARTS, "contestants": tuple(CONTESTANTS)}.get(name)
        if known and (unknown := [one for one in chosen if one not in known]):
            parser.error(f"--{name}: {', '.join(unknown)} is none of {', '.join(known)}")
        setattr(options, name, [int(size) for size in chosen] if name == "sizes" else chosen)
    return options


if __name__ == "__main__":
    sys.exit(main())

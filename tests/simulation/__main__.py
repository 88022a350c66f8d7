"""The deep tier: `python -m simulation --histories 5000`, in the folder `tests`.

Histories are played 500 at a time, each time from another seed, until there are enough of them or time is up; a line says
how far it is. The first history that goes wrong is made small, printed so that it can be replayed, and ends it.
"""

from __future__ import annotations

import argparse
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import TYPE_CHECKING

from simulation.run import LEVELS, Tally, play_some
from simulation.steps import VENDORS

if TYPE_CHECKING:
    from collections.abc import Sequence

CHUNK = {"engine": 50, "whole": 5}


def main(arguments: Sequence[str] | None = None) -> int:
    """Play; 0 when nothing went wrong."""
    parser = argparse.ArgumentParser(prog="python -m simulation", description=__doc__)
    parser.add_argument("--histories", type=int, default=5000)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop after so long")
    parser.add_argument("--level", choices=sorted(LEVELS), default="engine")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--vendor", choices=VENDORS, action="append", help="only this vendor; may be repeated")
    parser.add_argument("--jobs", type=int, default=1, help="processes side by side")
    chosen = parser.parse_args(arguments)
    _say(f"{chosen.level}: {chosen.histories} histories from seed {chosen.seed}")
    total, told, ends = Tally(), 0, time.monotonic() + chosen.seconds
    size = CHUNK[chosen.level]
    tell = 500 if chosen.level == "engine" else 50
    with ProcessPoolExecutor(chosen.jobs, mp_context=get_context("spawn")) as pool:
        seeds = iter(range(chosen.seed * 1_000_000, sys.maxsize))
        vendors = tuple(chosen.vendor or VENDORS)
        while total.histories < chosen.histories and time.monotonic() < ends and not total.found:
            left = chosen.histories - total.histories
            sizes = [min(size, left - n * size) for n in range(chosen.jobs) if left > n * size]
            played = [pool.submit(play_some, chosen.level, number, next(seeds), vendors, ends) for number in sizes]
            for one in played:
                tally, failure = one.result()
                total += tally
                if failure:
                    _say(failure)
            if total.histories // tell > told:
                told = total.histories // tell
                _say(f"{total} ({_kinds(total)})")
    _say(_kinds(total))
    _say(str(total))
    return 1 if total.found else 0


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _kinds(tally: Tally) -> str:
    return ", ".join(f"{count} {kind}" for kind, count in sorted(tally.log.items()))


if __name__ == "__main__":
    sys.exit(main())

"""`python -m faults`, in the folder `tests`: play faults, print a line for each, and what they came to."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from faults.play import play_all, summary
from faults.table import FAULTS

if TYPE_CHECKING:
    from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Play; 0 when every fault came to what it must."""
    parser = argparse.ArgumentParser(prog="python -m faults", description=__doc__)
    parser.add_argument("--seeds", type=int, default=1, help="how often each fault is played; with 20, the deep tier")
    parser.add_argument("--first-seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=2, help="processes side by side")
    parser.add_argument("--only", type=int, action="append", metavar="N", help="only this fault; may be repeated")
    parser.add_argument("--cold", action="store_true", help="start an interpreter for each run instead of forking one")
    parser.add_argument("--deep", action="store_true", help="every moment and every form of each fault, not a choice")
    parser.add_argument("--peer", action="store_true", help="play them against plain dlt instead")
    parser.add_argument(
        "--write-docs", action="store_true", help="play them against both and write docs/reliability.md"
    )
    chosen = parser.parse_args(arguments)
    numbers = chosen.only or [entry.number for entry in FAULTS]
    seeds = range(chosen.first_seed, chosen.first_seed + chosen.seeds)
    deep = chosen.deep or chosen.seeds > 1
    if chosen.write_docs:
        from faults.book import write  # noqa: PLC0415

        return write(numbers, seeds, jobs=chosen.jobs, say=_say)
    subject = "peer" if chosen.peer else "deskhouse"
    results = []
    for result in play_all(numbers, seeds, subject=subject, jobs=chosen.jobs, cold=chosen.cold, deep=deep):
        results.append(result)
        _say(str(result))
    for line in summary(results):
        _say(line)
    return 0 if all(result.passed for result in results) else 1


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())

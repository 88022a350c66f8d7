"""docs/reliability.md: the faults, what must come of each, what came of it here, and with plain dlt."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from faults.count import COUNTERS
from faults.play import Result, play_all
from faults.table import FAULTS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

DOCUMENT = Path(__file__).absolute().parents[2] / "docs" / "reliability.md"
LONGEST = 150
_DETAIL = re.compile(r"(ended with -?\d+|did not complete: -?\d+|not accepted|with quarantine: -?\d+): .*", re.DOTALL)

HEAD = """# Reliability: 36 faults, counted

Written by `cd tests && ../.venv/bin/python -m faults --write-docs`; do not edit by hand.

A fault suite (`tests/faults/`) runs `deskhouse sync` as a process of its own against three vendor APIs on loopback, breaks
one thing, stops breaking it, lets one clean run end, and counts. The vendors keep a ledger of every version of every
record they ever served; the checker works out from it, without the loader's code, what readers must see. A dashboard
reads the published file all the while, and a second server, the stranger, records every byte it is sent.

| counter | what it counts |
|---|---|
| lost | records the vendor has that are neither a live row nor in quarantine |
| duplicated | rows beyond the first of a key |
| stale | rows older than the vendor's newest version, or live although the vendor deleted them |
| invented | rows no vendor ever served, by key or by content |
| orphaned | list items without their parent |
| torn | reads that saw half of something |
| blocked | reads that failed |
| leaked | places that hold a credential and should not: logs, output, files, tables, the stranger's record |

Outcomes: **recover**: the same run succeeds. **resume**: this run fails, says why in a line and moves no cursor; the next
good run completes. **quarantine**: bad records are kept aside as raw JSON with the reason, all others load. **refuse**:
nothing is sent where it should not go. A fault is passed when the outcome is the one named, the next good run completes,
and all eight counters are zero.

Run it: `make faults` (each fault once), or `python -m faults --seeds 20` in `tests/` for the deep tier, which plays every
moment and form of each fault; `--only N` for one, `--cold` to start an interpreter for each run instead of forking one.
"""

PEER = """
## Against plain dlt

The last column is the same fault played against `tests/faults/peer.py`: the three APIs with dlt's own `rest_api` source,
merge by primary key, dlt's paginators, auth classes and retries, one pipeline per vendor, loaded into the DuckDB file that
people read; written as a careful user would write it from dlt's documents. Its root tables are judged by key and a few
columns, and it is forgiven tracebacks. No dashboard was open while it ran, but for fault 8: any open one stops its load.

What it survives as well as deskhouse: {same}.
What deskhouse does and it does not: {better}.
What it does and deskhouse does not: {worse}.

Fairness: deskhouse was written with this list in hand, and plain dlt is a library for any API. Much of what fails there
can be written around it: that is what `sources/` and `pipelines/` are. dlt's own engine held up in every kill that
hit it: no row was lost or doubled by a crash. deskhouse, for its part, opens every list whole where no vendor filter can
be trusted, and so asks more of the vendors than an incremental cursor would.
"""


def write(numbers: Sequence[int], seeds: Sequence[int], *, jobs: int, say: Callable[[str], None]) -> int:
    """Play all against both, and write the document; 0 when deskhouse passed."""
    played: dict[str, dict[int, Result]] = {}
    for subject in ("deskhouse", "peer"):
        found = played.setdefault(subject, {})
        for result in play_all(numbers, seeds, subject=subject, jobs=jobs):
            say(str(result))
            if result.number not in found or found[result.number].passed:
                found[result.number] = result
    DOCUMENT.write_text(document(played["deskhouse"], played["peer"], len(seeds)))
    return 0 if all(result.passed for result in played["deskhouse"].values()) else 1


def document(ours: dict[int, Result], peer: dict[int, Result], seeds: int) -> str:
    """The page."""
    total: Counter[str] = sum((result.counts for result in ours.values()), Counter())
    passed = sum(result.passed for result in ours.values())
    lines = [HEAD, f"## Results, {seeds} seed{'s'[: seeds != 1]}\n"]
    lines += [
        f"deskhouse: {passed} passed, {len(ours) - passed} failed; {', '.join(f'{n} {total[n]}' for n in COUNTERS)}.\n"
    ]
    lines += ["| no. | fault | outcome | deskhouse | plain dlt `rest_api` |", "|--:|---|---|---|---|"]
    for entry in FAULTS:
        if entry.number in ours:
            lines.append(
                f"| {entry.number} | {entry.name} | {entry.outcome} | {_verdict(ours[entry.number])} | {_verdict(peer[entry.number])} |"
            )
    groups: dict[tuple[bool, bool], list[str]] = {}
    for number in sorted(ours):
        if not peer[number].skipped:
            groups.setdefault((ours[number].passed, peer[number].passed), []).append(str(number))
    lines.append(
        PEER.format(
            same=", ".join(groups.get((True, True), ["nothing"])),
            better=", ".join(groups.get((True, False), ["nothing"])),
            worse=", ".join(groups.get((False, True), ["nothing in this list"])),
        )
    )
    return "\n".join(lines)


def _verdict(result: Result) -> str:
    if result.skipped:
        return f"not compared: {result.skipped}"
    if result.passed:
        return "passed"
    told = [result.wrong, *(p for p in result.problems if not p.startswith(COUNTERS))]
    # what the other side's libraries say is long, and names this machine's folders
    text = "; ".join(_DETAIL.sub(r"\1", part) for part in told if part)
    text = " ".join(text.replace("|", "/").replace("<", "&lt;").split())
    return f"**failed**: {text[:LONGEST]}{'…' if len(text) > LONGEST else ''}"

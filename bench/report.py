"""What was measured, as tables."""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass, field
from importlib.metadata import distributions
from typing import TYPE_CHECKING

import psutil
from contestants.commands import CONTESTANTS, DLT, PANDAS
from dataset import REPOSITORY, Dataset

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from measure import Cost
    from targets import Verdict

_TITLES = {
    "first": "First load of {size:,} recordings, 30 % live calls",
    "slow": "First load of {size:,} recordings, each request answered after 100 ms",
    "meetings": "First load of {size:,} meetings with 50 transcript segments each",
    "quiet": "{size:,} recordings loaded before",
    "million": "First load of {size:,} recordings, 30 % live calls",
}
_REFERENCE = {"quiet": "pages alone"}
_PACKAGES = ("dlt", "duckdb", "pyarrow", "httpx", "orjson", "pandas", "sqlglot")


@dataclass
class Results:
    """Costs by part, data set and contestant (or case), in the order they were first measured."""

    began: float
    runs: int
    load_before: float
    costs: dict[tuple[str, Dataset], dict[str, list[Cost]]] = field(default_factory=dict)
    checked: dict[tuple[str, Dataset, str], str] = field(default_factory=dict)

    def add(self, part: str, data: Dataset, name: str, cost: Cost, checked: str) -> None:
        """Keep one verified run."""
        self.costs.setdefault((part, data), {}).setdefault(name, []).append(cost)
        self.checked[part, data, name] = checked

    def wall(self, part: str, size: int, name: str) -> float | None:
        """Median wall seconds; None where it was not measured."""
        return self._median(part, size, name, "wall")

    def peak(self, part: str, size: int, name: str) -> float | None:
        """Median peak bytes; None where it was not measured."""
        return self._median(part, size, name, "peak")

    def more(self, part: str, size: int, name: str, than: str) -> float | None:
        """Median, over the turns, of the wall seconds that one took beyond the other in the same turn."""
        for (measured, data), by_name in self.costs.items():
            if measured == part and data.size == size and name in by_name and than in by_name:
                turns = zip(by_name[name], by_name[than], strict=True)
                return statistics.median(one.wall - other.wall for one, other in turns)
        return None

    def largest(self, part: str) -> int:
        """The largest size a part was measured with, 0 for none."""
        return max((data.size for measured, data in self.costs if measured == part), default=0)

    def _median(self, part: str, size: int, name: str, what: str) -> float | None:
        for (measured, data), by_name in self.costs.items():
            if measured == part and data.size == size and name in by_name:
                return statistics.median(getattr(cost, what) for cost in by_name[name])
        return None


def tables(results: Results) -> str:
    """One markdown table for each part and size."""
    return "\n".join(_table(results, part, data) for part, data in results.costs) + "\n"


def _table(results: Results, part: str, data: Dataset) -> str:
    by_name = results.costs[part, data]
    reference = _REFERENCE.get(part, "limit")
    least = results.wall(part, data.size, reference)
    ratio = f"× {reference}"  # noqa: RUF001
    lines = [
        f"### {_TITLES[part].format(size=data.size)}\n",
        f"| | wall s | {ratio} | CPU s | peak MB | CPU s elsewhere | runs (wall s) |",
        "|---|--:|--:|--:|--:|--:|---|",
    ]
    for name, costs in by_name.items():
        wall, cpu, peak, elsewhere = (
            statistics.median(getattr(cost, what) for cost in costs) for what in ("wall", "cpu", "peak", "elsewhere")
        )
        times = f"{wall / least:.2f}" if least else ""
        each = " ".join(f"{cost.wall:.2f}" for cost in costs)
        title = CONTESTANTS[name][0] if name in CONTESTANTS else name
        lines.append(f"| {title} | {wall:.2f} | {times} | {cpu:.2f} | {peak / 1e6:,.0f} | {elsewhere:.2f} | {each} |")
    return "\n".join(lines) + "\n"


def machine(results: Results) -> str:
    """Where and when it was measured, and with what."""
    run = subprocess.run(
        ["git", "-C", str(REPOSITORY), "describe", "--always", "--dirty"], capture_output=True, text=True, check=False
    )
    # pandas lies in a folder of its own, for the plain script alone
    found = {d.name: d.version for d in distributions(path=[*sys.path, str(PANDAS)]) if d.name in _PACKAGES}
    packages = ", ".join(f"{name} {found.get(name, '(not there)')}" for name in _PACKAGES)
    installed = {d.name: d.version for d in distributions(path=[str(path) for path in DLT.glob("lib/*/site-packages")])}
    beside = ", ".join(f"{name} {installed.get(name, '(not there)')}" for name in ("dlt", "duckdb", "sqlglot"))
    told = subprocess.run(["nginx", "-v"], capture_output=True, text=True, check=False).stderr
    nginx = told.strip().rpartition("/")[2]
    memory = psutil.virtual_memory().total / 2**30
    return (
        f"{time.strftime('%Y-%m-%d %H:%M', time.gmtime(results.began))} UTC, commit {run.stdout.strip() or '?'}, "
        f"{results.runs} alternating runs and more of the short ones, medians, {(time.time() - results.began) / 60:.0f} minutes in all.\n"
        f"{_processor()}, {os.cpu_count()} cores, {memory:.0f} GB; {platform.system()} {platform.release()}; "
        f"load average {results.load_before:.1f} before, {os.getloadavg()[0]:.1f} after.\n"
        f"Python {platform.python_version()}, {packages}, nginx {nginx}. dlt as pip installs it: {beside}."
    )


def written(results: Results, verdicts: Iterable[Verdict], where: str, left_out: Sequence[str]) -> str:
    """The whole of RESULTS.md."""
    judged = "\n".join(f"- {verdict}" for verdict in verdicts)
    checks = "\n".join(
        f"- {part} {data.size:,}, {name}: {text}" for (part, data, name), text in results.checked.items()
    )
    told = f"Parts not measured in this session: {', '.join(left_out)}.\n\n" if left_out else ""
    return (
        "# Results of the last benchmark\n\n"
        f"{where}\n\n{told}How it is measured: [README.md](README.md).\n\n{tables(results)}"
        f"### Targets\n\n{judged}\n\n### What was compared with the truth before a time counted\n\n{checks}\n"
    )


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:  # noqa: PTH123 - no file
            return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()

"""Working trees of deskhouse against each other: python bench/trees.py first|quiet|light|full-changed|light-changed RUNS TREE TREE...

Each run of each tree in turn, 100,000 recordings from the benchmark's nginx: what a change is worth, before it is believed.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import sys
import tempfile
from pathlib import Path

from contestants.commands import settings_of
from dataset import WORK, Dataset, changed_page, ensure, warm
from measure import Cost, Failed, timed
from nginx import serving

CASES = {"first": (), "quiet": ("--full",), "light": (), "full-changed": ("--full",), "light-changed": ()}


def main() -> None:
    """Measure, and print a line for each tree."""
    case, runs, *paths = sys.argv[1:]
    trees = [str(Path(path).resolve()) for path in paths]
    data = Dataset("screendesk", 100_000)
    ensure(data)
    warm(data)
    costs: dict[str, list[Cost]] = {tree: [] for tree in trees}
    page = 1 if case.startswith("light") else data.pages // 2
    with serving() as server, tempfile.TemporaryDirectory(prefix="trees-", dir=WORK) as name:
        address = server.address(data)
        for tree in trees:
            if case != "first":
                _sync(tree, data, address, _folder(name, trees, tree))
        for turn in range(int(runs)):
            if case.endswith("changed"):
                server.lay_over(data, {} if turn % 2 else {page: changed_page(data, page)[0]})
            for tree in trees:
                folder = _folder(name, trees, tree)
                if case == "first":
                    shutil.rmtree(folder)
                    folder = _folder(name, trees, tree)
                os.sync()
                costs[tree].append(_sync(tree, data, address, folder, *CASES[case]))
    for tree, of_tree in costs.items():
        walls = [cost.wall for cost in of_tree]
        cpu, peak = statistics.median(cost.cpu for cost in of_tree), max(cost.peak for cost in of_tree)
        print(
            f"{tree:40} {statistics.median(walls):6.2f} s, at best {min(walls):.2f}; {cpu:.2f} s CPU, {peak / 1e6:,.0f} MB"
        )


def _folder(parent: str, trees: list[str], tree: str) -> Path:
    folder = Path(parent) / str(trees.index(tree))
    folder.mkdir(exist_ok=True)
    return folder


def _sync(tree: str, data: Dataset, address: str, folder: Path, *options: str) -> Cost:
    command = [sys.executable, "-m", "pipelines.cli", "sync", data.vendor, "--json", *options]
    cost = timed(command, cwd=folder, env={**settings_of(data, address, folder), "PYTHONPATH": tree})
    if json.loads(cost.output)["exit_code"]:
        raise Failed(f"{tree}: {cost.output[-2000:]}")
    return cost


if __name__ == "__main__":
    main()

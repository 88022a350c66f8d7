"""Every fault of the list, once; `python -m faults --seeds 20` in this folder plays all of each."""

from __future__ import annotations

from typing import TYPE_CHECKING

import duckdb
import pytest
from faults.count import COUNTERS, Ledger
from faults.play import Result, play_all
from faults.points import POINTS, Point, _found
from faults.table import FAULTS

if TYPE_CHECKING:
    from conftest import Desk

    from sandbox.world import World

JOBS = 2
SEED = 1


@pytest.fixture(scope="module")
def results(request: pytest.FixtureRequest) -> dict[int, Result]:
    """All faults that were asked for, played side by side."""
    asked = {item.callspec.params["number"] for item in request.session.items if item.name.startswith("test_fault[")}
    return {result.number: result for result in play_all(sorted(asked), [SEED], jobs=JOBS)}


# the first of them waits for all, which take two minutes together, and longer beside other work
@pytest.mark.timeout(900)
@pytest.mark.parametrize("number", [entry.number for entry in FAULTS])
def test_fault(number: int, results: dict[int, Result]) -> None:
    """A fault that loses, doubles, tears or leaks something, wedges the runs after it, or ends in another way than named."""
    assert results[number].passed, str(results[number])
    assert not results[number].skipped


def test_the_list_is_complete() -> None:
    """A fault that was dropped from the list."""
    assert [entry.number for entry in FAULTS] == list(range(1, 37))
    assert set().union(*(entry.words for entry in FAULTS)) == {"recover", "resume", "quarantine", "refuse"}


@pytest.mark.parametrize("name", POINTS)
def test_moments_exist(name: str) -> None:
    """A kill point whose function was renamed, so that nothing is killed there any more."""
    point: Point = POINTS[name]
    assert callable(getattr(_found(point.owner), point.name))


DAMAGES = {
    "lost": "DELETE FROM screendesk.users",
    "duplicated": "INSERT INTO getscreen.connections SELECT * FROM getscreen.connections LIMIT 1",
    "stale": "UPDATE screendesk.recordings SET title = $old WHERE uuid = $key",
    "invented": "UPDATE screendesk.recordings SET title = 'nobody wrote this' WHERE uuid = $key",
    "orphaned": "DELETE FROM posthog.desktop_recordings",
}


@pytest.mark.parametrize("kind", DAMAGES)
def test_the_checker_notices(kind: str, sandboxed: Desk, world: World) -> None:
    """A checker that counts nothing, whatever is wrong with the warehouse."""
    ledger = Ledger(world)
    key = world.screendesk.recordings.keys()[0]
    old = world.screendesk.recordings.get(key)["title"]
    ledger.note()
    world.screendesk.recordings.update(key, {"title": "newer"}, touch=False)
    sandboxed.sync()
    assert not ledger.count(sandboxed.published, []).total()
    values = {name: value for name, value in {"old": old, "key": key}.items() if f"${name}" in DAMAGES[kind]}
    with duckdb.connect(str(sandboxed.published)) as connection:
        connection.execute(DAMAGES[kind], values or None)
    problems: list[str] = []
    counts = ledger.count(sandboxed.published, problems)
    assert counts[kind] > 0, problems
    assert set(counts) <= set(COUNTERS)

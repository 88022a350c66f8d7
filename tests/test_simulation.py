"""Histories of vendors that move, fail and lie, played against the real engine; see `simulation` for how, and for more."""

from __future__ import annotations

import logging

import pytest
from simulation.judge import Wrong
from simulation.mutants import MUTANTS
from simulation.play import play
from simulation.run import MOST_STEPS, at, report, search
from simulation.steps import At, Do, Fault, LoseWork, Skew, Story, Sync, Wait

SEED = 5
ENGINE_HISTORIES = 200
WHOLE_HISTORIES = 8


def test_whatever_happens_two_quiet_runs_set_it_right_and_no_receipt_lies() -> None:
    """A row lost, doubled, stale, invented or wrongly deleted, or a receipt that says complete and is not."""
    with at("engine") as (level, _):
        tally = search(level, ENGINE_HISTORIES, SEED)
    assert tally.error is None, report(tally)
    assert tally.histories >= ENGINE_HISTORIES
    # a simulation in which nothing happens proves nothing
    assert min(tally.log[f"{kind} complete"] for kind in ("full", "light", "windows")) >= 20, tally.log
    assert min(tally.log["killed"], tally.log["full incomplete"]) >= 10, tally.log


def test_the_same_with_dlt_files_and_publishing(caplog: pytest.LogCaptureFixture) -> None:
    """A promise that the engine keeps and the whole does not: a kill within a load, a file that is not published whole."""
    caplog.set_level(logging.ERROR)
    with at("whole") as (level, _):
        tally = search(level, WHOLE_HISTORIES, SEED, most_steps=MOST_STEPS["whole"], shrink=False)
    assert tally.error is None, report(tally)
    assert tally.histories >= WHOLE_HISTORIES


@pytest.mark.parametrize("name", MUTANTS)
def test_the_simulation_notices(name: str) -> None:
    """A simulation gone blind: each of these mistakes loses, resurrects or deletes rows, and must be found."""
    with at("engine") as (level, patch):
        MUTANTS[name](patch)
        tally = search(level, ENGINE_HISTORIES, SEED, shrink=False)
    assert tally.error is not None


STORIES = {
    "a-row-read-is-deleted-and-one-appears-further-down": Story(
        "screendesk", (Sync(), Sync(full=True, events=(At(2, Do("slip")),))), rows=20
    ),
    "killed-after-each-durable-step-of-a-first-load": Story(
        "posthog", tuple(Sync(kill=n) for n in range(6)), slice_rows=3
    ),
    "work-lost-after-a-kill": Story("getscreen", (Sync(), Do("update", 3), Sync(kill=1), LoseWork(), Do("delete", 2))),
    "a-connection-read-is-deleted-during-the-backfill": Story(
        "getscreen", (Sync(events=(At(4, Do("delete", 3)),)),), page=2
    ),
    "a-connection-no-window-shows-is-made-up-for-by-one-deleted-during-the-backfill": Story(
        "getscreen", (Do("poison", 5, 4), Sync(events=(At(2, Do("delete", 1)),))), rows=14, page=4
    ),
    "a-meeting-without-a-key-comes-on-pages-that-overlap": Story(
        "posthog",
        (Do("insert", n=4), Do("keyless"), Sync(events=(At(1, Fault("empty_list")),))),
        rows=3,
        page=2,
        slice_rows=3,
    ),
    "meetings-that-changed-to-start-together-slip-through-a-light-pass": Story(
        "posthog", (Sync(), Do("insert", 0, 1), Do("tie", 0, 4)), rows=9, page=2, slice_rows=3
    ),
}


@pytest.mark.parametrize("name", STORIES)
def test_stories(name: str) -> None:
    """Histories that went wrong once, or that show what the others are made of."""
    with at("engine") as (level, _):
        play(STORIES[name], level)


def test_a_failing_history_is_made_small_and_can_be_replayed() -> None:
    """A counterexample nobody can read, or that is gone with the run that found it."""
    with at("engine") as (level, patch):
        MUTANTS["cursor_from_the_last_value_seen"](patch)
        tally = search(level, ENGINE_HISTORIES, SEED, most_steps=5)
        assert tally.story is not None
        names = {c.__name__: c for c in (At, Do, Fault, LoseWork, Skew, Story, Sync, Wait)}
        assert tally.story.length <= 4, tally.story
        with pytest.raises(Wrong):
            play(eval(repr(tally.story), names), level)

"""Reading by dates: whatever the vendor's filter means, the table ends like the vendor's list, and proves it."""

from __future__ import annotations

import asyncio
import inspect
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise, product
from typing import TYPE_CHECKING, Any

import httpx
import orjson
import pytest
from known import known_rows

from pipelines.progress import SilentReporter
from pipelines.settings import Settings, configure_dlt
from sandbox.app import create_app
from sandbox.faults import Fault
from sandbox.records import ABSENT
from sandbox.world import World
from sources import _pages, _windows, getscreen
from sources._http import RetryPolicy
from sources._plan import History, Outcome, Slice, Span
from sources._schema import Type
from sources._settings import SourceSettings
from sources._tables import Converter
from sources._windows import ASKED_FOR, CHECKPOINT_SKEW, Windows
from sources.getscreen.tables import CONNECTIONS

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pipelines.ledger import Receipt
    from sources._tables import Key

configure_dlt()
from pipelines.sync import sync  # noqa: E402 - dlt must be configured before it is imported

MEANINGS = ("start", "stop", "overlap", "containment", "ignored")
BOUNDS = ("closed", "open", "closed_open", "open_closed")
LOOKBACK = timedelta(days=7)
START = datetime(2026, 10, 1, 9, 0, 30, 250_000, tzinfo=UTC)
LIST, INFO = "/getscreen/v1/history/list", "/getscreen/v1/history/info"


@dataclass
class Row:
    """One row of the warehouse: its content's hash, and what the ledger gives back of it."""

    row_hash: str
    start: int | None
    stop: int | None
    deleted: bool = False


class Desk:
    """A Getscreen account and a warehouse in memory, kept as the loader and the ledger keep the real one."""

    def __init__(self, connections: int = 0, *, now: datetime = START, **knobs: Any) -> None:
        self.world = World(3, recordings=0, users=8, connections=connections, meetings=0, now=now)
        self.table = self.world.getscreen.connections
        for name, value in knobs.items():
            assert hasattr(self.world.getscreen.settings, name)
            setattr(self.world.getscreen.settings, name, value)
        self.rows: dict[Key, Row] = {}
        self.outcomes: list[Outcome] = []
        self.slices: list[Slice] = []
        self.checkpoint: datetime | None = None
        self.same_token = True
        self.full_sweep_every = timedelta(days=90)
        self.clock: Callable[[], datetime] = lambda: self.world.now

    # -- the vendor

    def add(self, start: float, stop: float | None, **more: Any) -> Key:
        """A connection that began and ended so many seconds from now."""
        now = int(self.world.now.timestamp())
        return self.table.insert(start=now + start, stop=None if stop is None else now + stop, **more)

    def later(self, **passed: float) -> None:
        self.world.advance(timedelta(**passed))

    # -- a run

    def history(self) -> History:
        full = [o for o in self.outcomes if o.complete and o.sweep_kind == "full"]
        last = self.outcomes[-1] if self.outcomes else None
        return History(
            known=known_rows(
                Type.INTEGER, {k: (r.row_hash, None, r.deleted, r.start, r.stop) for k, r in self.rows.items()}
            ),
            last_full_at=full[-1].started_at if full else None,
            last_complete=last is not None and last.complete,
            quarantined=full[-1].quarantined if full else 0,
            same_token=self.same_token,
            checkpoint=self.checkpoint,
        )

    def run(self, *, full: bool = False, slices: int | None = None) -> Outcome:
        """One run; `slices` kills it after so many slices were committed."""
        self.world.requests.clear()
        configured = SourceSettings(
            "getscreen", self.world.getscreen.token, "http://127.0.0.1/getscreen/v1", 1, requests_per_second=0.0
        )
        self.slices = []

        async def read() -> Outcome:
            transport = httpx.ASGITransport(create_app(self.world))
            async with getscreen.open_client(configured, transport, RetryPolicy(attempts=1)) as client:
                (plan,) = getscreen.plan_tables(client)
                reading = Windows(
                    plan,
                    self.history(),
                    full=full,
                    settle=LOOKBACK,
                    full_sweep_every=self.full_sweep_every,
                    slice_rows=20,
                    slice_seconds=1e9,
                    clock=self.clock,
                )
                async with aclosing(reading.slices()) as pieces:
                    async for piece in pieces:
                        if slices is not None and piece.number >= slices:
                            break
                        self._commit(piece)
                return reading.outcome

        outcome = asyncio.run(read())
        if slices is None:
            self._settle(outcome)
        return outcome

    def _commit(self, piece: Slice) -> None:
        self.slices.append(piece)
        if piece.batch is None:
            return
        for row in piece.batch.tables["connections"].select(["id", "_row_hash", "start", "stop"]).to_pylist():
            start, stop = (None if row[n] is None else round(row[n].timestamp() * 1e6) for n in ("start", "stop"))
            self.rows[row["id"]] = Row(row["_row_hash"], start, stop)

    def _settle(self, outcome: Outcome) -> None:
        for key in outcome.gone:
            assert not self.rows[key].deleted
            self.rows[key].deleted = True
        if outcome.complete:
            assert outcome.reason == ""
            assert len(self.live) == outcome.expected_live
            assert outcome.newest_cursor is not None
            self.checkpoint = datetime.fromtimestamp(outcome.newest_cursor / 1e6, UTC)
        else:
            assert outcome.reason
        self.outcomes.append(outcome)

    # -- what came of it

    @property
    def live(self) -> dict[Key, str]:
        return {key: row.row_hash for key, row in self.rows.items() if not row.deleted}

    @property
    def truth(self) -> dict[Key, str]:
        """What the warehouse must hold live: all that the list shows."""
        listed = [r for r in self.table.all() if self.world.getscreen.settings.open_in_list or r.get("stop")]
        page = Converter(CONNECTIONS, getscreen.in_declared_shape).read(listed)
        return dict(zip(page.keys.to_pylist(), page.hashes.to_pylist(), strict=True))

    def follows(self, *, full: bool = False) -> Outcome:
        """One run, after which the warehouse is what the vendor has."""
        outcome = self.run(full=full)
        assert outcome.complete, outcome.reason
        assert self.live == self.truth
        return outcome

    def by_window(self, *expected: int) -> None:
        """One run, after which the same holds, and for which a window was enough."""
        outcome = self.follows()
        assert (outcome.sweep_kind, *counts(outcome)) == ("windows", *expected), outcome.sweep_reason

    @property
    def requests(self) -> list[dict[str, str]]:
        return [{"path": entry.path, **entry.query} for entry in self.world.requests]

    def asked(self, path: str) -> int:
        return sum(request["path"] == path for request in self.requests)


@pytest.fixture(autouse=True)
def _no_list_is_short(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Short lists are read whole; here a few rows stand for a long one."""
    if "short" not in request.node.name:
        monkeypatch.setattr(_windows, "LIGHT_FROM_ROWS", 0)


def counts(outcome: Outcome) -> tuple[int, int, int]:
    return outcome.inserted, outcome.updated, len(outcome.gone)


def day(days: float) -> float:
    return days * 86_400


# ---- twenty filters, one table


@pytest.mark.parametrize(("meaning", "bounds"), list(product(MEANINGS, BOUNDS)))
def test_the_table_ends_the_same_whatever_the_filter_means(meaning: str, bounds: str) -> None:
    """Catches a window that is right for one reading of the documents alone; each run must end like the vendor."""
    number = MEANINGS.index(meaning) + BOUNDS.index(bounds)
    desk = Desk(
        110,
        filter_meaning=meaning,
        bounds=bounds,
        filter_echo=("numbers", "strings")[number % 2],
        info_shape=("bare", "data")[number // 2 % 2],
        order=("start_desc", "start_asc", "id_asc", "shuffled")[number % 4],
        max_limit=(100, 7)[number % 2],
    )
    table, shows_open = desk.table, meaning in {"start", "overlap", "ignored"}
    long_ago = desk.add(-day(29), None)
    longer = desk.add(-day(8), None)
    first = desk.follows()
    assert (first.sweep_kind, first.inserted) == ("full", 112)

    desk.later(hours=6)
    desk.by_window(0, 0, 0)

    # short ones that are over
    new = [desk.add(-3600 - n, -1800 + n) for n in range(9)]
    desk.later(hours=6)
    desk.by_window(9, 0, 0)

    # exactly at both ends of the window: its `from`, the lookback's first second, and the second in which the run began
    assert desk.checkpoint
    now = int(desk.world.now.timestamp())
    oldest = int((desk.checkpoint - LOOKBACK).timestamp()) - now
    edge = [desk.add(oldest, oldest + 60), desk.add(-60, 0), desk.add(0, 0)]
    desk.by_window(3, 0, 0)
    for key in edge:
        table.update(key, {"video": {"url": f"https://st.getscreen.example/{key}.mp4", "size": 5}})
    desk.by_window(0, 3, 0)

    desk.later(hours=6)
    # late video, an edit, deletes inside the window
    table.update(new[0], {"video": {"url": "https://st.getscreen.example/late.mp4", "size": 9}})
    table.update(new[1], {"agent.name": "renamed", "client": []})
    table.delete(new[2])
    table.delete(new[3])
    desk.by_window(0, 2, 2)

    # open for longer than the lookback, and ended
    table.close(longer)
    desk.by_window(0, 1, 0)
    # one that begins is shown while it is open, or else the vendor's count gives it away
    fresh = desk.add(-5, None)
    outcome = desk.follows()
    assert (outcome.sweep_kind, outcome.inserted) == ("windows" if shows_open else "full", 1)
    desk.later(days=20)
    desk.by_window(0, 0, 0)
    table.close(fresh)
    desk.by_window(0, 1, 0)

    # gone while open; gone long after its end; inserted with old dates; ended past all asking: by the count, or a sweep
    open_one = desk.add(-60, None)
    desk.follows()
    desk.later(days=1)
    table.delete(open_one)
    desk.by_window(0, 0, 1)
    table.delete(desk.table.keys()[0] if desk.table.keys()[0] != long_ago else desk.table.keys()[-1])
    desk.add(-day(70), -day(70) + 60)
    desk.add(-day(50), -day(50) + 60)
    outcome = desk.follows()
    assert (outcome.sweep_kind, *counts(outcome)) == ("full", 2, 0, 1)
    desk.later(hours=1)
    table.close(long_ago)
    desk.follows(full=True)
    assert not table.still_open() or desk.rows[table.still_open()[0]].stop is None


# ---- a quiet run


def quiet_cost(desk: Desk) -> int:
    """Requests of a run with nothing new: the count, the window's pages, and each open connection it does not show."""
    assert desk.checkpoint
    since = int((desk.checkpoint - LOOKBACK).timestamp()) - 1
    oldest = desk.world.now - ASKED_FOR
    window, asked = 0, 0
    for row in desk.rows.values():
        assert row.start is not None
        shown = (row.stop is None or row.stop >= since * 1e6) and row.start <= desk.world.now.timestamp() * 1e6
        window += shown
        still_open = row.stop is None or row.stop <= row.start
        asked += still_open and not shown and row.start > oldest.timestamp() * 1e6
    return 1 + max(1, -(-window // desk.world.getscreen.settings.max_limit)) + asked


@pytest.mark.parametrize("max_limit", [100, 4])
def test_a_quiet_run_costs_the_count_the_window_and_what_is_open(max_limit: int) -> None:
    """Catches a run that asks for more than it must, or writes what has not changed."""
    desk = Desk(300, max_limit=max_limit)
    desk.follows()
    for _ in range(4):
        desk.later(hours=12)
        expected = quiet_cost(desk)
        outcome = desk.follows()
        assert (outcome.sweep_kind, counts(outcome), desk.slices) == ("windows", (0, 0, 0), [])
        assert outcome.traffic.requests == len(desk.requests) == expected
    assert max_limit == 4 or outcome.traffic.requests <= 3


def test_open_connections_the_window_does_not_show_are_asked_for_until_they_expire() -> None:
    desk = Desk(0, filter_meaning="stop")
    young = desk.add(-day(20), None)
    old = desk.add(-day(40), None)
    zero = desk.add(-day(10), 0, video=None)
    desk.table.update(zero, {"stop": 0})
    absent = desk.add(-day(10), None)
    desk.table.update(absent, {"stop": ABSENT})
    same = desk.add(-day(10), -day(10))
    desk.follows()
    desk.later(hours=1)
    outcome = desk.follows()
    assert (outcome.sweep_kind, counts(outcome), desk.slices) == ("windows", (0, 0, 0), [])
    asked = {int(r["session_id"]) for r in desk.requests if r["path"] == INFO}
    assert asked == {young, zero, absent, same}
    desk.later(days=11)
    desk.follows()
    assert desk.asked(INFO) == 3
    # only a sweep without dates sees the end of one that is no longer asked for
    desk.table.close(old, int(desk.world.now.timestamp()) - int(day(9)))
    assert desk.run().sweep_kind == "windows"
    assert desk.live != desk.truth
    assert desk.follows(full=True).updated == 1


@pytest.mark.parametrize("shape", ["bare", "data"])
@pytest.mark.parametrize("meaning", ["start", "containment"])
def test_a_connection_that_ended_is_read_from_the_list_not_from_its_other_shape(shape: str, meaning: str) -> None:
    """Catches logins and device names lost, as `history/info` has none."""
    desk = Desk(60, filter_meaning=meaning, info_shape=shape)
    key = desk.add(-day(15), None)
    desk.follows()
    desk.table.close(key)
    outcome = desk.follows()
    assert (outcome.sweep_kind, counts(outcome)) == ("windows", (0, 1, 0))
    assert desk.rows[key].stop == int(desk.world.now.timestamp()) * 1_000_000


def test_a_connection_that_is_hidden_while_open_appears_when_it_ends() -> None:
    desk = Desk(40, open_in_list=False, filter_meaning="start")
    desk.follows()
    key = desk.add(-day(12), None)
    assert desk.follows().inserted == 0
    desk.table.close(key)
    assert (desk.follows().inserted, key in desk.live) == (1, True)


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        ({"id": 7, "start": 10, "stop": 20}, Span(10, 20)),
        ({"data": {"id": "7", "start": 10, "stop": 20.5}}, Span(10, 20.5)),
        ({"id": 7, "start": 10, "stop": None}, Span(10, None)),
        ({"id": 7, "start": 10, "stop": 0}, Span(10, None)),
        ({"id": 7, "start": 10}, Span(10, None)),
        ({"id": 7, "start": 10, "stop": 10}, Span(10, None)),
        ({"id": 7, "start": 10, "stop": 9}, Span(10, None)),
        ({"id": 8, "start": 10, "stop": 20}, None),
        ({"id": 7, "start": 10, "stop": "soon"}, None),
        ({"id": 7, "start": None, "stop": 20}, None),
        ({"id": 7, "start": 10, "stop": True}, None),
        ({"data": []}, None),
        ({"data": None}, None),
        ({}, None),
    ],
)
def test_an_answer_about_one_connection_is_read_in_both_shapes_or_not_at_all(reply: Any, expected: Span | None) -> None:
    assert getscreen.span_of(7, reply) == expected


@pytest.mark.parametrize("answer", [{"data": {}}, {"id": 1, "start": 5, "stop": 9}, {"data": []}])
def test_an_answer_that_does_not_say_whether_a_connection_ended_leads_to_a_sweep(answer: Any) -> None:
    """Catches a connection taken for open for ever, because its answer could not be read."""
    desk = Desk(40, filter_meaning="start")
    key = desk.add(-day(15), None)
    desk.follows()
    desk.table.close(key)
    desk.world.faults.add(Fault("replace", path_contains="info", times=None, body=lambda _: orjson.dumps(answer)))
    outcome = desk.follows()
    assert (outcome.sweep_kind, outcome.updated) == ("full", 1)
    assert "does not say" in outcome.sweep_reason


def test_a_connection_that_ended_in_the_future_is_left_to_a_sweep() -> None:
    """Catches a window asked for with a date that no vendor takes, such as milliseconds, which would end every run."""
    desk = Desk(40, filter_meaning="start")
    key = desk.add(-day(15), None)
    desk.follows()
    desk.table.close(key, int(desk.world.now.timestamp()) * 1000)
    outcome = desk.follows()
    assert (outcome.sweep_kind, outcome.updated) == ("full", 1)


# ---- a list that moves


@pytest.mark.parametrize("order", ["start_desc", "start_asc", "shuffled"])
@pytest.mark.parametrize("what", ["insert", "delete", "both"])
def test_a_list_that_moves_between_two_pages_is_read_again(what: str, order: str) -> None:
    """Catches a row lost because the rows after it moved up or down by one."""
    desk = Desk(40, max_limit=5, order=order)
    recent = [desk.add(-day(n / 4) - 60, -day(n / 4)) for n in range(1, 23)]
    desk.follows()

    def move(body: bytes) -> bytes:
        if what in {"insert", "both"}:
            desk.add(-day(3), -day(3) + 5)
        if what in {"delete", "both"}:
            desk.table.delete(recent[9])
        return body

    desk.world.faults.add(Fault("replace", path_contains="list", times=1, after=2, query={"limit": "100"}, body=move))
    outcome = desk.run()
    assert outcome.complete
    if what == "both":
        # the count stays: one more run may be needed, and sees it
        outcome = desk.follows(full=True)
    assert desk.live == desk.truth


def test_a_count_that_never_stands_still_is_not_complete_and_moves_no_checkpoint() -> None:
    desk = Desk(30, max_limit=5)
    for n in range(12):
        desk.add(-day(n / 4) - 60, -day(n / 4) - 1)
    desk.follows()
    before = desk.checkpoint
    desk.later(hours=2)

    def insert(body: bytes) -> bytes:
        desk.add(-10, -5)
        return body

    desk.world.faults.add(Fault("replace", path_contains="list", times=None, query={"limit": "100"}, body=insert))
    outcome = desk.run()
    assert (outcome.complete, desk.checkpoint) == (False, before)
    assert "count changed" in outcome.reason
    desk.world.faults.clear()
    outcome = desk.follows()
    assert outcome.sweep_reason == "the last run was not complete"
    assert desk.checkpoint == desk.world.now.replace(microsecond=0) - CHECKPOINT_SKEW


@pytest.mark.parametrize("mutant", [False, True])
def test_a_limit_the_vendor_lowers_loses_nothing(mutant: bool, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: FBT001
    """The mutant advances the offset by the limit; it must be caught."""
    if mutant:
        source = inspect.getsource(_pages.by_total)
        changed = source.replace("offset += len(records)", "offset += limit")
        assert changed != source
        names = dict(vars(_pages))
        exec(changed, names)
        monkeypatch.setattr(getscreen, "by_total", names["by_total"])
    desk = Desk(0, max_limit=50)
    for n in range(130):
        desk.add(-600 - n, -300 - n)
    first = desk.run()
    for n in range(130):
        desk.add(-100 - n, -50 - n)
    second = desk.run()
    right = first.complete and second.complete and desk.live == desk.truth
    assert right is not mutant


# ---- filters that are not what they say


@pytest.mark.parametrize("echo", ["absent", "empty"])
@pytest.mark.parametrize("meaning", ["overlap", "ignored"])
def test_a_filter_the_vendor_does_not_repeat_is_not_trusted(echo: str, meaning: str) -> None:
    desk = Desk(120, filter_echo=echo, filter_meaning=meaning)
    outcome = desk.follows()
    assert (outcome.sweep_kind, desk.asked(LIST)) == ("full", 1 + 1 + 2)
    desk.later(hours=1)
    desk.add(-60, -30)
    outcome = desk.follows()
    assert (outcome.sweep_kind, desk.asked(LIST), outcome.inserted) == ("full", 1 + 1 + 2, 1)
    assert "date_from and date_to" in outcome.sweep_reason


def test_another_filter_than_the_one_sent_is_not_trusted() -> None:
    desk = Desk(30)
    desk.follows()

    def older(body: bytes) -> bytes:
        reply = orjson.loads(body)
        if reply.get("filter"):
            reply["filter"]["date_from"] -= 1
        return orjson.dumps(reply)

    desk.world.faults.add(Fault("replace", path_contains="list", times=None, body=older))
    assert "does not say that it filtered by date_from" in desk.follows().sweep_reason


def test_a_window_that_hides_what_lies_inside_it_is_not_trusted() -> None:
    """Catches edits lost for as long as the vendor takes seconds for milliseconds, which shows nothing, steadily."""
    desk = Desk(0)
    key = desk.add(-3600, -60)
    for n in range(1, 15):
        desk.add(-3600, -n)
        desk.add(-day(20 + n), -day(20))
    desk.follows()
    desk.table.update(key, {"agent.name": "renamed"})

    def nothing(body: bytes) -> bytes:
        reply = orjson.loads(body)
        return orjson.dumps({**reply, "total": 0, "data": []} if reply.get("filter") else reply)

    desk.world.faults.add(Fault("replace", path_contains="list", times=None, body=nothing))
    outcome = desk.follows()
    assert (outcome.sweep_kind, outcome.updated, outcome.gone) == ("full", 1, [])
    assert desk.asked(INFO) == 1


@pytest.mark.parametrize("meaning", ["start", "stop", "containment"])
def test_rows_exactly_on_the_ends_of_a_window_may_stay_away(meaning: str) -> None:
    """Catches a sweep at each run, because a row on a bound was expected of a vendor whose bounds are open."""
    desk = Desk(0, filter_meaning=meaning, bounds="open")
    since = -CHECKPOINT_SKEW.total_seconds() - LOOKBACK.total_seconds() - 1
    for start, stop in [(since, since), (since, -60), (-day(8), since), (-60, 3601), (3601, 3601)]:
        desk.add(start, stop)
    desk.follows()
    desk.later(hours=1)
    desk.by_window(0, 0, 0)
    assert {r["date_from"] for r in desk.requests if "date_from" in r} >= {str(int(START.timestamp() + since))}


# ---- rows that vanish


def test_half_of_all_rows_vanishing_marks_nothing() -> None:
    desk = Desk(0)
    keys = [desk.add(-600 - n, -300 - n) for n in range(60)]
    desk.follows()
    before = desk.checkpoint
    desk.later(hours=1)
    for key in keys[::2]:
        desk.table.delete(key)
    outcome = desk.run()
    assert (outcome.complete, outcome.gone, len(desk.live)) == (False, [], 60)
    assert "30 of 60 rows vanished" in outcome.reason
    assert (desk.checkpoint, desk.asked(INFO)) == (before, 0)


def test_a_row_deleted_inside_the_window_is_confirmed_once() -> None:
    desk = Desk(60)
    keys = [desk.add(-600 - n, -300 - n) for n in range(10)]
    desk.follows()
    desk.table.delete(keys[4])
    outcome = desk.follows()
    assert (outcome.sweep_kind, outcome.gone, desk.asked(INFO)) == ("windows", [keys[4]], 1)
    desk.later(hours=1)
    assert counts(desk.follows()) == (0, 0, 0)
    # and it returns
    desk.add(-500, -200, id=keys[4])
    outcome = desk.follows()
    assert (outcome.sweep_kind, counts(outcome)) == ("windows", (0, 1, 0))


def test_a_row_found_gone_by_a_window_that_then_fails_is_marked_once() -> None:
    """Catches a row counted as deleted twice, when the sweep that follows finds it gone again."""
    desk = Desk(60)
    keys = [desk.add(-600 - n, -300 - n) for n in range(10)]
    desk.follows()
    desk.table.delete(keys[4])
    desk.add(-day(40), -day(40) + 9)
    outcome = desk.follows()
    assert (outcome.sweep_kind, outcome.gone, outcome.inserted) == ("full", [keys[4]], 1)


def test_another_key_reads_everything_and_marks_nothing() -> None:
    desk = Desk(60)
    desk.follows()
    desk.table.delete(desk.table.keys()[0])
    desk.same_token = False
    outcome = desk.run()
    assert (outcome.sweep_kind, outcome.sweep_reason) == ("full", "the token changed")
    assert (outcome.complete, outcome.gone) == (False, [])


# ---- the checkpoint


def test_a_row_dated_2099_is_loaded_and_does_not_move_the_checkpoint() -> None:
    desk = Desk(60)
    desk.follows()
    desk.later(hours=3)
    far = int(datetime(2099, 1, 1, tzinfo=UTC).timestamp())
    odd = [desk.table.insert(start=far, stop=far + 9), desk.table.insert(start=far, stop=None)]
    desk.follows()
    assert set(odd) <= desk.live.keys()
    assert desk.checkpoint == desk.world.now.replace(microsecond=0) - CHECKPOINT_SKEW
    desk.later(hours=3)
    desk.add(-60, -30)
    outcome = desk.follows()
    assert (outcome.sweep_kind, counts(outcome)) == ("windows", (1, 0, 0))


def test_rows_dated_by_a_vendor_whose_clock_is_behind_are_not_missed() -> None:
    """Catches a checkpoint at the run's very end: what the vendor dates four minutes back would fall between two windows."""
    desk = Desk(30, filter_meaning="containment")
    desk.follows()
    desk.later(minutes=5)
    key = desk.add(-day(7) - 540, -60)
    outcome = desk.follows()
    assert (outcome.sweep_kind, key in desk.live) == ("windows", True)


@pytest.mark.parametrize("hours", [-30, 30])
def test_a_clock_that_jumps_and_comes_back_loses_nothing(hours: int) -> None:
    desk = Desk(60)
    desk.follows()
    desk.later(hours=1)
    desk.add(-60, -30)
    desk.clock = lambda: desk.world.now + timedelta(hours=hours)
    desk.follows()
    desk.later(hours=1)
    desk.add(-60, -30)
    desk.clock = lambda: desk.world.now
    outcome = desk.follows()
    assert outcome.inserted == 1
    assert outcome.sweep_kind == ("full" if hours > 0 else "windows"), outcome.sweep_reason
    desk.later(hours=1)
    assert desk.follows().sweep_kind == "windows"


def test_a_list_read_by_dates_is_read_whole_every_so_often() -> None:
    desk = Desk(60)
    desk.full_sweep_every = timedelta(days=1)
    desk.follows()
    desk.later(hours=23)
    silent = desk.table.keys()[-1]
    desk.table.update(silent, {"agent.name": "renamed long after"})
    assert desk.run().sweep_kind == "windows"
    desk.later(hours=1)
    outcome = desk.follows()
    assert (outcome.sweep_reason, outcome.updated) == ("the last full sweep is old enough", 1)
    assert desk.follows(full=True).sweep_reason == "asked for"


@pytest.mark.parametrize("status", [402, 403])
@pytest.mark.parametrize("after", [0, 1, 2])
def test_a_run_the_vendor_ends_early_keeps_its_rows_and_the_old_checkpoint(status: int, after: int) -> None:
    desk = Desk(60, max_limit=10)
    desk.follows()
    before = desk.checkpoint
    desk.later(hours=1)
    for n in range(20):
        desk.add(-600 - n, -300 - n)
    desk.world.faults.add(Fault("status", path_contains="list", status=status, times=None, after=after))
    outcome = desk.run()
    assert (outcome.complete, outcome.error is not None, desk.checkpoint) == (False, True, before)
    assert outcome.inserted == len(desk.live) - 60 == 10 * max(0, after - 1)
    desk.world.faults.clear()
    assert desk.follows().inserted == 20 - outcome.inserted


# ---- quarantine


def test_records_without_key_count_towards_the_vendors_count() -> None:
    desk = Desk(60)
    desk.table.insert(id="no number", start=int(START.timestamp() - day(40)), stop=int(START.timestamp() - day(39)))
    desk.follows()
    desk.later(hours=1)
    assert desk.follows().sweep_kind == "windows"
    # one more: the count does not add up until a sweep has seen both
    desk.table.insert(id="nor this", start=int(desk.world.now.timestamp()) - 60, stop=None)
    assert (desk.follows().sweep_kind, desk.outcomes[-1].quarantined) == ("full", 2)
    assert desk.follows().sweep_kind == "windows"


# ---- the first load


@pytest.mark.parametrize("meaning", MEANINGS)
def test_the_first_load_reads_windows_newest_first_until_all_is_there(meaning: str) -> None:
    desk = Desk(0, filter_meaning=meaning, bounds="open")
    for n in range(90):
        # some last for days, over the seams
        desk.add(-day(n) - day(n % 6) - 60, -day(n) - 1)
    outcome = desk.follows()
    assert (outcome.sweep_kind, outcome.inserted, outcome.passes) == ("full", 90, 1)
    assert outcome.sweep_reason.startswith("the first full sweep: backfill in ")
    windows = [(int(r["date_from"]), int(r["date_to"])) for r in desk.requests if "date_from" in r]
    assert windows == sorted(windows, reverse=True)
    assert meaning == "ignored" or len(windows) >= 3
    assert all(older[1] - newer[0] >= LOOKBACK.total_seconds() for newer, older in pairwise(windows))
    assert len(desk.requests) == len(windows) + 2
    desk.later(hours=1)
    assert desk.follows().sweep_kind == "windows"


def test_a_first_load_that_windows_cannot_prove_ends_with_a_sweep() -> None:
    """Catches rows before a long silence, and open ones, which no window shows."""
    desk = Desk(0, filter_meaning="stop")
    for n in range(5):
        desk.add(-day(n) - 60, -day(n) - 1)
    desk.add(-day(200), -day(200) + 60)
    desk.add(-60, None)
    outcome = desk.follows()
    assert (outcome.sweep_kind, outcome.inserted, outcome.passes) == ("full", 7, 2)
    assert "the vendor counts 7 and 5 distinct records were read" in outcome.sweep_reason
    assert len([r for r in desk.requests if "date_from" in r]) <= 1 + 3 + 1


def test_a_first_load_ends_where_the_filter_is_ignored_and_a_row_leaves_after_it_was_counted() -> None:
    """Catches windows that go on for ever, each full of rows known already, for the one that is gone."""
    desk = Desk(0, filter_meaning="ignored")
    keys = [desk.add(-day(n) - 60, -day(n) - 1) for n in range(9)]

    def leave(body: bytes) -> bytes:
        desk.table.delete(keys[0])
        return body

    desk.world.faults.add(Fault("replace", query={"limit": "1"}, times=1, body=leave))
    outcome = desk.follows()
    assert len(desk.live) == 8
    assert outcome.sweep_kind == "full"
    assert len(desk.requests) < 20


def test_what_begins_during_the_first_load_is_read_as_well() -> None:
    """Catches a long first load of a busy account that is read twice, because something began meanwhile."""
    desk = Desk(0, max_limit=10)
    for n in range(90):
        desk.add(-day(n) - 60, -day(n) - 1)

    def begin(body: bytes) -> bytes:
        desk.later(seconds=30)
        desk.add(-2, None)
        return body

    desk.world.faults.add(Fault("replace", query={"limit": "100"}, times=3, after=2, body=begin))
    outcome = desk.follows()
    assert (outcome.inserted, outcome.passes) == (93, 1)


def test_a_first_load_that_was_killed_goes_on_from_what_was_committed() -> None:
    desk = Desk(0)
    for n in range(90):
        desk.add(-day(n) - 60, -day(n) - 1)
    desk.run(slices=2)
    assert len(desk.live) == 37 or 0 < len(desk.live) < 90
    newest = sorted((row.start or 0 for row in desk.rows.values()), reverse=True)
    assert newest == sorted((r["start"] * 1_000_000 for r in desk.table.all()), reverse=True)[: len(newest)]
    held = len(desk.live)
    outcome = desk.follows()
    assert (outcome.inserted, outcome.updated) == (90 - held, 0)


def test_an_empty_account_is_complete() -> None:
    desk = Desk(0)
    assert desk.follows().vendor_count == 0
    assert desk.follows().sweep_kind == "windows"


# ---- through whole syncs


def test_receipts_carry_the_checkpoint_from_run_to_run(tmp_path: Path) -> None:
    """Catches a checkpoint, or a row's dates, lost between the ledger and the next run."""
    world = World(3, recordings=0, users=3, connections=300, meetings=0)
    world.getscreen.settings.filter_meaning = "containment"
    key = world.getscreen.connections.insert(start=int(world.now.timestamp()) - int(day(12)), stop=None)
    source = SourceSettings(
        "getscreen", world.getscreen.token, "http://127.0.0.1/getscreen/v1", 1, 0.0, full_sweep_every=10
    )
    jump = timedelta(0)

    def run(code: int = 0) -> Receipt:
        world.requests.clear()
        result = sync(
            Settings(tmp_path, {"getscreen": source}),
            ["getscreen"],
            SilentReporter(),
            transports={"getscreen": httpx.ASGITransport(create_app(world))},
            clock=lambda: world.now + jump,
        )
        assert result.exit_code == code, result.receipts
        return result.receipts[0]

    def checkpoint() -> str:
        at = (world.now + jump).replace(microsecond=0) - CHECKPOINT_SKEW
        return at.isoformat(timespec="microseconds")

    first = run()
    assert (first.sweep_kind, first.live_rows, first.cursor_before, first.cursor_after) == (
        "full", 301, None, checkpoint(),
    )  # fmt: skip
    world.advance(timedelta(hours=1))
    quiet = run()
    assert (quiet.sweep_kind, quiet.written, quiet.cursor_before) == ("windows", 0, first.cursor_after)
    assert (quiet.cursor_after, quiet.vendor_count, quiet.live_rows) == (checkpoint(), 301, 301)
    assert quiet.distinct_read < 301
    world.getscreen.connections.close(key)
    assert (run().sweep_kind, world.requests.entries[-1].query["date_from"]) == (
        "windows", str(int(world.now.timestamp()) - 3600 - int(day(12)) - 1),
    )  # fmt: skip
    world.advance(timedelta(hours=1))
    world.faults.add(Fault("status", path_contains="list", status=402, times=None, after=1))
    failed = run(code=1)
    assert (failed.complete, failed.cursor_before, failed.cursor_after) == (
        False,
        quiet.cursor_after,
        quiet.cursor_after,
    )
    world.faults.clear()
    assert run().sweep_reason == "the last run was not complete"
    jump = timedelta(days=2)
    assert (run().sweep_kind, run().cursor_after) == ("windows", checkpoint())
    jump = timedelta(0)
    assert run().sweep_reason == "the checkpoint lies in the future"
    assert run().sweep_kind == "windows"

"""Sweeps against what the warehouse holds, and the thread that carries them to the loader."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import httpx
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from known import known_rows

from sandbox.app import create_app
from sandbox.faults import Fault
from sandbox.world import World
from sources import getscreen, posthog, screendesk
from sources._errors import RecordMissing, Refused, Unreachable
from sources._http import ApiClient, RetryPolicy, Traffic
from sources._known import Known
from sources._pages import ListPage
from sources._plan import Answer, History, ListPlan, Outcome, Presence, Slice
from sources._reading import Reading, ReadingStopped, side_by_side
from sources._schema import ChildTable, Column, Table, Type
from sources._settings import SourceSettings
from sources._sweep import Sweep
from sources._tables import Converter

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Sequence

    from sources._tables import Key

THINGS = Table(
    schema="vendor",
    name="things",
    key="id",
    cursor="at",
    description="",
    columns=(Column("id", Type.TEXT, ""), Column("at", Type.TIMESTAMP, ""), Column("v", Type.INTEGER, "")),
    children=(
        ChildTable("things__tags", ("tags",), "thing_id", "", (Column("value", Type.TEXT, ""),), plain_values=True),
    ),
)
OTHERS = Table(
    schema="vendor", name="others", key="id", cursor=None, description="", columns=(Column("id", Type.TEXT, ""),)
)
START = datetime(2026, 1, 1, tzinfo=UTC)
PATIENCE = 20


def thing(key: Any, version: int = 0, v: int | None = None, **more: Any) -> dict[str, Any]:
    at = (START + timedelta(seconds=version)).isoformat()
    return {"id": key, "at": at, "v": version if v is None else v, **more}


def things(count: int, first: int = 0) -> list[dict[str, Any]]:
    return [thing(f"k{i}") for i in range(first, first + count)]


def listing(records: Sequence[Any], size: int = 10, count: int | None = None) -> list[ListPage]:
    total = len(records) if count is None else count
    return [ListPage(list(records[i : i + size]), total, in_place=True) for i in range(0, len(records), size)] or [
        ListPage([], total, in_place=True)
    ]


class Vendor:
    """A vendor whose passes are scripted: the last one is repeated."""

    def __init__(
        self, *passes: list[ListPage], answers: dict[Any, Any] | None = None, sees: Any = True, table: Table = THINGS
    ) -> None:
        self.passes, self.answers, self.sees, self.table = list(passes), answers or {}, sees, table
        self.asked: list[Any] = []

    async def walk(self, _: Traffic) -> AsyncGenerator[ListPage, None]:
        for page in self.passes.pop(0) if len(self.passes) > 1 else self.passes[0]:
            if isinstance(page, BaseException):
                raise page
            await asyncio.sleep(0)
            yield page

    async def ask(self, key: Key, _: Traffic) -> Answer:
        self.asked.append(key)
        answer: Answer = self.answers.get(key, Presence.GONE)
        if isinstance(answer, BaseException):
            raise answer
        return answer

    async def sees_everything(self, _: Traffic) -> bool:
        if isinstance(self.sees, BaseException):
            raise self.sees
        return bool(self.sees)

    @property
    def plan(self) -> ListPlan:
        return ListPlan(self.table, self.walk, self.ask, self.sees_everything)


def holding(*live: dict[str, Any], deleted: Sequence[dict[str, Any]] = ()) -> Known:
    page = Converter(THINGS).read([*live, *deleted])
    hashes, cursors = page.hashes.to_pylist(), page.cursors.tolist()
    rows = enumerate(zip(page.keys.to_pylist(), hashes, cursors, strict=True))
    return known_rows(Type.TEXT, {key: (h, c, i >= len(live), None, None) for i, (key, h, c) in rows})


def sweep(vendor: Vendor, known: Known | None = None, slice_rows: int = 1000) -> tuple[Outcome, list[Slice]]:
    history = History(Known() if known is None else known)
    found = Sweep(vendor.plan, history, slice_rows=slice_rows, slice_seconds=1e9)

    async def run() -> list[Slice]:
        return [piece async for piece in found.slices()]

    pieces = asyncio.run(run())
    return found.outcome, pieces


def loaded(pieces: Sequence[Slice]) -> dict[str, int]:
    """What the warehouse holds afterwards; keys within a slice must be distinct, or the loader could take either."""
    rows: dict[str, int] = {}
    for number in sorted({p.number for p in pieces}):
        tables = [p.batch.tables["things"] for p in pieces if p.number == number and p.batch]
        keys = [k for t in tables for k in t["id"].to_pylist()]
        assert len(keys) == len(set(keys))
        for table in tables:
            rows.update(zip(table["id"].to_pylist(), table["v"].to_pylist(), strict=True))
    assert [p.number for p in pieces] == sorted(p.number for p in pieces)
    return rows


def counts(outcome: Outcome) -> tuple[int, int, int]:
    return outcome.inserted, outcome.updated, outcome.unchanged


# ---- clean passes


def test_a_clean_pass_is_enough_and_the_counts_add_up() -> None:
    known = holding(*things(10), thing("k10", 1))
    outcome, pieces = sweep(Vendor(listing([*things(10), thing("k10", 2), *things(14, 11)])), known)
    assert (outcome.complete, outcome.reason, outcome.passes) == (True, "", 1)
    assert counts(outcome) == (14, 1, 10)
    assert outcome.distinct_read == outcome.vendor_count == sum(counts(outcome)) == 25
    assert set(loaded(pieces)) == {f"k{i}" for i in range(10, 25)}


def test_a_second_sweep_over_the_same_list_hands_on_nothing() -> None:
    known = Known()
    vendor = Vendor(listing(things(25)))
    sweep(vendor, known)
    outcome, pieces = sweep(vendor, known)
    assert pieces == []
    assert (outcome.complete, counts(outcome)) == (True, (0, 0, 25))


def test_an_empty_list_is_complete() -> None:
    outcome, pieces = sweep(Vendor(listing([])))
    assert (outcome.complete, outcome.vendor_count, pieces) == (True, 0, [])


@pytest.mark.parametrize(
    ("unclean", "says"),
    [
        (listing(things(20), count=21), "counts 21 and 20 distinct"),
        (listing([*things(10), *things(10)]), "counts 20 and 10 distinct"),
        ([*listing(things(10)), *listing(things(10, 10), count=11)], "count changed"),
        ([ListPage(things(10), None, in_place=True)], "sent no count"),
        ([*listing(things(9), count=9), ListPage([], None, in_place=True)], "sent no count"),
        ([ListPage(things(10), 10, in_place=False, problem="page 7 came")], "page 7 came"),
    ],
)
def test_an_unclean_pass_is_read_again_and_told_when_it_stays(unclean: list[ListPage], says: str) -> None:
    outcome, pieces = sweep(Vendor(unclean), holding(thing("gone")))
    assert (outcome.complete, outcome.passes, outcome.gone) == (False, 3, [])
    assert says in outcome.reason
    assert outcome.reason.startswith("after 3 passes")
    assert set(loaded(pieces)) == {r["id"] for page in unclean for r in page.records}
    outcome, pieces = sweep(Vendor(unclean, listing([*things(20), thing("gone")])), holding(thing("gone")))
    assert (outcome.complete, outcome.passes, outcome.distinct_read) == (True, 2, 21)
    assert sum(counts(outcome)) == 21


def test_what_only_an_unclean_pass_showed_is_kept_and_asked_for() -> None:
    """Catches a row lost between passes: the union counts, and what the clean pass lacks must be confirmed."""
    first = listing([*things(9), thing("early")], count=11)
    vendor = Vendor(first, listing(things(12)), answers={"early": thing("early")})
    outcome, pieces = sweep(vendor)
    assert set(loaded(pieces)) == {*(f"k{i}" for i in range(12)), "early"}
    assert (outcome.complete, outcome.distinct_read, outcome.present_unlisted) == (True, 12, 1)
    assert vendor.asked == ["early"]


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from("abcde"), st.integers(0, 3)), max_size=12),
    st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(0, 3)), max_size=5),
    st.integers(1, 5),
    st.integers(1, 4),
)
def test_the_newest_version_wins_in_whatever_order_versions_come(
    read: list[tuple[str, int]], held: list[tuple[str, int]], size: int, slice_rows: int
) -> None:
    """Catches an old copy, met on a later page or held by a stale replica, written over a newer one."""
    known = holding(*(thing(k, v) for k, v in held))
    newest = {k: max(v for k2, v in [*read, *held] if k2 == k) for k in {k for k, _ in read}}
    vendor = Vendor(listing([thing(k, v) for k, v in read], size), answers={k: thing(k, v) for k, v in newest.items()})
    before = {k: max(v for k2, v in held if k2 == k) for k in {k for k, _ in held}}
    known = holding(*(thing(k, v) for k, v in before.items()))
    outcome, pieces = sweep(vendor, known, slice_rows)
    assert {**before, **loaded(pieces)} == {**before, **newest}
    assert outcome.inserted == len(newest.keys() - before.keys())
    assert outcome.updated == sum(newest[k] > before[k] for k in newest.keys() & before.keys())


# ---- copies that look older


@pytest.mark.parametrize(("truth", "then"), [(thing("a", 1), {"a": 1}), (thing("a", 5), {}), (thing("a", 6), {"a": 6})])
def test_an_older_copy_is_settled_by_asking(truth: dict[str, Any], then: dict[str, int]) -> None:
    vendor = Vendor(listing([thing("a", 1)]), answers={"a": truth})
    outcome, pieces = sweep(vendor, holding(thing("a", 5)))
    assert loaded(pieces) == then
    assert vendor.asked == ["a"]
    assert (outcome.complete, sum(counts(outcome))) == (True, 1)


@pytest.mark.parametrize("answer", [{}, {"data": thing("a", 1)}, thing("b", 1)])
def test_an_answer_about_another_record_settles_nothing(answer: Any) -> None:
    """Catches a run that calls itself complete while it could not learn which of two versions is true."""
    outcome, pieces = sweep(Vendor(listing([thing("a", 1)]), answers={"a": answer}), holding(thing("a", 5)))
    assert pieces == []
    assert not outcome.complete
    assert "look older" in outcome.reason


@pytest.mark.parametrize("at", [None, "yesterday", 17])
def test_a_cursor_the_vendor_stops_sending_costs_no_request_per_row(at: Any) -> None:
    vendor = Vendor(listing([{**r, "at": at} for r in things(30)]))
    outcome, pieces = sweep(vendor, holding(*things(30)))
    assert (vendor.asked, outcome.complete, outcome.updated) == ([], True, 30)
    assert len(loaded(pieces)) == 30


# ---- rows that vanish, and come back


def test_a_vanished_row_is_gone_only_when_the_vendor_says_so() -> None:
    answers = {"a": Presence.GONE, "b": Presence.PRESENT, "c": thing("c"), "d": thing("d", 3)}
    known = holding(*things(10), *(thing(k) for k in "abcd"))
    outcome, pieces = sweep(Vendor(listing(things(10)), answers=answers), known)
    assert outcome.gone == ["a"]
    assert (outcome.complete, outcome.present_unlisted) == (True, 3)
    assert loaded(pieces) == {"d": 3}


@pytest.mark.parametrize(
    ("live", "vanish", "marked"), [(21, 20, True), (22, 21, False), (600, 30, True), (600, 31, False)]
)
def test_too_many_vanished_rows_are_not_believed(live: int, vanish: int, marked: bool) -> None:  # noqa: FBT001
    vendor = Vendor(listing(things(live - vanish)))
    outcome, _ = sweep(vendor, holding(*things(live)))
    assert (len(outcome.gone), outcome.complete) == ((vanish, True) if marked else (0, False))
    assert len(vendor.asked) == len(outcome.gone)
    assert marked or f"{vanish} of {live} rows vanished" in outcome.reason


def test_an_account_that_shows_none_of_the_rows_held_is_not_believed() -> None:
    outcome, _ = sweep(Vendor(listing(things(5, 50))), holding(*things(3)))
    assert (outcome.gone, outcome.complete) == ([], False)


def test_a_token_that_sees_less_marks_nothing() -> None:
    vendor = Vendor(listing(things(10)), sees=False)
    outcome, _ = sweep(vendor, holding(*things(12)))
    assert (outcome.gone, outcome.complete, vendor.asked) == ([], False, [])
    assert "may not see everything" in outcome.reason


@pytest.mark.parametrize("where", ["ask", "sees"])
def test_a_vendor_error_while_vanished_rows_are_confirmed_is_not_complete(where: str) -> None:
    """Catches a receipt that says complete because the list itself was read clean."""
    error = Unreachable("vendor", "no answer")
    vendor = Vendor(listing(things(10)), answers={"k11": error}, sees=error if where == "sees" else True)
    outcome, _ = sweep(vendor, holding(*things(12)))
    assert (outcome.complete, outcome.error, outcome.reason) == (False, error, "no answer")
    assert outcome.gone == (["k10"] if where == "ask" else [])


@pytest.mark.parametrize("version", [0, 1])
def test_a_row_that_returns_is_written_again_even_unchanged(version: int) -> None:
    known = holding(*things(10), deleted=[thing("back")])
    outcome, pieces = sweep(Vendor(listing([*things(10), thing("back", version)])), known)
    assert loaded(pieces) == {"back": version}
    assert (counts(outcome), known.live) == ((0, 1, 10), 11)


def test_rows_marked_deleted_before_do_not_count_as_vanished() -> None:
    known = holding(*things(10), deleted=things(50, 100))
    outcome, _ = sweep(Vendor(listing(things(10))), known)
    assert (outcome.complete, outcome.gone) == (True, [])


# ---- quarantine


def test_quarantined_records_count_towards_the_vendors_count() -> None:
    outcome, pieces = sweep(Vendor(listing([*things(10), thing(None), thing(""), 7, None, None], size=15)))
    assert (outcome.complete, outcome.distinct_read, outcome.quarantined) == (True, 10, 4)
    assert len([q for p in pieces for q in p.quarantined]) == 4


def test_a_quarantined_record_met_on_two_pages_does_not_make_up_for_a_skipped_one() -> None:
    """Catches a false clean pass: 22 records, one without key read twice, one real one never."""
    pages = listing([*things(10), thing(None, 5), *things(10, 10), thing(None, 5)], size=11)
    outcome, pieces = sweep(Vendor(pages))
    assert not outcome.complete
    assert "counts 22 and 21 distinct" in outcome.reason
    assert len([q for p in pieces for q in p.quarantined]) == 1


def test_a_page_mostly_without_keys_stops_the_table() -> None:
    known = holding(*things(10), thing("gone"))
    outcome, pieces = sweep(Vendor([*listing(things(10), count=16), *listing([*things(2, 50), *[{}] * 3])]), known)
    assert (outcome.complete, outcome.gone, pieces) == (False, [], [])
    assert "3 of the 5 records" in outcome.reason
    half, _ = sweep(Vendor(listing([*things(3), {}, {}, {}], size=6)))
    assert (half.complete, half.distinct_read) == (True, 3)


def test_one_bad_record_alone_on_the_last_page_is_bad_luck_not_a_changed_format() -> None:
    outcome, pieces = sweep(Vendor(listing([*things(10), {}], size=10)))
    assert (outcome.complete, outcome.distinct_read, outcome.quarantined) == (True, 10, 1)
    assert len([q for p in pieces for q in p.quarantined]) == 1


# ---- errors under way


def test_what_was_read_before_an_error_stays() -> None:
    error = Unreachable("vendor", "no answer")
    pages: list[Any] = [*listing(things(10), count=99), error]
    outcome, pieces = sweep(Vendor(pages), holding(thing("gone")))
    assert set(loaded(pieces)) == {f"k{i}" for i in range(10)}
    assert (outcome.complete, outcome.error, outcome.reason, outcome.gone) == (False, error, "no answer", [])
    assert outcome.finished_at is not None


def test_a_cursor_in_the_future_does_not_speak_for_the_table() -> None:
    future = {"id": "f", "at": "2099-01-01T00:00:00Z"}
    outcome, _ = sweep(Vendor(listing([thing("a", 3), future])))
    assert outcome.newest_cursor == int((START + timedelta(seconds=3)).timestamp() * 1_000_000)


# ---- the reading thread


def reading(
    *vendors: Vendor, plans: Callable[[Any], Any] | None = None, read_before: bool = False, **limits: Any
) -> Reading:
    configured = SourceSettings("screendesk", "t", "http://127.0.0.1", 2, 0.0)
    return Reading(
        configured,
        lambda: screendesk.open_client(configured, httpx.MockTransport(lambda _: httpx.Response(500)), RetryPolicy(1)),
        plans or (lambda _: [v.plan for v in vendors]),
        [v.table for v in vendors],
        {v.table.qualified_name: History(last_full_at=START) for v in vendors} if read_before else {},
        **limits,
    )


def drain(source: Reading, name: str) -> list[str]:
    keys = []
    feed = source.feeds[name]
    while feed.has_rows():
        keys += [k for tables in feed.next_slice() for k in tables[name]["id"].to_pylist()]
    return keys


def in_time(what: Callable[[], Any]) -> Any:
    """Run something that must not hang; a test that would is ended and named."""
    box: list[Any] = []

    def run() -> None:
        try:
            box.append(what())
        except BaseException as error:  # noqa: BLE001
            box.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(PATIENCE)
    assert not thread.is_alive(), "it hangs"
    return box[0]


@pytest.mark.parametrize("first", ["things", "others"])
def test_one_table_can_be_read_out_while_the_other_is_full(first: str) -> None:
    """Catches a deadlock between the reader, blocked on a full table, and the loader, waiting for the other one."""
    many = Vendor(listing(things(900), size=3))
    other = Vendor(listing([{"id": f"o{i}"} for i in range(900)], size=3), table=OTHERS)

    def run() -> list[int]:
        with reading(many, other, slice_rows=100) as source:
            names = [first, "others" if first == "things" else "things"]
            return [len(drain(source, name)) for name in names]

    assert in_time(run) == [900, 900]


def test_a_bug_while_reading_one_table_reaches_the_loader_of_every_table() -> None:
    """Catches a loader that waits for ever on a table whose reader has died, or died of the other table's bug."""
    bug: list[Any] = [*listing(things(3), count=9), ZeroDivisionError("bug")]
    full = Vendor(listing([{"id": f"o{i}"} for i in range(900)], size=3), table=OTHERS)

    def run() -> list[BaseException | None]:
        raised: list[BaseException | None] = []
        with reading(Vendor(bug), full) as source:
            for name in ("things", "others"):
                try:
                    drain(source, name)
                    raised.append(None)
                except ZeroDivisionError as error:
                    raised.append(error)
        return raised

    assert [str(e) for e in in_time(run)] == ["bug", "bug"]


def test_a_bug_before_the_first_request_reaches_the_loader() -> None:
    def run() -> None:
        with reading(Vendor([]), plans=lambda _: 1 // 0) as source:
            source.feeds["things"].has_rows()

    assert isinstance(in_time(run), ZeroDivisionError)


def test_a_loader_that_waits_is_released_by_stop() -> None:
    class Silent(Vendor):
        async def walk(self, _: Traffic) -> AsyncGenerator[ListPage, None]:
            yield listing(things(3), count=9)[0]
            waiting.set()
            await asyncio.Event().wait()

    waiting = threading.Event()
    source = reading(Silent([]))

    def stop() -> None:
        waiting.wait(PATIENCE)
        source.stop()

    threading.Thread(target=stop, daemon=True).start()

    def run() -> None:
        with source:
            drain(source, "things")

    assert isinstance(in_time(run), ReadingStopped)


def test_a_reading_stopped_twice_finishes_what_it_began_to_close(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each loader stops its reading and then ends it: the second would break off the closing of connections."""
    seen: list[str] = []

    class Silent(Vendor):
        async def walk(self, _: Traffic) -> AsyncGenerator[ListPage, None]:
            yield listing(things(3), count=9)[0]
            await asyncio.Event().wait()

    async def slowly(_: object) -> None:
        seen.append("closing")
        await asyncio.sleep(0.1)
        seen.append("closed")

    monkeypatch.setattr(ApiClient, "aclose", slowly)
    source = reading(Silent([]), slice_seconds=0.0)
    with source:
        source.feeds["things"].has_rows()
        source.stop()
        while not seen:
            time.sleep(0.001)
    assert seen == ["closing", "closed"]


@pytest.mark.parametrize("taken", [0, 1])
def test_a_loader_that_stops_early_ends_the_reading(taken: int) -> None:
    def run() -> bool:
        source = reading(Vendor(listing(things(9000), size=3)), slice_rows=10)
        with source:
            for _ in range(taken):
                list(source.feeds["things"].next_slice())
        return source._thread.is_alive()

    assert in_time(run) is False


def test_stop_before_and_after_reading_is_harmless() -> None:
    def run() -> list[str]:
        source = reading(Vendor(listing(things(3))))
        with source:
            keys = drain(source, "things")
            source._thread.join()
            source.stop()
        early = reading(Vendor(listing(things(3))))
        early.stop()
        with early, pytest.raises(ReadingStopped):
            drain(early, "things")
        return keys

    assert in_time(run) == ["k0", "k1", "k2"]


def test_leaving_one_table_lets_the_other_be_read_and_the_thread_end() -> None:
    other = Vendor(listing([{"id": f"o{i}"} for i in range(900)], size=3), table=OTHERS)

    def run() -> tuple[list[str], bool]:
        source = reading(Vendor(listing(things(900), size=3)), other)
        source.start()
        source.feeds["others"].has_rows()
        source.leave(source.feeds["others"])
        keys = drain(source, "things")
        source._thread.join(PATIENCE)
        return keys, source._thread.is_alive()

    keys, alive = in_time(run)
    assert (len(keys), alive) == (900, False)


def test_a_wrong_setting_is_told_by_every_table() -> None:
    configured = SourceSettings("screendesk", "", "http://127.0.0.1", 2, 0.0)
    source = Reading(configured, lambda: screendesk.open_client(configured), lambda _: [], [THINGS, OTHERS], {})

    def run() -> list[Any]:
        with source:
            return [(drain(source, n), source.feeds[n].outcome.error) for n in ("things", "others")]

    assert all(rows == [] and "SOURCES__SCREENDESK__API_TOKEN" in str(error) for rows, error in in_time(run))


def test_slices_end_at_their_size_and_repeat_no_key() -> None:
    pages = [*listing(things(12), size=4, count=13), *listing([thing("k0", 1)], count=13)]

    def run() -> list[list[str]]:
        with reading(Vendor(pages), slice_rows=8) as source:
            feed, slices = source.feeds["things"], []
            while feed.has_rows():
                slices.append([k for t in feed.next_slice() for k in t["things"]["id"].to_pylist()])
            return slices

    slices = in_time(run)
    assert [len(s) for s in slices[:2]] == [8, 5] or [len(s) for s in slices[:3]] == [8, 4, 1]
    assert all(len(s) == len(set(s)) <= 8 for s in slices)
    assert Counter(k for s in slices for k in s)["k0"] == 2


# ---- several vendors side by side


class Silent(Vendor):
    """Never answers."""

    async def walk(self, _: Traffic) -> AsyncGenerator[ListPage, None]:
        await asyncio.Event().wait()
        yield ListPage([], 0, in_place=True)


def alive(*sources: Reading) -> list[bool]:
    return [source._thread.is_alive() for source in sources]


def test_a_vendor_that_never_answers_holds_up_no_other() -> None:
    """Catches a loader that waits for the first of several vendors, and one that leaves its thread behind."""
    silent, other = reading(Silent([])), reading(Vendor(listing(things(30), size=3)), slice_rows=10)

    def run() -> list[str]:
        keys = []
        with side_by_side([silent, other]) as next_ready:
            while not other.ended:
                ready = next_ready()
                assert ready is other
                keys += [k for tables in other.feeds["things"].next_slice() for k in tables["things"]["id"].to_pylist()]
                if other.finished:
                    other.end()
        return keys

    assert len(in_time(run)) == 30
    assert alive(silent, other) == [False, False]


def test_vendors_that_are_ready_take_turns_and_each_is_named_until_it_has_ended() -> None:
    """Catches a vendor with much to load that leaves none of the others a turn, and one that is forgotten."""
    sources = [reading(Vendor(listing(things(12), size=3)), slice_rows=3) for _ in range(2)]

    def run() -> list[int]:
        turns = []
        with side_by_side(sources) as next_ready:
            for source in sources:
                source._thread.join(PATIENCE)
            while (ready := next_ready()) is not None:
                turns.append(sources.index(ready))
                if ready.feeds["things"].has_rows():
                    list(ready.feeds["things"].next_slice())
                else:
                    ready.end()
        return turns

    turns = in_time(run)
    assert len(turns) >= 8
    assert turns == [turn % 2 for turn in range(len(turns))]


def test_a_bug_in_one_vendors_reading_reaches_the_loader_and_ends_them_all() -> None:
    """Catches a failure that is waited for in vain, or threads that go on asking vendors after the run is over."""
    silent = reading(Silent([]))
    broken = reading(Vendor([*listing(things(3), count=9), ZeroDivisionError("bug")]))

    def run() -> None:
        with side_by_side([silent, broken]) as next_ready:
            while True:
                ready = next_ready()
                assert ready is broken
                list(broken.feeds["things"].next_slice())

    assert isinstance(in_time(run), ZeroDivisionError)
    assert alive(silent, broken) == [False, False]


class Pausing(Vendor):
    """Goes on after its first pages only when told to."""

    def __init__(self, pages: list[ListPage]) -> None:
        super().__init__(pages)
        self.may_go_on = threading.Event()

    async def walk(self, traffic: Traffic) -> AsyncGenerator[ListPage, None]:
        async for page in super().walk(traffic):
            yield page
        while not self.may_go_on.is_set():  # noqa: ASYNC110 - set from another thread
            await asyncio.sleep(0.001)


def first_rows(source: Reading) -> None:
    """Wait until rows of a reading wait to be loaded."""
    while not source.feeds["things"].rows_waiting():
        threading.Event().wait(0.001)


def test_the_first_row_of_a_vendor_read_before_waits_for_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a loader that is imported in the middle of a reading that may bring one row, and takes its time from it."""
    monkeypatch.setattr("sources._reading.LOAD_LATER_SECONDS", 3600.0)
    vendor = Pausing(listing(things(3)))

    def run() -> list[bool]:
        with reading(vendor, read_before=True) as source:
            first_rows(source)
            early = source.ready
            vendor.may_go_on.set()
            source._thread.join(PATIENCE)
            return [early, source.ready]

    assert in_time(run) == [False, True]


@pytest.mark.parametrize(("seconds", "read_before"), [(3600.0, False), (0.01, True)])
def test_rows_wait_neither_at_a_first_reading_nor_for_ever(
    monkeypatch: pytest.MonkeyPatch, *, seconds: float, read_before: bool
) -> None:
    """Catches rows of a vendor that reads for hours, or has stopped answering, that are loaded only at its end."""
    monkeypatch.setattr("sources._reading.LOAD_LATER_SECONDS", seconds)
    vendor = Pausing(listing(things(3)))

    def run() -> bool:
        with reading(vendor, read_before=read_before) as source:
            first_rows(source)
            while not source.ready:
                threading.Event().wait(0.001)
            return True

    assert in_time(run) is True


def test_a_reading_that_may_not_go_on_until_rows_are_taken_is_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a loader and a reading that wait for each other."""
    monkeypatch.setattr("sources._reading.LOAD_LATER_SECONDS", 3600.0)
    vendor = Pausing(listing(things(300), size=3))

    def run() -> bool:
        with reading(vendor, read_before=True, slice_rows=3) as source, side_by_side([source]) as next_ready:
            return next_ready() is source

    assert in_time(run) is True


# ---- whole vendors


def test_a_vendor_that_fails_half_way_keeps_what_was_read_and_says_why() -> None:
    world = World(recordings=95, users=5, connections=0, meetings=0)
    world.screendesk.settings.page_size = 10
    world.faults.add(Fault("status", path_contains="/recordings", status=401, times=None, after=4))
    source = screendesk.open_reading(
        SourceSettings("screendesk", world.screendesk.token, "http://127.0.0.1/screendesk/api/v2", 1, 0.0),
        {},
        httpx.ASGITransport(create_app(world)),
    )

    def run() -> tuple[int, int]:
        with source:
            return sum(_rows(source, "recordings", "uuid")), sum(_rows(source, "users", "email"))

    recordings, users = in_time(run)
    failed, whole = source.feeds["recordings"].outcome, source.feeds["users"].outcome
    assert (recordings, users) == (40, len(world.screendesk.users))
    assert isinstance(failed.error, Refused)
    assert (failed.complete, whole.complete) == (False, True)


def _rows(source: Reading, name: str, key: str) -> list[int]:
    feed, sizes = source.feeds[name], []
    while feed.has_rows():
        sizes += [len(tables[name][key]) for tables in feed.next_slice()]
    return sizes


def test_unstable_ties_never_pass_for_clean_and_lose_nothing_silently() -> None:
    """Meetings that began together come in a new order on each request: some pass repeats one and skips another."""
    world = World(recordings=0, connections=0, meetings=40)
    table = world.posthog.desktop_recordings
    for key in table.keys():  # noqa: SIM118
        table.update(key, {"started_at": "2026-10-10T10:00:00Z"})
    configured = SourceSettings("posthog", world.posthog.token, "http://127.0.0.1/posthog", 2, 0.0, project_id="4242")
    seen: set[Any] = set()
    complete = False
    for _ in range(random.Random(1).randrange(2, 4)):

        async def run() -> Outcome:
            async with posthog.open_client(configured, httpx.ASGITransport(create_app(world))) as client:
                meetings = posthog.DesktopRecordings(client, "4242", page_limit=10)

                async def sees(_: Traffic) -> bool:
                    return True

                found = Sweep(
                    ListPlan(posthog.DESKTOP_RECORDINGS, meetings.walk, meetings.ask, sees),
                    History(),
                    slice_rows=1000,
                    slice_seconds=1e9,
                )
                async for piece in found.slices():
                    if piece.batch:
                        seen.update(piece.batch.tables["desktop_recordings"]["id"].to_pylist())
                return found.outcome

        outcome = asyncio.run(run())
        complete = outcome.complete
        assert complete == (outcome.reason == "")
        assert not complete or seen == set(table.keys())
        assert outcome.distinct_read == outcome.vendor_count or "distinct records" in outcome.reason


def test_a_member_token_marks_no_recording_deleted() -> None:
    world = World(recordings=60, users=5, connections=0, meetings=0)
    transport = httpx.ASGITransport(create_app(world))
    configured = SourceSettings("screendesk", world.screendesk.token, "http://127.0.0.1/screendesk/api/v2", 2, 0.0)
    known = {"screendesk.recordings": History(), "screendesk.users": History()}

    def run() -> Outcome:
        source = screendesk.open_reading(configured, known, transport)
        with source:
            _rows(source, "recordings", "uuid")
            _rows(source, "users", "email")
        return source.feeds["recordings"].outcome

    assert in_time(run).complete
    owners = Counter(r["user"]["email"] for r in world.screendesk.recordings.all() if r.get("user"))
    world.screendesk.settings.role = "member"
    world.screendesk.settings.agent = owners.most_common()[0][0]
    outcome = in_time(run)
    assert (outcome.gone, outcome.complete) == ([], False)


def test_a_deleted_connection_is_confirmed_by_its_session() -> None:
    world = World(recordings=0, connections=40, meetings=0)
    keys = world.getscreen.connections.keys()
    configured = SourceSettings("getscreen", world.getscreen.token, "http://127.0.0.1/getscreen/v1", 1, 0.0)
    known = {"getscreen.connections": History()}

    def run() -> Outcome:
        source = getscreen.open_reading(configured, known, httpx.ASGITransport(create_app(world)))
        with source:
            _rows(source, "connections", "id")
        return source.feeds["connections"].outcome

    assert in_time(run).inserted == 40
    world.getscreen.connections.delete(keys[3])
    outcome = in_time(run)
    assert (outcome.gone, outcome.complete, counts(outcome)) == ([keys[3]], True, (0, 0, 39))


def test_arrow_tables_of_one_slice_join() -> None:
    """Catches pages whose columns come out in other types, such as all-null ones, and cannot be put together."""
    pages = listing([thing("a"), {"id": "b"}, {"id": "c", "v": "odd", "tags": None}, thing("d", tags=["x"])], size=1)
    with reading(Vendor(pages)) as source:
        (tables,) = list(source.feeds["things"].next_slice())
    assert isinstance(tables["things"], pa.Table)
    assert tables["things"]["v"].to_pylist() == [0, None, None, 0]
    assert tables["things__tags"].to_pylist() == [{"thing_id": "d", "_dlt_list_idx": 0, "value": "x", "_extra": None}]


def test_a_record_missing_is_no_error() -> None:
    """Catches the 404 that confirms a deletion being taken for the end of the table."""
    assert RecordMissing.recovery == "stop"
    outcome, _ = sweep(Vendor(listing(things(10)), answers={"k10": Presence.GONE}), holding(*things(11)))
    assert (outcome.gone, outcome.error, outcome.complete) == (["k10"], None, True)

"""`deskhouse quarantine`: what is shown of records without a usable key, and what a retry loads, keeps and leaves alone."""

from __future__ import annotations

import hashlib
import json
import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from truth import ROOT_NAMES, ROOTS, Truth, check_ledger, query

from pipelines import ledger, quarantine
from pipelines.lock import run_lock
from pipelines.progress import SilentReporter
from pipelines.settings import Settings
from pipelines.warehouse import Warehouse
from sources._schema import every_table
from sources._tables import Converter
from sources.screendesk.tables import RECORDINGS, USERS

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from conftest import Desk

    from sandbox.world import World
    from sources._schema import Table

LATER = datetime(2031, 5, 1, tzinfo=UTC)


def private(desk: Desk) -> Path:
    return Warehouse(desk.warehouse).private_database


def change(desk: Desk, *statements: tuple[str, list[Any]]) -> None:
    """Change the private database as nothing but a test does."""
    with duckdb.connect(str(private(desk))) as connection:
        for sql, values in statements:
            connection.execute(sql, values)


def set_aside(desk: Desk, table: Table, records: Iterable[Any], reason: str = "its key has a new form") -> list[str]:
    """Put records into quarantine as an older deskhouse would have, which had no use for their keys."""
    digests, now = [], datetime.now(UTC)
    for record in records:
        keyless = {**record, table.key: None} if isinstance(record, dict) else record
        (found,) = Converter(table).read([keyless]).quarantined
        raw = json.loads(found.raw)
        if isinstance(record, dict) and table.key in record:
            raw[table.key] = record[table.key]
        text = json.dumps(raw)
        digests.append(hashlib.blake2b(text.encode(), digest_size=16).hexdigest())
        row = [digests[-1], table.qualified_name, reason, text, "run-1", "run-1", now, now]
        change(desk, ("INSERT INTO ops.quarantine VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row))
    return digests


def lose(desk: Desk, table: Table, keys: list[Any]) -> None:
    """Take rows out, as if they had never been loaded."""
    for name, child in every_table(table):
        owner = child.parent_key if child else table.key
        sql = f'DELETE FROM {table.schema}.{name} WHERE "{owner}" IN (SELECT unnest(?))'
        change(desk, (sql, [keys]))


def contents(database: Path) -> dict[str, list[tuple[Any, ...]]]:
    """Every row of every vendor table, without what says when and by which load it was written."""
    found = {}
    for table in ROOTS:
        for name, child in every_table(table):
            hidden = "_dlt_load_id" if child else "_dlt_load_id, _loaded_at"
            found[name] = query(database, f"SELECT * EXCLUDE ({hidden}) FROM {table.schema}.{name} ORDER BY ALL")
    return found


def in_quarantine(database: Path) -> list[tuple[str, str]]:
    return query(database, "SELECT table_name, reason FROM ops.quarantine ORDER BY ALL")


def sources_of(world: World) -> dict[str, Any]:
    return {
        "screendesk.recordings": world.screendesk.recordings,
        "screendesk.users": world.screendesk.users,
        "getscreen.connections": world.getscreen.connections,
        "posthog.desktop_recordings": world.posthog.desktop_recordings,
    }


def retry(desk: Desk, *arguments: str, code: int = 0) -> dict[str, Any]:
    """`quarantine retry --json` with no token at all."""
    tokens = {name: value for name, value in desk.environment.items() if name.startswith("SOURCES__")}
    for name in tokens:
        del desk.environment[name]
    finished = desk.run("quarantine", "retry", "--json", *arguments)
    desk.environment |= tokens
    assert finished.code == code, finished.output
    return {entry["table"]: entry for entry in finished.report["tables"]} | {"report": finished.report}


# ---- what a retry loads


def test_what_comes_back_is_what_a_sync_would_have_loaded_and_the_next_sync_agrees(
    sandboxed: Desk, world: World
) -> None:
    """A replayed row that differs from a synced one, lacks its lists, or is counted twice by the receipts that follow."""
    truth = Truth(world)
    sandboxed.sync()
    whole = contents(sandboxed.published)
    taken = {table.qualified_name: sources_of(world)[table.qualified_name].keys()[:5] for table in ROOTS}
    for table in ROOTS:
        keys = taken[table.qualified_name]
        lose(sandboxed, table, keys)
        set_aside(sandboxed, table, [sources_of(world)[table.qualified_name].get(key) for key in keys])
    found = retry(sandboxed)
    for name in ROOT_NAMES:
        counts = {"tried": 5, "inserted": 5, "updated": 0, "held": 0, "remaining": 0}
        assert found[name] == {"table": name, **counts}
    assert contents(sandboxed.published) == whole
    assert in_quarantine(sandboxed.published) == []
    run_id = found["report"]["run_id"]
    assert query(sandboxed.published, "SELECT rows_written, status FROM ops.runs WHERE run_id = ?", [run_id]) == [
        (20, "complete")
    ]
    # a receipt says what a vendor said; a retry asks none
    assert query(sandboxed.published, "SELECT count(*) FROM ops.receipts WHERE run_id = ?", [run_id]) == [(0,)]
    finished = sandboxed.sync()
    truth.check(sandboxed.published)
    check_ledger(sandboxed.published, world, finished.report["run_id"])
    for name in ROOT_NAMES:
        receipt = finished.receipt(name)
        assert (receipt["inserted"], receipt["updated"], receipt["complete"]) == (0, 0, True)


def test_freshness_counts_rows_that_came_back(sandboxed: Desk, world: World) -> None:
    """`status` that says fewer rows than there are until the next sync."""
    sandboxed.sync()
    keys = world.screendesk.recordings.keys()[:3]
    lose(sandboxed, RECORDINGS, keys)
    change(
        sandboxed,
        ("UPDATE ops.receipts SET live_rows = live_rows - 3 WHERE table_name = 'screendesk.recordings'", []),
    )
    set_aside(sandboxed, RECORDINGS, [world.screendesk.recordings.get(key) for key in keys])
    retry(sandboxed)
    for _ in range(2):
        said = query(sandboxed.published, "SELECT table_name, live_rows, last_run_complete FROM ops.freshness")
        for name, live, complete in said:
            assert query(sandboxed.published, f"SELECT count(*) FROM {name}") == [(live,)]
            assert complete
        sandboxed.sync()


def test_the_next_run_reads_a_table_whole_whose_rows_came_back(sandboxed: Desk, world: World) -> None:
    """A light pass that adds up old counts: a row that is lost meanwhile hides behind one that was counted twice."""
    sandboxed.sync()
    assert ledger.history_of(private(sandboxed), RECORDINGS, same_token=True).last_full_at is not None
    key = world.screendesk.recordings.keys()[0]
    lose(sandboxed, RECORDINGS, [key])
    set_aside(sandboxed, RECORDINGS, [world.screendesk.recordings.get(key)])
    retry(sandboxed)
    assert ledger.history_of(private(sandboxed), RECORDINGS, same_token=True).last_full_at is None
    assert ledger.history_of(private(sandboxed), USERS, same_token=True).last_full_at is not None
    sandboxed.sync()
    assert ledger.history_of(private(sandboxed), RECORDINGS, same_token=True).last_full_at is not None


def test_a_record_the_vendor_no_longer_has_comes_back_and_is_then_marked_deleted(sandboxed: Desk, world: World) -> None:
    """The very case for a retry: gone at the vendor, kept here; a row that stays live for ever would be a lie."""
    record = world.screendesk.recordings.get(world.screendesk.recordings.keys()[0])
    sandboxed.sync()
    set_aside(sandboxed, RECORDINGS, [{**record, "uuid": "0b6f9f0e-0000-4000-8000-000000000001"}])
    assert retry(sandboxed)["screendesk.recordings"]["inserted"] == 1
    where = "WHERE uuid = '0b6f9f0e-0000-4000-8000-000000000001'"
    select = f"SELECT _deleted_at IS NULL FROM screendesk.recordings {where}"
    assert query(sandboxed.published, select) == [(True,)]
    assert sandboxed.sync().receipt("screendesk.recordings")["complete"]
    assert query(sandboxed.published, select) == [(False,)]


# ---- what it leaves alone


def test_a_row_that_is_newer_deleted_or_of_unknown_age_is_never_overwritten(sandboxed: Desk, world: World) -> None:
    """An old version from quarantine over the truth."""
    recordings, users = world.screendesk.recordings, world.screendesk.users
    newer, older, gone = recordings.keys()[:3]
    recordings.delete(gone)
    sandboxed.sync()
    sandboxed.sync()
    before = contents(sandboxed.published)

    def dated(key: Any, when: datetime, title: str) -> dict[str, Any]:
        record = json.loads(json.dumps(recordings.get(newer)))
        record |= {"uuid": key, "title": title}
        record["metadata"]["updated_at"] = when.isoformat()
        return record

    held = datetime(2020, 1, 1, tzinfo=UTC)
    same = recordings.get(older)
    set_aside(
        sandboxed,
        RECORDINGS,
        [dated(newer, held, "old"), {**same, "title": "of the same age"}, {**dated(older, held, "?"), "metadata": {}}],
    )
    set_aside(sandboxed, USERS, [{**users.get(users.keys()[0]), "name": "somebody else"}])
    found = retry(sandboxed)
    assert [found["screendesk.recordings"][n] for n in ("inserted", "updated", "held", "remaining")] == [0, 0, 3, 0]
    assert found["screendesk.users"]["held"] == 1
    assert contents(sandboxed.published) == before
    assert in_quarantine(sandboxed.published) == []


def test_a_row_that_was_found_deleted_stays_deleted(sandboxed: Desk, world: World) -> None:
    """A record that the vendor has removed, brought back to life by an older copy with a later date."""
    sandboxed.sync()
    key = world.screendesk.recordings.keys()[0]
    record = world.screendesk.recordings.get(key)
    world.screendesk.recordings.delete(key)
    sandboxed.sync()
    record["metadata"]["updated_at"] = LATER.isoformat()
    set_aside(sandboxed, RECORDINGS, [record])
    assert retry(sandboxed)["screendesk.recordings"]["held"] == 1
    deleted = query(
        sandboxed.published, "SELECT _deleted_at IS NOT NULL FROM screendesk.recordings WHERE uuid = ?", [key]
    )
    assert deleted == [(True,)]


def test_a_later_version_is_taken_the_newest_of_several_and_the_vendor_has_the_last_word(
    sandboxed: Desk, world: World
) -> None:
    """Two versions of a record in quarantine of which the older wins; or a wrong date that the vendor cannot correct."""
    truth = Truth(world)
    sandboxed.sync()
    key, fresh = world.screendesk.recordings.keys()[0], "0b6f9f0e-0000-4000-8000-000000000002"
    record = world.screendesk.recordings.get(key)

    def version(uuid: str, days: int) -> dict[str, Any]:
        metadata = {**record["metadata"], "updated_at": (LATER + timedelta(days=days)).isoformat()}
        return {**record, "uuid": uuid, "title": f"version {days}", "metadata": metadata}

    set_aside(sandboxed, RECORDINGS, [version(uuid, days) for uuid in (key, fresh) for days in (2, 3, 1)])
    found = retry(sandboxed)["screendesk.recordings"]
    assert (found["inserted"], found["updated"], found["held"]) == (1, 1, 4)
    titles = "SELECT title FROM screendesk.recordings WHERE uuid IN (?, ?)"
    assert query(sandboxed.published, titles, [key, fresh]) == [("version 3",)] * 2
    sandboxed.sync()
    truth.check(sandboxed.published, tables=set(ROOT_NAMES) - {"screendesk.recordings"} - child_names(RECORDINGS))
    assert query(sandboxed.published, "SELECT title FROM screendesk.recordings WHERE uuid = ?", [key]) == [
        (record["title"],)
    ]


def child_names(table: Table) -> set[str]:
    return {f"{table.schema}.{name}" for name, child in every_table(table) if child}


def test_what_still_has_no_key_stays_with_the_reason_of_today(sandboxed: Desk, world: World) -> None:
    """A record that is thrown away because it failed again, or a reason that was true two versions ago."""
    world.screendesk.recordings.insert(uuid=None, title="no key")
    sandboxed.sync()
    digests = set_aside(sandboxed, RECORDINGS, ["a text", {"uuid": 5}, {"uuid": "x" * 600}], reason="an old reason")
    change(sandboxed, ("UPDATE ops.quarantine SET raw = '7' WHERE record_digest = ?", [digests[0]]))
    found = retry(sandboxed, "--table", "screendesk.recordings")["screendesk.recordings"]
    assert (found["tried"], found["remaining"]) == (4, 4)
    reasons = {reason for _, reason in in_quarantine(sandboxed.published)}
    assert "an old reason" not in reasons
    assert {"no uuid", "a number where a record was expected", "uuid is a number, not VARCHAR"} <= reasons
    # nothing came back, so nothing must be read again
    assert ledger.history_of(private(sandboxed), RECORDINGS, same_token=True).last_full_at is not None
    assert sandboxed.sync().receipt("screendesk.recordings")["quarantined"] == 1


def test_only_the_named_table_is_tried(sandboxed: Desk, world: World) -> None:
    sandboxed.sync()
    for table in (RECORDINGS, USERS):
        key = sources_of(world)[table.qualified_name].keys()[0]
        record = sources_of(world)[table.qualified_name].get(key)
        lose(sandboxed, table, [key])
        set_aside(sandboxed, table, [record])
    retry(sandboxed, "--table", "screendesk.users")
    assert [name for name, _ in in_quarantine(sandboxed.published)] == ["screendesk.recordings"]


# ---- when it is cut off, or may not run


def settled_desk(desk: Desk, world: World, count: int) -> Settings:
    desk.sync()
    keys = world.screendesk.recordings.keys()[:count]
    lose(desk, RECORDINGS, keys)
    set_aside(desk, RECORDINGS, [world.screendesk.recordings.get(key) for key in keys])
    return Settings(desk.warehouse)


class CutOff(BaseException):
    pass


def test_a_retry_cut_off_after_its_load_is_finished_by_the_next(
    sandboxed: Desk, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kill between the load and the quarantine: rows twice, a record that never leaves, or counts that rely on it."""
    settings = settled_desk(sandboxed, world, 4)

    def cut_off(*_: Any, **__: Any) -> None:
        raise CutOff

    monkeypatch.setattr(ledger, "settle_replay", cut_off)
    with pytest.raises(CutOff):
        quarantine.retry(settings, SilentReporter())
    monkeypatch.undo()
    assert len(in_quarantine(private(sandboxed))) == 4
    assert ledger.history_of(private(sandboxed), RECORDINGS, same_token=True).last_full_at is None
    result, (found,) = quarantine.retry(settings, SilentReporter())
    assert (result.exit_code, found.held, found.remaining) == (0, 4, 0)
    finished = sandboxed.sync()
    check_ledger(sandboxed.published, world, finished.report["run_id"])
    assert finished.receipt("screendesk.recordings")["inserted"] == 0


def test_a_quarantine_larger_than_a_chunk_comes_back_whole(
    sandboxed: Desk, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last chunk alone, or two versions of a row from different chunks of which the older is written last."""
    settings = settled_desk(sandboxed, world, 7)
    record = world.screendesk.recordings.get(world.screendesk.recordings.keys()[0])
    old = {**record["metadata"], "updated_at": "2020-01-01T00:00:00Z"}
    set_aside(sandboxed, RECORDINGS, [{**record, "title": "old", "metadata": old}])
    monkeypatch.setattr(quarantine, "CHUNK_RECORDS", 2)
    _, (found,) = quarantine.retry(settings, SilentReporter())
    assert (found.tried, found.inserted, found.held, found.remaining) == (8, 7, 1, 0)
    Truth(world).check(sandboxed.published)
    monkeypatch.undo()
    monkeypatch.setattr(quarantine, "CHUNK_BYTES", 1)
    set_aside(sandboxed, RECORDINGS, [{"uuid": None, "n": number} for number in range(3)])
    _, (found,) = quarantine.retry(settings, SilentReporter())
    assert (found.tried, found.remaining) == (3, 3)


def test_another_run_at_work_and_wrong_use_touch_nothing(sandboxed: Desk, world: World) -> None:
    """A retry beside a sync, or on a typing mistake."""
    for command in ("list", "retry"):
        finished = sandboxed.run("quarantine", command)
        assert finished.code == 1
        assert "sync" in finished.stderr or "no warehouse" in finished.stderr
        wrong = sandboxed.run("quarantine", command, "--table", "screendesk.recording")
        assert wrong.code == 2
        assert all(name in wrong.stderr for name in ROOT_NAMES)
    assert list(sandboxed.cwd.iterdir()) == []
    settled_desk(sandboxed, world, 1)
    with run_lock(Warehouse(sandboxed.warehouse).lock_file):
        held = sandboxed.run("quarantine", "retry")
        assert held.code == 3
        assert "pid" in held.stderr
        assert sandboxed.run("quarantine", "list").code == 0
    assert len(in_quarantine(private(sandboxed))) == 1


# ---- the list


def test_the_list_shows_everything_but_the_records_which_are_shown_when_asked_for(
    sandboxed: Desk, world: World
) -> None:
    """Personal data on a screen, or in a log of a machine that asked how much there is."""
    assert sandboxed.run("quarantine", "list").code == 1
    sandboxed.sync()
    empty = sandboxed.run("quarantine", "list")
    assert (empty.code, "Nothing is in quarantine" in empty.stdout) == (0, True)
    world.screendesk.recordings.insert(uuid=None, title="kept to ourselves")
    world.getscreen.connections.insert(id="seven", name="kept to ourselves")
    sandboxed.sync()
    shown = sandboxed.run("quarantine", "list")
    told = sandboxed.run("quarantine", "list", "--json")
    assert (shown.code, told.code) == (0, 0)
    assert "ourselves" not in shown.output + told.output
    entries = {entry["table"]: entry for entry in told.report["quarantine"]}
    assert set(entries) == {"screendesk.recordings", "getscreen.connections"}
    entry = entries["screendesk.recordings"]
    assert entry["reason"] == "no uuid"
    assert entry["bytes"] > 100
    assert datetime.fromisoformat(entry["first_seen_at"]) <= datetime.fromisoformat(entry["last_seen_at"])
    assert re.search(rf"screendesk\.recordings .*{entry['digest'][:12]}.*no uuid", shown.stdout)
    for arguments in (["--raw"], ["--raw", "--json"]):
        one = sandboxed.run("quarantine", "list", "--table", "getscreen.connections", *arguments)
        assert one.stdout.count("kept to ourselves") == 1
        assert "screendesk.recordings" not in one.stdout


# ---- sorting out


@settings(deadline=None)
@given(st.lists(st.sampled_from(['{"uuid": "a"}', '{"uuid": null}', "7", '{"uuid": [1]}', "no json", '{"uuid": "b"}'])))
def test_records_are_sorted_out_as_if_they_came_one_by_one(raws: list[str]) -> None:
    """A reason that lands at the wrong record."""
    stored = [(str(number), raw) for number, raw in enumerate(raws)]
    usable, reasons = quarantine._sorted_out(Converter(RECORDINGS), stored)
    alone = [quarantine._sorted_out(Converter(RECORDINGS), [one]) for one in stored]
    assert [digest for digest, _ in usable] == [digest for some, _ in alone for digest, _ in some]
    assert reasons == {digest: reason for _, some in alone for digest, reason in some.items()}

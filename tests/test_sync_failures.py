"""What goes wrong outside: wrong tokens, wrong settings, vendors in trouble. The rest is loaded, and nothing is lost."""

from __future__ import annotations

import gc
import hashlib
import json
import os
import re
import shutil
import signal
import time
import weakref
from collections import Counter
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import duckdb
import pytest
from truth import ROOT_NAMES, Truth, check_ledger, query, writes

from pipelines import checks, commits, destination, ledger, loading, sync
from pipelines.database import connect, most_memory
from pipelines.interrupt import Interrupted, signals_interrupt
from pipelines.leftovers import LoadFailed
from pipelines.loading import VendorLoader
from pipelines.progress import SilentReporter
from pipelines.settings import Settings, load_settings
from pipelines.warehouse import Warehouse
from sandbox.faults import Fault
from sandbox.posthog.account import PosthogSettings
from sandbox.world import World
from sources import _resource
from sources._reading import Reading

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from conftest import Desk, Finished

    from sandbox.server import SandboxServer
    from sources._known import Known
    from sources._plan import History
    from sources._schema import Table

    Serve = Callable[[World], SandboxServer]

TOKENS = {
    "screendesk": "SOURCES__SCREENDESK__API_TOKEN",
    "getscreen": "SOURCES__GETSCREEN__API_KEY",
    "posthog": "SOURCES__POSTHOG__API_KEY",
}
NAMES = {"screendesk": "Screendesk", "getscreen": "Getscreen.me", "posthog": "PostHog"}
PATIENCE = 60.0


def tables_of(vendor: str) -> set[str]:
    return {name for name in ROOT_NAMES if name.startswith(vendor)}


def contents(folder: Path) -> dict[str, str]:
    """Every file below a folder with its content's hash and its time of change."""
    return {
        str(path.relative_to(folder)): f"{hashlib.sha256(path.read_bytes()).hexdigest()} {path.stat().st_mtime_ns}"
        for path in folder.rglob("*")
        if path.is_file()
    }


def latest_run(desk: Desk) -> str:
    return str(query(desk.published, "SELECT max_by(run_id, started_at) FROM ops.runs")[0][0])


def refused(finished: Finished, *said: str) -> None:
    """The command was wrong or wrongly configured, and says what to change on a few lines."""
    assert finished.code == 2, finished.output
    assert finished.stdout == ""
    for text in said:
        assert text in finished.stderr, finished.stderr
    assert len(finished.stderr.splitlines()) <= 12, finished.stderr


# --- tokens


@pytest.mark.parametrize("vendor", list(TOKENS))
def test_a_wrong_token_names_its_setting_and_costs_only_its_vendor(vendor: str, sandboxed: Desk, world: World) -> None:
    """One bad token that stops the other vendors, or a message that does not say which setting to fix."""
    sandboxed.environment[TOKENS[vendor]] = "not-the-token"
    finished = sandboxed.run("sync")
    assert finished.code == 1, finished.output
    lines = [line for line in finished.output.splitlines() if TOKENS[vendor] in line]
    assert lines, finished.output
    assert all(vendor in line.lower() and TOKENS[vendor].lower().replace("__", ".") in line for line in lines)
    assert "not-the-token" not in finished.output
    others = set(ROOT_NAMES) - tables_of(vendor)
    assert not any(TOKENS[other] in finished.output for other in TOKENS if other != vendor)
    Truth(world).check(sandboxed.published, tables=others)
    check_ledger(sandboxed.published, world, latest_run(sandboxed), incomplete=tables_of(vendor))


@pytest.mark.parametrize("command", [["sync"], ["sync", "posthog"], ["check"]], ids=" ".join)
def test_no_token_at_all_touches_nothing(command: list[str], desk: Desk) -> None:
    """A first try without settings that leaves folders behind, or does not say how to go on."""
    finished = desk.run(*command)
    refused(finished, TOKENS["posthog"])
    if command[-1] != "posthog":
        refused(finished, "make demo", *TOKENS.values())
    assert list(desk.cwd.rglob("*")) == []


def test_a_vendor_without_token_is_skipped_and_named(sandboxed: Desk, world: World) -> None:
    """A vendor that is left out in silence, or whose absence counts as failure."""
    del sandboxed.environment[TOKENS["getscreen"]]
    finished = sandboxed.run("sync")
    assert finished.code == 0, finished.output
    assert any(
        "Getscreen.me" in x and "skipped" in x and TOKENS["getscreen"] in x for x in finished.output.splitlines()
    )
    others = set(ROOT_NAMES) - tables_of("getscreen")
    Truth(world).check(sandboxed.published, tables=others)
    check_ledger(sandboxed.published, world, latest_run(sandboxed), tables=others)
    assert query(sandboxed.published, "SELECT count(*) FROM getscreen.connections") == [(0,)]
    assert sandboxed.sync().report["skipped"] == ["getscreen"]


def test_only_the_vendors_asked_for_are_read(sandboxed: Desk, world: World) -> None:
    """`sync posthog` that reads, or marks as deleted, another vendor's rows."""
    truth = Truth(world)
    sandboxed.sync()
    truth.check(sandboxed.published)
    before = writes(sandboxed.published)
    world.live_a_day()
    world.requests.clear()
    report = sandboxed.sync("posthog").report
    assert {entry["table"] for entry in report["tables"]} == tables_of("posthog")
    assert {entry.vendor for entry in world.requests.entries} == {"posthog"}
    truth.check(sandboxed.published, tables=tables_of("posthog"))
    after = writes(sandboxed.published)
    assert {name for name in after if after[name] != before[name]} == {
        "posthog._dlt_loads",
        "posthog.desktop_recordings",
    }


def test_a_member_token_loads_its_recordings_and_says_that_users_are_missing(sandboxed: Desk, world: World) -> None:
    """A token that may not list users: treated as none at all, or as if there were no users."""
    world.screendesk.settings.role = "member"
    finished = sandboxed.sync(code=1)
    users = finished.receipt("screendesk.users")
    assert (users["complete"], users["live_rows"]) == (False, 0)
    assert "admins only" in users["reason"]
    member = str(world.screendesk.users.keys()[0])
    own = [r for r in world.screendesk.recordings.all() if (r["user"] or {}).get("email") == member]
    assert 0 < len(own) < len(world.screendesk.recordings)
    others = set(ROOT_NAMES) - {"screendesk.users"}
    Truth(world).check(sandboxed.published, tables=others, records={"screendesk.recordings": own})
    assert finished.receipt("screendesk.recordings")["complete"]


def test_a_token_that_sees_less_than_before_deletes_nothing(sandboxed: Desk, world: World) -> None:
    """A demoted token, to which most recordings look deleted."""
    truth = Truth(world)
    sandboxed.sync()
    truth.check(sandboxed.published)
    world.screendesk.settings.role = "member"
    finished = sandboxed.sync(code=1)
    assert [entry["deleted"] for entry in finished.report["tables"]] == [0, 0, 0, 0]
    assert not finished.receipt("screendesk.recordings")["complete"]
    truth.check(sandboxed.published)


# --- settings


@pytest.mark.parametrize(
    ("changes", "arguments", "said"),
    [
        ({}, ["slack"], ["slack", "screendesk"]),
        ({}, ["posthog", "Screendesk"], ["Screendesk"]),
        ({"SOURCES__SCREENDESK__MAX_CONCURRENCY": "many"}, [], ["SOURCES__SCREENDESK__MAX_CONCURRENCY"]),
        ({"SOURCES__SCREENDESK__MAX_CONCURRENCY": "0"}, [], ["SOURCES__SCREENDESK__MAX_CONCURRENCY"]),
        ({"SOURCES__GETSCREEN__REQUESTS_PER_SECOND": "-1"}, [], ["SOURCES__GETSCREEN__REQUESTS_PER_SECOND"]),
        ({"SOURCES__POSTHOG__REQUESTS_PER_SECOND": "nan"}, [], ["SOURCES__POSTHOG__REQUESTS_PER_SECOND"]),
        ({"SOURCES__POSTHOG__PROJECT_ID": ""}, [], ["SOURCES__POSTHOG__PROJECT_ID"]),
        ({"SOURCES__POSTHOG__PROJECT_ID": "@current"}, [], ["SOURCES__POSTHOG__PROJECT_ID"]),
        ({"SOURCES__GETSCREEN__API_KEY": "tök"}, [], ["SOURCES__GETSCREEN__API_KEY"]),
        ({"SOURCES__SCREENDESK__BASE_URL": "http://app.example/api/v2"}, [], ["SOURCES__SCREENDESK__BASE_URL"]),
        ({"SOURCES__GETSCREEN__BASE_URL": "ftp://127.0.0.1/v1"}, [], ["SOURCES__GETSCREEN__BASE_URL"]),
        ({"SOURCES__POSTHOG__BASE_URL": "https://me:pw@posthog.example"}, [], ["SOURCES__POSTHOG__BASE_URL"]),
        ({}, ["--frobnicate"], ["--frobnicate"]),
    ],
    ids=[
        "unknown-vendor", "vendor-in-capitals", "words-for-a-number", "no-concurrency", "negative-rate", "nan-rate",
        "no-project", "moving-project", "token-with-umlaut", "plain-http", "other-scheme", "password-in-url", "option",
    ],
)  # fmt: skip
def test_wrong_use_names_the_setting_and_touches_nothing(
    changes: dict[str, str], arguments: list[str], said: list[str], sandboxed: Desk, world: World
) -> None:
    """A setting that is wrong in a way only a run finds out, half-way, or that is reported without its name."""
    sandboxed.environment |= changes
    refused(sandboxed.run("sync", *arguments), *said)
    assert list(sandboxed.cwd.rglob("*")) == []
    assert world.requests.entries == []


def test_a_broken_settings_file_is_named(sandboxed: Desk) -> None:
    """A typing mistake in `.dlt/secrets.toml` answered with a traceback, or with the file's content."""
    folder = sandboxed.cwd / ".dlt"
    folder.mkdir()
    (folder / "secrets.toml").write_text('[sources.screendesk]\napi_token = "half a tok\n')
    finished = sandboxed.run("sync")
    refused(finished, ".dlt")
    assert "half a tok" not in finished.output
    assert not sandboxed.warehouse.exists()


def test_a_warehouse_refuses_another_account(sandboxed: Desk, world: World, serve: Serve) -> None:
    """Two accounts mixed in one warehouse, in which each looks like a mass deletion to the other."""
    sandboxed.sync()
    right = dict(sandboxed.environment)
    elsewhere = serve(world).environment()
    world.requests.clear()
    aside = sandboxed.root / "aside"
    for lost in ("", "generations", "work"):
        # the warehouse remembers with either half of it gone
        sandboxed.warehouse.rename(aside)
        shutil.copytree(aside, sandboxed.warehouse, symlinks=True)
        if lost:
            shutil.rmtree(sandboxed.warehouse / lost)
        before = contents(sandboxed.warehouse)
        for name in ("SOURCES__SCREENDESK__BASE_URL", "SOURCES__POSTHOG__PROJECT_ID"):
            other = elsewhere[name] if name.endswith("URL") else "4343"
            sandboxed.environment = right | {name: other}
            refused(sandboxed.run("sync"), name, right[name], other, "DESKHOUSE__WAREHOUSE_DIR")
        after = contents(sandboxed.warehouse)
        after.pop("work/lock", None)
        before.pop("work/lock", None)
        assert after == before, lost
        shutil.rmtree(sandboxed.warehouse)
        aside.rename(sandboxed.warehouse)
    assert world.requests.entries == []
    # the same address written another way is the same account
    url = right["SOURCES__SCREENDESK__BASE_URL"]
    sandboxed.environment = right | {"SOURCES__SCREENDESK__BASE_URL": url.replace("http://", "HTTP://") + "/"}
    sandboxed.sync()


def test_an_address_nothing_was_ever_read_from_can_be_corrected(sandboxed: Desk, world: World) -> None:
    """A typing mistake on the first run that locks its vendor out as another account for good."""
    right = sandboxed.environment["SOURCES__POSTHOG__PROJECT_ID"]
    sandboxed.environment["SOURCES__POSTHOG__PROJECT_ID"] = "999"
    sandboxed.sync("posthog", code=1)
    sandboxed.environment["SOURCES__POSTHOG__PROJECT_ID"] = right
    sandboxed.sync("posthog")
    Truth(world).check(sandboxed.published, tables=tables_of("posthog"))


def test_two_at_once_the_second_names_the_first(sandboxed: Desk, world: World) -> None:
    """Two runs in one warehouse at the same time, or a second one that waits or does not say whom for."""
    slow = world.faults.add(Fault("slow", vendor="screendesk", times=1, delay=4.0))
    first = sandboxed.start("sync", "--json")
    deadline = time.monotonic() + PATIENCE
    while not world.faults.struck(slow):
        assert first.running
        assert time.monotonic() < deadline
        time.sleep(0.01)
    for arguments in (["sync"], ["sync", "--json", "posthog"]):
        second = sandboxed.run(*arguments)
        assert second.code == 3, second.output
        assert f"pid {first.process.pid}" in second.stderr
        assert re.search(r"since \d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC", second.stderr)
    finished = first.wait()
    assert finished.code == 0, finished.output
    Truth(world).check(sandboxed.published)
    assert len(query(sandboxed.published, "SELECT run_id FROM ops.runs")) == 1


# --- vendors in trouble


def _empty_list(body: bytes) -> bytes:
    reply = json.loads(body)
    for name in ("records", "users", "data", "results"):
        if name in reply:
            reply[name] = []
    return json.dumps(reply).encode()


def _no_records(body: bytes) -> bytes:
    reply = json.loads(_empty_list(body))
    if "pagination" in reply:
        reply["pagination"] |= {"count": 0, "pages": 1, "last_page": 1, "from": 0, "to": 0}
        reply["pagination"].pop("next_page", None)
    return json.dumps(reply | {name: 0 for name in ("total", "count") if name in reply} | {"next": None}).encode()


TROUBLES: dict[str, dict[str, Any]] = {
    "403": {"kind": "status", "status": 403},
    "402": {"kind": "status", "status": 402},
    "404": {"kind": "status", "status": 404},
    "422": {"kind": "status", "status": 422},
    "login page": {"kind": "html"},
    "login page labelled JSON": {"kind": "replace", "body": lambda _: b"<!DOCTYPE html><title>Sign in</title>"},
    "redirect": {"kind": "redirect", "to": "https://login.example/?next=1"},
    "error with 200": {"kind": "error_object"},
    "no list": {"kind": "missing_list"},
    "empty body": {"kind": "empty"},
    "cut off": {"kind": "truncate", "declared": False},
    "list empty, count as before": {"kind": "replace", "body": _empty_list},
    "suddenly no records": {"kind": "replace", "body": _no_records},
    "records that are no objects": {"kind": "replace", "body": lambda body: re.sub(rb'"(uuid|id|email)":', b'"x":', body)},
}  # fmt: skip


def test_a_vendor_in_trouble_loses_no_row_and_holds_nobody_up(sandboxed: Desk, world: World) -> None:
    """An answer that is no list, taken for an empty one; or a vendor's trouble that spreads to the others."""
    truth = Truth(world)
    sandboxed.sync()
    truth.check(sandboxed.published)
    # two vendors at a time, taking turns: they share the code that meets these, up to their paging
    vendors = list(TOKENS)
    turns = [(vendors[number % len(vendors)], kind) for number, kind in enumerate(TROUBLES)]
    rounds = [dict(turns[at : at + 2]) for at in range(0, len(turns), 2)]
    for trouble in [*rounds, dict.fromkeys(vendors, "suddenly no records")]:
        troubled = {name for vendor in trouble for name in tables_of(vendor)}
        world.live_a_day()
        before = {name: rows for name, rows in writes(sandboxed.published).items() if name in troubled}
        for vendor, kind in trouble.items():
            world.faults.add(Fault(vendor=vendor, times=None, **TROUBLES[kind]))
        finished = sandboxed.sync(code=1)
        world.faults.clear()
        truth.check(sandboxed.published, tables=set(ROOT_NAMES) - troubled)
        check_ledger(sandboxed.published, world, finished.report["run_id"], incomplete=troubled)
        after = {name: rows for name, rows in writes(sandboxed.published).items() if name in troubled}
        assert after == before, trouble
        for table in troubled:
            receipt = finished.receipt(table)
            assert (receipt["complete"], receipt["deleted"]) == (False, 0), trouble
            assert len(receipt["reason"].split()) > 3, (trouble, receipt["reason"])
            assert receipt["cursor_after"] == receipt["cursor_before"], trouble
    run_id = sandboxed.sync().report["run_id"]
    truth.check(sandboxed.published)
    check_ledger(sandboxed.published, world, run_id)


def test_a_list_that_breaks_off_keeps_what_was_read(sandboxed: Desk, world: World) -> None:
    """A failure on a later page that throws away the pages before it, or marks the unread rows as deleted."""
    truth = Truth(world)
    sandboxed.sync()
    truth.check(sandboxed.published)
    world.live_a_day()
    newest = world.screendesk.recordings.keys()[:3]
    world.faults.add(Fault("status", path_contains="recordings", query={"page": "2"}, times=None, status=403))
    finished = sandboxed.sync(code=1)
    receipt = finished.receipt("screendesk.recordings")
    assert (receipt["complete"], receipt["deleted"]) == (False, 0)
    assert receipt["inserted"] >= len(newest)
    held = {row[0] for row in query(sandboxed.published, "SELECT uuid FROM screendesk.recordings")}
    assert held >= set(newest)
    world.faults.clear()
    sandboxed.sync()
    truth.check(sandboxed.published)


def test_mass_deletion_is_not_believed(desk: Desk, serve: Serve) -> None:
    """Half of every list vanishes at once, and takes the history in the warehouse with it, or nobody is told."""
    world = World(7, recordings=60, users=3, connections=60, meetings=60)
    desk.environment = serve(world).environment()
    truth = Truth(world)
    desk.sync()
    truth.check(desk.published)
    lists = {
        "screendesk.recordings": world.screendesk.recordings,
        "getscreen.connections": world.getscreen.connections,
        "posthog.desktop_recordings": world.posthog.desktop_recordings,
    }
    for rows in lists.values():
        for key in rows.keys()[::2]:
            rows.delete(key)
    finished = desk.run("sync")
    assert finished.code == 1
    for name in lists:
        assert re.search(rf"{name}\b.*30 of 60 rows vanished", finished.output), finished.output
        marked = query(desk.published, f"SELECT count(*) FROM {name} WHERE _deleted_at IS NOT NULL")
        assert marked == [(0,)]
    said = query(desk.published, "SELECT complete, deleted FROM ops.receipts ORDER BY rowid DESC LIMIT 4")
    assert sorted(said) == [*[(False, 0)] * 3, (True, 0)]


def test_posthog_without_the_endpoint_says_that_it_was_retired(sandboxed: Desk, world: World) -> None:
    """PostHog Cloud's 404, told as a wrong address, which nobody can fix."""
    world.posthog.settings.projects_prefix = world.posthog.settings.environments_prefix = False
    finished = sandboxed.sync(code=1)
    assert "retired" in finished.receipt("posthog.desktop_recordings")["reason"]
    Truth(world).check(sandboxed.published, tables=set(ROOT_NAMES) - tables_of("posthog"))


@pytest.mark.parametrize(
    "quirk",
    [
        {"projects_prefix": False},
        {"environments_prefix": False},
        {"next_host": "attacker.example", "next_scheme": "http"},
    ],
    ids=["old-server", "new-server", "foreign-next"],
)
def test_posthog_is_read_under_either_prefix_whatever_next_says(
    quirk: dict[str, Any], sandboxed: Desk, world: World
) -> None:
    """A self-hosted PostHog of another age, or behind a proxy that garbles `next`."""
    assert quirk.keys() <= vars(PosthogSettings()).keys()
    for name, value in quirk.items():
        setattr(world.posthog.settings, name, value)
    for _ in range(110):
        world.advance(timedelta(seconds=1))
        world.posthog.desktop_recordings.insert()
    run_id = sandboxed.sync("posthog").report["run_id"]
    Truth(world).check(sandboxed.published, tables=tables_of("posthog"))
    check_ledger(sandboxed.published, world, run_id, tables=tables_of("posthog"))


# --- check and status


def test_check_and_status_leave_no_trace(sandboxed: Desk, world: World) -> None:
    """`check` or `status` on a new machine that creates a warehouse, or on an old one that changes it."""
    assert sandboxed.run("check").code == 0
    assert sandboxed.run("status").code == 1
    assert list(sandboxed.cwd.rglob("*")) == []
    sandboxed.sync()
    before = contents(sandboxed.warehouse)
    world.live_a_day()
    assert sandboxed.run("status").code == 0
    sandboxed.environment[TOKENS["posthog"]] = "not-the-token"
    finished = sandboxed.run("check")
    assert finished.code == 1
    assert TOKENS["posthog"] in finished.stdout
    assert contents(sandboxed.warehouse) == before


@pytest.mark.parametrize(("limits", "made"), [(("1MB", None), True), (("1MB",), False)])
def test_models_get_the_memory_they_need_or_say_so(
    sandboxed: Desk, monkeypatch: pytest.MonkeyPatch, limits: tuple[str | None, ...], *, made: bool
) -> None:
    """A warehouse that grew past a fixed limit, of which nothing is published any more though the machine has room."""
    sandboxed.sync()
    monkeypatch.setattr(sync, "MODELS_MEMORY", limits)
    with sync.open_run(Settings(sandboxed.warehouse), [], SilentReporter()) as run:
        run.sync_all([])
        with connect(run._database) as connection:
            connection.execute("UPDATE ops.models SET inputs = '', made_from = ''")
        run.finish()
    assert (run.result.generation is not None) is made
    assert ("memory" in " ".join(run.result.problems).lower()) is not made
    with duckdb.connect(str(sandboxed.published), read_only=True) as connection:
        assert connection.execute("SELECT count(*) > 0 FROM analytics.support_sessions").fetchall() == [(True,)]


@pytest.mark.parametrize("memory", ["6MB", "8MB"])
def test_a_slice_that_needs_more_memory_than_is_set_aside_gets_it(
    sandboxed: Desk, world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, memory: str
) -> None:
    """A warehouse that grew past a fixed limit, into which nothing can be loaded any more though the machine has room."""
    monkeypatch.setattr(destination, "MEMORY", (memory, *destination.MEMORY[1:]))
    with caplog.at_level("INFO", "deskhouse.load"):
        result = _sync_here(sandboxed, monkeypatch)
    assert result.exit_code == 0
    assert "takes more memory than" in caplog.text
    Truth(world).check(sandboxed.published)


def test_a_load_is_committed_with_all_memory_there_is(
    sandboxed: Desk, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A commit that runs out of memory: DuckDB 1.5.6 keeps some of its rows, and writes them twice with the next load."""
    limits: list[str] = []

    def watched(_: str, commit: Callable[[], None]) -> None:
        with connect(Warehouse(sandboxed.warehouse).private_database) as con:
            limits.extend(con.execute("SELECT current_setting('memory_limit')").fetchall()[0])
        commit()

    _commit(monkeypatch, watched)
    assert _sync_here(sandboxed, monkeypatch).exit_code == 0
    with duckdb.connect() as fresh:
        assert set(limits) == set(fresh.execute("SELECT current_setting('memory_limit')").fetchall()[0])
    Truth(world).check(sandboxed.published)


@pytest.mark.parametrize("vendors", [["screendesk"], ["screendesk", "getscreen", "posthog"]], ids=["one", "all"])
def test_nothing_is_written_after_a_commit_that_ran_out_of_memory(
    sandboxed: Desk, world: World, monkeypatch: pytest.MonkeyPatch, vendors: list[str]
) -> None:
    """Rows that come twice, in a warehouse that fails its checks from then on: DuckDB has to read its files again first."""
    error = duckdb.TransactionException(
        "TransactionContext Error: Failed to commit: failed to pin block of size 256.0 KiB (38.0 MiB/38.1 MiB used)\n\n"
        "Possible solutions:\n* Increasing the memory limit (SET memory_limit='...GB')"
    )
    merged: list[str] = []
    complete = destination.AtomicDuckDbClient._merge

    def noted(client: Any, *arguments: Any) -> None:
        merged.append(client.schema.name)
        complete(client, *arguments)

    with monkeypatch.context() as broken:
        _commit(broken, lambda *_: _raise(error))
        broken.setattr(destination.AtomicDuckDbClient, "_merge", noted)
        with pytest.raises(duckdb.TransactionException, match="memory_limit"):
            _sync_here(sandboxed, monkeypatch, *vendors)
    assert len(merged) == 1
    assert _sync_here(sandboxed, monkeypatch).exit_code == 0
    Truth(world).check(sandboxed.published)


@pytest.mark.parametrize("failing", range(1, 5))
def test_a_commit_that_fails_beside_is_its_own_vendors_failure(
    sandboxed: Desk, world: World, monkeypatch: pytest.MonkeyPatch, failing: int
) -> None:
    """A slice that was never committed under a complete receipt: by then its vendor has packed the next, or has no more."""
    monkeypatch.setitem(Reading.__init__.__kwdefaults__ or {}, "slice_rows", 20)
    counted = Counter[str]()
    failed = list[str]()

    def disk_full(vendor: str, commit: Callable[[], None]) -> None:
        counted[vendor] += 1
        if vendor == "screendesk" and counted[vendor] == failing:
            failed.append(vendor)
            raise duckdb.IOException("IO Error: Could not write file: No space left on device")
        time.sleep(0.05)
        commit()

    with monkeypatch.context() as broken:
        _commit(broken, disk_full)
        result = _sync_here(sandboxed, monkeypatch)
    assert failed == ["screendesk"]
    told = {(r.vendor, r.complete) for r in result.receipts}
    assert told == {("screendesk", False), ("getscreen", True), ("posthog", True)}
    assert all("No space left" in r.reason for r in result.receipts if not r.complete)
    assert _sync_here(sandboxed, monkeypatch).exit_code == 0
    Truth(world).check(sandboxed.published)


def test_a_slow_commit_is_waited_for(sandboxed: Desk, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Receipts, checks and a published file without the last slice, whose commit was still under way."""
    monkeypatch.setitem(Reading.__init__.__kwdefaults__ or {}, "slice_rows", 40)
    monkeypatch.setattr(loading, "SLICES_HELD", 2)

    def slow(_: str, commit: Callable[[], None]) -> None:
        time.sleep(0.2)
        commit()

    _commit(monkeypatch, slow)
    result = _sync_here(sandboxed, monkeypatch)
    assert (result.exit_code, result.problems) == (0, [])
    Truth(world).check(sandboxed.published)


def test_a_vendor_that_fails_is_settled_after_its_last_commit(
    sandboxed: Desk, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows counted, and models made of them, while a commit is under way that may yet fail."""
    monkeypatch.setitem(Reading.__init__.__kwdefaults__ or {}, "slice_rows", 40)
    settled: list[bool] = []
    pack, settle = _resource._marked, ledger.settle

    def pack_one(table: Table, tables: dict[str, Any]) -> Any:
        if commits._under_way:
            raise RuntimeError("cannot be packed")
        return pack(table, tables)

    def noted(*arguments: Any, **named: Any) -> Any:
        settled.append(all(commit.done() for commit in commits._under_way.values()))
        return settle(*arguments, **named)

    def slow(_: str, commit: Callable[[], None]) -> None:
        time.sleep(0.3)
        commit()

    with monkeypatch.context() as broken:
        _commit(broken, slow)
        broken.setattr(_resource, "_marked", pack_one)
        broken.setattr(ledger, "settle", noted)
        assert _sync_here(sandboxed, monkeypatch, "screendesk").exit_code == 1
    assert settled == [True]
    assert _sync_here(sandboxed, monkeypatch).exit_code == 0
    Truth(world).check(sandboxed.published)


def test_a_signal_while_a_commit_is_under_way_lets_it_end(
    sandboxed: Desk, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A database that is closed under a commit, and a process that ends with its lock let go and a thread still writing."""
    monkeypatch.setitem(Reading.__init__.__kwdefaults__ or {}, "slice_rows", 40)
    ended: list[bool] = []

    def slow(_: str, commit: Callable[[], None]) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.3)
        commit()
        ended.append(True)

    with monkeypatch.context() as broken:
        _commit(broken, slow)
        with signals_interrupt(), pytest.raises(Interrupted):
            _sync_here(sandboxed, monkeypatch)
        assert ended == [True]
    with duckdb.connect(str(Warehouse(sandboxed.warehouse).private_database), read_only=True) as connection:
        told = connection.execute("SELECT status FROM ops.runs ORDER BY started_at DESC LIMIT 1").fetchall()
    assert told == [("interrupted",)]
    assert _sync_here(sandboxed, monkeypatch).exit_code == 0
    Truth(world).check(sandboxed.published)


def _commit(patch: pytest.MonkeyPatch, how: Callable[[str, Callable[[], None]], None]) -> None:
    """Let every commit of a load run like this, in its thread."""
    beside = destination.commit_beside
    patch.setattr(destination, "commit_beside", lambda vendor, commit: beside(vendor, lambda: how(vendor, commit)))


def _raise(error: Exception) -> None:
    raise error


def _sync_here(desk: Desk, monkeypatch: pytest.MonkeyPatch, *vendors: str) -> sync.RunResult:
    """A run of some vendors, or of all, in this process."""
    desk.run_here(monkeypatch)
    return sync.sync(load_settings(), vendors or ["screendesk", "getscreen", "posthog"], SilentReporter())


def test_checks_get_the_memory_they_need(sandboxed: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys that cannot be counted within a fixed limit any more, and a run that ends in a traceback."""
    sandboxed.sync()
    asked: list[str] = []
    monkeypatch.setattr(checks, "most_memory", lambda: asked.append("more") or most_memory())
    # below what a connection takes for itself there is no limit, and from some megabytes on none is needed
    for megabytes in range(4, 24):
        monkeypatch.setattr(checks, "MEMORY", f"{megabytes}MB")
        assert checks.failed_checks(Warehouse(sandboxed.warehouse).private_database, sync.ALL_TABLES) == []
    assert asked


def test_a_slice_of_changes_that_cannot_be_loaded_is_not_called_complete(
    sandboxed: Desk, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Changed rows that never reached the warehouse, under a receipt that is right about how many rows there are."""
    truth = Truth(world)
    sandboxed.sync()
    world.screendesk.recordings.update(world.screendesk.recordings.keys()[0], {"title": "changed"})

    def refused(*_: object, **__: object) -> None:
        raise LoadFailed("load failed: the disk is full")

    sandboxed.run_here(monkeypatch)
    with monkeypatch.context() as broken:
        broken.setattr(VendorLoader, "load_slice", refused)
        result = sync.sync(load_settings(), ["screendesk"], SilentReporter())
    receipt = next(receipt for receipt in result.receipts if receipt.table_name == "screendesk.recordings")
    assert (result.exit_code, receipt.complete, receipt.deleted) == (1, False, 0)
    assert "the disk is full" in receipt.reason
    sandboxed.sync()
    truth.check(sandboxed.published)


def test_what_is_known_of_the_warehouse_is_let_go_before_models_are_made(
    sandboxed: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fifty megabytes at a million rows, when memory is needed most; dlt keeps whoever stands in the stack as it is imported."""
    known: list[weakref.ref[Known]] = []
    read, make = ledger.history_of, sync.run_models
    kept: list[Known | None] = []

    def noted(*arguments: Any, **options: Any) -> History:
        history = read(*arguments, **options)
        known.append(weakref.ref(history.known))
        return history

    def looked(*arguments: Any, **options: Any) -> None:
        gc.collect()
        kept.extend(one() for one in known)
        make(*arguments, **options)

    sandboxed.run_here(monkeypatch)
    monkeypatch.setattr(ledger, "history_of", noted)
    monkeypatch.setattr(sync, "run_models", looked)
    assert sync.sync(load_settings(), ["screendesk", "posthog"], SilentReporter()).exit_code == 0
    assert kept == [None] * 3

"""`deskhouse forget`: a person is nowhere afterwards, stays away, and every count still holds."""

from __future__ import annotations

import json
import shutil
import signal
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from conftest import small_world
from test_secrets import leaks
from truth import query

from sources._policy import FULL, STANDARD

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Desk, Finished

    from sandbox.server import SandboxServer
    from sandbox.world import World

PERSON = "Ann.Forgotten@Customer.Example"
NAME = "Ann Forgotten"
OTHER = "Ben.Stays@Customer.example"


def plant(world: World) -> dict[str, Any]:
    """A person in every place a vendor can put one, and another beside."""
    recordings, users = world.screendesk.recordings, world.screendesk.users
    connections, meetings = world.getscreen.connections, world.posthog.desktop_recordings
    keys, ids, rooms = recordings.keys(), connections.keys(), meetings.keys()
    lower = PERSON.lower()
    users.insert(email=PERSON, name=NAME)
    users.insert(email=OTHER, name="Ben Stays")
    recordings.update(keys[0], {"user": {"email": lower, "name": f" {NAME.upper()} "}, "customer": {"email": OTHER}})
    recordings.update(
        keys[1], {"customer": {"email": PERSON, "phone": "+1 555 PHONE-OF-ANN"}, "title": f"Call <{PERSON}>"}
    )
    recordings.update(
        keys[2], {"description": f"mail={PERSON}; and {OTHER}", "metadata.url": f"https://x.example/{lower}"}
    )
    recordings.update(keys[3], {"extra": {"deep": [PERSON, {PERSON: [f"cc: {lower}."]}]}, PERSON: 1})
    recordings.update(keys[4], {"uuid": None, "customer": {"email": PERSON}, "note": f"from {PERSON}"})
    recordings.update(
        keys[5], {"room_insights.participants_insights": [{"display_name": NAME, "user_agent": "UA-OF-ANN"}]}
    )
    connections.update(ids[0], {"client": [{"login": PERSON, "user_agent": "UA-OF-ANN"}, {"login": OTHER}]})
    connections.update(
        ids[1], {"agent": {"id": 4, "owner": lower, "name": "PC-OF-ANN", "geo": {"city": "CITY-OF-ANN"}}}
    )
    segments = [{"speaker": NAME, "text": f"write to {PERSON}"}, {"speaker": "Ben Stays", "text": "yes"}]
    meetings.update(
        rooms[0],
        {"participants": [NAME, PERSON, "Ben Stays"], "transcript_segments": segments, "notes": f"{lower}, {OTHER}"},
    )
    meetings.update(rooms[1], {"extracted_tasks": [{"title": f"call {PERSON}", "assignee": NAME}]})
    return {"recordings": keys, "connections": ids, "meetings": rooms}


# the names stand in columns of names alone: inside other text a name is only a word
TRACES = [PERSON, PERSON.lower(), "UA-OF-ANN", "PC-OF-ANN", "CITY-OF-ANN", "PHONE-OF-ANN", NAME]


@pytest.fixture
def planted(sandboxed: Desk, world: World) -> Desk:
    """A warehouse that has held a person for a few runs."""
    plant(world)
    sandboxed.sync()
    world.live_a_day(deletes=0)
    sandboxed.sync()
    assert {trace for trace in TRACES if leaks(sandboxed, [], [trace])} == set(TRACES)
    return sandboxed


def test_nothing_of_a_person_is_left_and_later_syncs_bring_nothing_back(planted: Desk, world: World) -> None:
    """The person in a row, a list, a text, `_extra`, quarantine, drift, an analytics table, a log, or an older copy."""
    before = {name: entry["live_rows"] for entry in planted.sync().report["tables"] for name in [entry["table"]]}
    outputs = [planted.run("forget", PERSON.upper(), "--yes", "--log-level", "debug")]
    assert outputs[0].code == 0, outputs[0].output
    assert leaks(planted, outputs, TRACES) == []
    assert len(list((planted.warehouse / "generations").iterdir())) == 1
    assert planted.leftovers() == []

    for arguments in ([], ["--full"], []):
        outputs.append(planted.sync(*arguments, "--log-level", "debug"))
        tables = {entry["table"]: entry for entry in outputs[-1].report["tables"]}
        assert {name: entry["live_rows"] for name, entry in tables.items()} == before
        # what was erased here is what the vendors' records become, so nothing is written again
        assert {name: (e["inserted"], e["updated"], e["deleted"]) for name, e in tables.items()} == dict.fromkeys(
            tables, (0, 0, 0)
        )
        assert {name: entry["suppressed"] for name, entry in tables.items()} == {
            **dict.fromkeys(tables, 0),
            "screendesk.users": 1,
        }
        assert leaks(planted, outputs, TRACES) == []
    world.live_a_day(deletes=1)
    recordings = world.screendesk.recordings
    recordings.update(recordings.keys()[9], {"customer": {"email": PERSON.lower()}, "title": f"again {PERSON}"})
    meetings = world.posthog.desktop_recordings
    meetings.insert(participants=[NAME], transcript_segments=[{"speaker": NAME.lower(), "text": "hello"}])
    outputs.append(planted.sync())
    assert leaks(planted, outputs, TRACES) == []


@pytest.mark.deep
def test_others_keep_what_is_theirs(planted: Desk) -> None:
    """A neighbour erased with the person."""
    assert planted.run("forget", PERSON, "--yes").code == 0
    asked = {
        "SELECT count(*) FROM screendesk.users WHERE email = ? AND name = 'Ben Stays'": 1,
        "SELECT count(*) FROM screendesk.recordings WHERE customer__email = ? AND user__email IS NULL": 1,
        "SELECT count(*) FROM screendesk.recordings WHERE contains(description, 'mail=[erased]; and ' || ?)": 1,
        "SELECT count(*) FROM getscreen.connections__client WHERE login = ? AND _dlt_list_idx = 1": 1,
        "SELECT count(*) FROM posthog.desktop_recordings WHERE notes = '[erased], ' || ?": 1,
        "SELECT count(*) FROM analytics.people WHERE email = lower(?)": 1,
    }
    assert {sql: query(planted.published, sql, [OTHER])[0][0] for sql in asked} == asked
    segments = query(
        planted.published,
        "SELECT speaker, text FROM posthog.desktop_recordings__transcript_segments WHERE speaker = 'Ben Stays' "
        "OR text = 'write to [erased]' ORDER BY _dlt_list_idx",
    )
    assert segments == [(None, "write to [erased]"), ("Ben Stays", "yes")]


@pytest.mark.deep
def test_what_is_kept_of_an_erasure_is_a_hash_and_numbers(planted: Desk) -> None:
    """The e-mail in the record of its erasure, or a hash that anybody can make."""
    assert planted.run("forget", PERSON, "--yes").code == 0
    ((person, counts, key),) = query(
        planted.published,
        "SELECT person, counts::VARCHAR, (SELECT any_value(key_mark) FROM ops.suppressions) FROM ops.erasures",
    )
    counted = json.loads(counts)["tables"]
    assert counted["screendesk.users"]["rows"] == 1
    assert counted["screendesk.recordings"]["rows"] == 5
    assert counted["screendesk.recordings"]["quarantined"] == 1
    assert counted["getscreen.connections"]["rows"] == 2
    assert counted["posthog.desktop_recordings"]["rows"] == 2
    assert json.loads(counts)["names"] == 1
    assert person != replace(FULL, key=b"").mark(PERSON)
    assert key
    assert query(planted.published, "SELECT count(*) FROM ops.suppressions") == [(2,)]
    assert query(planted.published, "SELECT email, name FROM screendesk.users WHERE starts_with(email, 'erased-')") == [
        (f"erased-{person}", None)
    ]


def everything(desk: Desk) -> dict[str, tuple[int, bytes]]:
    return {
        str(path): (path.stat().st_mtime_ns, path.read_bytes()) for path in desk.warehouse.rglob("*") if path.is_file()
    }


@pytest.mark.deep
def test_a_dry_run_counts_the_same_and_touches_nothing(planted: Desk) -> None:
    """A look that changes something, or promises less than is done."""
    before = everything(planted)
    looked = planted.run("forget", PERSON, "--dry-run")
    refused = planted.run("forget", PERSON)
    assert (looked.code, refused.code) == (0, 2)
    assert "--yes" in refused.stderr
    assert everything(planted) == before
    done = planted.run("forget", PERSON, "--yes")
    assert [line.replace("would be changed", "changed") for line in lines(looked)] == lines(done)


def lines(finished: Finished) -> list[str]:
    return [
        line
        for line in finished.stdout.splitlines()
        if line.startswith(("screendesk", "getscreen", "posthog", "ops", "Names"))
    ]


@pytest.mark.parametrize("email", ["", "ann", "ann@", "@x.example", "a b@x.example", "a@x.example, b@x.example", "%"])
def test_what_is_no_email_is_refused_before_anything_is_touched(email: str, desk: Desk) -> None:
    finished = desk.run("forget", "--yes", "--", email)
    assert finished.code == 2
    assert not desk.warehouse.exists()


@pytest.mark.deep
def test_a_person_is_found_where_emails_are_stored_as_hashes(sandboxed: Desk, world: World) -> None:
    """Nobody can be forgotten under the profile that cares most."""
    sandboxed.environment |= {"DESKHOUSE__PRIVACY__PROFILE": "strict"}
    plant(world)
    sandboxed.sync()
    known = query(
        sandboxed.published, "SELECT DISTINCT login FROM getscreen.connections__client WHERE login IS NOT NULL"
    )
    assert sandboxed.run("forget", PERSON, "--yes").code == 0
    left = query(
        sandboxed.published, "SELECT DISTINCT login FROM getscreen.connections__client WHERE login IS NOT NULL"
    )
    assert len(left) == len(known) - 1
    tables = {entry["table"]: entry for entry in sandboxed.sync("--full").report["tables"]}
    assert {(e["inserted"], e["updated"], e["deleted"]) for e in tables.values()} == {(0, 0, 0)}
    assert tables["screendesk.users"]["suppressed"] == 1


def test_an_erased_user_whom_the_vendor_deletes_is_marked_deleted(planted: Desk, world: World) -> None:
    """Asking the vendor for a pseudonym it never knew."""
    planted.run("forget", PERSON, "--yes")
    assert world.screendesk.users.get(PERSON)
    planted.sync()
    world.screendesk.users.delete(PERSON)
    tables = {entry["table"]: entry for entry in planted.sync().report["tables"]}
    assert (tables["screendesk.users"]["deleted"], tables["screendesk.users"]["suppressed"]) == (1, 0)


@pytest.mark.deep
def test_without_its_key_a_suppression_stops_every_sync(planted: Desk) -> None:
    """An erased person who comes back because the key was lost, and nobody is told."""
    assert planted.run("forget", PERSON, "--yes").code == 0
    key = planted.warehouse / "privacy.key"
    kept = key.read_text()
    key.unlink()
    refused = planted.run("sync")
    assert refused.code == 2
    assert "privacy.key" in refused.stderr
    key.write_text(kept)
    assert planted.run("sync").code == 0


@pytest.mark.deep
def test_work_lost_after_an_erasure_brings_nobody_back(planted: Desk) -> None:
    """The private database restored from a copy made before, or suppressions lost with it."""
    assert planted.run("forget", PERSON, "--yes").code == 0
    shutil.rmtree(planted.warehouse / "work")
    assert leaks(planted, [planted.sync()], TRACES) == []


def test_a_kill_in_the_middle_of_an_erasure_is_made_good_by_running_it_again(planted: Desk) -> None:
    """An erasure that is half done and counts as done."""
    run = planted.start("forget", PERSON, "--yes")
    note = planted.warehouse / "work" / "old-values"
    while run.running and not note.exists():
        time.sleep(0.001)
    time.sleep(0.2)
    run.kill(signal.SIGKILL)
    run.process.communicate()
    outputs = [planted.run("forget", PERSON, "--yes")]
    assert outputs[0].code == 0, outputs[0].output
    assert leaks(planted, outputs, TRACES) == []
    assert not note.exists()


@pytest.mark.deep
def test_a_load_that_was_left_pending_holds_nobody_back(desk: Desk, serve: Callable[[World], SandboxServer]) -> None:
    """Rows of the person in dlt's folder, which the next run would load."""
    world = small_world()
    desk.environment = serve(world).environment()
    plant(world)
    run = desk.start("sync")
    dlt = desk.warehouse / "work" / "dlt"
    while run.running and not list(dlt.glob("**/*.parquet")):
        time.sleep(0.001)
    run.kill(signal.SIGKILL)
    run.process.communicate()
    outputs = [desk.run("forget", PERSON, "--yes"), desk.run("sync")]
    assert [output.code for output in outputs] == [0, 0], outputs
    # names are known from rows alone: what was not there yet cannot say which are this person's
    assert leaks(desk, outputs, [PERSON, PERSON.lower()]) == []


@pytest.mark.parametrize(
    ("text", "left"),
    [
        (PERSON, None),
        (f" {PERSON.upper()}\n", None),
        (f"to:{PERSON}", "to:[erased]"),
        (f"mailto:{PERSON}?subject=x", "mailto:[erased]?subject=x"),
        (f"'{PERSON}', {OTHER}; {PERSON}.", f"'[erased]', {OTHER}; [erased]."),
        (f"x/{PERSON}/y{OTHER}", f"x/[erased]/y{OTHER}"),
        ("https://x.example/?q=ann.forgotten%40customer.example&y", "https://x.example/?q=[erased]&y"),
        ("joann.forgotten@customer.example", "joann.forgotten@customer.example"),
        (f"{PERSON}x", f"{PERSON}x"),
        ("@ a@ @b %40", "@ a@ @b %40"),
        ("", ""),
    ],
)
def test_an_email_is_found_inside_texts_by_its_hash_alone(text: str, left: str | None) -> None:
    policy = replace(STANDARD, key=b"k")
    policy = replace(policy, erased=frozenset({policy.mark(PERSON)}))
    assert policy.erase(text, names=True) == left

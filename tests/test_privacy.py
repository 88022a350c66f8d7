"""The privacy policy: what is stored of personal data, and what is left when it changes."""

from __future__ import annotations

import dataclasses
import json
import signal
import time
from datetime import UTC, datetime
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from typing import TYPE_CHECKING, Any

import duckdb
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_secrets import leaks
from truth import ROOTS, Truth, check_ledger, query

from pipelines.database import STORAGE_VERSION
from pipelines.privacy import load_privacy
from pipelines.rewrite import rebuild
from pipelines.settings import SettingsError
from sources._policy import DROP, FULL, HASH, KEEP, PROFILES, STANDARD, TRUNCATE, Action, Policy, without_hosts
from sources._schema import Privacy, Type, every_table
from sources._tables import Converter, Page
from sources.getscreen import in_declared_shape
from sources.getscreen.tables import CONNECTIONS
from sources.posthog.tables import DESKTOP_RECORDINGS
from sources.screendesk.tables import RECORDINGS, USERS

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Desk

    from sandbox.world import World
    from sources._schema import ChildTable, Column, Table

KEY = b"k" * 32
STRICT = Policy("strict", key=KEY)
NOW = datetime(2026, 11, 1, tzinfo=UTC)
EMAIL = "Ann.Example@Customer.example"
ADDRESS = "203.0.113.77"

PLAIN = st.text(st.characters(exclude_characters=":.%", exclude_categories=("Cs", "Nd", "Nl", "No", "L", "M", "Pc")))


def read(table: Table, policy: Policy, records: list[Any]) -> Page:
    prepare = in_declared_shape if table is CONNECTIONS else None
    return Converter(dataclasses.replace(table, policy=policy), prepare).read(records)


def row(table: Table, policy: Policy, record: Any, child: str = "") -> dict[str, Any]:
    page = read(table, policy, [record])
    return page.take(range(len(page)), NOW).tables[child or table.name].to_pylist()[0]


def full_record(table: Table) -> tuple[dict[str, Any], dict[str, str]]:
    """A record with a canary in every text column, and the canaries by `table.column`."""
    record: dict[str, Any] = {}
    canaries = {}

    def put(at: dict[str, Any], child: ChildTable | None, column: Column, name: str) -> None:
        if column.type is not Type.TEXT:
            return
        canaries[f"{name}.{column.name}"] = canary = f"canary-{name}-{column.name}"
        *objects, leaf = column.path
        for inner in objects:
            at = at.setdefault(inner, {})
        at[leaf] = canary

    for name, child in every_table(table):
        item: dict[str, Any] = {}
        for column in (child or table).columns:
            put(record if child is None else item, child, column, name)
        if child is not None:
            *objects, leaf = child.path
            at = record
            for inner in objects:
                at = at.setdefault(inner, {})
            at[leaf] = list(item.values()) if child.plain_values else [item]
    if table.key_column.type is Type.INTEGER:
        record[table.key] = 5
    return record, canaries


# -- addresses


@given(address=st.ip_addresses(v=4), before=PLAIN, after=PLAIN)
def test_an_ipv4_address_in_a_text_ends_after_24_bits(address: IPv4Address, before: str, after: str) -> None:
    left = without_hosts(f"{before}{address}{after}")
    assert left == f"{before}{str(address).rpartition('.')[0]}.0{after}"
    assert without_hosts(left) == left


@given(address=st.ip_addresses(v=6), before=PLAIN, after=PLAIN, form=st.sampled_from(["str", "exploded", "upper"]))
def test_an_ipv6_address_in_a_text_ends_after_48_bits(address: IPv6Address, before: str, after: str, form: str) -> None:
    written = {"str": str(address), "exploded": address.exploded, "upper": str(address).upper()}[form]
    left = without_hosts(f"{before}{written}{after}")
    assert left.startswith(before)
    assert left.endswith(after)
    network = ip_address(left[len(before) : len(left) - len(after)] if after else left[len(before) :])
    assert isinstance(network, IPv6Address)
    if address.ipv4_mapped is None:
        bits = 40 if address in IPv6Network("2002::/16") else 48
        assert network == IPv6Network((address, bits), strict=False).network_address
    assert without_hosts(left) == left


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("::ffff:203.0.113.77", "::ffff:203.0.113.0"),
        ("[2001:db8:1:2::9]:443", "[2001:db8:1::]:443"),
        ("203.0.113.77:8080, 10.1.2.3", "203.0.113.0:8080, 10.1.2.0"),
        ("2002:cb00:714d::1", "2002:cb00:7100::"),
        ("fe80::1%eth0", "fe80::%eth0"),
        ("at 12:30:45 std::vector 1.2.3 aa:bb:cc:dd:ee:ff", "at 12:30:45 std::vector 1.2.3 aa:bb:cc:dd:ee:ff"),
        ("unknown", "unknown"),
        ("", ""),
    ],
)
def test_addresses_are_told_from_what_looks_like_them(text: str, left: str) -> None:
    assert without_hosts(text) == left
    stored = row(RECORDINGS, STANDARD, {"uuid": "r1", "technical_details": {"ip_address": text}})
    assert stored["technical_details__ip_address"] == left


def test_every_declared_address_is_truncated_by_the_default_profile() -> None:
    """A column that is declared later and forgotten here."""
    named = [
        (f"{table.schema}.{name}", column)
        for table in ROOTS
        for name, child in every_table(table)
        for column in (child or table).columns
        if column.path[-1] in {"ip", "ip_address"} or "IP address" in column.description
    ]
    assert len(named) == 3
    assert {STANDARD.action(name, column) for name, column in named} == {TRUNCATE}


# -- profiles


@pytest.mark.parametrize("table", ROOTS, ids=lambda t: t.qualified_name)
@pytest.mark.parametrize("profile", PROFILES)
def test_each_profile_does_to_every_column_what_its_class_says(profile: str, table: Table) -> None:
    policy = Policy(profile, key=KEY)
    record, canaries = full_record(table)
    page = read(table, policy, [record])
    stored = {
        f"{name}.{column}": value
        for name, rows in page.take([0], NOW).tables.items()
        for column, value in rows.to_pylist()[0].items()
    }
    for name, child in every_table(table):
        for column in (child or table).columns:
            place = f"{name}.{column.name}"
            if place not in canaries:
                continue
            gone = {"standard": ("console_logs",), "strict": ("ip", "ip_address", "isp", "city", "user_agent")}
            expected: str | None = canaries[place]
            if column.path[-1] in gone.get(profile, ()) or (
                profile == "strict" and column.privacy is Privacy.SENSITIVE
            ):
                expected = None
            elif profile == "strict" and column.privacy is Privacy.PERSONAL:
                expected = policy.hashed(canaries[place])
            assert stored[place] == expected, place


def test_under_strict_nothing_personal_is_left_of_a_record() -> None:
    """A column of class personal or sensitive that strict lets through, in rows, `_extra` or quarantine."""
    for table in ROOTS:
        record, canaries = full_record(table)
        for broken in (record, {**record, table.key: None}, {**record, "unknown": dict.fromkeys("ab", "canary-x")}):
            page = read(table, STRICT, [broken])
            told = json.dumps([t.to_pylist() for t in page.take(range(len(page)), NOW).tables.values()], default=str)
            told += "".join(q.raw for q in page.quarantined)
            private = {
                f"{name}.{c.name}"
                for name, child in every_table(table)
                for c in (child or table).columns
                if c.privacy in {Privacy.PERSONAL, Privacy.SENSITIVE}
            }
            assert [place for place in private & canaries.keys() if canaries[place] in told] == []
            assert "canary-x" not in told


def test_hashed_emails_join_across_tables_vendors_and_letter_case() -> None:
    """An e-mail hashed differently in two places, which no query would ever join again."""
    found = {
        row(RECORDINGS, STRICT, {"uuid": "r", "customer": {"email": EMAIL}})["customer__email"],
        row(RECORDINGS, STRICT, {"uuid": "r", "user": {"email": f" {EMAIL.upper()} "}})["user__email"],
        row(USERS, STRICT, {"email": EMAIL.lower()})["email"],
        row(CONNECTIONS, STRICT, {"id": 1, "client": {"login": EMAIL}}, "connections__client")["login"],
        row(DESKTOP_RECORDINGS, STRICT, {"id": "m", "participants": [EMAIL]}, "desktop_recordings__participants")[
            "value"
        ],
    }
    (only,) = found
    assert only.endswith("@hashed.invalid")
    assert "ann" not in only
    assert row(USERS, dataclasses.replace(STRICT, key=b"x"), {"email": EMAIL})["email"] != only
    assert STRICT.hashed(only) == only
    number = row(DESKTOP_RECORDINGS, STRICT, {"id": "m", "created_by": 17})["created_by"]
    assert number < 0
    assert STRICT.hashed_number(number) == number


@pytest.mark.parametrize("table", ROOTS, ids=lambda t: t.qualified_name)
def test_what_the_policy_hides_does_not_change_a_rows_hash_and_what_is_stored_stays_itself(table: Table) -> None:
    """Rows rewritten for a change nobody sees, or stored rows that another pass would change again."""
    for policy in (STANDARD, STRICT, Policy("strict", {Privacy.INTERNAL: DROP, Privacy.PUBLIC: DROP}, key=KEY)):
        record, _ = full_record(table)
        record |= {"unknown": [{"ip": ADDRESS}, f"from {ADDRESS} by {EMAIL}"]}
        converter = Converter(dataclasses.replace(table, policy=policy))
        page = converter.read([record])
        again = converter.stored(list(page._columns), list(page._lists))
        assert again.hashes == page.hashes
        if policy.profile == "strict":
            other = converter.read([{**record, "title": "another", "console_logs": "x", "notes": "n", "summary": "s"}])
            assert other.hashes == page.hashes


def test_the_fast_way_and_the_value_by_value_way_give_the_same() -> None:
    """A policy that only one of the two ways through the converter applies."""
    from sources._columns import ColumnReader  # noqa: PLC0415

    records = [
        {
            "id": 7,
            "agent": {"geo": {"ip": ADDRESS}, "owner": EMAIL},
            "client": [{"login": EMAIL, "geo": {"ip": "2001:db8::1"}}, {"login": None}],
        },
        {"id": 8},
    ]
    for policy in (STANDARD, STRICT, FULL):
        columns = ColumnReader(CONNECTIONS, "data").read(json.dumps({"data": records}).encode())
        assert columns is not None
        fast = Converter(dataclasses.replace(CONNECTIONS, policy=policy)).read(columns["data"])
        assert fast.hashes == read(CONNECTIONS, policy, records).hashes


# -- outside the declared columns


@pytest.mark.parametrize(
    ("policy", "fields", "kept"),
    [
        (STANDARD, {"seen_from": f"{ADDRESS} and 2001:db8:5:6::7"}, {"seen_from": "203.0.113.0 and 2001:db8:5::"}),
        (STANDARD, {"a": [{"b": [ADDRESS]}], "n": 5}, {"a": [{"b": ["203.0.113.0"]}], "n": 5}),
        (STANDARD, {"a": {ADDRESS: 1}}, {"a": {"203.0.113.0": 1}}),
        (STANDARD, {"technical_details": {"ip_address": 3405803853}}, None),
        (STANDARD, {"technical_details": {"ip_address": [ADDRESS]}}, {"technical_details.ip_address": ["203.0.113.0"]}),
        (STANDARD, {"console_logs": ["x"]}, None),
        (STANDARD, {"browserConsoleLogs": "x", "a": {"consoleLogs": [1], "b": 2}}, {"a": {"b": 2}}),
        (STANDARD, {"phone": "+1 555", "mail": EMAIL}, {"phone": "+1 555", "mail": EMAIL}),
        (FULL, {"console_logs": [ADDRESS], "x": ADDRESS}, {"console_logs": [ADDRESS], "x": ADDRESS}),
        (STRICT, {"phone": "+1 555", "a": {"b": EMAIL}}, None),
        (STRICT, {"customer": "Ann Example"}, {"customer": STRICT.hashed("ann example")}),
        (STRICT, {"user": {"email": ["A@x.example"]}}, {"user.email": [STRICT.hashed("a@x.example")]}),
        (STRICT, {"metadata": {"duration": f"by {EMAIL} at {ADDRESS}"}}, "metadata.duration"),
        (Policy(paths={"screendesk.recordings._extra": DROP}), {"a": 1, "title": 7}, {"title": 7}),
        (Policy(paths={"screendesk.recordings._extra.a.b": DROP}), {"a": {"b": 1, "c": 2}}, {"a": {"c": 2}}),
        (Policy("strict", paths={"screendesk.recordings._extra.a.b": KEEP}), {"a": {"b": 1, "c": 2}}, {"a": {"b": 1}}),
        (Policy(paths={"screendesk.recordings._extra": Action.parsed("truncate:3")}), {"a": "abcdef"}, {"a": "abc"}),
    ],
)
def test_extra_follows_the_policy_by_path_by_name_and_by_value(
    policy: Policy, fields: dict[str, Any], kept: Any
) -> None:
    found = row(RECORDINGS, policy, {"uuid": "r1", **fields})["_extra"]
    if kept == "metadata.duration":
        kept = {kept: f"by {STRICT.hashed(EMAIL)} at [removed]"}
    assert (found and json.loads(found)) == kept


def test_quarantine_follows_the_policy_and_still_tells_records_apart() -> None:
    """A raw record with what the columns do not keep, or two records that become one."""
    records = [
        {"technical_details": {"ip_address": f"203.0.113.{n}"}, "console_logs": "canary", "other": ADDRESS}
        for n in (1, 2)
    ]
    page = read(RECORDINGS, STANDARD, [*records, "text 10.9.8.7"])
    kept = [json.loads(q.raw) for q in page.quarantined]
    assert kept[0] == {"technical_details": {"ip_address": "203.0.113.0"}, "other": "203.0.113.0"}
    assert kept[2] == "text 10.9.8.0"
    assert len({q.digest for q in page.quarantined}) == 3


def test_drift_names_no_address_that_was_a_members_name() -> None:
    page = read(USERS, STANDARD, [{"email": "a@x", f"seen {ADDRESS}": 1}])
    batch = page.take([0], NOW)
    assert [d.path for d in batch.drift] == ["seen 203.0.113.0"]


# -- settings


@pytest.mark.parametrize(
    ("toml", "named"),
    [
        ('profile = "strickt"', "deskhouse.privacy.profile"),
        ('profil = "strict"', "deskhouse.privacy.profil"),
        ('hash_key = "short"', "deskhouse.privacy.hash_key"),
        ('hash_key = "in the file that is not for secrets" # config', "deskhouse.privacy.hash_key"),
        ('classes = "drop"', "deskhouse.privacy.classes"),
        ('[deskhouse.privacy.classes]\nprivate = "drop"', "classes.private"),
        ('[deskhouse.privacy.classes]\npersonal = "encrypt"', "classes.personal"),
        ('[deskhouse.privacy.classes]\npersonal = "truncate:0"', "classes.personal"),
        ('[deskhouse.privacy.paths]\n"screendesk.recordings.ip" = "drop"', 'paths."screendesk.recordings.ip"'),
        ('[deskhouse.privacy.paths]\n"screendesk.users.email" = "drop"', 'paths."screendesk.users.email"'),
        ('[deskhouse.privacy.paths]\n"screendesk.recordings.uuid" = "hash"', 'paths."screendesk.recordings.uuid"'),
        ('[deskhouse.privacy.paths]\n"getscreen.connections.stop" = "drop"', 'paths."getscreen.connections.stop"'),
        ('[deskhouse.privacy.paths]\n"posthog.desktop_recordings.created_by" = "truncate"', "created_by"),
        ('[deskhouse.privacy.paths]\nscreendesk.recordings.title = "drop"', "deskhouse.privacy.paths"),
    ],
)
def test_a_wrong_setting_is_named_before_anything_is_touched(toml: str, named: str, desk: Desk, world: World) -> None:
    (desk.cwd / ".dlt").mkdir()
    file = "config.toml" if "hash_key" not in toml or "# config" in toml else "secrets.toml"
    (desk.cwd / ".dlt" / file).write_text(f"[deskhouse.privacy]\n{toml}\n")
    (desk.cwd / ".dlt" / file).chmod(0o600)
    desk.environment = {"SOURCES__SCREENDESK__API_TOKEN": "t", "SOURCES__SCREENDESK__BASE_URL": "http://127.0.0.1:9"}
    finished = desk.run("sync")
    assert finished.code == 2, finished.output
    assert named in finished.stderr
    assert not desk.warehouse.exists()


def test_settings_come_from_files_and_environment_the_environment_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DLT_PROJECT_DIR", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / ".dlt").mkdir()
    (tmp_path / ".dlt" / "config.toml").write_text(
        '[deskhouse.privacy]\nprofile = "strict"\n[deskhouse.privacy.classes]\npersonal = "keep"\nsensitive = "truncate:9"\n'
        '[deskhouse.privacy.paths]\n"screendesk.recordings.title" = "keep"\n"screendesk.recordings.summary" = "keep"\n'
    )
    monkeypatch.setenv("DESKHOUSE__PRIVACY__CLASSES__SENSITIVE", "hash")
    monkeypatch.setenv("DESKHOUSE__PRIVACY__PATHS", "screendesk.recordings.summary=truncate:4")
    policy = load_privacy()
    assert policy.profile == "strict"
    assert policy.classes == {Privacy.PERSONAL: KEEP, Privacy.SENSITIVE: HASH}
    stored = row(RECORDINGS, policy, {"uuid": "r", "title": "the title", "summary": "the summary", "description": "d"})
    assert (stored["title"], stored["summary"], stored["description"]) == ("the title", "the ", None)
    monkeypatch.setenv("DESKHOUSE__PRIVACY__CLASSES__PRIVATE", "hash")
    with pytest.raises(SettingsError, match="private"):
        load_privacy()
    monkeypatch.delenv("DESKHOUSE__PRIVACY__CLASSES__PRIVATE")
    monkeypatch.setenv("DESKHOUSE__PRIVACY__PROFIL", "full")
    with pytest.raises(SettingsError, match="profil "):
        load_privacy()


# -- whole runs


def plant(world: World) -> dict[str, list[str]]:
    """Canaries in every text column that `standard` drops or shortens, and in what nobody declared; those it keeps too."""
    recordings, connections = world.screendesk.recordings, world.getscreen.connections
    gone = ["CANARY-LOGS-1", "CANARY-LOGS-2", "CANARY-LOGS-3", "203.0.113.201", "203.0.113.202", "203.0.113.203"]
    gone += ["2001:db8:77:88:99:aa:bb:cc", "203.0.113.204", "CANARY-LIVE-ACCESS", "203.0.113.205"]
    keys, ids = recordings.keys(), connections.keys()
    recordings.update(keys[0], {"console_logs": gone[0], "technical_details.ip_address": gone[3]})
    recordings.update(keys[1], {"console_logs": [gone[1]], "extra": {"deep": [{"from": gone[4]}]}})
    recordings.update(keys[2], {"consoleLogs": gone[2], "technical_details.ip_address": gone[6]})
    recordings.update(keys[3], {"uuid": None, "console_logs": gone[0], "seen": [gone[5]], "invite_url": gone[8]})
    connections.update(ids[0], {"client": [{"login": "a", "geo": {"ip": gone[7]}}], "connect_url": gone[8]})
    connections.update(ids[1], {"agent.geo.ip": gone[9], "client": f"from {gone[9]}"})
    kept = ["CANARY-TITLE", "CANARY-SUMMARY", "CANARY-NOTES", "CANARY-TEXT"]
    recordings.update(keys[4], {"title": kept[0], "summary": kept[1]})
    meetings = world.posthog.desktop_recordings
    meetings.update(meetings.keys()[0], {"notes": kept[2], "transcript_text": kept[3]})
    return {"gone": gone, "kept": kept}


def test_what_the_default_drops_is_nowhere_and_what_it_keeps_is_in_its_columns_alone(
    sandboxed: Desk, world: World
) -> None:
    """Console logs, full addresses or access links in a file, a table, a log or what is printed."""
    planted = plant(world)
    outputs = [sandboxed.run("sync", "--log-level", "debug")]
    world.live_a_day(deletes=2)
    outputs += [sandboxed.run("sync", "--full", "--json", "--log-level", "debug"), sandboxed.run("status")]
    assert [output.code for output in outputs] == [0, 0, 0], outputs
    assert leaks(sandboxed, outputs, planted["gone"]) == []
    assert leaks(sandboxed, [], planted["kept"]), "the search itself finds what is there"
    told = "".join(output.output for output in outputs)
    assert [canary for canary in planted["kept"] if canary in told] == []
    ops = str([query(sandboxed.published, f"FROM ops.{t}") for t in ("runs", "receipts", "drift", "quarantine")])
    assert [canary for canary in planted["kept"] if canary in ops] == []
    assert (sandboxed.warehouse / "privacy.key").stat().st_mode & 0o077 == 0


def old_values(desk: Desk) -> list[str]:
    """Values of the published file that the profile `strict` does not keep."""
    found = query(
        desk.published,
        "SELECT email FROM screendesk.users UNION SELECT customer__email FROM screendesk.recordings UNION "
        "SELECT title FROM screendesk.recordings UNION SELECT login FROM getscreen.connections__client UNION "
        "SELECT text FROM posthog.desktop_recordings__transcript_segments UNION SELECT isp FROM "
        "(SELECT technical_details__isp AS isp FROM screendesk.recordings)",
    )
    return [value for (value,) in found if value and len(value) > 12]


def test_a_stricter_policy_is_told_and_full_leaves_nothing_of_what_was_stored(sandboxed: Desk, world: World) -> None:
    """Old values in rows no longer at the vendor, in `_extra`, in quarantine, in older copies or in free blocks."""
    recordings = world.screendesk.recordings
    recordings.update(recordings.keys()[0], {"extra": "CANARY-EXTRA-1", "title": "CANARY-TITLE-1"})
    recordings.update(recordings.keys()[1], {"uuid": None, "title": "CANARY-QUARANTINE"})
    assert sandboxed.run("sync").code == 0
    recordings.delete(recordings.keys()[0])
    assert sandboxed.run("sync").code == 0
    old = [*old_values(sandboxed), "CANARY-EXTRA-1", "CANARY-TITLE-1", "CANARY-QUARANTINE"]
    assert leaks(sandboxed, [], old[-3:])

    sandboxed.environment |= {"DESKHOUSE__PRIVACY__PROFILE": "strict"}
    refused = sandboxed.run("sync", "screendesk")
    assert refused.code == 2
    assert "screendesk.users" in refused.stderr
    plain = sandboxed.sync("getscreen")
    assert "--full" in plain.report["problems"][0]
    assert "getscreen.connections" in plain.report["problems"][0]
    assert "sync --full" in sandboxed.run("status").stdout

    full = sandboxed.sync("--full")
    assert full.report["problems"] == []
    # what was brought under the policy here is what the vendors' records become
    assert {(entry["inserted"], entry["updated"]) for entry in full.report["tables"]} == {(0, 0)}
    assert [str(p) for p in (sandboxed.warehouse / "generations").iterdir()] == [
        str(sandboxed.published.parent.resolve())
    ]
    assert leaks(sandboxed, [full], old) == []
    assert query(sandboxed.published, "SELECT count(*) FROM screendesk.recordings WHERE _deleted_at IS NOT NULL") == [
        (1,)
    ]
    assert "sync --full" not in sandboxed.run("status").stdout
    assert sandboxed.sync().report["problems"] == []
    assert sandboxed.leftovers() == []


@pytest.mark.deep
def test_a_looser_policy_is_loaded_again_by_full(sandboxed: Desk, world: World) -> None:
    """Values that stay hidden though the policy shows them now."""
    sandboxed.environment |= {"DESKHOUSE__PRIVACY__CLASSES__SENSITIVE": "drop"}
    sandboxed.sync()
    assert query(sandboxed.published, "SELECT count(title) FROM screendesk.recordings") == [(0,)]
    del sandboxed.environment["DESKHOUSE__PRIVACY__CLASSES__SENSITIVE"]
    assert "--full" in sandboxed.sync().report["problems"][0]
    report = sandboxed.sync("--full").report
    Truth(world).check(sandboxed.published)
    check_ledger(sandboxed.published, world, report["run_id"])
    assert sandboxed.sync().report["problems"] == []


@pytest.mark.deep
def test_a_hashed_key_can_neither_be_undone_nor_hashed_with_another_key(sandboxed: Desk) -> None:
    """All users taken for new ones, and all that are stored for vanished ones."""
    sandboxed.environment |= {"DESKHOUSE__PRIVACY__PROFILE": "strict", "DESKHOUSE__PRIVACY__HASH_KEY": "k" * 20}
    sandboxed.sync()
    sandboxed.environment |= {"DESKHOUSE__PRIVACY__HASH_KEY": "l" * 20}
    for arguments in (["sync"], ["sync", "--full"]):
        finished = sandboxed.run(*arguments)
        assert finished.code == 2
        assert "screendesk.users.email" in finished.stderr
    del sandboxed.environment["DESKHOUSE__PRIVACY__PROFILE"]
    assert sandboxed.run("sync", "--full").code == 2
    sandboxed.environment |= {"DESKHOUSE__PRIVACY__PROFILE": "strict", "DESKHOUSE__PRIVACY__HASH_KEY": "k" * 20}
    assert sandboxed.run("sync").code == 0


def test_a_user_who_is_gone_is_found_gone_under_a_hashed_key(sandboxed: Desk, world: World) -> None:
    """Asking the vendor for a hash, which it never knows: whoever is missing from one listing would count as gone."""
    sandboxed.environment |= {"DESKHOUSE__PRIVACY__PROFILE": "strict"}
    sandboxed.sync()
    users = world.screendesk.users
    users.delete(users.keys()[0])
    report = sandboxed.sync("screendesk").report
    assert [e["deleted"] for e in report["tables"] if e["table"] == "screendesk.users"] == [1]
    assert report["exit_code"] == 0


@pytest.mark.parametrize("moment", ["noted", "half", "published"])
@pytest.mark.deep
def test_a_kill_while_old_values_are_removed_leaves_the_rest_to_the_next_run(
    moment: str, sandboxed: Desk, world: World
) -> None:
    """A database lost between two files, or old values that stay for ever because the run that removed them died."""
    sandboxed.sync()
    sandboxed.sync()
    old = old_values(sandboxed)
    sandboxed.environment |= {"DESKHOUSE__PRIVACY__PROFILE": "strict"}
    work, generations = sandboxed.warehouse / "work", sandboxed.warehouse / "generations"
    before = {path.name for path in generations.iterdir()}
    reached = {
        "noted": (work / "old-values").exists,
        "half": (work / ".tmp-rebuilt.duckdb").exists,
        "published": lambda: any(p.name not in before and not p.name.startswith(".") for p in generations.iterdir()),
    }[moment]
    run = sandboxed.start("sync", "--full")
    while run.running and not reached():
        time.sleep(0.001)
    run.kill(signal.SIGKILL)
    run.process.communicate()
    # the readers' file is one or the other, whole
    assert query(sandboxed.published, "SELECT count(*) FROM screendesk.recordings") == [(150,)]
    full = sandboxed.sync("--full")
    assert not (work / "old-values").exists()
    assert len(list(generations.iterdir())) == 1
    assert leaks(sandboxed, [full], old) == []
    assert sandboxed.leftovers() == []


def test_a_rebuilt_database_is_equal_to_the_old_one(tmp_path: Path) -> None:
    """A key, an index, a view, a comment or the order of rows lost on the way."""
    path = tmp_path / "x.duckdb"
    with duckdb.connect(str(path), config={"storage_compatibility_version": STORAGE_VERSION}) as con:
        con.execute("""
            CREATE SCHEMA ops; CREATE TABLE ops.r (a VARCHAR PRIMARY KEY, b BIGINT NOT NULL, c VARCHAR[], d JSON);
            CREATE INDEX i ON ops.r (b); CREATE VIEW ops.v AS SELECT * FROM ops.r; CREATE TABLE t (x INTEGER DEFAULT 3);
            COMMENT ON TABLE ops.r IS 'one''s'; COMMENT ON COLUMN ops.r.a IS 'a'; COMMENT ON VIEW ops.v IS 'v';
            INSERT INTO ops.r SELECT 'canary-' || (99999 - i), i, ['x'], '{"a":1}' FROM range(50000) AS n(i);
            DELETE FROM ops.r WHERE b % 3 = 0;
        """)
        con.execute("CHECKPOINT")
    asked = [
        "SELECT table_name, sql, comment FROM duckdb_tables() ORDER BY ALL",
        "SELECT view_name, sql, comment FROM duckdb_views() WHERE NOT internal ORDER BY ALL",
        "SELECT index_name, sql FROM duckdb_indexes() ORDER BY ALL",
        "SELECT column_name, comment, is_nullable, column_default FROM duckdb_columns() WHERE NOT internal ORDER BY ALL",
        "SELECT a FROM ops.r ORDER BY rowid",
    ]

    def told() -> list[Any]:
        with duckdb.connect(str(path), read_only=True) as con:
            return [con.execute(sql).fetchall() for sql in asked]

    before, inode = told(), path.stat().st_ino
    rebuild(path)
    assert told() == before
    assert path.stat().st_ino != inode
    assert [p.name for p in tmp_path.iterdir()] == ["x.duckdb"]
    with duckdb.connect(str(path)) as con:
        assert con.execute("SELECT tags['storage_version'] FROM duckdb_databases() WHERE NOT internal").fetchall() == [
            ("v1.2.0+",)
        ]


def test_class_actions_that_a_type_cannot_carry_drop_the_value() -> None:
    """A length or a number that goes through because it is no text."""
    policy = Policy("full", {Privacy.INTERNAL: HASH, Privacy.PERSONAL: Action.parsed("truncate:2")}, key=KEY)
    stored = row(RECORDINGS, policy, {"uuid": "r1", "metadata": {"duration": 5, "created_at": "2026-01-01T00:00:00Z"}})
    assert stored["metadata__duration"] == policy.hashed_number(5)
    assert stored["metadata__created_at"] == datetime(2026, 1, 1, tzinfo=UTC)
    assert stored["uuid"] == "r1"
    meeting = row(DESKTOP_RECORDINGS, policy, {"id": "m", "created_by": 3})
    assert meeting["created_by"] is None
    assert pa.types.is_int64(read(DESKTOP_RECORDINGS, policy, [{"id": "m"}])._columns[2].type)

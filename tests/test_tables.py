"""Records into rows: nothing lost, nothing that gives access kept, and the same hash for the same content."""

from __future__ import annotations

import copy
import json
import re
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sources._schema import Column, Type
from sources._tables import Batch, Converter, Drift
from sources.getscreen import in_declared_shape
from sources.getscreen.tables import CONNECTIONS
from sources.posthog.tables import DESKTOP_RECORDINGS
from sources.screendesk.tables import RECORDINGS, USERS

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SCREENDESK, USER, POSTHOG = Converter(RECORDINGS), Converter(USERS), Converter(DESKTOP_RECORDINGS)
GETSCREEN = Converter(CONNECTIONS, in_declared_shape)
PEOPLE = "recordings__room_insights__participants_insights"
SECRET = "s3cret-live-access"

RECORDING: dict[str, Any] = {
    "uuid": "r1",
    "title": "Title",
    "metadata": {"updated_at": "2026-01-01T00:00:00.000Z", "duration": 3, "helpdesk_info": {"ticket_id": "7"}},
    "room_insights": {"duration": 1.0, "participants_insights": [{"role": "host"}, {"role": "guest"}]},
}
MEETING: dict[str, Any] = {
    "id": "m1",
    "updated_at": "2026-01-01T00:00:00Z",
    "participants": ["Ann", None],
    "transcript_segments": [{"timestamp": 1500.0, "text": "hi"}, {"timestamp": None, "text": "ho"}],
}
CONNECTION: dict[str, Any] = {
    "id": 5,
    "start": 1608660273,
    "client": [{"login": "a@b.c", "geo": {"ip": "10.0.0.1"}}],
    "video": {"url": "https://st.getscreen.me/video/1.mp4", "size": 9},
}

LEAVES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(2**64, 2**90)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec=None), max_size=4)
    | st.sampled_from(["2026-01-01T00:00:00Z", "2026-01-01", "a\x00b"])
)
NAMES = st.sampled_from(
    ["", ".", "x", "metadata.x", "metadata.duration", "a\x00", "a", "_row_hash", "userId", "user_id", "text", "role"]
) | st.text(max_size=3)
JSON = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=4), max_leaves=8
)
DECLARED = st.sampled_from(["title", "metadata", "room_insights", "customer", "console_logs", "technical_details"])
RECORDS = st.dictionaries(DECLARED | NAMES, JSON, max_size=8).map(lambda r: {**r, "uuid": "r1"})


def batch(converter: Converter, *records: Any) -> Batch:
    page = converter.read(records)
    assert not page.quarantined
    return page.take(range(len(records)), NOW)


def row(converter: Converter, record: Any) -> dict[str, Any]:
    found: dict[str, Any] = batch(converter, record).tables[converter.table.name].to_pylist()[0]
    return found


def extra(converter: Converter, record: Any) -> Any:
    text = row(converter, record)["_extra"]
    return None if text is None else json.loads(text)


def hash_of(converter: Converter, record: Any) -> str:
    return str(converter.read([record]).hashes[0].as_py())


def items(converter: Converter, child: str, record: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = batch(converter, record).tables[child].to_pylist()
    return found


def strings(value: Any) -> list[str]:
    """Every text, number and name in a JSON value, without what text may lose."""
    if isinstance(value, dict):
        return [s for k, v in value.items() for s in (*strings(k), *strings(v))]
    if isinstance(value, list):
        return [s for v in value for s in strings(v)]
    if isinstance(value, str):
        return [re.sub("[\ud800-\udfff]", "\ufffd", value.replace("\x00", ""))]
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return [] if value is None else [repr(value)]


# ---- nothing is lost


@settings(max_examples=200)
@given(RECORDS)
def test_whatever_a_record_holds_is_in_a_column_or_in_extra(record: dict[str, Any]) -> None:
    """Catches a value that vanishes between the columns and `_extra`, in any mix of types and colliding names."""
    tables = batch(SCREENDESK, copy.deepcopy(record)).tables
    kept: list[str] = []
    for name, table in tables.items():
        for stored in table.to_pylist():
            extras = stored.pop("_extra")
            kept += [] if extras is None else strings(json.loads(extras))
            if name == "recordings":
                for ours in ("_row_hash", "_loaded_at", "_deleted_at"):
                    stored.pop(ours)
            for value in stored.values():
                kept += [value.isoformat()] if isinstance(value, datetime) else strings(value)
    kept_text = "\n".join(kept)
    for sent in strings(list(record.values())):
        assert ("2026-01-01" if sent.startswith("2026-01-01") else sent) in kept_text


@settings(max_examples=100)
@given(st.lists(RECORDS, min_size=1, max_size=3))
def test_extra_is_json_to_duckdb_with_every_number_exact(records: list[dict[str, Any]]) -> None:
    table = batch(SCREENDESK, *records).tables["recordings"]
    with duckdb.connect() as con:
        con.register("page", table)
        con.execute("CREATE TABLE kept (extra JSON)")
        con.execute("INSERT INTO kept SELECT _extra FROM page")
        back = [json.loads(e) if e else None for (e,) in con.execute("SELECT extra FROM kept").fetchall()]
    assert back == [json.loads(e) if e else None for e in table["_extra"].to_pylist()]


def test_an_integer_past_64_bits_reaches_duckdb_exact_in_declared_and_unknown_fields() -> None:
    huge = 2**70 + 1
    record = {"uuid": "r1", "metadata": {"duration": huge}, "odd": {"deep": [huge, "a\x00\ud800"]}}
    table = batch(SCREENDESK, record).tables["recordings"]
    with duckdb.connect() as con:
        con.register("page", table)
        deep = con.execute("SELECT (_extra::JSON)->'odd'->'deep'->>0, metadata__duration FROM page").fetchone()
    assert deep == (str(huge), None)
    assert extra(SCREENDESK, record) == {"metadata.duration": huge, "odd": {"deep": [huge, "a\ufffd"]}}


def test_unknown_fields_are_keyed_by_their_path() -> None:
    record = {
        **RECORDING,
        "new": 1,
        "metadata": {**RECORDING["metadata"], "helpdesk_info": {"kind": {"a": [1]}}},
        "_row_hash": "theirs",
        "_dlt_load_id": 2,
        "metadata__created_at": "x",
        "userId": 3,
        "": 4,
    }
    assert extra(SCREENDESK, record) == {
        "new": 1,
        "metadata.helpdesk_info.kind": {"a": [1]},
        "_row_hash": "theirs",
        "_dlt_load_id": 2,
        "metadata__created_at": "x",
        "userId": 3,
        "": 4,
    }
    assert row(SCREENDESK, record)["_row_hash"] != "theirs"
    assert row(SCREENDESK, record)["metadata__created_at"] is None


def test_objects_and_values_in_each_others_place_are_kept_and_noted() -> None:
    record = {"uuid": "r1", "title": {"en": "T"}, "metadata": "gone", "room_insights": {"participants_insights": 7}}
    found = batch(SCREENDESK, record)
    assert json.loads(found.tables["recordings"]["_extra"][0].as_py()) == {
        "title": {"en": "T"},
        "metadata": "gone",
        "room_insights.participants_insights": 7,
    }
    table = "screendesk.recordings"
    assert found.drift == {
        Drift(table, "title", "other type", "object"): 1,
        Drift(table, "metadata", "other type", "text"): 1,
        Drift(table, "room_insights.participants_insights", "other type", "number"): 1,
    }


def test_paths_that_are_written_alike_keep_both_values() -> None:
    """Catches the nested `metadata.x` and a member really named `metadata.x` overwriting each other."""
    record = {
        "uuid": "r1",
        "metadata.x": 2,
        "metadata": {"x": 1, "duration": "long"},
        "metadata.duration": 3,
        "a\x00": 4,
        "a": 5,
        "nest": {"b": 6, "b\x00": 7},
    }
    found = extra(SCREENDESK, record)
    assert sorted(map(str, found.values())) == sorted(["1", "2", "long", "3", "4", "5", "{'b': 6, 'b#2': 7}"])
    assert found == extra(SCREENDESK, dict(reversed(record.items())))
    assert hash_of(SCREENDESK, record) == hash_of(SCREENDESK, dict(reversed(record.items())))


def test_a_value_that_fits_no_column_shows_in_drift_of_its_own_table() -> None:
    """Catches an item's new field being taken for one of the meeting's columns, and the reverse."""
    segment = {"text": 7, "summary": "new here", "geo": 1}
    drift = batch(POSTHOG, {"id": "m1", "transcript_segments": [segment]}).drift
    table = "posthog.desktop_recordings__transcript_segments"
    assert drift[Drift(table, "text", "other type", "number")] == 1
    assert drift[Drift(table, "summary", "new field", "text")] == 1
    client = batch(GETSCREEN, {"id": 1, "client": [{"geo": "Paris"}]})
    assert client.drift == {Drift("getscreen.connections__client", "geo", "other type", "text"): 1}


@pytest.mark.parametrize("depth", [150, 300, 1000])
def test_json_nested_past_all_reason_is_cut_off_and_ends_no_run(depth: int) -> None:
    value: Any = "core"
    for _ in range(depth):
        value = [value]
    for record in ({"uuid": "r1", "deep": value}, {"uuid": "r1", "title": value}, {"uuid": value}):
        page = SCREENDESK.read([record])
        text = page.take(range(len(page.keys)), NOW).tables["recordings"]["_extra"].to_pylist() or [
            page.quarantined[0].raw
        ]
        assert ("core" in text[0]) == (depth < 200)
        assert ("cut off" in text[0]) == (depth > 200)


# ---- nothing that gives access is stored


LINKS = ["connect_url", "invite_url", "inviteCode", "PERMANENT_URL", "preview_url", "clientPreviewUrl", "preview-urls"]


@pytest.mark.parametrize("name", LINKS)
@pytest.mark.parametrize(
    "place",
    [
        lambda n: {n: SECRET},
        lambda n: {"agent": {n: SECRET}},
        lambda n: {"agent": {"geo": {n: {"x": SECRET}}}},
        lambda n: {"new": [[{"x": {n: [SECRET]}}]]},
        lambda n: {"client": [{n: SECRET, "geo": {n: SECRET}}, [{n: SECRET}]]},
        lambda n: {"client": {"deep": {n: SECRET}}},
        lambda n: {"video": {"size": {n: SECRET}}},
        lambda n: {"start": {n: SECRET}},
        lambda n: {"agent": [{n: SECRET}]},
        lambda n: {f"agent.{n}": SECRET},
        lambda n: {"id": None, "agent": {n: SECRET}},
        lambda n: {"id": {n: SECRET}},
    ],
)
def test_live_access_links_are_stored_nowhere(name: str, place: Any) -> None:
    page = GETSCREEN.read([{**CONNECTION, **place(name)}])
    found = page.take(range(len(page.keys)), NOW)
    written = str([t.to_pylist() for t in found.tables.values()]) + str(page.quarantined) + str(found.drift)
    assert SECRET not in written
    rotated = json.loads(json.dumps({**CONNECTION, **place(name)}).replace(SECRET, "another"))
    assert GETSCREEN.read([rotated]).hashes == page.hashes


@pytest.mark.parametrize("name", ["url", "URL", "Url"])
def test_the_link_of_history_info_is_stored_nowhere_but_the_video_is(name: str) -> None:
    record = {**CONNECTION, name: SECRET, "agent": {name: SECRET}, "session": {name: SECRET}}
    assert SECRET not in str(row(GETSCREEN, record))
    assert row(GETSCREEN, record)["video__url"] == CONNECTION["video"]["url"]
    assert hash_of(GETSCREEN, record) == hash_of(GETSCREEN, {**CONNECTION, "agent": {}, "session": {}})
    raw = GETSCREEN.read([{**record, "id": None}]).quarantined[0].raw
    assert SECRET not in raw
    assert CONNECTION["video"]["url"] in raw


@pytest.mark.parametrize(
    "video",
    [
        {"video": f"https://st.getscreen.me/v.mp4?apikey={SECRET}"},
        {"video": f"HTTPS://st.getscreen.me/v.mp4?apikey={SECRET}"},
        {"video": f"//st.getscreen.me/v.mp4#{SECRET}"},
        {"video": {"url": f"https://st.getscreen.me/v.mp4?apikey={SECRET}"}},
        {"video": {"url": [f"https://st.getscreen.me/v.mp4?apikey={SECRET}"]}},
        {"video": {"hd": f" st.getscreen.me/v.mp4?apikey={SECRET}"}},
        {"video": [{"url": f"https://st.getscreen.me/v.mp4?apikey={SECRET}"}]},
        {"video_url": f"https://st.getscreen.me/v.mp4?apikey={SECRET}"},
        {"videoUrl": {"hd": {"src": f"https://st.getscreen.me/v.mp4?apikey={SECRET}"}}},
        {"agent": {"lastVideo": f"/video/v.mp4?apikey={SECRET}"}},
        {"client": [{"video": {"url": f"https://st.getscreen.me/v.mp4?apikey={SECRET}"}}]},
    ],
)
@pytest.mark.parametrize("converter", [GETSCREEN, SCREENDESK, POSTHOG], ids=["getscreen", "screendesk", "posthog"])
def test_video_addresses_are_stored_without_their_signature(converter: Converter, video: dict[str, Any]) -> None:
    key = converter.table.key
    record = {**video, key: 5 if converter is GETSCREEN else "x"}
    written = str([t.to_pylist() for t in batch(converter, record).tables.values()])
    assert SECRET not in written
    assert "v.mp4" in written or converter is not GETSCREEN
    rotated = json.loads(json.dumps(record).replace(SECRET, "rotated"))
    assert hash_of(converter, rotated) == hash_of(converter, record)
    raw = converter.read([{**record, key: None}]).quarantined[0].raw
    assert SECRET not in raw
    assert "v.mp4" in raw


def test_text_about_a_video_is_no_address() -> None:
    record = {"uuid": "r1", "video_title": "Why? Because.", "site": "https://x.test/a?b=1"}
    assert extra(SCREENDESK, record) == {"video_title": "Why? Because.", "site": "https://x.test/a?b=1"}


# ---- the row hash


@settings(max_examples=100)
@given(RECORDS)
def test_the_hash_ignores_the_order_of_members_at_every_depth(record: dict[str, Any]) -> None:
    def turned(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: turned(v) for k, v in reversed(value.items())}
        return [turned(v) for v in value] if isinstance(value, list) else value

    assert hash_of(SCREENDESK, turned(record)) == hash_of(SCREENDESK, record)
    assert extra(SCREENDESK, turned(record)) == extra(SCREENDESK, record)


@pytest.mark.parametrize(
    ("converter", "record", "expected"),
    [
        (SCREENDESK, RECORDING, "e5a640965e0f544a378657ce11cd3930"),
        (SCREENDESK, {"uuid": "r2"}, "9713273e341a6e3cf8d1286e3d11c799"),
        (
            SCREENDESK,
            {"uuid": "r3", "title": "ÿ 😀", "metadata": {"duration": 2.5, "created_at": "2026-02-03T04:05:06+02:00"}},
            "297601734293f639f86e7461ff417834",
        ),
        (USER, {"email": "ann@example.io", "name": None}, "8e40e76cbcba7582644fec897b7ddc79"),
        (GETSCREEN, CONNECTION, "94dfe2bf654375a946ae1c19a69bd9de"),
        (POSTHOG, MEETING, "a0874a24b3f40141639e91b54262ff1d"),
        (
            POSTHOG,
            {"id": "m2", "participants": [], "transcript_segments": [{"text": ""}]},
            "dc5ee2b0d86cc971d7042328d4378f90",
        ),
    ],
)
def test_the_hash_of_a_row_is_that_of_earlier_releases(
    converter: Converter, record: dict[str, Any], expected: str
) -> None:
    """Another way to hash would write every row of every warehouse anew, and call all of them changed.

    A table that is declared with other columns has other hashes, and new values here; nothing else may.
    """
    assert hash_of(converter, record) == expected


@given(st.lists(RECORDS, max_size=3), RECORDS)
def test_the_hash_of_a_row_does_not_depend_on_its_page(others: list[dict[str, Any]], record: dict[str, Any]) -> None:
    """Catches a decision made for a whole page, by which a quiet row would be written again and again."""
    insights = {"participants_insights": [{"role": "a\x00"}]}
    record = {**record, "room_insights": insights}
    assert SCREENDESK.read([*others, record]).hashes[-1].as_py() == hash_of(SCREENDESK, record)


@pytest.mark.parametrize("column", [c.name for c in RECORDINGS.columns if c.name != "uuid"])
def test_a_change_in_any_column_changes_the_hash(column: str) -> None:
    changed = copy.deepcopy(RECORDING)
    *parents, leaf = column.split("__")
    target = changed
    for parent in parents:
        target = target.setdefault(parent, {})
    target[leaf] = "2027-01-01T00:00:00Z"
    assert hash_of(SCREENDESK, changed) != hash_of(SCREENDESK, RECORDING)


@pytest.mark.parametrize(
    "change",
    [
        {"participants": [None, "Ann"]},
        {"participants": ["Ann"]},
        {"participants": []},
        {"transcript_segments": MEETING["transcript_segments"][::-1]},
        {"transcript_segments": [{**MEETING["transcript_segments"][0], "new": 1}, MEETING["transcript_segments"][1]]},
        {"extracted_tasks": [{"title": "T"}]},
        {"unknown": None},
        {"summary": ""},
        {"team": 1},
        {"team": True},
    ],
    ids=["order", "item", "emptied", "objects", "unknown-in-item", "list", "unknown", "empty", "one", "true"],
)
def test_a_change_in_lists_or_extra_changes_the_hash(change: dict[str, Any]) -> None:
    known = {hash_of(POSTHOG, MEETING), hash_of(POSTHOG, {**MEETING, "team": 2})}
    assert hash_of(POSTHOG, {**MEETING, **change}) not in known


def test_a_changed_declaration_changes_every_hash() -> None:
    more = replace(RECORDINGS, columns=(*RECORDINGS.columns, Column("more", Type.TEXT, "")))
    other = replace(
        RECORDINGS, columns=tuple(replace(c, type=Type.NUMBER) if c.name == "title" else c for c in RECORDINGS.columns)
    )
    assert len({hash_of(Converter(t), {"uuid": "r1"}) for t in (RECORDINGS, more, other)}) == 3


# ---- lists


@pytest.mark.parametrize(
    ("client", "rows", "kept"),
    [
        ([], [], None),
        (None, [], None),
        ("", [], None),
        ({"login": "a"}, [("a", None)], None),
        ([{"login": "a"}, {"login": "b", "x": 1}], [("a", None), ("b", {"x": 1})], None),
        (
            [None, 7, "t", [1]],
            [(None, None), (None, {"value": 7}), (None, {"value": "t"}), (None, {"value": [1]})],
            None,
        ),
        ("web", [], {"client": "web"}),
        (0, [], {"client": 0}),
        (False, [], {"client": False}),
    ],
)
def test_operators_come_in_every_shape_the_vendor_has_sent(client: Any, rows: list[Any], kept: Any) -> None:
    record = {"id": 5, "client": client}
    found = items(GETSCREEN, "connections__client", record)
    assert [(r["login"], r["_extra"] and json.loads(r["_extra"])) for r in found] == rows
    assert [r["_dlt_list_idx"] for r in found] == list(range(len(rows)))
    assert {r["connection_id"] for r in found} <= {5}
    assert extra(GETSCREEN, record) == kept


@pytest.mark.parametrize(
    ("people", "values", "kept"),
    [
        (None, [], None),
        ([], [], None),
        (["Ann", None, "", "Ann"], ["Ann", None, "", "Ann"], None),
        ([7, {"name": "Ann", "connect_url": SECRET}], [None, None], None),
        ({"0": "Ann"}, [], {"participants": {"0": "Ann"}}),
        ("", [], {"participants": ""}),
    ],
)
def test_participants_come_as_values(people: Any, values: list[Any], kept: Any) -> None:
    record = {"id": "m1", "participants": people}
    found = items(POSTHOG, "desktop_recordings__participants", record)
    assert [r["value"] for r in found] == values
    assert extra(POSTHOG, record) == kept
    if values == [None, None]:
        assert [json.loads(r["_extra"]) for r in found] == [{"value": 7}, {"value": {"name": "Ann"}}]


@pytest.mark.parametrize("empty", [[], "", None])
@pytest.mark.parametrize("member", ["agent", "video"])
def test_what_stands_for_no_object_is_no_value(member: str, empty: Any) -> None:
    assert extra(GETSCREEN, {"id": 5, member: empty}) is None
    assert hash_of(GETSCREEN, {"id": 5, member: empty}) == hash_of(GETSCREEN, {"id": 5})


def test_a_video_is_the_same_row_whether_an_object_or_an_address() -> None:
    url = "https://st.getscreen.me/v.mp4"
    one = {"id": "5", "support_id": "0", "video": {"url": url, "size": 9}}
    other = {"id": 5, "support_id": 0, "video": f"{url}?apikey=k", "video_size": 9}
    assert {**row(GETSCREEN, one), "x": 1} == {**row(GETSCREEN, other), "x": 1}
    assert row(GETSCREEN, one)["video__size"] == 9


# ---- quarantine


@pytest.mark.parametrize(
    "record",
    [
        None,
        7,
        True,
        "text",
        [],
        [{"connect_url": SECRET, "video": f"https://v/x?{SECRET}"}],
        {},
        {"uuid": None},
        {"uuid": ""},
        {"uuid": 7},
        {"uuid": ["r1"]},
        {"uuid": True},
        {"uuid": "x" * 513},
        {"uuid": "a\x00"},
        {"uuid": "\ud800"},
        {"UUID": "r1", "connect_url": SECRET, "n": [2**80, "\ud800\x00"]},
    ],
    ids=repr,
)
def test_what_has_no_usable_key_is_kept_as_json_with_the_reason(record: Any) -> None:
    page = SCREENDESK.read([record, {"uuid": "r2"}])
    assert page.keys.to_pylist() == ["r2"]
    (found,) = page.quarantined
    assert found.reason
    assert SECRET not in found.raw
    with duckdb.connect() as con:
        assert con.execute("SELECT json_valid(?)", [found.raw]).fetchone() == (True,)
        con.execute("CREATE TABLE kept (raw JSON)")
        con.execute("INSERT INTO kept VALUES (?)", [found.raw])


@pytest.mark.parametrize(
    ("key", "kept"), [("17", 17), (17.0, 17), (17, 17), (0, None), ("0", None), (1.5, None), (True, None)]
)
def test_a_number_key_is_read_in_the_forms_the_vendor_writes(key: Any, kept: int | None) -> None:
    assert GETSCREEN.read([{"id": key}]).keys.to_pylist() == ([] if kept is None else [kept])


def test_an_empty_page_has_every_table_and_column() -> None:
    for converter in (SCREENDESK, USER, POSTHOG, GETSCREEN):
        tables = converter.read([]).take([], NOW).tables
        assert {n: t.schema for n, t in tables.items()} == {n: t.schema for n, t in converter.empty().items()}

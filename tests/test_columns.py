"""Replies read straight to Arrow: the same rows as value by value, or None; nothing in between."""

from __future__ import annotations

from copy import deepcopy
from datetime import UTC, datetime
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sandbox.world import World
from sources._body import parse
from sources._columns import ColumnReader, Columns
from sources._schema import Form, Table, Type
from sources._tables import Converter
from sources.getscreen import in_declared_shape
from sources.getscreen.tables import CONNECTIONS
from sources.posthog.tables import DESKTOP_RECORDINGS
from sources.screendesk.tables import RECORDINGS, USERS

NOW = datetime(2026, 11, 22, tzinfo=UTC)
WORLD = World(3, recordings=40, users=6, connections=40, meetings=12)
TABLES: dict[str, tuple[Table, Converter, list[dict[str, Any]]]] = {
    "recordings": (RECORDINGS, Converter(RECORDINGS), WORLD.screendesk.recordings.all()),
    "users": (USERS, Converter(USERS), WORLD.screendesk.users.all()),
    "connections": (CONNECTIONS, Converter(CONNECTIONS, in_declared_shape), WORLD.getscreen.connections.all()),
    "meetings": (DESKTOP_RECORDINGS, Converter(DESKTOP_RECORDINGS), WORLD.posthog.desktop_recordings.all()),
}
ODD_VALUES = [
    None,
    True,
    0,
    -1,
    1,
    2**53 + 1,
    2**63,
    10**25,
    1.0,
    1.5,
    1e300,
    "",
    "text",
    "é😀",
    "12",
    "2026-01-01T00:00:00Z",
    "2026-01-01T00:00:00.123456789Z",
    "0000-01-01T00:00:00Z",
    "9999-12-31T23:59:59+14:00",
    "yesterday",
    "https://v.example/a?key=1#x",
    "\x00",
    "x" * 600,
    [],
    {},
    [None],
    [{}],
    ["a"],
    {"a": 1},
    [[1]],
]


def paths(table: Table) -> list[tuple[str, ...]]:
    """Where a value may be put in a record: columns, objects around them, lists, members of items, and elsewhere."""
    found = [c.path for c in table.columns]
    found += [path[:depth] for path in found for depth in range(1, len(path))]
    for child in table.children:
        found += [child.path, *((*child.path, "[]", *c.path) for c in child.columns)]
    return [*dict.fromkeys(found), ("surprise",), ("connect_url",)]


def put(record: dict[str, Any], path: tuple[str, ...], value: Any) -> None:
    """Put a value in a record, making objects and lists on the way."""
    at: Any = record
    for name, following in zip(path, (*path[1:], None), strict=True):
        key: Any = 0 if name == "[]" else name
        if following is None:
            at[key] = value
        else:
            wanted: type = list if following == "[]" else dict
            inner = at[key] if (isinstance(at, list) and at) or (isinstance(at, dict) and key in at) else None
            if type(inner) is not wanted or (wanted is list and not inner):
                inner = [{}] if wanted is list else {}
                at[key] = inner
            at = inner


@st.composite
def replies(draw: st.DrawFn, only: str = "") -> tuple[str, bytes]:
    """A table's name and a list reply, true but for a few values."""
    name = only or draw(st.sampled_from(sorted(TABLES)))
    table, _, records = TABLES[name]
    page = [orjson.loads(orjson.dumps(draw(st.sampled_from(records)))) for _ in range(draw(st.integers(0, 4)))]
    for record in page:
        for _ in range(draw(st.sampled_from([0, 0, 1, 1, 2]))):
            put(record, draw(st.sampled_from(paths(table))), deepcopy(draw(st.sampled_from(ODD_VALUES))))
    envelope = {"count": len(page), "next": None, "list": page, "pagination": {"page": 1, "last_page": 1}}
    body = _written(envelope)
    return name, draw(st.sampled_from([body, body, body.replace(b",", b", "), body + b"\n"]))


def _written(value: Any) -> bytes:
    try:
        return orjson.dumps(value)
    except TypeError:
        import json  # noqa: PLC0415 - for integers past 64 bits

        return json.dumps(value).encode()


@settings(max_examples=600, deadline=None)
@given(replies())
def test_a_reply_in_columns_gives_the_same_rows_as_value_by_value(reply: tuple[str, bytes]) -> None:
    """A value changed, lost or stored under another hash because it came the fast way."""
    name, body = reply
    table, converter, _ = TABLES[name]
    found = ColumnReader(table, "list").read(body)
    values = parse(body)
    if found is None:
        return
    assert {k: v for k, v in found.items() if k != "list"} == {k: v for k, v in values.items() if k != "list"}
    fast, slow = converter.read(found["list"]), converter.read(values["list"])
    assert fast.keys.to_pylist() == slow.keys.to_pylist()
    assert fast.hashes.to_pylist() == slow.hashes.to_pylist()
    assert fast.cursors.tolist() == slow.cursors.tolist()
    assert fast.orders.tolist() == slow.orders.tolist()
    assert [q.reason for q in fast.quarantined] == [q.reason for q in slow.quarantined]
    some = list(range(0, len(fast), 2))
    for positions in (list(range(len(fast))), some):
        ours, theirs = fast.take(positions, NOW), slow.take(positions, NOW)
        assert all(ours.tables[n].equals(theirs.tables[n]) for n in theirs.tables)
        assert ours.drift == theirs.drift


NOT_ONE_OBJECT = [
    b"",
    b"  ",
    b"{}",
    b"null",
    b"{",
    b"}",
    b'{"list":[',
    b"]}",
    b'{"list":[{"uuid":"a',
    b'"}]}',
    b'{"list":[]}{"list":[]}',
    b'{"list":[]}\n{"list":[{"uuid":"b"}]}',
    b'{"list":[{"uuid":"a"}',
    b'{"uuid":"b"}]}',
    b'{"list":[{"uuid":"a"},',
    b'\xef\xbb\xbf{"list":[]}',
    b'{"list":[]}\x0b',
    b'{"list":[{"uuid":"a","title":"}\n{"}]}',
]


@settings(max_examples=300, deadline=None)
@given(
    drawn=st.sampled_from(sorted(TABLES)).flatmap(lambda name: st.lists(replies(name), min_size=1, max_size=5)),
    odd=st.lists(st.tuples(st.integers(0, 6), st.sampled_from(NOT_ONE_OBJECT)), max_size=3),
    counts=st.lists(st.sampled_from([1, 1.5, 2.0, None, "1", 2**60, {"a": 1}, {"a": 1.5}]), min_size=9, max_size=9),
)
def test_replies_read_together_are_what_each_is_alone(
    drawn: list[tuple[str, bytes]], odd: list[tuple[int, bytes]], counts: list[Any]
) -> None:
    """Records of one page given to another, or a page's word for the count changed by its neighbour's."""
    name, bodies = drawn[0][0], [body for _, body in drawn]
    bodies = [
        body.replace(b'"next"', b'"more":' + orjson.dumps(n) + b',"next"')
        for body, n in zip(bodies, counts, strict=False)
    ]
    for place, body in odd:
        bodies.insert(place, body)
    reader = ColumnReader(TABLES[name][0], "list")
    for found, alone in zip(reader.read_all(bodies), map(reader.read, bodies), strict=True):
        assert (found is None) == (alone is None)
        if found is not None and alone is not None:
            assert found["list"] == alone["list"]
            assert repr(_without_nothing(found)) == repr(_without_nothing(alone))


def _without_nothing(value: Any) -> Any:
    """Members without those that are null, which may be those of another reply."""
    if isinstance(value, dict):
        return {k: _without_nothing(v) for k, v in sorted(value.items()) if v is not None and k != "list"}
    return value


def test_pages_are_read_together() -> None:
    """Else nothing but a clock would show that each is read alone."""
    bodies = [
        orjson.dumps(
            {"pagination": {"page": n, "next_page": n + 1 if n < 4 else None}, "list": [{"uuid": f"u{n}"}] * n}
        )
        for n in range(5)
    ]
    reader = ColumnReader(RECORDINGS, "list")
    together = reader._read_together(bodies)
    assert together is not None
    for n, reply in enumerate(together):
        assert reply["pagination"]["page"] == n
        assert [record["uuid"] for record in reply["list"]] == [f"u{n}"] * n


@pytest.mark.parametrize(
    "bodies",
    [
        [b'{"list":[', b']}{"list":[]}'],
        [b"", b'{"list":[]}{"list":[]}'],
        [b'{"list":[{"uuid":"a"}]} {"list":[{"uuid":"b"}]}', b" "],
        [b'{"list":[{"uuid":"a"}]} {"list":[{"uuid":"b', b'"}]}'],
    ],
)
def test_bodies_that_make_as_many_objects_only_together_are_none(bodies: list[bytes]) -> None:
    """A page that was cut off is repeated; put together with its neighbour it would pass for two."""
    assert ColumnReader(RECORDINGS, "list").read_all(bodies) == [None, None]


@pytest.mark.parametrize("name", TABLES)
def test_what_is_as_declared_comes_in_columns(name: str) -> None:
    """The slow way taken for every page, which nothing but a clock would show."""
    table, _, records = TABLES[name]
    plain = [r for r in records if name != "connections" or (isinstance(r["client"], list) and _is_plain(r))]
    reply = ColumnReader(table, "list").read(orjson.dumps({"list": plain[:20]}).replace(b"\\u0000", b""))
    assert reply is not None
    assert isinstance(reply["list"], Columns)


def _is_plain(connection: dict[str, Any]) -> bool:
    return all(not isinstance(connection[n], (list, str)) for n in ("video", "agent") if n in connection)


@pytest.mark.parametrize(
    "body",
    [
        b'{"list":[{"uuid":"a","uuid":"b"}]}',
        b'{"list":[{"uuid":"a","title":"\xff"}]}',
        b'{"list":[{"uuid":"a","title":"\\ud800"}]}',
        b'{"list":[{"uuid":"a","title":"\\u0000"}]}',
        b'{"list":[{"uuid":"a","room_insights":{"total_participant_minutes":NaN}}]}',
        b'{"list":[{"uuid":"a","room_insights":{"total_participant_minutes":9007199254740993}}]}',
        b'{"list":[{"uuid":"a"}]} {"list":[]}',
        b'{"list":[{"uuid":"a"}],"list":[]}',
        b'{"list":[null]}',
        b'{"list":null}',
        b'{"records":[]}',
        b'{"list":[{"uuid":"a"}]',
        b'{"list":[{"uuid":"a","new":null}]}',
        b'{"list":[],"count":NaN}',
        b"[]",
        b"null",
        b" null\n",
        b"",
        b"\xef\xbb\xbf{}",
    ],
)
def test_what_arrow_reads_otherwise_than_json_is_left_to_json(body: bytes) -> None:
    assert ColumnReader(RECORDINGS, "list").read(body) is None


@pytest.mark.parametrize("inside", ["[", '{"a":'])
def test_a_reply_nested_without_end_does_not_end_the_process(inside: str) -> None:
    """Arrow's parser calls itself for each level: 20,000 of them are a segmentation fault."""
    deep = inside * 100_000
    for body in (f'{{"list":[],"x":{deep}', f'{{"list":[],"s":"]]}}}}\\"[[","x":{deep}1'):
        assert ColumnReader(RECORDINGS, "list").read(body.encode()) is None


def test_a_long_page_of_shallow_records_is_not_taken_for_a_deep_one() -> None:
    segments = [{"text": 'a "quoted" [bracket] {brace}\\', "speaker": "]}"} for _ in range(60)]
    page = [{"id": f"m{i}", "transcript_segments": segments} for i in range(100)]
    assert ColumnReader(DESKTOP_RECORDINGS, "list").read(orjson.dumps({"list": page})) is not None


def test_every_declared_form_has_a_way_into_columns() -> None:
    """A form added to the declarations and forgotten here: its values would be stored as they came."""
    assert {form.name for form in Form} == {"PLAIN", "UNIX_SECONDS", "ID", "VIDEO_URL"}
    assert all(c.type is not Type.JSON for table, _, _ in TABLES.values() for c in table.columns)

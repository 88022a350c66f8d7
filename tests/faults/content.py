"""Faults 21 to 24: records that are no rows, and vendors that change their JSON."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from faults.case import VENDORS
from faults.network import HASTE
from faults.process import LISTS

if TYPE_CHECKING:
    from faults.case import Case

LIST_KEYS = {"screendesk": "records", "getscreen": "data", "posthog": "results"}
ROOT = {
    "screendesk": "screendesk.recordings",
    "getscreen": "getscreen.connections",
    "posthog": "posthog.desktop_recordings",
}
KEYS = {"screendesk": "uuid", "getscreen": "id", "posthog": "id"}


def counted(reply: dict[str, Any], more: int) -> None:
    """Raise the vendor's own count, wherever it is."""
    for name in ("count", "total"):
        if name in reply:
            reply[name] += more
    if "pagination" in reply:
        reply["pagination"]["count"] += more


def with_records(case: Case, vendor: str, records: list[Any]) -> None:
    """Serve these at the end of the vendor's list as well, on its last page."""

    def change(reply: dict[str, Any]) -> None:
        counted(reply, len(records))
        if _is_last(vendor, reply):
            reply[LIST_KEYS[vendor]] += records
            if "pagination" in reply:
                reply["pagination"]["to"] += len(records)

    case.rewrite(change, path_contains=LISTS[vendor], vendor=vendor)


def _is_last(vendor: str, reply: dict[str, Any]) -> bool:
    if vendor == "screendesk":
        return "next_page" not in reply["pagination"]
    if vendor == "posthog":
        return reply["next"] is None
    return bool(reply["data"]) and reply["offset"] + len(reply["data"]) >= reply["total"] - 5


def nested(depth: int) -> Any:
    value: Any = "bottom"
    for number in range(depth):
        value = {"deeper": value} if number % 2 else [value]
    return value


def poison(case: Case) -> None:
    """21: records without a usable key are kept aside, odd values are kept; nothing is wedged; a fix brings them in."""
    case.change(*LISTS)
    bad_keys: list[Any] = [None, "", [], {}, True, "k" * 600, 1.5]
    for vendor in VENDORS:
        some = case.world.screendesk.recordings if vendor == "screendesk" else (
            case.world.getscreen.connections if vendor == "getscreen" else case.world.posthog.desktop_recordings)  # fmt: skip
        like = some.get(some.keys()[-1])
        others = {"screendesk": [7], "getscreen": [2**63, 10**30, "x7", "-3"], "posthog": [3, "\ud800"]}[vendor]
        records: list[Any] = [like | {KEYS[vendor]: key} for key in case.rng.sample(bad_keys, 3) + others[:2]]
        records += [{n: v for n, v in like.items() if n != KEYS[vendor]}, case.rng.choice(["text", None, 12, [1, 2]])]
        # half of a page, at most, may be poison
        with_records(case, vendor, records[: 3 if vendor == "getscreen" else 2])
    run = case.sync(plan=HASTE)
    for vendor in VENDORS:
        case.quarantined(run, ROOT[vendor], 2)
    if case.deep:
        again = case.sync(plan=HASTE)
        case.expect(again.code == 0, f"the run after is wedged: {again.code}")
    case.world.faults.clear()
    _odd_values(case)
    _replay(case)


def _odd_values(case: Case) -> None:
    """Values nobody expects, in records with good keys: kept, in their column or in `_extra`."""
    world, recordings = case.world, case.world.screendesk.recordings
    with case.noting():
        keys = recordings.keys()
        recordings.update(keys[1], {"title": "t" * 5_000_000})
        recordings.update(keys[2], {"oddity": nested(100)})
        recordings.update(keys[3], {"title": "with \x00 in it"})
        recordings.update(keys[4], {"metadata.impressions_count": "many"})
        recordings.update(
            keys[5], {"_dlt_id": "mine", "_dlt_load_id": "mine too", "_row_hash": 1, "_deleted_at": "now"}
        )
        world.posthog.desktop_recordings.update(
            world.posthog.desktop_recordings.keys()[0], {"_extra": {"a": 1}, "notes": 12}
        )
        world.getscreen.connections.update(
            world.getscreen.connections.keys()[0], {"_dlt_list_idx": 3, "agent.name": ["x"]}
        )
    # 300 deep, a number of 40 digits, half a pair: what our own copy cannot be compared by
    deep, odd = json.dumps(nested(300)), json.dumps({"number": 10**40, "half": "\ud800"})
    key = recordings.keys()[6]

    def body(content: bytes) -> bytes:
        mark = b'{"uuid":"' + str(key).encode() + b'"'
        return content.replace(mark, mark + b',"deep":' + deep.encode() + b',"odd":' + odd.encode())

    case.fault("replace", vendor="screendesk", path_contains="recordings", times=None, body=body)
    case.expect(case.sync(plan=HASTE).code == 0, "odd values stopped a run")
    if case.ours:
        extra = case.query("SELECT _extra::VARCHAR FROM screendesk.recordings WHERE uuid = ?", key)[0][0] or ""
        case.expect(str(10**40) in extra and "deeper" in extra, f"the odd record kept {extra[:80]}")
    case.world.faults.clear()


def _replay(case: Case) -> None:
    """A record that had no key gets one: it becomes a row."""
    recordings = case.world.screendesk.recordings
    with case.noting():
        handle = recordings.insert(uuid=None)
    case.expect(case.sync("screendesk" if case.ours else "").code == 0, "a record without key stopped a run")
    with case.noting():
        fixed = recordings.get(handle) | {"uuid": "00000000-1111-2222-3333-444444444444"}
        recordings.replace(handle, fixed)


def contract_broken(case: Case) -> None:
    """22: most records of a page are no rows: the table stops, with its cursor where it was."""
    case.change(*LISTS)
    vendor = case.rng.choice(VENDORS)
    wreck = case.rng.choice(
        [lambda r: None, lambda r: "gone", lambda r: {n: v for n, v in r.items() if n != KEYS[vendor]}]
    )

    def change(reply: dict[str, Any]) -> None:
        reply[LIST_KEYS[vendor]] = [wreck(r) for r in reply[LIST_KEYS[vendor]]]

    case.rewrite(change, vendor=vendor, path_contains=LISTS[vendor])
    for _ in range(2):
        run = case.sync(plan=HASTE)
        case.resumed(run, vendor, says="the vendor's format changed")
        case.expect_ours(not run.receipts.get(ROOT[vendor], {}).get("deleted"), "rows were marked as deleted")


def additive_drift(case: Case) -> None:
    """23: new fields, new lists, two thousand of them at once: kept, reported, and no new column."""
    world = case.world
    columns = "SELECT count(*) FROM duckdb_columns() WHERE schema_name IN ('screendesk', 'getscreen', 'posthog')"
    before = case.query(columns)[0][0]
    with case.noting():
        keys = case.rng.sample(world.screendesk.recordings.keys(), 2)
        world.screendesk.recordings.update(keys[0], {"mood": "fine", "metadata.rating": 4.5})
        world.screendesk.recordings.update(keys[1], {"annotations": [{"at": 1, "text": "x"}, {"at": 2}]})
        world.posthog.desktop_recordings.update(world.posthog.desktop_recordings.keys()[1], {"tags": ["a", "b"]})
        world.getscreen.connections.update(world.getscreen.connections.keys()[1], {"agent.os": {"name": "Linux"}})
        world.getscreen.connections.update(world.getscreen.connections.keys()[2], {f"f_{n}": n for n in range(2000)})
    case.recovered(case.sync(), "a run that met new fields")
    if case.ours:
        after = case.query(columns)[0][0]
        case.expect(after == before, f"{after - before} columns were added")
        seen = {path for (path,) in case.query("SELECT path FROM ops.drift")}
        case.expect(len(seen) < 1200, f"{len(seen)} paths are named in ops.drift")
        case.expect({"*", "mood", "metadata.rating", "annotations", "tags"} <= seen, f"reported: {sorted(seen)[:9]}")
    else:
        grown = case.query(columns)[0][0] - before
        case.expect(grown < 100, f"{grown} columns were added without a word")


def breaking_drift(case: Case) -> None:
    """24: types change, fields are renamed or gone, names collide: the true value is kept, and it is reported."""
    world, recordings = case.world, case.world.screendesk.recordings
    with case.noting():
        keys = case.rng.sample(recordings.keys(), 6)
        recordings.update(keys[0], {"metadata.impressions_count": "forty-two"})
        recordings.update(keys[1], {"metadata": ["an", "object", "once"]})
        recordings.update(keys[2], {"title": {"en": "Title"}})
        recordings.update(keys[3], {"userId": 1, "user_id": 2, "UserID": 3})
        recordings.update(keys[4], {"room_insights.participants_insights": "none"})
        moved = recordings.get(keys[5])
        recordings.replace(keys[5], {("headline" if n == "title" else n): v for n, v in moved.items()})
        meetings = world.posthog.desktop_recordings
        meetings.update(meetings.keys()[0], {"transcript_segments": {"first": "segment"}})
        meetings.update(meetings.keys()[1], {"participants": ["a", 7, None, {"name": "b"}]})
        world.getscreen.connections.update(world.getscreen.connections.keys()[0], {"start": "yesterday"})
    run = case.sync()
    case.recovered(run, "a run that met other types")
    if case.ours:
        seen = set(case.query("SELECT table_name, path, kind FROM ops.drift"))
        for path in ("metadata.impressions_count", "title", "metadata"):
            case.expect(
                ("screendesk.recordings", path, "other type") in seen, f"{path} was not reported: {sorted(seen)[:9]}"
            )
        extra = case.query("SELECT _extra::VARCHAR FROM screendesk.recordings WHERE uuid = ?", keys[3])[0][0]
        case.expect(
            all(name in extra for name in ("userId", "user_id", "UserID")), f"of colliding names {extra} is left"
        )
    else:
        ids = "SELECT * FROM screendesk.recordings WHERE uuid = ?"
        case.expect(
            "3" in str(case.query(ids, keys[3])) and "forty-two" in str(case.query(ids, keys[0])), "a value vanished"
        )
        silent = case.query("SELECT count(*) FROM duckdb_columns() WHERE column_name LIKE '%\\_\\_v\\_%' ESCAPE '\\'")[
            0
        ][0]
        case.expect(not silent, f"{silent} variant columns appeared without a word, and the old ones show NULL")

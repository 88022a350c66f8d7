"""Faults 25 to 30: lists that lead nowhere, move while they are read, or lie about time; and rows that go away."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from faults.content import LIST_KEYS, ROOT
from faults.network import HASTE
from faults.process import LISTS

if TYPE_CHECKING:
    from faults.case import Case


def endless(case: Case) -> None:
    """25: `next` that loops, a cursor that stands still, and empty pages with a next."""
    case.change(*LISTS)
    first = case.rng.randrange(2)

    def same_page(reply: dict[str, Any]) -> None:
        pagination = reply["pagination"]
        pagination |= {"page": 1, "next_page": 2, "last_page": 50, "pages": 50}
        reply["records"] = reply["records"][:5]

    def loops(reply: dict[str, Any]) -> None:
        reply["next"] = "http://127.0.0.1/api/projects/1/desktop_recordings/?limit=20&offset=20"
        if first:
            reply["results"] = []

    def stands_still(reply: dict[str, Any]) -> None:
        reply["offset"] = 0
        reply["total"] = 10**6
        reply["data"] = case.world.getscreen.connections.all()[:40]

    case.rewrite(same_page, path_contains="recordings", vendor="screendesk")
    case.rewrite(loops, path_contains="desktop_recordings", vendor="posthog")
    case.rewrite(stands_still, path_contains="history/list", vendor="getscreen")
    case.world.requests.clear()
    run = case.sync(plan=HASTE)
    case.resumed(run, "screendesk", "getscreen", "posthog")
    asked = len(case.world.requests)
    case.expect(asked < 400, f"{asked} requests to lists without end")


def moving(case: Case) -> None:
    """26: rows are added and taken away while the list is read; pages overlap."""
    world = case.world

    def shift() -> None:
        with case.noting():
            for _ in range(case.rng.randrange(1, 4)):
                world.screendesk.recordings.insert()
            if case.ours:
                # merge alone shows no deletes: plain dlt is judged for that once, by fault 30
                world.screendesk.recordings.delete(case.rng.choice(world.screendesk.recordings.keys()[30:]))
            world.getscreen.connections.insert()
            world.posthog.desktop_recordings.insert()

    case.change(*LISTS)
    for vendor, path in LISTS.items():
        case.meanwhile(
            shift, vendor=vendor, path_contains=path, after=case.rng.randrange(1, 3), times=case.rng.randrange(1, 3)
        )

    def overlap(reply: dict[str, Any]) -> None:
        reply["records"] = reply["records"] + reply["records"][-1:]

    case.rewrite(overlap, vendor="screendesk", path_contains="recordings", query={"page": "3"}, times=1)
    case.recovered(case.sync(plan=HASTE), "a run through lists that move")


def versions(case: Case) -> None:
    """27: two versions of a key in one pass, the old one last; and a page from a stale replica in a later run."""
    recordings, meetings = case.world.screendesk.recordings, case.world.posthog.desktop_recordings
    old, old_meeting = recordings.get(recordings.keys()[0]), meetings.get(meetings.keys()[0])
    # of two versions with one and the same date nobody can tell which is the newer
    case.world.advance(timedelta(minutes=5))
    case.change(*LISTS)
    with case.noting():
        recordings.update(old["uuid"], {"title": "the newest"})
        meetings.update(old_meeting["id"], {"notes": "the newest"})

    def both(reply: dict[str, Any]) -> None:
        reply["records"] = [*reply["records"], old]

    def both_meetings(reply: dict[str, Any]) -> None:
        reply["results"] = [old_meeting, *reply["results"]]

    case.rewrite(both, vendor="screendesk", path_contains="recordings", times=1, query={"page": "1"})
    case.rewrite(both_meetings, vendor="posthog", times=1)
    case.recovered(case.sync(plan=HASTE), "a run with two versions of a row")
    case.world.faults.clear()
    case.expect_ours(_shown(case, old["uuid"]) == "the newest", "an older version in one pass won")

    def stale(reply: dict[str, Any]) -> None:
        reply["records"] = [old if r["uuid"] == old["uuid"] else r for r in reply["records"]]
        reply["results"] = [old_meeting if r["id"] == old_meeting["id"] else r for r in reply.get("results", [])]

    case.rewrite(stale, vendor="screendesk", path_contains="/recordings", query={"page": "1"})
    run = case.sync(plan=HASTE)
    case.recovered(run, "a run with a page from a stale replica")
    case.expect(_shown(case, old["uuid"]) == "the newest", "a stale page overwrote a newer row")


def _shown(case: Case, key: Any) -> Any:
    rows = case.query("SELECT title FROM screendesk.recordings WHERE uuid = ?", key)
    return rows[0][0] if rows else None


def late(case: Case) -> None:
    """28: rows that arrive with old dates, many rows at one instant, and ties at a page's edge."""
    world = case.world
    with case.noting():
        old = "2026-08-01T07:00:00.000Z"
        world.screendesk.recordings.insert(metadata__created_at=old, metadata__updated_at=old)
        world.getscreen.connections.insert(start=1_785_000_000, stop=1_785_000_600)
        instant = world.posthog.desktop_recordings.get(world.posthog.desktop_recordings.keys()[0])["started_at"]
        for _ in range(case.rng.randrange(15, 30)):
            world.posthog.desktop_recordings.insert(started_at=instant)
        for key in case.rng.sample(world.screendesk.recordings.keys(), 5):
            world.screendesk.recordings.update(
                key, {"title": "same instant", "metadata.updated_at": "2026-11-20T18:00:00.000Z"}
            )
        near = world.posthog.desktop_recordings.keys()[3]
        world.posthog.desktop_recordings.update(
            near, {"updated_at": "2026-11-20T18:00:00.000001Z", "notes": "a microsecond"}
        )
    case.recovered(case.sync(), "a run with late rows and ties")


def wrong_clocks(case: Case) -> None:
    """29: a row dated 2099, a vendor a day ahead, and a machine whose clock jumps back."""
    world, recordings = case.world, case.world.screendesk.recordings
    with case.noting():
        far = "2099-01-01T00:00:00.000Z"
        recordings.update(recordings.keys()[0], {"metadata.updated_at": far, "title": "from the future"}, touch=False)
        meetings = world.posthog.desktop_recordings
        meetings.update(meetings.keys()[0], {"updated_at": "2099-01-01T00:00:00Z"}, touch=False)
        world.getscreen.connections.insert(start=4_070_908_800, stop=4_070_909_400)
        world.now += timedelta(days=case.rng.choice([-1, 1]))
    run = case.sync()
    case.recovered(run, "a run with rows from the future")
    now = datetime.now(UTC)
    for table, receipt in run.receipts.items():
        cursor = receipt["cursor_after"]
        case.expect(
            cursor is None or datetime.fromisoformat(cursor) <= now + timedelta(minutes=1), f"{table}: cursor {cursor}"
        )
    if case.ours:
        flagged = {table for (table,) in case.query("SELECT table_name FROM ops.drift WHERE kind = 'future time'")}
        case.expect({"screendesk.recordings", "posthog.desktop_recordings"} <= flagged, f"flagged: {flagged}")
    case.change(*LISTS)
    case.recovered(
        case.sync(plan={"clock_shift": case.rng.choice([-86_400 * 3, -3600, 86_400])}), "a run with a wrong clock"
    )
    # the row from the future changes, and so do others
    with case.noting():
        recordings.update(recordings.keys()[-1], {"title": "changed after"})
        recordings.update(recordings.keys()[0], {"title": "changed too"})


def deleted(case: Case) -> None:
    """30: rows go at the vendor; rows only hide; a list is suddenly short."""
    world, recordings = case.world, case.world.screendesk.recordings
    with case.noting():
        gone = case.rng.sample(recordings.keys(), 3)
        for key in gone:
            recordings.delete(key)
        world.screendesk.users.delete(world.screendesk.users.keys()[-1])
        world.posthog.desktop_recordings.delete(case.rng.choice(world.posthog.desktop_recordings.keys()))
        world.getscreen.connections.delete(case.rng.choice(world.getscreen.connections.keys()))
    hidden = recordings.keys()[:2]

    def hide(reply: dict[str, Any]) -> None:
        reply["records"] = [r for r in reply["records"] if r["uuid"] not in hidden]
        reply["pagination"]["count"] -= len(hidden)
        reply["pagination"]["to"] -= len(hidden)

    case.rewrite(hide, vendor="screendesk", path_contains="/recordings", query={"page": "1"})
    for page in range(2, 6):
        case.rewrite(_less(len(hidden)), vendor="screendesk", path_contains="/recordings", query={"page": str(page)})
    case.recovered(case.sync(plan=HASTE), "a run after deletions")
    if case.ours:
        marked = {key for (key,) in case.query("SELECT uuid FROM screendesk.recordings WHERE _deleted_at IS NOT NULL")}
        case.expect(marked == set(gone), f"marked as deleted: {len(marked)}, deleted: {len(gone)}")
    case.world.faults.clear()
    vendor = case.rng.choice(list(LISTS))

    def short(reply: dict[str, Any]) -> None:
        reply[LIST_KEYS[vendor]] = reply[LIST_KEYS[vendor]][:1]
        for name in ("count", "total"):
            if name in reply:
                reply[name] = 1
        reply |= {"next": None} if "next" in reply else {}
        if "pagination" in reply:
            reply["pagination"] = {"count": 1, "page": 1, "items": 20, "pages": 1, "last_page": 1, "from": 1, "to": 1}

    case.rewrite(short, vendor=vendor, path_contains=LISTS[vendor])
    run = case.sync(plan=HASTE)
    case.resumed(run, vendor, says="vanished at once")
    if case.ours:
        sql = f"SELECT count(*) FROM {ROOT[vendor]} WHERE _deleted_at IS NOT NULL"
        case.expect(case.query(sql)[0][0] <= 3, "a short list emptied a table")


def _less(number: int) -> Any:
    def change(reply: dict[str, Any]) -> None:
        reply["pagination"]["count"] -= number

    return change

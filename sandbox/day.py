"""One plausible day in the life of a support team."""

from __future__ import annotations

import random
from collections import defaultdict
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from sandbox.clock import to_millis
from sandbox.records import look_up

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sandbox.records import Record
    from sandbox.tables import Key, Table
    from sandbox.world import World

    Step = tuple[str, Callable[[], Key | None]]

_WORKING_DAYS = 85
_DAY_MILLIS = 86_400_000
_RECENT = 400


def live(world: World, deletes: int) -> dict[str, int]:
    """Move the clock a day on and let things happen on the way; returns how many records of each table changed."""
    rng = random.Random(f"{world.seed}:day:{world.days_lived}")
    world.days_lived += 1
    morning = world.now
    steps = [*_screendesk(world, rng, deletes), *_getscreen(world, rng), *_posthog(world, rng)]
    rng.shuffle(steps)
    moments = sorted(rng.randrange(_DAY_MILLIS) for _ in steps)
    changed: dict[str, set[Key]] = defaultdict(set)
    for moment, (table, step) in zip(moments, steps, strict=True):
        world.now = morning + timedelta(milliseconds=moment)
        key = step()
        if key is not None:
            changed[table].add(key)
    world.now = morning + timedelta(days=1)
    tables = ("screendesk.recordings", "screendesk.users", "getscreen.connections", "posthog.desktop_recordings")
    return {table: len(changed[table]) for table in tables}


def _screendesk(world: World, rng: random.Random, deletes: int) -> Iterator[Step]:
    recordings, users = world.screendesk.recordings, world.screendesk.users
    old = recordings.keys()
    busy = [key for key in old[:_RECENT] if look_up(recordings.get(key), "room_insights.participants_insights")]
    picked = rng.sample(old, min(len(old), 2 * _volume(recordings) + deletes))
    doomed, edited = picked[:deletes], picked[deletes:]

    def edit(key: Key) -> Key:
        title = recordings.get(key)["title"] or "Untitled"
        recordings.update(key, {"title": f"{title} (reviewed)", "summary": "Checked by the second line ✓"})
        return key

    def view(key: Key) -> Key:
        seen = look_up(recordings.get(key), "metadata.impressions_count", 0)
        recordings.update(key, {"metadata.impressions_count": seen + rng.randrange(1, 4)}, touch=False)
        return key

    def remove(key: Key) -> Key:
        recordings.delete(key)
        return key

    def join(key: Key) -> Key:
        person = rng.choice(world.cast.customers)
        late = world.screendesk.recording_maker.participant(person, "participant", to_millis(world.now), None)
        return _change_people(recordings, key, lambda people: [*people, late])

    def leave(key: Key) -> Key:
        return _change_people(recordings, key, lambda people: people[:-1])

    def label(key: Key) -> Key:
        recordings.update(key, {"metadata.sentiment": rng.choice(("positive", "neutral", "negative"))})
        return key

    def rename(key: Key) -> Key:
        users.update(key, {"name": f"{users.get(key)['name']} (on leave)"})
        return key

    name = "screendesk.recordings"
    yield from ((name, recordings.insert) for _ in range(_volume(recordings)))
    half = (len(edited) + 1) // 2
    yield from _on(name, edit, edited[:half])
    yield from _on(name, view, edited[half:])
    yield from _on(name, remove, doomed)
    spared = [key for key in busy if key not in doomed]
    for action, key in zip((join, leave), spared, strict=False):
        yield from _on(name, action, [key])
    yield from _on(name, label, [key for key in old[-1:] if key not in doomed])
    yield "screendesk.users", users.insert
    yield from _on("screendesk.users", rename, users.keys()[:1])


def _getscreen(world: World, rng: random.Random) -> Iterator[Step]:
    connections = world.getscreen.connections
    settled = [key for key in connections.keys()[:_RECENT] if _ended_without_video(connections.get(key))]

    def close(key: Key) -> Key:
        connections.close(key)
        return key

    def attach(key: Key) -> Key:
        video = {"url": f"https://st.getscreen.example/video/late/{key}.mp4", "size": rng.randrange(10**6, 10**8)}
        connections.update(key, {"video": video})
        return key

    name = "getscreen.connections"
    yield from ((name, connections.insert) for _ in range(_volume(connections)))
    yield from _on(name, close, connections.still_open()[-1:])
    yield from _on(name, attach, settled[:1])


def _posthog(world: World, rng: random.Random) -> Iterator[Step]:
    meetings, maker = world.posthog.desktop_recordings, world.posthog.meeting_maker
    keys = meetings.keys()
    talking = [key for key in keys if meetings.get(key)["status"] == "recording"]

    def hold() -> Key:
        return meetings.insert(maker.record(world.now, world.now))

    def talk(key: Key) -> Key:
        said = meetings.get(key)["transcript_segments"]
        end = max((segment["timestamp"] or 0.0 for segment in said), default=0.0)
        meetings.append_segments(key, maker.segments(rng.randrange(5, 40), after=end))
        return key

    def finish(key: Key) -> Key:
        speakers = {segment["speaker"]: None for segment in meetings.get(key)["transcript_segments"]}
        people = [speaker for speaker in speakers if speaker]
        meetings.update(key, {"status": "ready", "participants": people})
        return key

    def note(key: Key) -> Key:
        meetings.update(key, {"notes": "Follow up with the account owner."})
        return key

    name = "posthog.desktop_recordings"
    yield from ((name, hold) for _ in range(max(2, len(meetings) // _WORKING_DAYS)))
    yield from _on(name, talk, talking[:1])
    yield from _on(name, finish, talking[1:2])
    yield from _on(name, note, [key for key in keys[-1:] if key not in talking])


def _ended_without_video(connection: Record) -> bool:
    return bool(connection.get("stop")) and connection.get("video") is None


def _on(table: str, action: Callable[[Key], Key], keys: list[Key]) -> Iterator[Step]:
    for key in keys:
        yield table, lambda key=key: action(key)  # type: ignore[misc]


def _volume(table: Table[Any]) -> int:
    return max(3, len(table) // _WORKING_DAYS)


def _change_people(recordings: Table[Any], key: Key, change: Callable[[list[Any]], list[Any]]) -> Key:
    path = "room_insights.participants_insights"
    people = change(look_up(recordings.get(key), path))
    recordings.update(key, {path: people, "room_insights.total_unique_participants": len(people)})
    return key

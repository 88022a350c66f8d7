"""Invents meetings with transcripts."""

# ruff: noqa: PLR2004 - probabilities of made-up data are clearest where they are drawn

from __future__ import annotations

import random
import uuid
from datetime import timedelta
from typing import TYPE_CHECKING

from sandbox import vocabulary as words
from sandbox.clock import WorkingHours, django_time, from_millis
from sandbox.credentials import POSTHOG_PROJECT_ID

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from sandbox.people import Cast, Person
    from sandbox.records import Record

TEAM = int(POSTHOG_PROJECT_ID)
_SEGMENTS = (10, 300)
_TIE_EVERY = 12
_STATUSES = ("ready",) * 82 + ("error",) * 7 + ("uploading",) * 4 + ("recording",) * 5 + ("processing",) * 2
_PLATFORMS = ("zoom",) * 45 + ("meet",) * 25 + ("teams",) * 15 + ("desktop_audio",) * 10 + ("slack",) * 5
_LINKS = {
    "zoom": "https://zoom.example/j/{code}",
    "meet": "https://meet.example/{code}",
    "teams": "https://teams.example/l/meetup-join/{code}",
    "slack": "https://slack.example/huddle/{code}",
}


class MeetingMaker:
    """Makes meetings one after another; the same seed gives the same ones."""

    def __init__(self, seed: int, cast: Cast, hours: WorkingHours) -> None:
        self._rng = random.Random(f"{seed}:posthog.desktop_recordings")
        self._cast = cast
        self._hours = hours

    def history(self, count: int, now: datetime) -> Iterator[Record]:
        """The meetings of the past. Some began at the same instant, to the microsecond."""
        started: datetime | None = None
        for number in range(count):
            if started is None or number % _TIE_EVERY:
                started = from_millis(self._hours.millis(self._rng)) + timedelta(microseconds=self._rng.randrange(1000))
                if self._rng.random() < 0.05:
                    started = started.replace(microsecond=0)
            # the first three cover a meeting under way, one nobody spoke in, and one that was never named
            yield self.record(min(started, now), now, rare=number)

    def fresh(self, now: datetime) -> Record:
        """A meeting that has just begun: nobody has spoken yet."""
        return self._assemble(now, now, "recording", [], [])

    def segments(self, count: int, *, after: float = 0.0, speakers: tuple[str, ...] = ()) -> list[Record]:
        """The next things said in a meeting, from `after` milliseconds on."""
        rng = self._rng
        names = speakers or tuple(person.name for person in self._people(3))
        at = after
        said = []
        for _ in range(count):
            chance = rng.random()
            at += int(rng.expovariate(1 / 4200)) + 300
            speaker: str | None = names[int(rng.random() * len(names))]
            if chance < 0.04:
                speaker = None if chance < 0.025 else ""
            said.append({
                "timestamp": None if chance > 0.995 else (0.0 if chance > 0.985 else float(at)),
                "speaker": speaker,
                "text": rng.choice(words.UTTERANCES),
                "confidence": round(0.6 + rng.random() * 0.4, 3) if 0.2 < chance < 0.35 else None,
                "is_final": None if chance > 0.99 else True,
            })  # fmt: skip
        return said

    def record(self, started: datetime, now: datetime, *, rare: int = 99) -> Record:
        """A meeting that began at `started`, as it looks at `now`."""
        rng = self._rng
        status = "recording" if rare == 0 else rng.choice(_STATUSES)
        low, high = _SEGMENTS
        length = int(low * (high / low) ** rng.random())
        people = self._people(rng.randrange(2, 7))
        said: list[Record] = []
        if rare != 1 and (status != "error" or rng.random() < 0.6) and rng.random() > 0.03:
            said = self.segments(length, speakers=tuple(person.name for person in people))
        return self._assemble(started, now, status, people, said, named=rare != 2)

    def _people(self, count: int) -> list[Person]:
        agents = [self._rng.choice(self._cast.owners) for _ in range(max(1, count - 1))]
        return list(dict.fromkeys([*agents, self._rng.choice(self._cast.customers)]))

    def _assemble(
        self,
        started: datetime,
        now: datetime,
        status: str,
        people: list[Person],
        said: list[Record],
        *,
        named: bool = True,
    ) -> Record:
        rng = self._rng
        platform = rng.choice(_PLATFORMS)
        done = status == "ready"
        summarised = done and bool(said) and rng.random() < 0.7
        created = min(started + timedelta(microseconds=rng.randrange(900, 9000)), now)
        spoken = max((segment["timestamp"] or 0 for segment in said), default=0)
        ended = min(created + timedelta(milliseconds=spoken + 20_000), now)
        summary_at = min(ended + timedelta(seconds=rng.randrange(20, 400)), now)
        updated = summary_at if summarised else (ended if said else created)
        timed = done and rng.random() < 0.2
        company = rng.choice(words.CUSTOMER_DOMAINS).split(".")[0].title()
        title = rng.choice(words.MEETING_TITLES).replace("{company}", company)
        link = _LINKS.get(platform, "").replace("{code}", f"{rng.getrandbits(40):x}") if rng.random() < 0.7 else ""
        return {
            "id": self._uuid7(created),
            "team": TEAM,
            "created_by": 100 + rng.randrange(max(1, len(self._cast.agents))) if rng.random() < 0.94 else None,
            "sdk_upload_id": str(uuid.UUID(int=rng.getrandbits(128), version=4)),
            "recall_recording_id": str(uuid.UUID(int=rng.getrandbits(128), version=4)) if rng.random() < 0.15 else None,
            "platform": platform,
            "meeting_title": title if named and rng.random() < 0.75 else None,
            "meeting_url": link or None,
            "duration_seconds": int(spoken / 1000) + 20 if timed else None,
            "status": status,
            "notes": rng.choice(words.DESCRIPTIONS) if rng.random() < 0.1 else None,
            "error_message": "Upload failed: network connection was lost" if status == "error" else None,
            "video_url": f"https://recall.example/video/{rng.getrandbits(64):016x}.mp4" if timed else None,
            "video_size_bytes": rng.randrange(10_000_000, 6_000_000_000) if timed else None,
            "participants": [] if status == "recording" else [self._shown(person) for person in people],
            "transcript_text": " ".join(segment["text"] for segment in said),
            "transcript_segments": said,
            "summary": rng.choice(words.SUMMARIES) if summarised else None,
            "extracted_tasks": self._tasks(people) if summarised else [],
            "tasks_generated_at": django_time(summary_at) if summarised else None,
            "summary_generated_at": django_time(summary_at) if summarised else None,
            "started_at": django_time(started),
            "completed_at": django_time(ended) if timed else None,
            "created_at": django_time(created),
            "updated_at": django_time(updated),
        }

    def _shown(self, person: Person) -> str:
        return person.email if self._rng.random() < 0.12 else person.name

    def _tasks(self, people: list[Person]) -> list[Record]:
        rng = self._rng
        tasks = []
        for title, description in rng.sample(words.TASKS, rng.randrange(4)):
            task: Record = {"title": title, "assignee": rng.choice(people).name if rng.random() < 0.7 else None}
            if rng.random() < 0.75:
                task["description"] = description
            tasks.append(task)
        return tasks

    def _uuid7(self, created: datetime) -> str:
        millis = int(created.timestamp() * 1000)
        return str(
            uuid.UUID(
                int=millis << 80 | 7 << 76 | self._rng.getrandbits(12) << 64 | 2 << 62 | self._rng.getrandbits(62)
            )
        )

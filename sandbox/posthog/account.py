"""A PostHog project: its key, how it behaves, its desktop recordings."""

from __future__ import annotations

import random
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from sandbox.clock import django_time
from sandbox.credentials import POSTHOG_KEY, POSTHOG_PROJECT_ID
from sandbox.posthog.meetings import MeetingMaker
from sandbox.tables import Entry, Key, Order, Table

if TYPE_CHECKING:
    from sandbox.records import Record
    from sandbox.scene import Scene


@dataclass
class PosthogSettings:
    """How this PostHog differs from others, as knobs.

    Attributes:
        projects_prefix: false answers 404 under /api/projects/, as the first builds did.
        environments_prefix: false answers 404 under /api/environments/, as the last builds do.
        next_scheme: the scheme `next` is given instead of the request's; a mis-proxied self-host says http.
        next_host: the host `next` is given instead of the request's.
        refusal: a valid key that may still not read: no scope, other project, no member, or barred by the organisation.
        burst_per_minute: the vendor's cloud allows 480; None is no limit.
        sustained_per_hour: the vendor's cloud allows 4800; None is no limit.
    """

    projects_prefix: bool = True
    environments_prefix: bool = True
    next_scheme: str | None = None
    next_host: str | None = None
    refusal: Literal["scope", "project", "membership", "organization"] | None = None
    burst_per_minute: int | None = None
    sustained_per_hour: int | None = None


class MeetingFacts(NamedTuple):
    """What meetings are sorted and filtered by."""

    started_at: str
    id: str
    platform: str
    status: str
    created_by: str


def _instant(started_at: str) -> str:
    # a whole second has no fraction in the JSON, and would sort after its own fractions
    return started_at if "." in started_at else started_at.replace("Z", ".000000Z")


# ids break ties only so that a world is deterministic; `page` undoes it on each request
_ORDER = Order("started_at_desc", lambda facts: (_instant(facts.started_at), facts.id))


class DesktopRecordings(Table[MeetingFacts]):
    """The project's meetings."""

    def append_segments(self, key: Key, segments: list[Record], *, touch: bool = True) -> int:
        """Append to a transcript as the vendor's endpoint does, and return how many were kept.

        A segment whose timestamp is already stored is dropped; those without one are always kept.
        """
        with self.lock:
            stored: list[Record] = self.get(key)["transcript_segments"]
            known = {segment["timestamp"] for segment in stored if segment["timestamp"] is not None}
            kept = [_segment(segment) for segment in segments if segment.get("timestamp") not in known]
            combined = [*stored, *kept]
            text = " ".join(segment["text"] for segment in combined)
            self.update(key, {"transcript_segments": combined, "transcript_text": text}, touch=touch)
            return len(kept)


class Posthog:
    """The project as tests and the API see it."""

    def __init__(self, scene: Scene, meetings: int) -> None:
        seed, clock, _, cast, hours = scene
        self.token = POSTHOG_KEY
        self.project_id = POSTHOG_PROJECT_ID
        self.settings = PosthogSettings()
        self.meeting_maker = MeetingMaker(seed, cast, hours)
        self.calls: deque[float] = deque()
        self._seed = seed
        self._pages = 0
        self.desktop_recordings = DesktopRecordings(
            "id",
            scene=scene,
            describe=_meeting_facts,
            order=lambda: _ORDER,
            make=self.meeting_maker.fresh,
            updated_at=("updated_at", django_time),
        )
        self.desktop_recordings.load(self.meeting_maker.history(meetings, clock.now))

    def page(self, entries: list[Entry[MeetingFacts]], offset: int, limit: int) -> list[bytes]:
        """A page of entries, where those that began together come in a new order on every request."""
        self._pages += 1
        end = min(offset + limit, len(entries))
        first, last = offset, end
        while 0 < first < len(entries) and _tied(entries[first - 1], entries[first]):
            first -= 1
        while 0 < last < len(entries) and _tied(entries[last - 1], entries[last]):
            last += 1
        rows: list[bytes] = []
        together: list[Entry[MeetingFacts]] = []
        for entry in entries[first:last]:
            if together and not _tied(together[-1], entry):
                rows += self._shuffled(together)
                together = []
            together.append(entry)
        rows += self._shuffled(together)
        return rows[offset - first : end - first]

    def _shuffled(self, together: list[Entry[MeetingFacts]]) -> list[bytes]:
        if len(together) > 1:
            random.Random(f"{self._seed}:ties:{self._pages}").shuffle(together)
        return [entry.body for entry in together]


def _tied(one: Entry[MeetingFacts], other: Entry[MeetingFacts]) -> bool:
    return one.facts.started_at == other.facts.started_at


def _segment(given: Record) -> Record:
    text = given.get("text")
    if not isinstance(text, str) or not text.strip():
        raise ValueError("a segment needs a text")
    defaults: dict[str, Any] = {"timestamp": None, "speaker": None, "text": "", "confidence": None, "is_final": None}
    segment = {name: given.get(name, default) for name, default in defaults.items()}
    return segment | {"text": text.strip()}


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _meeting_facts(record: Record) -> MeetingFacts:
    return MeetingFacts(
        started_at=_text(record.get("started_at")),
        id=_text(record.get("id")),
        platform=_text(record.get("platform")),
        status=_text(record.get("status")),
        created_by=str(record.get("created_by")),
    )

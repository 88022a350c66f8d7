"""Invents recordings and users."""

# ruff: noqa: PLR2004 - probabilities of made-up data are clearest where they are drawn

from __future__ import annotations

import random
import uuid
from typing import TYPE_CHECKING

from sandbox import vocabulary as words
from sandbox.clock import WorkingHours, rails_time, to_millis

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from sandbox.people import Cast, Person
    from sandbox.records import Record

LIVE_SHARE = 0.3
_LOG_LINES = 2000
_SECOND = 1000
_HOUR = 3_600_000

# platform, what the label says, the ids that platform fills in, its share
_HELPDESKS = (
    ("zendesk", "Zendesk Ticket", ("ticket_id", "operator_id", "customer_id"), 34),
    ("intercom", "Intercom Operator", ("conversation_id", "user_id", "operator_id"), 24),
    ("freshdesk", "Freshdesk Ticket", ("ticket_id", "customer_id"), 9),
    ("freshdesk_chat", "Freshdesk Chat", ("conversation_id", "user_id"), 4),
    ("helpscout", "Help Scout Conversation", ("conversation_id", "customer_id"), 7),
    ("jira", "Jira Issue", ("issue_id",), 6),
    ("screendesk app", "Screendesk App", (), 10),
    ("hubspot", "HubSpot Ticket", ("ticket_id", "customer_id"), 4),
    ("freshservice", "Freshservice Ticket", ("ticket_id",), 2),
)
_HELPDESK_DRAWS = tuple(helpdesk for helpdesk in _HELPDESKS for _ in range(helpdesk[3]))
_IDS = ("conversation_id", "ticket_id", "user_id", "operator_id", "customer_id", "issue_id")


class RecordingMaker:
    """Makes recordings one after another; the same seed gives the same ones."""

    def __init__(self, seed: int, cast: Cast, hours: WorkingHours) -> None:
        self._rng = random.Random(f"{seed}:screendesk.recordings")
        self._cast = cast
        self._hours = hours
        self._log = [f"+{7.0 + n * 0.377:.3f}s {self._rng.choice(words.LOG_MESSAGES)}" for n in range(_LOG_LINES)]

    def history(self, count: int, now: datetime) -> Iterator[Record]:
        """The recordings of the past."""
        present = to_millis(now)
        for number in range(count):
            record = self.record(self._hours.millis(self._rng), present)
            if number == 11:
                record["console_logs"] = "[log] clipboard: \u0000\u0001 binary paste\n[log] done"
            yield record

    def fresh(self, now: datetime) -> Record:
        """A recording made just now: its video is still being processed."""
        present = to_millis(now)
        return self.record(present, present)

    def record(self, created: int, present: int) -> Record:
        """A recording made at `created`, as it looks at `present`."""
        rng = self._rng
        chance = rng.random
        person, owner = rng.choice(self._cast.customers), rng.choice(self._cast.owners)
        uid = str(uuid.UUID(int=rng.getrandbits(128), version=4))
        live = chance() < LIVE_SHARE
        age = present - created
        settled = age > 2 * 60 * _SECOND
        seconds = int(20 + rng.lognormvariate(4.6, 0.9)) if settled and chance() < 0.97 else None
        title = rng.choice(words.COMPLAINTS).replace("{product}", rng.choice(words.PRODUCTS))
        return {
            "uuid": uid,
            "title": title if chance() < 0.9 else None,
            "summary": rng.choice(words.SUMMARIES) if settled and chance() < 0.6 else None,
            "description": rng.choice(words.DESCRIPTIONS) if settled and chance() < 0.45 else None,
            "metadata": {
                "created_at": rails_time(created),
                "updated_at": rails_time(self._updated(created, present)),
                "duration": seconds,
                "impressions_count": int(rng.expovariate(0.4)) if settled else 0,
                **self._origin(uid, live=live),
            },
            "technical_details": self._technical(person),
            "console_logs": self._console(person, created),
            "customer": None if chance() < 0.01 else {"email": person.email if chance() < 0.85 else None},
            "user": {"email": owner.email, "name": owner.name} if chance() < 0.93 else None,
            "room_insights": self._room(person, owner, created, present) if live else None,
        }

    def participant(self, person: Person, role: str, joined: int, left: int | None) -> Record:
        """One person's part in a live call."""
        rng = self._rng
        machine = person.machine
        return {
            "participant_id": f"{rng.getrandbits(64):016x}",
            "display_name": person.name if rng.random() < 0.93 else None,
            "role": role if rng.random() < 0.95 else None,
            "browser": machine.browser,
            "os": machine.os,
            "device": machine.device if rng.random() < 0.8 else None,
            "device_type": machine.device_type,
            "user_agent": machine.user_agent if rng.random() < 0.9 else None,
            "joined_at": rails_time(joined),
            "left_at": None if left is None else rails_time(left),
        }

    def _updated(self, created: int, present: int) -> int:
        chance = self._rng.random()
        if chance < 0.6:
            later = int(8_000 * (0.2 + chance))
        elif chance < 0.9:
            later = int((chance - 0.6) * 48 * _HOUR)
        else:
            later = int((chance - 0.9) * 10 * (present - created))
        return min(created + later, present)

    def _origin(self, uid: str, *, live: bool) -> Record:
        rng = self._rng
        platform, label, filled, _ = rng.choice(_HELPDESK_DRAWS)
        ids: dict[str, str | None] = dict.fromkeys(_IDS)
        for name in filled:
            if rng.random() < 0.95:
                ids[name] = f"SUP-{rng.randrange(1, 9999)}" if name == "issue_id" else str(rng.randrange(1000, 999_999))
        return {
            "recording_type": "Live" if live else ("Received" if rng.random() < 0.8 else "Sent"),
            "recording_source": "Live Call" if live else label,
            "url": f"https://app.screendesk.example/recordings/{uid}",
            "helpdesk_info": None if rng.random() < 0.03 else {"platform": platform, **ids},
        }

    def _technical(self, person: Person) -> Record | None:
        chance = self._rng.random
        if chance() < 0.02:
            return None
        return {
            "vendor": person.machine.browser if chance() < 0.97 else None,
            "ip_address": person.ip if chance() < 0.95 else None,
            "timezone": person.place.timezone,
            "network_type": self._rng.choice(words.NETWORKS) if chance() < 0.7 else None,
            "isp": person.provider if chance() < 0.85 else None,
        }

    def _console(self, person: Person, created: int) -> str | None:
        rng = self._rng
        if rng.random() < 0.25:
            return None
        lines = 3 + int(rng.random() * 32)
        start = int(rng.random() * (_LOG_LINES - lines))
        head = f"{rails_time(created)} {person.machine.browser} on {person.machine.os}, 1440x900\n"
        return head + "\n".join(self._log[start : start + lines])

    def _room(self, person: Person, owner: Person, created: int, present: int) -> Record:
        rng = self._rng
        length = int(60 + rng.lognormvariate(6.4, 0.7)) * _SECOND
        begun = created + int(rng.random() * 20 * _SECOND)
        ended = begun + length
        if ended > present or rng.random() < 0.01:
            return self._room_open(person, owner, begun)
        crowd = [owner, person] + [rng.choice(self._cast.customers) for _ in range(min(4, int(rng.expovariate(1.2))))]
        if rng.random() < 0.06:
            crowd = crowd[:1]
        people = []
        minutes = 0.0
        for number, someone in enumerate(crowd):
            joined = begun + (int(rng.random() * length * 0.3) if number else 0)
            left = ended if number < 2 else joined + int(rng.random() * (ended - joined))
            minutes += (left - joined) / 60_000
            role = "host" if number == 0 else ("guest" if number == 1 else "participant")
            people.append(self.participant(someone, role, joined, left if rng.random() < 0.97 else None))
        shown: list[Record] | None = people
        if rng.random() < 0.04:
            shown = None if rng.random() < 0.5 else []
        return {
            "started_at": rails_time(begun),
            "ended_at": rails_time(ended),
            "duration": length // _SECOND,
            "total_participant_minutes": round(minutes, 2),
            "total_unique_participants": len(crowd),
            "participants_insights": shown,
        }

    def _room_open(self, person: Person, owner: Person, begun: int) -> Record:
        people = [self.participant(owner, "host", begun, None), self.participant(person, "guest", begun + 9000, None)]
        return {
            "started_at": rails_time(begun),
            "ended_at": None,
            "duration": None,
            "total_participant_minutes": None,
            "total_unique_participants": len(people),
            "participants_insights": people,
        }


class UserMaker:
    """Makes users of the Screendesk account."""

    def __init__(self, seed: int, cast: Cast, hours: WorkingHours) -> None:
        self._rng = random.Random(f"{seed}:screendesk.users")
        self._cast = cast
        self._hours = hours

    def history(self, now: datetime) -> Iterator[Record]:
        """The people who work here."""
        present = to_millis(now)
        for number, person in enumerate(self._cast.agents):
            created = self._hours.millis(self._rng)
            yield self._user(person, created, present, "admin" if number % 8 == 0 else None)

    def fresh(self, now: datetime) -> Record:
        """Someone who joined just now."""
        return self._user(self._cast.hire(), to_millis(now), to_millis(now), "member")

    def _user(self, person: Person, created: int, present: int, role: str | None) -> Record:
        rng = self._rng
        return {
            "email": person.email,
            "name": person.name,
            "has_profile_picture": rng.random() < 0.6,
            "created_at": rails_time(created),
            "updated_at": rails_time(created + int(rng.random() ** 2 * (present - created))),
            "role": role or rng.choice(("member", "member", "member", "admin", "editor")),
            "notifications": {
                name: "Enabled" if rng.random() < 0.6 else "Disabled"
                for name in ("notify_first_view", "notify_all_recordings", "notify_own_recordings")
            },
        }

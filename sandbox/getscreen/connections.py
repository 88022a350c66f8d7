"""Invents connections, what `history/info` adds to them, and open invitations."""

# ruff: noqa: PLR2004 - probabilities of made-up data are clearest where they are drawn

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

from sandbox import vocabulary as words
from sandbox.clock import WorkingHours, to_millis
from sandbox.people import address
from sandbox.records import ABSENT, Record, assign, look_up

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from sandbox.people import Cast, Device, Person

_FIRST_ID = 10_500_000
_AWKWARD_EVERY = 17
_OPEN_SHARE = 0.01
_OPEN_AT_LEAST = 3
_ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
_OPEN_STOPS: tuple[Any, ...] = (None, 0, ABSENT)


class ConnectionMaker:
    """Makes connections one after another; the same seed gives the same ones."""

    def __init__(self, seed: int, cast: Cast, hours: WorkingHours) -> None:
        self._seed = seed
        self._rng = random.Random(f"{seed}:getscreen.connections")
        self._cast = cast
        self._hours = hours
        self._next_id = _FIRST_ID

    def history(self, count: int, now: datetime) -> Iterator[Record]:
        """The connections of the past: some still open, one that ended before it began, some of awkward shape."""
        present = to_millis(now) // 1000
        starts = sorted(self._hours.millis(self._rng) // 1000 for _ in range(count))
        still_open = min(count, max(_OPEN_AT_LEAST, int(count * _OPEN_SHARE)))
        for number, start in enumerate(starts):
            record = self._closed(start, present)
            if number >= count - still_open:
                assign(record, "stop", _OPEN_STOPS[number % len(_OPEN_STOPS)])
                record["video"] = None
            elif number == count // 2:
                record["stop"] = start - 42
            if number % _AWKWARD_EVERY == 5:
                self._distort(record, number // _AWKWARD_EVERY)
            yield record

    def fresh(self, now: datetime) -> Record:
        """A connection that began just now and is open."""
        start = to_millis(now) // 1000
        record = self._closed(start, start)
        record["stop"] = None
        record["video"] = None
        return record

    def _closed(self, start: int, present: int) -> Record:
        rng = self._rng
        device = rng.choice(self._cast.devices)
        self._next_id += rng.randrange(1, 40)
        number = self._next_id
        joined = rng.choices((1, 2, 3), (80, 16, 4))[0]
        support = rng.randrange(300, 9000) if rng.random() < 0.4 else rng.choice((0, None))
        return {
            "id": number,
            "start": start,
            "stop": min(start + 30 + int(rng.lognormvariate(6.3, 1.0)), present),
            "support_id": support,
            "client": [self._client(rng.choice(self._cast.owners)) for _ in range(joined)],
            "agent": {
                "id": device.id,
                "name": device.name,
                "group": device.group,
                "geo": _geo(device.ip, device.place),
                "os": device.os,
                "version": device.version,
                "owner": device.owner,
            },
            "video": self._video(device, number) if rng.random() < 0.45 else None,
        }

    def _client(self, person: Person) -> Record:
        return {
            "user_agent": person.machine.user_agent,
            "login": person.email,
            "geo": _geo(person.ip, person.place),
        }

    def _video(self, device: Device, number: int) -> Record:
        # some links carry a signature, which a reader may want to strip
        signed = f"?sig={self._rng.getrandbits(80):020x}" if self._rng.random() < 0.15 else ""
        return {
            "url": f"https://st.getscreen.example/video/{device.id}/{number}.mp4{signed}",
            "size": self._rng.randrange(200_000, 90_000_000),
        }

    def _distort(self, record: Record, turn: int) -> None:
        """Give the record one of the shapes the vendor's documents and clients disagree on."""
        client, agent = record["client"][0], record["agent"]
        video = record["video"] or self._video(self._cast.devices[turn % len(self._cast.devices)], record["id"])
        shapes: tuple[tuple[str, Any], ...] = (
            ("client", []),
            ("client", client),
            ("client", None),
            ("client", ""),
            ("agent", None),
            ("agent", []),
            ("agent", ABSENT),
            ("agent.geo", None),
            ("agent.geo", []),
            ("agent.geo", ABSENT),
            ("agent.id", str(agent["id"])),
            ("video", video["url"]),
            ("video", []),
            ("video", ABSENT),
            ("client.0.geo", None),
            ("support_id", "0"),
        )
        path, value = shapes[turn % len(shapes)]
        assign(record, path, value)


def details(seed: int, record: Record) -> Record:
    """What `history/info` tells of a connection; it shares little with the list row."""
    rng = random.Random(f"{seed}:info:{record['id']}")
    agent_id = look_up(record, "agent.id")
    url, size = look_up(record, "video.url"), look_up(record, "video.size")
    if isinstance(record.get("video"), str):
        url, size = record["video"], rng.randrange(200_000, 90_000_000)
    info = {
        "id": record["id"],
        "uid": f"{record.get('start', 0)}{rng.randrange(10):d}" + "".join(rng.choices(_ALPHABET, k=40)),
        "agent_id": int(agent_id) if agent_id else 0,
        "account_id": 7900 + rng.randrange(40),
        "agent_account_id": 0 if rng.random() < 0.7 else 7900 + rng.randrange(40),
        "user_agent": rng.choice(words.MACHINES).user_agent,
        "start": record.get("start"),
        "stop": record.get("stop", ABSENT),
        "video": url or "",
        "video_size": size or 0,
        "turbo_one_time": rng.random() < 0.1,
        "visor_comment": rng.choice(("", "", "", "Reset password", "Installé l'imprimante", "Driver ersetzt ✔")),
        "url": "/" + "-".join("".join(rng.choices(_ALPHABET.lower(), k=3)) for _ in range(3)),
        "mode": rng.choices(("control", "view", "files"), (90, 7, 3))[0],
        "client": look_up(record, "client.0.geo") or _geo(address(rng), rng.choice(words.PLACES)),
        "agent": look_up(record, "agent.geo") or _geo(address(rng), rng.choice(words.PLACES)),
    }
    return {name: value for name, value in info.items() if value is not ABSENT}


class InvitationMaker:
    """Makes invitations, whose links let an operator into someone's session."""

    def __init__(self, seed: int, cast: Cast) -> None:
        self._rng = random.Random(f"{seed}:getscreen.invitations")
        self._cast = cast
        self._next_id = 9000

    def history(self, now: datetime) -> Iterator[Record]:
        """The invitations open at present."""
        present = to_millis(now) // 1000
        for status in (0, 1, 2, 0, 2):
            yield self._invitation(status, present - self._rng.randrange(60, 90_000))

    def fresh(self, now: datetime) -> Record:
        """An invitation sent just now."""
        return self._invitation(0, to_millis(now) // 1000)

    def _invitation(self, status: int, created: int) -> Record:
        rng = self._rng
        self._next_id += 1
        code = str(rng.randrange(100_000_000, 999_999_999))
        secret = "".join(rng.choices(_ALPHABET, k=96))
        preview = f"{rng.getrandbits(256):064x}" + "".join(rng.choices(_ALPHABET, k=32))
        joined = status > 0
        return {
            "id": self._next_id,
            "status": status,
            "create_time": created,
            "invite_code": code,
            # the doubled scheme is the vendor's own
            "invite_url": f"https://https://go.getscreen.example/invite/{code}",
            "connect_url": f"https://https://go.getscreen.example/turbo/{secret}",
            "client_name": rng.choice(self._cast.customers).name,
            "client_os": rng.choice(("win", "mac", "linux", "android")) if joined else "",
            "client_preview_url": f"https://getscreen.example/preview/{preview}.png" if joined else "",
        }


def _geo(ip: str, place: words.Place) -> Record:
    return {"ip": ip, "country": place.country, "region": place.region, "city": place.city}

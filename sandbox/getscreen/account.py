"""A Getscreen.me account: its key, how it behaves, its connections and open invitations."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Literal, NamedTuple

from sandbox.clock import to_millis
from sandbox.credentials import GETSCREEN_KEY
from sandbox.getscreen.connections import ConnectionMaker, InvitationMaker, details
from sandbox.records import Record, look_up
from sandbox.tables import Key, Order, Table

if TYPE_CHECKING:
    from sandbox.scene import Scene


@dataclass
class GetscreenSettings:
    """What no document settles about Getscreen.me, as knobs.

    Attributes:
        filter_meaning: what `date_from` and `date_to` are compared with.
        bounds: whether a session exactly on a bound is in; `closed_open` takes the lower bound in and not the upper.
        filter_echo: how `filter` repeats what was sent: numbers, strings, an empty object, or not at all.
        info_shape: `history/info` as a bare object (the sample) or inside `data` (the prose).
        order: the order of `history/list`.
        max_limit: the largest page; a higher `limit` is lowered to it, or refused.
        over_limit: which of the two.
        open_in_list: false hides connections from the list until they end.
        remain: connections left in the plan, as `support/list` tells.
    """

    filter_meaning: Literal["start", "stop", "overlap", "containment", "ignored"] = "overlap"
    bounds: Literal["closed", "open", "closed_open", "open_closed"] = "closed"
    filter_echo: Literal["numbers", "strings", "empty", "absent"] = "numbers"
    info_shape: Literal["bare", "data"] = "bare"
    order: Literal["start_desc", "start_asc", "id_desc", "id_asc", "shuffled"] = "start_desc"
    max_limit: int = 100
    over_limit: Literal["clamp", "refuse"] = "clamp"
    open_in_list: bool = True
    remain: int = 100


class ConnectionFacts(NamedTuple):
    """What connections are sorted and filtered by; `stop` is None while open."""

    id: int
    start: float
    stop: float | None
    agent_id: str
    support_id: str
    video: bool


class InvitationFacts(NamedTuple):
    """What invitations are sorted and filtered by."""

    id: int
    status: int


_ORDERS = {
    "start_desc": Order("start_desc", lambda facts: (facts.start, facts.id)),
    "start_asc": Order("start_asc", lambda facts: (facts.start, facts.id), descending=False),
    "id_desc": Order("id_desc", lambda facts: facts.id),
    "id_asc": Order("id_asc", lambda facts: facts.id, descending=False),
    "shuffled": Order("shuffled", lambda facts: (facts.id * 2654435761) % 4294967296),
}
_INVITATION_ORDER = Order("id_asc", lambda facts: facts.id, descending=False)


class Connections(Table[ConnectionFacts]):
    """The connection history. Getscreen has no `updated_at`, so `touch` changes nothing here."""

    def close(self, key: Key, stop: datetime | int | None = None) -> None:
        """End an open connection, at the present unless told otherwise."""
        with self.lock:
            ended = self._clock.now if stop is None else stop
            seconds = to_millis(ended) // 1000 if isinstance(ended, datetime) else ended
            self.update(key, {"stop": seconds})

    def still_open(self) -> list[Key]:
        """Keys of connections that have not ended, oldest first."""
        with self.lock:
            chosen = [(entry.facts.start, key) for key, entry in self._entries.items() if entry.facts.stop is None]
            return [key for _, key in sorted(chosen, key=lambda pair: (pair[0], str(pair[1])))]


class Getscreen:
    """The account as tests and the API see it."""

    def __init__(self, scene: Scene, connections: int) -> None:
        seed, clock, _, cast, hours = scene
        self.token = GETSCREEN_KEY
        self.settings = GetscreenSettings()
        self._seed = seed
        self._extra: dict[Key, Record] = {}
        maker = ConnectionMaker(seed, cast, hours)
        self.connections = Connections(
            "id",
            scene=scene,
            describe=_connection_facts,
            order=lambda: _ORDERS[self.settings.order],
            make=maker.fresh,
        )
        invitations = InvitationMaker(seed, cast)
        self.invitations: Table[InvitationFacts] = Table(
            "id",
            scene=scene,
            describe=_invitation_facts,
            order=lambda: _INVITATION_ORDER,
            make=invitations.fresh,
        )
        self.connections.load(maker.history(connections, clock.now))
        self.invitations.load(invitations.history(clock.now))

    def info(self, key: Key) -> Record:
        """What `history/info` tells of a connection."""
        with self.connections.lock:
            return details(self._seed, self.connections.get(key)) | self._extra.get(key, {})

    def find(self, uid: str) -> Key | None:
        """The key of the connection with a `session_uid`."""
        with self.connections.lock:
            return next((key for key in self.connections.keys() if self.info(key)["uid"] == uid), None)  # noqa: SIM118

    def update_info(self, key: Key, **changes: object) -> None:
        """Change what only `history/info` shows: a comment typed later, say."""
        with self.connections.lock:
            self._extra.setdefault(key, {}).update(changes)


def _number(value: object) -> float | None:
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def _connection_facts(record: Record) -> ConnectionFacts:
    key = _number(record.get("id"))
    video = record.get("video")
    return ConnectionFacts(
        id=0 if key is None else int(key),
        start=_number(record.get("start")) or 0,
        stop=_number(record.get("stop")) or None,
        agent_id=str(look_up(record, "agent.id", "")),
        support_id=str(record.get("support_id") or 0),
        video=bool(video),
    )


def _invitation_facts(record: Record) -> InvitationFacts:
    return InvitationFacts(int(record["id"]), int(record.get("status", 0)))

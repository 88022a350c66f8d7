"""A Screendesk account: its token, how it behaves, its recordings and users."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, NamedTuple

from sandbox.clock import rails_stamp
from sandbox.credentials import SCREENDESK_TOKEN
from sandbox.records import Record, look_up
from sandbox.screendesk.recordings import RecordingMaker, UserMaker
from sandbox.tables import Order, Table

if TYPE_CHECKING:
    from sandbox.scene import Scene


@dataclass
class ScreendeskSettings:
    """What no document settles about Screendesk, as knobs.

    Attributes:
        page_size: records on a page.
        last_page_form: whether `next_page` on the last page and `prev_page` on the first are left out or null.
        items_shrinks_on_last_page: old pagy counts the rows really on the last page.
        past_end: what a page after the last one answers.
        role: whose token it is; a member sees only the recordings of `agent`, and no users.
        agent: the e-mail address of that member; by default the first user.
        order: the order recordings are listed in; `shuffled` is arbitrary but fixed, `unstable` new on each request.
        api_enabled: false answers 403 everywhere, as after a plan downgrade.
        error_shape: `documented` mixes both shapes as the documents do; the others use one throughout.
        unavailable: uuids whose video cannot be downloaded yet, besides those without a duration.
    """

    page_size: int = 100
    last_page_form: Literal["absent", "null"] = "absent"
    items_shrinks_on_last_page: bool = False
    past_end: Literal["empty_page", "last_page", "error"] = "empty_page"
    role: Literal["admin", "member"] = "admin"
    agent: str | None = None
    order: Literal["created_at_desc", "created_at_asc", "updated_at_desc", "shuffled", "unstable"] = "created_at_desc"
    api_enabled: bool = True
    error_shape: Literal["documented", "string", "object"] = "documented"
    unavailable: set[str] = field(default_factory=set)


class RecordingFacts(NamedTuple):
    """What recordings are sorted and filtered by."""

    created_at: str
    updated_at: str
    uuid: str
    owner: str
    platform: str
    ticket_id: str


class UserFacts(NamedTuple):
    """What users are sorted by."""

    created_at: str
    email: str


_ORDERS = {
    "created_at_desc": Order("created_at_desc", lambda facts: (facts.created_at, facts.uuid)),
    "created_at_asc": Order("created_at_asc", lambda facts: (facts.created_at, facts.uuid), descending=False),
    "updated_at_desc": Order("updated_at_desc", lambda facts: (facts.updated_at, facts.uuid)),
    # the tail of a random uuid is as arbitrary as a shuffle, and stays put
    "shuffled": Order("shuffled", lambda facts: facts.uuid[::-1]),
    "unstable": Order("unstable", lambda facts: facts.uuid),
}
_USER_ORDER = Order("created_at_asc", lambda facts: (facts.created_at, facts.email), descending=False)


class Screendesk:
    """The account as tests and the API see it."""

    def __init__(self, scene: Scene, recordings: int) -> None:
        seed, clock, _, cast, hours = scene
        self.token = SCREENDESK_TOKEN
        self.settings = ScreendeskSettings()
        self.rng = random.Random(f"{seed}:screendesk.requests")
        self.recording_maker = RecordingMaker(seed, cast, hours)
        users = UserMaker(seed, cast, hours)
        self.recordings: Table[RecordingFacts] = Table(
            "uuid",
            scene=scene,
            describe=_recording_facts,
            order=lambda: _ORDERS[self.settings.order],
            make=self.recording_maker.fresh,
            updated_at=("metadata.updated_at", rails_stamp),
        )
        self.users: Table[UserFacts] = Table(
            "email",
            scene=scene,
            describe=_user_facts,
            order=lambda: _USER_ORDER,
            make=users.fresh,
            updated_at=("updated_at", rails_stamp),
        )
        self.users.load(users.history(clock.now))
        self.recordings.load(self.recording_maker.history(recordings, clock.now))

    def video(self, key: str) -> bytes | None:
        """The recording's video file, or None while it is being processed. Made up, and always the same."""
        record = self.recordings.get(key)
        if key in self.settings.unavailable or look_up(record, "metadata.duration") is None:
            return None
        rng = random.Random(f"video:{key}")
        return b"\x00\x00\x00\x18ftypmp42" + rng.randbytes(rng.randrange(20_000, 90_000))


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _recording_facts(record: Record) -> RecordingFacts:
    metadata = look_up(record, "metadata")
    helpdesk = look_up(metadata, "helpdesk_info")
    return RecordingFacts(
        created_at=_text(look_up(metadata, "created_at")),
        updated_at=_text(look_up(metadata, "updated_at")),
        uuid=_text(record.get("uuid")),
        owner=_text(look_up(record, "user.email")).lower(),
        platform=_text(look_up(helpdesk, "platform")),
        ticket_id=_text(look_up(helpdesk, "ticket_id")),
    )


def _user_facts(record: Record) -> UserFacts:
    return UserFacts(_text(record.get("created_at")), _text(record.get("email")))

"""One vendor's account in the sandbox, small, and everything that may happen to it.

What happens to rows is the same for all three vendors; where the names differ, `_SHAPES` says how.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from sandbox.app import BASE_PATHS
from sandbox.clock import django_time, rails_stamp
from sandbox.records import look_up
from sandbox.world import World
from sources import getscreen, posthog, screendesk
from sources._settings import SourceSettings

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from sandbox.tables import Table as Rows
    from simulation.steps import Do, Story
    from sources._schema import Table

MOST_GONE: Final = 14
"""Rows that may be gone and not yet marked: well below the brake, which is a matter of its own."""
ORIGIN: Final = "http://127.0.0.1:9"
LOOKBACK_DAYS: Final = {"screendesk": 0.25, "getscreen": 2.0, "posthog": 0.25}
POISON: Final = ("2099-01-01T00:00:00.000Z", None, "yesterday", "1970-01-01T00:00:00Z")


@dataclass(frozen=True)
class _Shape:
    title: str
    silent: str
    items: str
    order: str
    cursor: str
    write: Callable[[datetime], Any]


_SHAPES: Final = {
    "screendesk": _Shape(
        "title",
        "metadata.impressions_count",
        "room_insights.participants_insights",
        "metadata.created_at",
        "metadata.updated_at",
        rails_stamp,
    ),
    "getscreen": _Shape("agent.group", "agent.name", "client", "start", "", lambda at: int(at.timestamp())),
    "posthog": _Shape("meeting_title", "notes", "transcript_segments", "started_at", "updated_at", django_time),
}


class Account:
    """A vendor's account that histories play in."""

    def __init__(self, story: Story) -> None:
        vendor = self.vendor = story.vendor
        rows = {name: story.rows * (vendor == owner) for name, owner in _OWNERS.items()}
        self.world = world = World(story.seed, users=4, **rows)
        self.shape = _SHAPES[vendor]
        self.declared: dict[str, Table] = {t.qualified_name: t for t in _MODULES[vendor].TABLES}
        self.served: dict[str, Rows[Any]] = {name: _served(world, name) for name in self.declared}
        self.main = next(iter(self.served))
        self.unconfirmed: Callable[[str], int] = lambda _: 0
        self.adopted = self.token
        self._graves: list[tuple[str, dict[str, Any]]] = []
        self._count = 0
        self._keyless_made = False
        self._set_up(story)

    # -- what deskhouse is told

    @property
    def settings(self) -> SourceSettings:
        """The vendor's settings, with the token that deskhouse was given."""
        return SourceSettings(
            self.vendor,
            self.adopted,
            ORIGIN + BASE_PATHS[self.vendor],
            max_concurrency=3,
            requests_per_second=0,
            lookback_days=LOOKBACK_DAYS[self.vendor],
            full_sweep_every=3.0,
            project_id=self.world.posthog.project_id if self.vendor == "posthog" else "",
        )

    @property
    def token(self) -> str:
        """The token the vendor accepts."""
        token: str = getattr(self.world, self.vendor).token
        return token

    @token.setter
    def token(self, token: str) -> None:
        getattr(self.world, self.vendor).token = token

    # -- what is true

    def visible(self, name: str) -> frozenset[Any]:
        """Keys of the rows that the token may see."""
        rows = self.served[name]
        settings = self.world.screendesk.settings
        if self.vendor != "screendesk" or settings.role == "admin":
            return frozenset(rows._entries)
        if name != self.main:
            return frozenset()
        return frozenset(k for k, e in rows._entries.items() if e.facts.owner == settings.agent)

    # -- what happens

    def do(self, thing: Do) -> None:
        """Let it happen; what cannot happen does not."""
        self._count += 1
        act = getattr(self, f"_{thing.what}")
        act(thing.pick, thing.n)

    def calm(self) -> None:
        """Nothing is in the way of reading any more."""
        self._admin(0, 0)
        self.world.screendesk.settings.api_enabled = True
        if self.world.screendesk.settings.order == "unstable":
            self.world.screendesk.settings.order = "created_at_desc"
        self.token = self.adopted

    def _set_up(self, story: Story) -> None:
        world, rows = self.world, self.served[self.main]
        world.screendesk.settings.page_size = story.page
        world.screendesk.settings.agent = str(next(iter(world.screendesk.users.keys()))).lower()
        world.getscreen.settings.max_limit = story.page
        keys = rows.keys()
        if self.vendor == "screendesk":
            for key in keys:
                rows.update(key, {"console_logs": None}, touch=False)
        if self.vendor == "posthog":
            for key in keys:
                said = rows.get(key)["transcript_segments"][:3]
                rows.update(key, {"transcript_segments": said, "transcript_text": ""}, touch=False)
        for key in keys[: story.ties]:
            rows.update(key, {self.shape.order: look_up(rows.get(keys[0]), self.shape.order)}, touch=False)

    def _picked(self, pick: int, name: str | None = None) -> Any:
        keys = self.served[name or self.main].keys()
        return keys[pick % len(keys)] if keys else None

    def _change(self, pick: int, changes: dict[str, Any], *, touch: bool = True) -> None:
        key = self._picked(pick)
        if key is not None:
            self.served[self.main].update(key, changes, touch=touch)

    def _items(self, pick: int) -> list[Any]:
        key = self._picked(pick)
        found = None if key is None else look_up(self.served[self.main].get(key), self.shape.items)
        return found if isinstance(found, list) else []

    def _insert(self, pick: int, n: int, *, age: timedelta = timedelta(0)) -> None:
        del pick
        for number in range(n):
            at = self.shape.write(self.world.now - age * (1 + number / 10))
            changes = {self.shape.order: at} if age else {}
            if age and self.shape.cursor:
                changes[self.shape.cursor] = at
            key = self.served[self.main].insert()
            self.served[self.main].update(key, changes, touch=False)

    def _insert_old(self, pick: int, n: int) -> None:
        # anywhere from a day to the whole history ago
        self._insert(pick, n, age=timedelta(hours=30 * 1.17**pick))

    def _update(self, pick: int, n: int) -> None:
        self._change(pick, {self.shape.title: f"Title {self._count}.{n}"})

    def _update_silently(self, pick: int, n: int) -> None:
        value: Any = 1000 * self._count + n if self.vendor == "screendesk" else f"Silent {self._count}.{n}"
        self._change(pick, {self.shape.silent: value}, touch=False)

    def _append(self, pick: int, n: int) -> None:
        key = self._picked(pick)
        if key is None:
            return
        items: list[Any] = [{_ITEM[self.vendor]: f"Item {self._count}.{i}"} for i in range(n)]
        if self.vendor == "posthog":
            self.world.posthog.desktop_recordings.append_segments(key, items)
        else:
            self._change(pick, {self.shape.items: [*self._items(pick), *items]}, touch=bool(n % 2))

    def _empty(self, pick: int, n: int) -> None:
        self._change(pick, {self.shape.items: []}, touch=bool(n % 2))

    def _shrink(self, pick: int, n: int) -> None:
        self._change(pick, {self.shape.items: self._items(pick)[:-n]}, touch=bool(n % 2))

    def _delete(self, pick: int, n: int, *, name: str | None = None) -> None:
        del n
        table = name or self.main
        rows, key = self.served[table], self._picked(pick, table)
        # a row or two must outlive any history: an account that shows none of the rows held is not believed
        if key is not None and len(rows) > 2 and self.unconfirmed(table) < MOST_GONE:
            self._graves.append((table, rows.get(key)))
            rows.delete(key)

    def _restore(self, pick: int, n: int) -> None:
        """A deleted row returns, as it was or changed."""
        if not self._graves:
            return
        table, record = self._graves.pop(pick % len(self._graves))
        rows = self.served[table]
        if record.get(rows.key_field) not in rows:
            key = rows.insert(record)
            if n % 2:
                rows.update(key, {"name" if table.endswith("users") else self.shape.title: f"Back {self._count}"})

    def _swap(self, pick: int, n: int) -> None:
        self._delete(pick, 1)
        self._insert(pick + n, 1)

    def _swap_old(self, pick: int, n: int) -> None:
        self._delete(pick, 1)
        self._insert_old((pick + 8 * n) % 31, 1)

    def _slip(self, pick: int, n: int) -> None:
        """One of the newest rows goes and one comes at the end of the list: others move up a place, the count stays."""
        self._delete(pick % 4, n)
        self._insert(0, 1, age=timedelta(days=125))

    def _move(self, pick: int, n: int) -> None:
        at = self.shape.write(self.world.now - timedelta(hours=11 * (pick + 1) * (n - 1)))
        self._change(pick + n, {self.shape.order: at}, touch=bool(pick % 2))

    def _tie(self, pick: int, n: int) -> None:
        rows, key = self.served[self.main], self._picked(pick)
        if key is None:
            return
        place = look_up(rows.get(key), self.shape.order)
        for other in range(1, n + 2):
            self._change(pick + other, {self.shape.order: place}, touch=bool(other % 2))

    def _burst(self, pick: int, n: int) -> None:
        """The vendor cleans up: its oldest rows go."""
        del pick
        for _ in range(2 * n):
            self._delete(-1, 1)

    def _poison(self, pick: int, n: int) -> None:
        path = self.shape.cursor if self.shape.cursor and pick % 3 else self.shape.order
        value: Any = POISON[n % len(POISON)]
        if self.vendor == "getscreen":
            value = (4_070_908_800, None, 0, 1)[n % 4]
        self._change(pick, {path: value}, touch=False)

    def _keyless(self, pick: int, n: int) -> None:
        # more than half of a page without key stops a table, rightly: one is bad luck
        if not self._keyless_made:
            self._keyless_made = True
            rows = self.served[self.main]
            key = rows.insert()
            record = rows.get(key)
            rows.delete(key)
            rows.insert({**record, rows.key_field: None})

    def _revoke(self, pick: int, n: int) -> None:
        self.token = f"revoked-{pick}-{n}"

    def _rotate(self, pick: int, n: int) -> None:
        self.token = self.adopted = f"rotated-{self._count}-{pick}-{n}"

    # -- Screendesk

    def _member(self, pick: int, n: int) -> None:
        self.world.screendesk.settings.role = "member"

    def _admin(self, pick: int, n: int) -> None:
        self.world.screendesk.settings.role = "admin"

    def _page_size(self, pick: int, n: int) -> None:
        self.world.screendesk.settings.page_size = 2 + (pick + n) % 6

    def _last_page_form(self, pick: int, n: int) -> None:
        self.world.screendesk.settings.last_page_form = "null" if n % 2 else "absent"
        self.world.screendesk.settings.items_shrinks_on_last_page = bool(pick % 2)

    def _past_end(self, pick: int, n: int) -> None:
        self.world.screendesk.settings.past_end = ("empty_page", "last_page", "error")[n % 3]  # type: ignore[assignment]

    def _order(self, pick: int, n: int) -> None:
        if self.vendor == "screendesk":
            orders = ("created_at_desc", "created_at_asc", "updated_at_desc", "shuffled", "unstable")
            self.world.screendesk.settings.order = orders[pick % len(orders)]  # type: ignore[assignment]
        else:
            orders = ("start_desc", "start_asc", "id_desc", "id_asc", "shuffled")
            self.world.getscreen.settings.order = orders[pick % len(orders)]  # type: ignore[assignment]

    def _user_insert(self, pick: int, n: int) -> None:
        self.world.screendesk.users.insert()

    def _user_update(self, pick: int, n: int) -> None:
        key = self._picked(pick, "screendesk.users")
        self.world.screendesk.users.update(key, {"name": f"Name {self._count}"}, touch=bool(n % 2))

    def _user_delete(self, pick: int, n: int) -> None:
        self._delete(pick, n, name="screendesk.users")

    # -- Getscreen.me

    def _close(self, pick: int, n: int) -> None:
        connections = self.world.getscreen.connections
        still_open = connections.still_open()
        if still_open:
            connections.close(still_open[pick % len(still_open)])

    def _video(self, pick: int, n: int) -> None:
        address = f"https://st.getscreen.example/video/1/{self._count}.mp4"
        self._change(pick, {"video": address if n == 4 else {"url": address, "size": n}})

    def _filter(self, pick: int, n: int) -> None:
        settings = self.world.getscreen.settings
        settings.filter_meaning = ("start", "stop", "overlap", "containment", "ignored")[pick % 5]  # type: ignore[assignment]
        settings.bounds = "open" if n % 2 else "closed"

    def _echo(self, pick: int, n: int) -> None:
        self.world.getscreen.settings.filter_echo = ("numbers", "strings", "empty", "absent")[n % 4]  # type: ignore[assignment]

    def _max_limit(self, pick: int, n: int) -> None:
        self.world.getscreen.settings.max_limit = 2 + (pick + n) % 6

    def _info_shape(self, pick: int, n: int) -> None:
        self.world.getscreen.settings.info_shape = "data" if n % 2 else "bare"

    # -- PostHog

    def _next_host(self, pick: int, n: int) -> None:
        settings = self.world.posthog.settings
        settings.next_scheme, settings.next_host = (None, None) if n % 2 else ("http", "inside.example")


_OWNERS: Final = {"recordings": "screendesk", "connections": "getscreen", "meetings": "posthog"}
_MODULES: Final = {"screendesk": screendesk, "getscreen": getscreen, "posthog": posthog}
_ITEM: Final = {"screendesk": "display_name", "getscreen": "login", "posthog": "text"}


def _served(world: World, name: str) -> Rows[Any]:
    vendor, table = name.split(".")
    rows: Rows[Any] = getattr(getattr(world, vendor), table)
    return rows

"""Everything that was ever true at a vendor: which rows it had, which of them the token could see, and their content.

Time is counted in moments: a new one begins with every change. Content is worked out by `truth`, which knows the contract
and none of the loader's code, and is kept as one text per row with its children, so that equal means equal in all.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import orjson
from truth import expected_rows

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from simulation.account import Account
    from sources._schema import Table

Key = Any
ALWAYS = 1 << 60


def form(table: Table, row: Mapping[str, Any], children: Mapping[str, Iterable[Mapping[str, Any]]]) -> str:
    """A row with its children as one text."""
    parts = [[row[c.name] for c in table.columns], row["_extra"]]
    for child in table.children:
        names = ["_dlt_list_idx", *(c.name for c in child.columns), "_extra"]
        items = sorted(children.get(child.name, ()), key=lambda item: item["_dlt_list_idx"])
        parts.append([[item[n] for n in names] for item in items])
    return repr(parts)


@dataclass
class Version:
    """One row as the vendor had it for a while: from moment `since` to before moment `until`."""

    form: str
    dates: tuple[int | None, ...]
    since: int
    until: int = ALWAYS


@dataclass
class Page:
    """The chronicle of one table."""

    table: Table
    bodies: dict[Key, bytes] = field(default_factory=dict)
    versions: dict[Key, list[Version]] = field(default_factory=dict)
    visible: list[tuple[int, frozenset[Key]]] = field(default_factory=list)
    keyless: dict[Key, tuple[int, int]] = field(default_factory=dict)

    def keyless_gone(self, first: int, last: int) -> int:
        """Records without a usable key that the vendor took away at one of these moments."""
        return sum(first < until <= last for _, until in self.keyless.values())

    def during(self, key: Key, first: int, last: int) -> Iterator[Version]:
        """Versions of a row that were true at any of these moments."""
        return (v for v in self.versions.get(key, ()) if v.since <= last and v.until > first)

    def existed(self, key: Key, first: int, last: int) -> bool:
        """Whether the vendor had a row at any of these moments."""
        return any(True for _ in self.during(key, first, last))

    def missing_at_some_time(self, key: Key, first: int, last: int) -> bool:
        """Whether the vendor lacked a row at any of these moments."""
        covered = first
        for version in sorted(self.during(key, first, last), key=lambda v: v.since):
            if version.since > covered:
                return True
            covered = max(covered, version.until)
        return covered <= last

    def seen(self, first: int, last: int) -> list[frozenset[Key]]:
        """What the token could see at each of these moments."""
        return [
            keys
            for (since, keys), until in zip(self.visible, [s for s, _ in self.visible[1:]] + [ALWAYS], strict=True)
            if since <= last and until > first
        ]

    def now(self) -> dict[Key, Version]:
        """Every row the vendor has."""
        return {k: v[-1] for k, v in self.versions.items() if v[-1].until == ALWAYS}


class Chronicle:
    """Watches an account."""

    def __init__(self, account: Account) -> None:
        self._account = account
        self.moment = 0
        self.pages = {name: Page(table) for name, table in account.declared.items()}
        self.observe()

    def observe(self) -> None:
        """Take down what has changed since the last look."""
        changes = {}
        for name, page in self.pages.items():
            bodies = {k: e.body for k, e in self._account.served[name]._entries.items()}
            visible = self._account.visible(name)
            if bodies != page.bodies or not page.visible or visible != page.visible[-1][1]:
                changes[name] = bodies, visible
        if not changes:
            return
        self.moment += 1
        for name, (bodies, visible) in changes.items():
            self._take_down(self.pages[name], bodies, visible)

    def _take_down(self, page: Page, bodies: dict[Key, bytes], visible: frozenset[Key]) -> None:
        for key, body in page.bodies.items():
            if bodies.get(key) != body and key in page.versions:
                page.versions[key][-1].until = self.moment
            if key not in bodies and key in page.keyless:
                page.keyless[key] = page.keyless[key][0], self.moment
        for key, body in bodies.items():
            if page.bodies.get(key) == body:
                continue
            version = self._version(page.table, body)
            if version is None:
                page.keyless[key] = self.moment, ALWAYS
            else:
                page.versions.setdefault(key, []).append(version)
        page.bodies = bodies
        keyed = frozenset(k for k in visible if k in page.versions)
        page.visible.append((self.moment, keyed))

    def _version(self, table: Table, body: bytes) -> Version | None:
        rows, unkeyed = expected_rows(table, [orjson.loads(body)])
        if unkeyed:
            return None
        (row,) = rows[table.qualified_name].values()
        children = {c.name: rows[f"{table.schema}.{c.name}"].values() for c in table.children}
        return Version(form(table, row, children), tuple(row[name] for name in dates(table)), self.moment)


def dates(table: Table) -> tuple[str, ...]:
    """What light reading goes by: the date a list is ordered by, or the dates windows are compared with."""
    if table.qualified_name == "getscreen.connections":
        return ("start", "stop")
    return (table.order,) if table.order else ()

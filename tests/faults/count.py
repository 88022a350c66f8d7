"""The checker: what the vendors hold, and ever held, against what readers see.

The ledger of truth remembers every version of every record that was served; rows are worked out from it by `truth`,
without the loader's own code. A warehouse is judged by these counters, which are all zero when nothing went wrong:

    lost        records the vendor has that are neither a live row nor in quarantine, and rows that are gone from the
                warehouse without the vendor having had a part in it
    duplicated  rows beyond the first of a key
    stale       rows that show an older version than the newest, and live rows of records the vendor no longer has
    invented    rows no vendor ever served, by key or by content
    orphaned    list items without their parent
    torn        reads that saw half of something
    blocked     reads that failed
    leaked      places where a credential is that should not be there
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import duckdb
from truth import ROOTS, Rows, expected_rows, stored_tables, world_records

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    from sandbox.world import World
    from sources._schema import Table

COUNTERS: Final = ("lost", "duplicated", "stale", "invented", "orphaned", "torn", "blocked", "leaked")
PEER_COLUMNS: Final = {
    "screendesk.recordings": ("title", "metadata__impressions_count"),
    "screendesk.users": ("name",),
    "getscreen.connections": ("stop",),
    "posthog.desktop_recordings": ("status", "notes"),
}
"""What is compared of a row loaded by plain dlt, which declares no columns."""


_QUARANTINED: Final = "SELECT raw FROM ops.quarantine WHERE table_name = ?"


@dataclass
class Ledger:
    """Every version of every record a world ever served."""

    world: World
    ever: dict[str, dict[tuple[Any, ...], list[dict[str, Any]]]] = field(default_factory=dict)

    def note(self) -> None:
        """Take in the world as it is now; to be called before and after each change."""
        for table in ROOTS:
            rows, _ = expected_rows(table, world_records(self.world)[table.qualified_name])
            for name, found in rows.items():
                versions = self.ever.setdefault(name, {})
                for key, row in found.items():
                    kept = versions.setdefault(key, [])
                    if row not in kept:
                        kept.append(row)

    def count(self, database: Path, problems: list[str]) -> Counter[str]:
        """Judge a published file against the world as it is now; what is wrong is told in `problems`."""
        self.note()
        stored, counts = stored_tables(database), Counter[str]()
        for table in ROOTS:
            for kind, text in self._table(table, stored, database):
                counts[kind] += 1
                if counts[kind] <= 3:
                    problems.append(f"{kind}: {text}")
        return counts

    def _table(self, table: Table, stored: Mapping[str, Any], database: Path) -> Iterator[tuple[str, str]]:
        root = table.qualified_name
        kept = {
            str(record.get(table.key)) if isinstance(record, dict) else None
            for record in (json.loads(raw) for (raw,) in _query(database, _QUARANTINED, root))
        }
        # a record that is kept aside is not lost
        served = [r for r in world_records(self.world)[root] if not r.get(table.key) or str(r[table.key]) not in kept]
        rows, unkeyed = expected_rows(table, served)
        live = {key[0] for key in rows[root]}
        held = {row[table.key]: row for row in stored[root].rows}
        for name, expected in rows.items():
            yield from self._rows(name, expected, stored[name].rows, _key_columns(table, name), live)
        for key, row in held.items():
            if key in live and row["_deleted_at"] is not None:
                yield "lost", f"{root} {key!r} is marked deleted and the vendor has it"
            if key not in live and row["_deleted_at"] is None and (key,) in self.ever[root]:
                yield "stale", f"{root} {key!r} is live and the vendor no longer has it"
        for child in table.children:
            owners = {row[child.parent_key] for row in stored[f"{table.schema}.{child.name}"].rows}
            for owner in owners - held.keys():
                yield "orphaned", f"{table.schema}.{child.name} {owner!r} has no parent"
        if len(_query(database, _QUARANTINED, root)) < unkeyed:
            yield "lost", f"{root}: {unkeyed} records have no key and fewer are in quarantine"

    def _rows(
        self, name: str, expected: Rows, rows: list[dict[str, Any]], columns: tuple[str, ...], live: set[Any]
    ) -> Iterator[tuple[str, str]]:
        ever, seen = self.ever[name], Counter(tuple(row[c] for c in columns) for row in rows)
        yield from (("duplicated", f"{name} {key!r} is there {n} times") for key, n in seen.items() if n > 1)
        yield from (("lost", f"{name} {key!r} is missing") for key in expected.keys() - seen.keys())
        for row in rows:
            key = tuple(row[c] for c in columns)
            if key not in ever:
                yield "invented", f"{name} {key!r} was never served"
            elif key in expected:
                wrong = [c for c, v in expected[key].items() if type(row[c]) is not type(v) or row[c] != v]
                if wrong:
                    old = any(all(row[c] == v for c, v in version.items()) for version in ever[key])
                    yield "stale" if old else "invented", f"{name} {key!r} differs in {', '.join(wrong[:3])}"
            elif key[0] in live:
                yield "stale", f"{name} {key!r} is not in the list any more"


def count_peer(world: World, ledger: Ledger, database: Path, problems: list[str]) -> Counter[str]:
    """Judge what plain dlt loaded: root tables, by key and a few columns."""
    ledger.note()
    counts = Counter[str]()

    def wrong(kind: str, text: str) -> None:
        counts[kind] += 1
        if counts[kind] <= 3:
            problems.append(f"{kind}: {text}")

    for table in ROOTS:
        name, columns = table.qualified_name, PEER_COLUMNS[table.qualified_name]
        served = {r.get(table.key): r for r in world_records(world)[name]}
        shown = ", ".join(f'"{c}"' for c in (table.key, *columns))
        try:
            rows = _query(database, f"SELECT {shown} FROM {name}")
        except duckdb.Error as error:
            wrong("lost", f"{name} cannot be read: {str(error).splitlines()[0][:120]}")
            continue
        found = Counter(row[0] for row in rows)
        for kind, keys in {
            "duplicated": [key for key, n in found.items() if n > 1],
            "lost": served.keys() - found.keys(),
            "invented": [key for key in found if (key,) not in ledger.ever[name]],
        }.items():
            for key in keys:
                wrong(kind, f"{name} {key!r}")
        for key, *values in rows:
            if (key,) in ledger.ever[name] and not _shows(served.get(key), columns, values):
                wrong("stale", f"{name} {key!r}")
    return counts


def _shows(record: Any, columns: tuple[str, ...], values: list[Any]) -> bool:
    return record is not None and [_plain(v) for v in values] == [_plain(_at(record, c)) for c in columns]


def _at(record: Any, column: str) -> Any:
    for part in column.split("__"):
        record = record.get(part) if isinstance(record, dict) else None
    return record


def _plain(value: Any) -> Any:
    return None if value in (0, "", None) else str(value)


def leaks(folders: Iterable[Path], database: Path, canaries: Iterable[str], extra: Mapping[str, bytes]) -> list[str]:
    """Where a canary is found: in any file below the folders, in any table of the database, or in other bytes."""
    wanted = sorted(canaries)
    found = []
    for folder in folders:
        for path in folder.rglob("*"):
            if path.is_file() and not path.is_symlink():
                content = path.read_bytes()
                found += [str(path) for canary in wanted if canary.encode() in content]
    found += [name for name, content in extra.items() for canary in wanted if canary.encode() in content]
    if database.exists():
        held = " OR ".join("contains(one::VARCHAR, ?)" for _ in wanted)
        with duckdb.connect(str(database), read_only=True) as connection:
            names = connection.execute(
                "SELECT schema_name || '.\"' || table_name || '\"' FROM duckdb_tables() WHERE NOT internal"
            ).fetchall()
            for (name,) in names:
                sql = f"SELECT count(*) FROM (SELECT one::VARCHAR AS one FROM {name} AS one) WHERE {held}"
                if connection.execute(sql, wanted).fetchall()[0][0]:
                    found.append(f"table {name}")
    return sorted(set(found))


def _query(database: Path, sql: str, *values: Any) -> list[tuple[Any, ...]]:
    with duckdb.connect(str(database), read_only=True) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        return connection.execute(sql, list(values)).fetchall()


def _key_columns(table: Table, name: str) -> tuple[str, ...]:
    child = next((c for c in table.children if f"{table.schema}.{c.name}" == name), None)
    return (table.key,) if child is None else (child.parent_key, "_dlt_list_idx")

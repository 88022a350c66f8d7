"""The privacy policy of a warehouse: read from the settings, put in force for a run, and applied to what is stored.

ops.privacy       one row per table: what its rows were stored under
ops.suppressions  one row per e-mail or name of an erased person, as a keyed hash alone
ops.erasures      one row per `deskhouse forget`
"""

from __future__ import annotations

import hashlib
import os
import secrets
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, NoReturn

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.database import connect
from pipelines.permissions import create_private
from pipelines.settings import Settings, SettingsError, setting_name, settings_sections, text_setting
from pipelines.warehouse import Warehouse, current_generation
from sources._known import words_of
from sources._policy import PROFILES, STANDARD, Action, Deed, Policy, needed_dates
from sources._schema import EXTRA, LIST_INDEX, LOAD_ID, ChildTable, Privacy, Table, Type, arrow_schema, every_table
from sources._tables import Converter, list_array
from sources._values import canonical
from sources.getscreen.tables import TABLES as GETSCREEN_TABLES
from sources.posthog.tables import TABLES as POSTHOG_TABLES
from sources.screendesk.tables import TABLES as SCREENDESK_TABLES

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    import duckdb

SECTION: Final = "deskhouse.privacy"
KEY_FILE: Final = "privacy.key"
_TABLES: Final[tuple[Table, ...]] = (*SCREENDESK_TABLES, *GETSCREEN_TABLES, *POSTHOG_TABLES)
_KNOWN_SETTINGS: Final = ("profile", "classes", "paths", "hash_key")
_SHORTEST_KEY: Final = 16
_ROWS_AT_A_TIME: Final = 5_000
_DDL: Final = """
CREATE SCHEMA IF NOT EXISTS ops;
CREATE TABLE IF NOT EXISTS ops.privacy (
    table_name VARCHAR PRIMARY KEY,
    profile VARCHAR NOT NULL,
    actions VARCHAR NOT NULL,
    key_action VARCHAR NOT NULL,
    run_id VARCHAR NOT NULL,
    applied_at TIMESTAMPTZ NOT NULL
);
CREATE TABLE IF NOT EXISTS ops.suppressions (
    mark VARCHAR PRIMARY KEY,
    key_mark VARCHAR NOT NULL,
    erased_at TIMESTAMPTZ NOT NULL
);
CREATE TABLE IF NOT EXISTS ops.erasures (
    run_id VARCHAR PRIMARY KEY,
    erased_at TIMESTAMPTZ NOT NULL,
    person VARCHAR NOT NULL,
    counts JSON NOT NULL
);
COMMENT ON TABLE ops.privacy IS 'One row per table: the privacy policy that all its rows are stored under.';
COMMENT ON TABLE ops.suppressions IS 'One row per e-mail or name of an erased person, as a keyed hash.';
COMMENT ON TABLE ops.erasures IS 'One row per person erased: when, the keyed hash of the e-mail, and what was changed.';
"""


# -- settings


def load_privacy() -> Policy:
    """The policy that is configured; its key only where that is configured too.

    Raises:
        SettingsError: names the setting that cannot be used.
    """
    profile = text_setting(f"{SECTION}.profile") or "standard"
    if profile not in PROFILES:
        _refuse("profile", f"must be one of {', '.join(PROFILES)}, not {profile!r}")
    sections = settings_sections(SECTION)
    for section in sections:
        for name in section:
            if name not in _KNOWN_SETTINGS:
                _refuse(name, f"is no setting; there are {', '.join(_KNOWN_SETTINGS)}")
    prefix = f"{SECTION}.".replace(".", "__").upper()
    for variable in os.environ:
        name = variable.removeprefix(prefix).lower()
        if variable.startswith(prefix) and name.partition("__")[0] not in _KNOWN_SETTINGS:
            _refuse(name, f"is no setting; there are {', '.join(_KNOWN_SETTINGS)}")
    paths = _paths(sections)
    _check_paths(paths)
    key = _hash_key()
    if not key and any(section.get("hash_key") for section in sections):
        _refuse("hash_key", "belongs in .dlt/secrets.toml")
    return Policy(profile, _classes(sections), paths, hashlib.blake2b(key.encode()).digest() if key else b"")


def _hash_key() -> str:
    key = text_setting(f"{SECTION}.hash_key", secret=True)
    if key and len(key) < _SHORTEST_KEY:
        _refuse("hash_key", f"must have {_SHORTEST_KEY} characters or more")
    return key


def _classes(sections: Sequence[Mapping[str, Any]]) -> dict[Privacy, Action]:
    names = {c.value for c in Privacy}
    for section in sections:
        found = section.get("classes", {})
        if not isinstance(found, dict):
            _refuse("classes", "must be a table of class = action")
        for name in found:
            if name not in names:
                _refuse(f"classes.{name}", f"is no privacy class; there are {', '.join(sorted(names))}")
    prefix = f"{SECTION}.classes.".replace(".", "__").upper()
    for variable in os.environ:
        if variable.startswith(prefix) and variable.removeprefix(prefix).lower() not in names:
            _refuse(f"classes.{variable.removeprefix(prefix).lower()}", "is no privacy class")
    classes = {}
    for privacy in Privacy:
        key = f"classes.{privacy.value}"
        if text := text_setting(f"{SECTION}.{key}"):
            classes[privacy] = _action(key, text)
    return classes


def _paths(sections: Sequence[Mapping[str, Any]]) -> dict[str, Action]:
    """Actions by path: of the sections the first that names one holds; the environment comes before all."""
    written: dict[str, str] = {}
    for section in reversed(sections):
        found = section.get("paths", {})
        if not isinstance(found, dict) or not all(isinstance(text, str) for text in found.values()):
            _refuse("paths", 'must be a table of "schema.table.column" = "action", the path in quotes')
        written |= found
    given = os.environ.get(f"{SECTION}.paths".replace(".", "__").upper(), "")
    for pair in filter(None, (part.strip() for part in given.split(","))):
        path, _, text = pair.partition("=")
        written[path.strip()] = text
    return {path: _action(f'paths."{path}"', text) for path, text in written.items()}


def _action(key: str, text: str) -> Action:
    try:
        return Action.parsed(text)
    except ValueError as error:
        _refuse(key, str(error))


def _check_paths(paths: Mapping[str, Action]) -> None:
    """Refuse what names no column, or would leave a row that cannot be told from others."""
    columns = {
        f"{table.schema}.{name}.{column.name}": (table, child, column)
        for table in _TABLES
        for name, child in every_table(table)
        for column in (child or table).columns
    }
    extras = tuple(f"{table.schema}.{name}.{EXTRA.name}" for table in _TABLES for name, _ in every_table(table))
    for path, action in paths.items():
        key = f'paths."{path}"'
        if path in extras or path.startswith(tuple(f"{extra}." for extra in extras)):
            continue
        if path not in columns:
            _refuse(key, "names no column; docs/tables.md lists them, as schema.table.column")
        table, child, column = columns[path]
        if action.deed is Deed.KEEP:
            continue
        if child is None and column.name == table.key:
            personal = column.privacy in {Privacy.PERSONAL, Privacy.SENSITIVE}
            if not personal or action.deed is not Deed.HASH:
                _refuse(key, f"must be keep{' or hash' if personal else ''}: it is the key that tells rows apart")
        if child is None and column.name in needed_dates(table):
            _refuse(key, "must be keep: deskhouse finds by this date what changed")
        if action.deed is Deed.TRUNCATE and column.type is not Type.TEXT:
            _refuse(key, f"cannot be truncated: it is {column.type.value}; use keep or drop")
        if action.deed is Deed.HASH and column.type not in {Type.TEXT, Type.INTEGER}:
            _refuse(key, f"cannot be hashed: it is {column.type.value}; use keep or drop")


def _refuse(key: str, problem: str) -> NoReturn:
    named = f"{SECTION}.{key}" if '"' in key else setting_name(f"{SECTION}.{key}")
    raise SettingsError(f"{named} {problem}.")


# -- in force


def in_force(settings: Settings, warehouse: Warehouse, vendors: Sequence[str], *, full: bool) -> Settings:
    """The settings with the policy as a run applies it: with its key, and with those who were erased.

    Raises:
        SettingsError: the key is not the one that stored rows were hashed with, or the stored keys of a table cannot be
            brought under the policy. Nothing was touched.
    """
    policy = policy_of(settings, warehouse, make_key=True)
    stored = _stored(warehouse)
    if any(key_mark != policy.key_mark for _, key_mark in stored.suppressions):
        raise SettingsError(
            f"The key that e-mails of erased persons were hashed with is another than that in {warehouse.root / KEY_FILE} "
            f"or {setting_name(f'{SECTION}.hash_key')}, so nobody would notice them coming back. Nothing was touched: "
            f"put the old key back, or load everything anew into a warehouse of its own ({setting_name('deskhouse.warehouse_dir')})."
        )
    for table in _TABLES:
        before, now = stored.key_actions.get(table.qualified_name), policy.key_action(table)
        if table.schema not in vendors or before in {None, now}:
            continue
        if before != "keep":
            raise SettingsError(
                f"The keys of {table.qualified_name} are stored as hashes, which cannot be undone or made with another "
                f'key. Nothing was touched: set {SECTION}.paths."{table.qualified_name}.{table.key}" = "hash" with the '
                f"same key, or load everything anew into another {setting_name('deskhouse.warehouse_dir')}."
            )
        if not full:
            raise SettingsError(
                f"The privacy policy now hashes the keys of {table.qualified_name}. Nothing was touched: run "
                f"`deskhouse sync --full` once, which brings the rows that are stored under the policy."
            )
    policy = replace(policy, erased=frozenset(mark for mark, _ in stored.suppressions))
    sources = {vendor: replace(source, privacy=policy) for vendor, source in settings.sources.items()}
    return replace(settings, privacy=policy, sources=sources)


def policy_of(settings: Settings, warehouse: Warehouse, *, make_key: bool) -> Policy:
    """The policy with its key: the one that is configured, or the warehouse's own, made when first needed.

    Raises:
        SettingsError: the warehouse's key is damaged.
    """
    policy, path = settings.privacy or STANDARD, warehouse.root / KEY_FILE
    if policy.key or not (make_key or path.exists()):
        return policy
    if not path.exists():
        half_made = path.with_name(f".tmp-{KEY_FILE}-{os.getpid()}")
        with create_private(half_made) as file:
            file.write(f"{secrets.token_hex(32)}\n".encode())
            file.flush()
            os.fsync(file.fileno())
        half_made.replace(path)
    text = path.read_text(encoding="utf-8").strip()
    if len(text) < _SHORTEST_KEY:
        raise SettingsError(f"{path} holds no key. Put back what was in it; without it hashes do not fit those stored.")
    return replace(policy, key=hashlib.blake2b(text.encode()).digest())


@dataclass(frozen=True)
class _Stored:
    key_actions: dict[str, str]
    suppressions: list[tuple[str, str]]


def _stored(warehouse: Warehouse) -> _Stored:
    """What the warehouse says about itself, from the private database or else from what is published."""
    generation = current_generation(warehouse)
    path = warehouse.private_database
    if not path.exists() or not path.stat().st_size:
        if generation is None:
            return _Stored({}, [])
        path = generation.database
    with connect(path, read_only=True) as con:
        if not _has_tables(con):
            return _Stored({}, [])
        actions = con.execute("SELECT table_name, key_action FROM ops.privacy").fetchall()
        return _Stored(dict(actions), con.execute("SELECT mark, key_mark FROM ops.suppressions").fetchall())


def _has_tables(con: duckdb.DuckDBPyConnection) -> bool:
    return bool(
        con.execute(
            "SELECT 1 FROM duckdb_tables() WHERE schema_name = 'ops' AND table_name = 'suppressions'"
        ).fetchall()
    )


def prepare(path: Path) -> None:
    """Create the tables where they are missing."""
    with connect(path) as con:
        con.execute(_DDL)


# -- what rows were stored under


def tables_of(vendors: Sequence[str]) -> list[Table]:
    """Declared root tables of vendors."""
    return [table for table in _TABLES if table.schema in vendors]


def not_applied(path: Path, policy: Policy, run_id: str, now: datetime) -> list[Table]:
    """Tables with rows that may have been stored under another policy; one without rows is noted to be under this one."""
    with connect(path) as con:
        stored = dict(con.execute("SELECT table_name, actions FROM ops.privacy").fetchall())
        others = []
        for table in _TABLES:
            if stored.get(table.qualified_name) == policy.describe(table):
                continue
            if con.execute(f"SELECT 1 FROM {table.qualified_name} LIMIT 1").fetchall():
                others.append(table)
            else:
                _note(con, table, policy, run_id, now)
    return others


def unapplied_names(database: Path, policy: Policy) -> list[str]:
    """Qualified names of tables in a published file that were stored under another policy than is configured."""
    with connect(database, read_only=True) as con:
        if not _has_tables(con):
            return []
        stored = dict(con.execute("SELECT table_name, actions FROM ops.privacy").fetchall())
    return [
        t.qualified_name
        for t in _TABLES
        if stored.get(t.qualified_name, "").partition("; key ")[0] != policy.describe(t).partition("; key ")[0]
    ]


def reload_line(names: Sequence[str]) -> str:
    """One line that says what a changed policy has not reached."""
    return (
        f"The privacy policy changed since rows of {', '.join(names)} were stored: new and changed rows follow it, "
        "older ones do not. To bring them under it, run: deskhouse sync --full"
    )


def note_applied(path: Path, tables: Sequence[Table], policy: Policy, run_id: str, now: datetime) -> None:
    """Note that all rows of tables are stored under a policy."""
    with connect(path) as con:
        for table in tables:
            _note(con, table, policy, run_id, now)


def _note(con: duckdb.DuckDBPyConnection, table: Table, policy: Policy, run_id: str, now: datetime) -> None:
    con.execute(
        "INSERT OR REPLACE INTO ops.privacy VALUES (?, ?, ?, ?, ?, ?)",
        [table.qualified_name, policy.profile, policy.describe(table), policy.key_action(table), run_id, now],
    )


def apply_to_stored(path: Path, tables: Sequence[Table], policy: Policy, now: datetime) -> int:
    """Bring rows, quarantine and drift of tables under a policy, each table in one transaction; returns rows changed."""
    changed = 0
    with connect(path) as con:
        for table in tables:
            con.begin()
            changed += rewrite_table(con, table, policy, now).rows
            con.execute(
                "UPDATE ops.privacy SET key_action = ? WHERE table_name = ?",
                [policy.key_action(table), table.qualified_name],
            )
            con.commit()
    return changed


@dataclass
class Changed:
    """What was changed of one table, or would be."""

    rows: int = 0
    items: int = 0
    quarantined: int = 0
    drift: int = 0


def rewrite_table(
    con: duckdb.DuckDBPyConnection, table: Table, policy: Policy, now: datetime, *, dry_run: bool = False
) -> Changed:
    """Bring what is stored of a table under a policy, as if it came from the vendor now.

    Args:
        con: a database, in a transaction.
        table: the declared table.
        policy: what is to be stored.
        now: what `_loaded_at` of changed rows becomes.
        dry_run: only count.
    """
    changed = Changed()
    converters = Converter(table), Converter(replace(table, policy=policy))
    ((last,),) = con.execute(f"SELECT coalesce(max(rowid), -1) FROM {table.qualified_name}").fetchall()
    for first in range(0, last + 1, _ROWS_AT_A_TIME):
        rows = range(first, min(first + _ROWS_AT_A_TIME, last + 1))
        _rewrite_rows(con, converters, rows, changed, None if dry_run else now)
    kept = con.execute(
        "SELECT record_digest, raw::VARCHAR, reason FROM ops.quarantine WHERE table_name = ?", [table.qualified_name]
    ).fetchall()
    for digest, raw, reason in kept:
        now_raw, now_reason = converters[1].stored_raw(raw), converters[1].stored_text(reason)
        if (now_raw, now_reason) != (raw, reason):
            changed.quarantined += 1
            if not dry_run:
                con.execute(
                    "UPDATE ops.quarantine SET raw = ?, reason = ? WHERE record_digest = ?",
                    [now_raw, now_reason, digest],
                )
    changed.drift = _rewrite_drift(con, table, converters[1], dry_run=dry_run)
    return changed


def _rewrite_drift(con: duckdb.DuckDBPyConnection, table: Table, converter: Converter, *, dry_run: bool) -> int:
    """Names of members may be personal too; what becomes the same is counted together."""
    names = [f"{table.schema}.{name}" for name, _ in every_table(table)]
    changed = 0
    for name, path in con.execute(
        "SELECT DISTINCT table_name, path FROM ops.drift WHERE table_name IN (SELECT unnest(?))", [names]
    ).fetchall():
        now = converter.stored_text(path)
        if now == path:
            continue
        changed += 1
        if not dry_run:
            con.execute(
                "UPDATE ops.drift AS new SET occurrences = new.occurrences + old.occurrences FROM ops.drift AS old "
                "WHERE old.table_name = ? AND old.path = ? AND new.table_name = old.table_name AND new.path = ? "
                "AND new.kind = old.kind AND new.found = old.found",
                [name, path, now],
            )
            con.execute(
                "DELETE FROM ops.drift AS old WHERE table_name = ? AND path = ? AND EXISTS (SELECT 1 FROM ops.drift AS new "
                "WHERE new.table_name = old.table_name AND new.path = ? AND new.kind = old.kind AND new.found = old.found)",
                [name, path, now],
            )
            con.execute("UPDATE ops.drift SET path = ? WHERE table_name = ? AND path = ?", [now, name, path])
    return changed


def _rewrite_rows(
    con: duckdb.DuckDBPyConnection,
    converters: tuple[Converter, Converter],
    numbered: range,
    changed: Changed,
    now: datetime | None,
) -> None:
    """Rewrite the rows with these row ids that look other under the second converter; without `now` only count them."""
    table = converters[0].table
    names = [c.name for c in (*table.columns, EXTRA)]
    roots = _arrow(
        con,
        f"SELECT {_listed(names)}, _deleted_at, {LOAD_ID.name} FROM {table.qualified_name} "
        f"WHERE rowid >= {numbered.start} AND rowid < {numbered.stop} ORDER BY rowid",
    )
    if not roots.num_rows:
        return
    schema = arrow_schema(table)
    columns = [roots[name].cast(schema.field(name).type).combine_chunks() for name in names]
    lists = [_lists(con, table, child, numbered, roots.num_rows) for child in table.children]
    before, after = (converter.stored(list(columns), list(lists)) for converter in converters)
    positions = np.flatnonzero(words_of(before.hashes) != words_of(after.hashes))
    if not positions.size:
        return
    batch = after.take(positions, now or datetime.now(UTC))
    changed.rows += batch.rows
    changed.items += sum(rows.num_rows for rows in batch.tables.values()) - batch.rows
    if now is None:
        return
    keys = before.keys.take(pa.array(positions))
    taken = roots.take(pa.array(positions))
    loads = taken[LOAD_ID.name]
    for name, child in every_table(table):
        rows = batch.tables[name]
        owner = table.key if child is None else child.parent_key
        own = loads if child is None else loads.take(pc.index_in(rows[owner], after.keys.take(pa.array(positions))))
        rows = rows.append_column(LOAD_ID.name, own)
        if child is None:
            place = rows.schema.get_field_index("_deleted_at")
            rows = rows.set_column(place, rows.schema.field(place), taken["_deleted_at"].cast(rows.schema.types[place]))
        old = pa.table({"key": keys})
        con.register("deskhouse_old", old)
        con.register("deskhouse_new", rows)
        qualified = f'"{table.schema}"."{name}"'
        con.execute(f'DELETE FROM {qualified} WHERE "{owner}" IN (SELECT key FROM deskhouse_old)')
        con.execute(f"INSERT INTO {qualified} BY NAME SELECT * FROM deskhouse_new")
        con.unregister("deskhouse_old")
        con.unregister("deskhouse_new")


def _lists(
    con: duckdb.DuckDBPyConnection, table: Table, child: ChildTable, numbered: range, count: int
) -> pa.ListArray:
    """The items of a child by the rows they belong to, in the order of these."""
    names = [c.name for c in (*child.columns, EXTRA)]
    items = _arrow(
        con,
        f'WITH owners AS (SELECT "{table.key}" AS owner, row_number() OVER (ORDER BY rowid) - 1 AS place '
        f"FROM {table.qualified_name} WHERE rowid >= {numbered.start} AND rowid < {numbered.stop}) "
        f'SELECT place, {_listed(names)} FROM "{table.schema}"."{child.name}" '
        f'JOIN owners ON owner = "{child.parent_key}" ORDER BY place, {LIST_INDEX.name}',
    )
    lengths = np.bincount(items["place"].to_numpy(), minlength=count)
    offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]), pa.int32())
    schema = arrow_schema(table, child)
    return list_array(child, offsets, [items[n].cast(schema.field(n).type).combine_chunks() for n in names])


def _arrow(con: duckdb.DuckDBPyConnection, sql: str) -> pa.Table:
    return con.execute(sql).to_arrow_table()


def _listed(names: Sequence[str]) -> str:
    return ", ".join(f'"{n}"::VARCHAR AS "{n}"' if n == EXTRA.name else f'"{n}"' for n in names)


def suppress(con: duckdb.DuckDBPyConnection, policy: Policy, marks: Sequence[str], erasure: Mapping[str, Any]) -> None:
    """Note that a person is erased, by keyed hashes alone; `erasure` is the row of ops.erasures."""
    for mark in marks:
        con.execute(
            "INSERT INTO ops.suppressions VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
            [mark, policy.key_mark, erasure["erased_at"]],
        )
    names = ", ".join(erasure)
    con.execute(f"INSERT INTO ops.erasures ({names}) VALUES ({', '.join('?' * len(erasure))})", [*erasure.values()])


def as_json(counts: Mapping[str, Any]) -> str:
    """Counts as JSON text."""
    return canonical(dict(counts)).decode()


def texts_of_the_ledger(con: duckdb.DuckDBPyConnection) -> Iterator[tuple[str, str, str]]:
    """Free text in the ledger that may name a person: table, column, text."""
    for table, column in (("ops.runs", "message"), ("ops.receipts", "reason"), ("ops.receipts", "sweep_reason")):
        for (text,) in con.execute(
            f"SELECT DISTINCT {column} FROM {table} WHERE contains({column}, '@') OR contains({column}, '%40')"
        ).fetchall():
            yield table, column, text

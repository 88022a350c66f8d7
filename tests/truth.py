"""What the published file must hold, worked out from the sandbox's records and the contract alone.

Written from DESIGN §6 and the vendors' documents, without the loader's own conversion: of `sources` only the lists of
declared columns are used. Instants are compared as microseconds since 1970, JSON as canonical text.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from ipaddress import ip_network
from typing import TYPE_CHECKING, Any, Final

import duckdb

from sources.getscreen.tables import CONNECTIONS
from sources.posthog.tables import DESKTOP_RECORDINGS
from sources.screendesk.tables import RECORDINGS, USERS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from sandbox.world import World
    from sources._schema import ChildTable, Column, Table

Record = dict[str, Any]
Path_ = tuple[str, ...]
RowKey = tuple[Any, ...]
Rows = dict[RowKey, dict[str, Any]]

ROOTS: Final = (RECORDINGS, USERS, CONNECTIONS, DESKTOP_RECORDINGS)
ROOT_NAMES: Final = tuple(f"{table.schema}.{table.name}" for table in ROOTS)

INSTANT: Final = "TIMESTAMP WITH TIME ZONE"
ROOT_TYPES: Final = {
    "_extra": "JSON",
    "_row_hash": "VARCHAR",
    "_loaded_at": INSTANT,
    "_deleted_at": INSTANT,
    "_dlt_load_id": "VARCHAR",
}
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
GETSCREEN_IDS: Final = {("id",), ("support_id",), ("agent", "id")}
GETSCREEN_SECONDS: Final = {("start",), ("stop",)}
GETSCREEN_NOTHING: Final = ([], "")
VIDEO_URLS: Final = {("video", "url"), ("video_url",)}
LIVE_ACCESS: Final = {
    "connect_url",
    "invite_url",
    "invite_code",
    "permanent_url",
    "preview_url",
    "client_preview_url",
}
ADDRESSES: Final = {"ip", "ip_address"}
"""Members that hold an IP address; the profile `standard` stores their network."""
LOGS: Final = {"console_logs"}
"""Members the profile `standard` does not store."""
SHOWN: Final = 4
"""Differences told of each table."""


class MisfitError(Exception):
    """A value that does not fit its declared column."""


class Difference(AssertionError):
    """The published file is not what the vendors hold."""


# --- expected rows


def expected_rows(table: Table, records: Iterable[Record]) -> tuple[dict[str, Rows], int]:
    """Rows by qualified table name, the root's and its children's, and how many records are no row.

    As the privacy profile `standard` stores them, which is the default.
    """
    rows: dict[str, Rows] = {f"{table.schema}.{name}": {} for name in (table.name, *(c.name for c in table.children))}
    unkeyed = 0
    for record in records:
        shaped = _one_video_shape(record) if table.schema == "getscreen" else record
        values, extra, lists = _flatten(table.schema, shaped, table.columns, [c.path for c in table.children])
        key = values[table.key]
        if key is None or key == "":
            unkeyed += 1
            continue
        for child in table.children:
            items = _items(table, child, lists.get(child.path), extra)
            for index, item in enumerate(items):
                row = _child_row(table, child, key, index, item)
                rows[f"{table.schema}.{child.name}"][key, index] = _standard(table, row)
        values["_extra"] = canonical(extra) if extra else None
        values = _standard(table, values)
        rows[f"{table.schema}.{table.name}"][key,] = values
    return rows, unkeyed


def canonical(value: Any) -> str:
    """JSON text that is the same for the same value."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False)


def _standard(table: Table, row: dict[str, Any]) -> dict[str, Any]:
    """A row as the privacy profile `standard` leaves it: networks instead of IP addresses, and no console logs."""
    stored = {}
    for column, value in row.items():
        member = column.rpartition("__")[2]
        if column == "_extra" and value is not None:
            kept = _standard_json(table, json.loads(value))
            stored[column] = canonical(kept) if kept else None
        elif member in LOGS:
            stored[column] = None
        else:
            stored[column] = network(value) if member in ADDRESSES and value is not None else value
    return stored


def _standard_json(table: Table, value: Any, *, in_address: bool = False) -> Any:
    if isinstance(value, dict):
        kept = {}
        for name, inner in value.items():
            if _is_named(table, name, LOGS):
                continue
            address = in_address or _is_named(table, name, ADDRESSES)
            # an address as a number has no network to be seen
            if not address or isinstance(inner, bool) or not isinstance(inner, int | float):
                kept[network(name)] = _standard_json(table, inner, in_address=address)
        return kept
    if isinstance(value, list):
        bare = isinstance(value, list) and in_address
        items = [v for v in value if not bare or isinstance(v, bool) or not isinstance(v, int | float)]
        return [_standard_json(table, item, in_address=in_address) for item in items]
    return network(value) if isinstance(value, str) else value


def _is_named(table: Table, path: str, names: set[str]) -> bool:
    """Whether the last part of a path is one of these, as the table declares it; long names may be longer still."""
    member = re.sub(r"[\W_]", "", path.rpartition(".")[2]).lower()
    declared = {c.name.rpartition("__")[2] for t in (table, *table.children) for c in t.columns} & names
    folded = {name.replace("_", "") for name in declared}
    return any(member == name or (len(name) >= 8 and member.endswith(name)) for name in folded)


def network(text: str) -> str:
    """A text with the networks of the IP addresses in it: /24, or /48 for IPv6."""

    def shortened(found: re.Match[str]) -> str:
        try:
            return str(ip_network(f"{found[0]}/48", strict=False).network_address)
        except ValueError:
            return found[0]

    text = re.sub(r"(?<![\w:.])[0-9a-fA-F]*:[0-9a-fA-F:]+(?![\w:])", shortened, text)
    return re.sub(r"(?<![0-9.])([0-9]{1,3}(?:\.[0-9]{1,3}){2})\.[0-9]{1,3}(?![0-9]|\.[0-9])", r"\1.0", text)


def _one_video_shape(record: Record) -> Record:
    video = record.get("video")
    return record | {"video": {"url": video}} if isinstance(video, str) and video else record


def _flatten(
    schema: str, record: Record, columns: Sequence[Column], list_paths: Sequence[Path_]
) -> tuple[dict[str, Any], Record, dict[Path_, Any]]:
    """Values of declared columns by name; what fits nowhere, by dotted path; declared lists by path."""
    by_path = {tuple(column.name.split("__")): column for column in columns}
    objects = {path[:depth] for path in (*by_path, *list_paths) for depth in range(1, len(path))}
    values: dict[str, Any] = {column.name: None for column in columns}
    extra: Record = {}
    lists: dict[Path_, Any] = {}

    def walk(part: Record, at: Path_) -> None:
        for name, value in part.items():
            path = (*at, name)
            if path in by_path:
                column = by_path[path]
                try:
                    values[column.name] = _stored(schema, path, column.type.value, value)
                except MisfitError:
                    extra[".".join(path)] = _clean(schema, value, path)
            elif path in list_paths:
                lists[path] = value
            elif path in objects:
                if isinstance(value, dict):
                    walk(value, path)
                elif not _is_nothing(schema, value):
                    extra[".".join(path)] = _clean(schema, value, path)
            elif not _is_live_access(schema, path):
                extra[".".join(path)] = _clean(schema, value, path)

    walk(record, ())
    return values, extra, lists


def _items(table: Table, child: ChildTable, value: Any, extra: Record) -> list[Any]:
    if isinstance(value, list):
        return value
    if isinstance(value, dict) and child.name == "connections__client":
        return [value]
    if not _is_nothing(table.schema, value):
        extra[".".join(child.path)] = _clean(table.schema, value, child.path)
    return []


def _child_row(table: Table, child: ChildTable, key: Any, index: int, item: Any) -> dict[str, Any]:
    extra: Record
    if [column.name for column in child.columns] == ["value"]:
        values, extra = {"value": _text(item) if isinstance(item, str) else None}, {}
        if item is not None and not isinstance(item, str):
            extra = {"value": _clean(table.schema, item, child.path)}
    else:
        values, extra, _ = _flatten(table.schema, item if isinstance(item, dict) else {}, child.columns, [])
        if item is not None and not isinstance(item, dict):
            extra = {"value": _clean(table.schema, item, child.path)}
    return {child.parent_key: key, "_dlt_list_idx": index, **values, "_extra": canonical(extra) if extra else None}


def _stored(schema: str, path: Path_, kind: str, value: Any) -> Any:  # noqa: C901, PLR0911, PLR0912 - the contract, case by case
    if value is None:
        return None
    if schema == "getscreen" and path in GETSCREEN_IDS:
        number = int(value) if isinstance(value, str) and value.isdecimal() else value
        if isinstance(number, bool) or not isinstance(number, int):
            if value == "":
                return None
            raise MisfitError
        return number or None
    if schema == "getscreen" and path in GETSCREEN_SECONDS:
        if isinstance(value, bool) or not isinstance(value, int | float):
            if value == "":
                return None
            raise MisfitError
        return round(value * 1_000_000) or None
    if kind == INSTANT:
        return _instant(value)
    if kind == "VARCHAR":
        if not isinstance(value, str):
            raise MisfitError
        return _text(value.split("?")[0].split("#")[0] if path in VIDEO_URLS else value)
    if kind == "BOOLEAN":
        if not isinstance(value, bool):
            raise MisfitError
        return value
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise MisfitError
    if kind == "DOUBLE":
        return float(value)
    if value != int(value) or not -(2**63) <= value < 2**63:
        raise MisfitError
    return int(value)


def _instant(value: Any) -> int:
    try:
        at = datetime.fromisoformat(value)
    except (ValueError, TypeError):
        raise MisfitError from None
    if at.tzinfo is None:
        raise MisfitError
    return (at - EPOCH) // timedelta(microseconds=1)


def _text(value: str) -> str:
    return value.replace("\x00", "")


def _is_live_access(schema: str, path: Path_) -> bool:
    """Links that are never stored: docs/tables.md promises it wherever they appear, `url` of Getscreen included."""
    return path[-1] in LIVE_ACCESS or (schema == "getscreen" and path[-1] == "url" and not _in_video(path))


def _in_video(path: Path_) -> bool:
    return any("video" in name.lower() for name in path)


def _clean(schema: str, value: Any, path: Path_) -> Any:
    if isinstance(value, dict):
        return {
            _text(n): _clean(schema, v, (*path, n)) for n, v in value.items() if not _is_live_access(schema, (*path, n))
        }
    if isinstance(value, list):
        return [_clean(schema, item, path) for item in value]
    if isinstance(value, str):
        is_video = _in_video(path) and value.startswith(("http://", "https://"))
        return _text(value.split("?")[0].split("#")[0] if is_video else value)
    return value


def _is_nothing(schema: str, value: Any) -> bool:
    return value is None or (schema == "getscreen" and value in GETSCREEN_NOTHING)


# --- the published file


@dataclass
class Stored:
    """One table of the published file."""

    types: dict[str, str]
    rows: list[dict[str, Any]]


def reading(database: Path) -> duckdb.DuckDBPyConnection:
    """A connection as a dashboard opens one: the published file attached read-only, times in UTC."""
    connection = duckdb.connect(":memory:")
    connection.execute("SET TimeZone = 'UTC'")
    connection.execute(f"ATTACH '{database}' AS deskhouse (READ_ONLY)")
    connection.execute("USE deskhouse.main")
    return connection


def query(database: Path, sql: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
    """The rows of one query on the published file."""
    with reading(database) as connection:
        return connection.execute(sql, list(values)).fetchall()


def stored_tables(database: Path) -> dict[str, Stored]:
    """Every table of the vendors' schemas, staging included, but not dlt's own."""
    schemas = sorted({table.schema for table in ROOTS})
    found: dict[str, Stored] = {}
    with reading(database) as connection:
        columns = connection.execute(
            "SELECT schema_name || '.' || table_name, column_name, data_type FROM duckdb_columns() "
            "WHERE database_name = 'deskhouse' AND regexp_replace(schema_name, '_staging$', '') IN "
            "(SELECT unnest(?)) AND NOT starts_with(table_name, '_dlt_') ORDER BY ALL",
            [schemas],
        ).fetchall()
        for name, column, kind in columns:
            found.setdefault(name, Stored({}, [])).types[column] = kind
        for name, stored in found.items():
            shown = [f'epoch_us("{c}")' if kind == INSTANT else f'"{c}"' for c, kind in stored.types.items()]
            for values in connection.execute(f"SELECT {', '.join(shown)} FROM {name}").fetchall():
                row = dict(zip(stored.types, values, strict=True))
                stored.rows.append({
                    c: canonical(json.loads(v)) if v is not None and stored.types[c] == "JSON" else v
                    for c, v in row.items()
                })  # fmt: skip
    return found


def world_records(world: World) -> dict[str, list[Record]]:
    """Every record of the sandbox by the table it belongs in."""
    return {
        "screendesk.recordings": world.screendesk.recordings.all(),
        "screendesk.users": world.screendesk.users.all(),
        "getscreen.connections": world.getscreen.connections.all(),
        "posthog.desktop_recordings": world.posthog.desktop_recordings.all(),
    }


@dataclass
class Truth:
    """What a warehouse that follows a world must hold; remembers rows that were deleted at the vendor."""

    world: World
    _last: dict[str, dict[str, Rows]] = field(default_factory=dict)
    _gone: dict[str, dict[str, Rows]] = field(default_factory=dict)

    def remember(self) -> None:
        """Take the world as it is now for what the warehouse already holds."""
        for table in ROOTS:
            self._settle(table, expected_rows(table, world_records(self.world)[table.qualified_name])[0])

    def check(
        self,
        database: Path,
        *,
        tables: Iterable[str] = ROOT_NAMES,
        records: Mapping[str, list[Record]] | None = None,
    ) -> None:
        """Compare all columns of all tables with the world as it is now.

        Args:
            database: the published file.
            tables: the root tables to compare.
            records: what the token may see, where that is not everything.

        Raises:
            Difference: naming table, key and column of the first differences.
        """
        stored = stored_tables(database)
        served = world_records(self.world) | dict(records or {})
        problems = [p for table in ROOTS for p in _shape_problems(table, stored)]
        problems += [
            f"{name}: {len(found.rows)} staged rows were published"
            for name, found in stored.items()
            if found.rows and name.partition(".")[0].endswith("_staging")
        ]
        for table in ROOTS:
            if problems or table.qualified_name not in tables:
                continue
            rows, _ = expected_rows(table, served[table.qualified_name])
            gone = self._settle(table, rows)
            for name, live in rows.items():
                kept = gone[name]
                problems += _row_problems(name, stored[name], {**kept, **live})
            root = stored[table.qualified_name].rows
            problems += _root_problems(table, root, {key[0] for key in gone[table.qualified_name]})
        if problems:
            raise Difference("\n" + "\n".join(problems))

    def _settle(self, table: Table, rows: dict[str, Rows]) -> dict[str, Rows]:
        """Rows that an earlier check saw and the vendor has no more, their children included."""
        root = table.qualified_name
        before = self._last.get(root, {name: {} for name in rows})
        gone = self._gone.setdefault(root, {name: {} for name in rows})
        live = {key[0] for key in rows[root]}
        for name in rows:
            gone[name].update(before[name])
            gone[name] = {key: row for key, row in gone[name].items() if key[0] not in live}
        self._last[root] = rows
        return gone


def _shape_problems(table: Table, stored: Mapping[str, Stored]) -> Iterator[str]:
    for child in (None, *table.children):
        name = f"{table.schema}.{child.name if child else table.name}"
        if name not in stored:
            yield f"{name}: the table does not exist"
            continue
        declared = {column.name: column.type.value for column in (child.columns if child else table.columns)}
        if child:
            kind = next(column.type.value for column in table.columns if column.name == table.key)
            declared |= {child.parent_key: kind, "_dlt_list_idx": "BIGINT", "_extra": "JSON"}
        else:
            declared |= ROOT_TYPES
        found = stored[name].types
        for column, kind in declared.items():
            if found.get(column) != kind:
                yield f"{name}.{column}: declared {kind}, found {found.get(column, 'no such column')}"
        yield from (f"{name}.{c}: not declared" for c in found if c not in declared and not c.startswith("_dlt_"))
    names = {f"{table.schema}.{n}" for n in (*(t.name for t in ROOTS), *(c.name for t in ROOTS for c in t.children))}
    yield from (f"{name}: not declared" for name in stored if name.startswith(f"{table.schema}.") and name not in names)


def _row_problems(name: str, stored: Stored, expected: Rows) -> list[str]:
    problems: list[str] = []
    key_of = _key_of(name)
    found: Rows = {}
    for row in stored.rows:
        key = key_of(row)
        if key in found:
            problems.append(f"{name} {key!r}: more than one row")
        found[key] = row
    missing, surplus = expected.keys() - found.keys(), found.keys() - expected.keys()
    if missing:
        problems.append(f"{name}: {len(missing)} rows are missing, e.g. {sorted(missing, key=repr)[:3]!r}")
    if surplus:
        problems.append(f"{name}: {len(surplus)} rows are too many, e.g. {sorted(surplus, key=repr)[:3]!r}")
    different = []
    for key in sorted(expected.keys() & found.keys(), key=repr):
        for column, value in expected[key].items():
            got = found[key][column]
            if type(got) is not type(value) or got != value:
                different.append(f"{name} {key!r} {column}: expected {_shown(value)}, got {_shown(got)}")
    if len(different) > SHOWN:
        different[SHOWN:] = [f"{name}: {len(different) - SHOWN} more values differ"]
    return [*problems, *different]


def _key_of(name: str) -> Callable[[dict[str, Any]], RowKey]:
    root = next((table for table in ROOTS if table.qualified_name == name), None)
    if root is not None:
        return lambda row: (row[root.key],)
    owner = next(c.parent_key for t in ROOTS for c in t.children if f"{t.schema}.{c.name}" == name)
    return lambda row: (row[owner], row["_dlt_list_idx"])


def _root_problems(table: Table, rows: list[dict[str, Any]], gone: set[Any]) -> Iterator[str]:
    name = table.qualified_name
    for row in rows:
        key = row[table.key]
        for column in ("_row_hash", "_loaded_at", "_dlt_load_id"):
            if row[column] is None:
                yield f"{name} {key!r}: {column} is NULL"
        if (row["_deleted_at"] is not None) != (key in gone):
            yield f"{name} {key!r}: _deleted_at is {row['_deleted_at']}; the vendor has it: {key not in gone}"


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:200]}… ({len(text)} characters)"


# --- the ledger


def check_ledger(
    database: Path, world: World, run_id: str, *, incomplete: Iterable[str] = (), tables: Iterable[str] = ROOT_NAMES
) -> None:
    """The run's row and receipts say what the world holds, and no table is missing from them."""
    incomplete = set(incomplete)
    with reading(database) as connection:
        cursor = connection.execute("SELECT * FROM ops.receipts WHERE run_id = ?", [run_id])
        names = [column[0] for column in cursor.description]
        receipts = {row["table_name"]: row for row in (dict(zip(names, r, strict=True)) for r in cursor.fetchall())}
        runs = connection.execute(
            "SELECT status, exit_code, finished_at >= started_at, rows_written FROM ops.runs WHERE run_id = ?", [run_id]
        ).fetchall()
        live = {
            t.qualified_name: connection.execute(
                f"SELECT count(*) FILTER (_deleted_at IS NULL) FROM {t.qualified_name}"
            ).fetchall()[0][0]
            for t in ROOTS
        }
    written = sum(r["inserted"] + r["updated"] + r["deleted"] for r in receipts.values())
    code = 1 if incomplete else 0
    assert runs == [("incomplete" if incomplete else "complete", code, True, written)], runs
    assert set(receipts) == set(tables)
    for name, receipt in receipts.items():
        assert receipt["live_rows"] == live[name], name
        assert receipt["requests"] > 0, name
        assert receipt["started_at"] <= receipt["finished_at"], name
        if name in incomplete:
            assert not receipt["complete"], name
            assert " " in receipt["reason"], f"{name}: no reason in words: {receipt['reason']!r}"
            continue
        table = next(t for t in ROOTS if t.qualified_name == name)
        served = world_records(world)[name]
        _, unkeyed = expected_rows(table, served)
        assert (receipt["complete"], receipt["reason"]) == (True, ""), name
        assert receipt["vendor_count"] == len(served), name
        assert receipt["live_rows"] == len(served) - unkeyed, name
        if receipt["sweep_kind"] == "full":
            assert receipt["quarantined"] == unkeyed, name
            assert receipt["distinct_read"] == receipt["live_rows"], name
        assert receipt["inserted"] + receipt["updated"] + receipt["unchanged"] == receipt["distinct_read"], name
        assert receipt["bytes_read"] > 0, name
        assert receipt["passes"] == 1 + ("would not do" in receipt["sweep_reason"]), name


def writes(database: Path) -> dict[str, list[tuple[Any, ...]]]:
    """Everything that changes when a row is written: dlt's loads, and each row's hash, load and time."""
    with reading(database) as connection:
        loads = {
            f"{schema}._dlt_loads": connection.execute(f"SELECT * FROM {schema}._dlt_loads ORDER BY ALL").fetchall()
            for schema in sorted({table.schema for table in ROOTS})
        }
        rows = {
            t.qualified_name: connection.execute(
                f'SELECT "{t.key}", _row_hash, _dlt_load_id, epoch_us(_loaded_at) FROM {t.qualified_name} ORDER BY ALL'
            ).fetchall()
            for t in ROOTS
        }
    return loads | rows

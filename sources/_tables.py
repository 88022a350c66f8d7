"""Records -> Arrow: columns, children, `_extra`, row hash, quarantine and drift.

A page of records is read column by column. Every record ends in one of two places: in the declared tables, with
whatever fits no column kept in `_extra`; or in quarantine, with the reason, where no usable key says which row it is.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

import pyarrow as pa

from sources._schema import ChildTable, Column, Form, Table, Type, arrow_schema, every_table
from sources._values import MISFIT, canonical, column_array, fit, normalise, text, without_query

Key = str | int

# ends of member names, as `_folded` writes them; `client_preview_url` ends like `preview_url`
_NEVER_STORED: Final = ("connecturl", "inviteurl", "invitecode", "permanenturl", "previewurl", "uploadtoken")
_ADDRESS: Final = re.compile(r"\s*[^\s?#]*/[^\s?#]*[?#]")
_LONGEST_KEY: Final = 512
_DEEPEST: Final = 200
_SCALARS: Final = frozenset({str, int, float, bool, type(None)})
_NO_OBJECT: Final[dict[str, Any]] = {}


@dataclass(frozen=True)
class Quarantined:
    """A record that cannot be a row: its scrubbed JSON, and why."""

    table: str
    raw: str
    reason: str

    @property
    def digest(self) -> str:
        """Identifies the record, so that meeting it again is not a second row."""
        return hashlib.blake2b(f"{self.table}\n{self.raw}".encode(), digest_size=16).hexdigest()


@dataclass(frozen=True)
class Drift:
    """One way in which the vendor's JSON differs from the declaration."""

    table: str
    path: str
    kind: str  # `new field` or `other type`
    found: str  # JSON type that was seen


@dataclass(frozen=True)
class Batch:
    """Rows ready to load: Arrow tables by table name, the root and each child, and what was noticed on the way."""

    rows: int
    tables: dict[str, pa.Table]
    drift: Counter[Drift]


@dataclass(frozen=True)
class _Group:
    """The declared members of one JSON object."""

    path: tuple[str, ...]
    columns: tuple[tuple[str, int], ...]
    objects: tuple[tuple[str, "_Group"], ...]
    lists: tuple[tuple[str, int], ...]
    members: frozenset[str]

    @classmethod
    def of(
        cls, path: tuple[str, ...], columns: Sequence[Column], lists: Sequence[ChildTable], names: frozenset[str]
    ) -> "_Group":
        """The group at `path`, with the groups inside it; `names` are members known but not read here."""
        depth = len(path)
        at = [(c.path[depth:], i) for i, c in enumerate(columns) if c.path[:depth] == path]
        below = [(t.path[depth:], i) for i, t in enumerate(lists) if t.path[:depth] == path]
        inner = sorted({rest[0] for rest, _ in (*at, *below) if len(rest) > 1})
        here = tuple((rest[0], i) for rest, i in at if len(rest) == 1)
        here_lists = tuple((rest[0], i) for rest, i in below if len(rest) == 1)
        members = names | {n for n, _ in (*here, *here_lists)} | set(inner)
        objects = tuple((n, cls.of((*path, n), columns, lists, frozenset())) for n in inner)
        return cls(path, here, objects, here_lists, members)


@dataclass
class _Picked:
    """What a group of records holds, column by column, before conversion."""

    values: list[list[Any]]
    lists: list[list[Any]]
    extra: list[dict[str, Any]]


@dataclass
class Page:
    """Records read and hashed, from which rows are taken.

    Attributes:
        keys: the key of each row.
        hashes: the content hash of each row.
        cursors: the cursor of each row in microseconds since 1970, None where absent or unreadable.
        orders: the date each row is listed by, likewise.
        quarantined: records that are no row.
    """

    keys: list[Key]
    hashes: list[str]
    cursors: list[int | None]
    orders: list[int | None]
    quarantined: list[Quarantined]
    _converter: "Converter"
    _picked: _Picked = field(repr=False)

    def take(self, positions: Sequence[int], loaded_at: datetime) -> Batch:
        """The rows at `positions` as Arrow tables, marked as written at `loaded_at` (aware)."""
        return self._converter.build(self, positions, loaded_at)

    @property
    def picked(self) -> _Picked:
        """The columns before conversion."""
        return self._picked


class Converter:
    """Turns a vendor's records into rows of one declared table and its children."""

    def __init__(self, table: Table, prepare: Callable[[dict[str, Any]], dict[str, Any]] | None = None) -> None:
        """`prepare` brings a record of a vendor that writes one thing in several shapes into the declared shape."""
        self.table = table
        self._prepare = prepare
        self._group = _Group.of((), table.columns, table.children, frozenset())
        self._items = [_Group.of((), child.columns, (), frozenset()) for child in table.children]
        self._salt = table.fingerprint.encode()
        self._dropped = frozenset(map(_folded, table.never_stored))
        self._declared = _with_prefixes([*(c.path for c in table.columns), *(c.path for c in table.children)])
        self._declared_items = [
            _with_prefixes([("value",), *(c.path for c in child.columns)]) for child in table.children
        ]

    def read(self, records: Iterable[Any]) -> Page:
        """Read a page: split off what has no usable key, pick the declared values, hash the content."""
        rows: list[dict[str, Any]] = []
        keys: list[Key] = []
        quarantined = []
        for record in records:
            key, reason = self._key_of(record)
            if key is None:
                quarantined.append(Quarantined(self.table.qualified_name, self._raw(record), reason))
            else:
                rows.append(self._prepare(record) if self._prepare else record)
                keys.append(key)
        picked = self._pick(self._group, rows, len(self.table.columns), len(self.table.children))
        for index, column in enumerate(self.table.columns):
            values = picked.values[index]
            if not _SCALARS.issuperset(map(type, values)):
                picked.values[index] = [v if type(v) in _SCALARS else self._scrub(v, column.path) for v in values]
            if column.form is not Form.PLAIN:
                picked.values[index] = [normalise(column, v) for v in picked.values[index]]
        self._settle_lists(picked)
        cursors, orders = self._instants(self.table.cursor, picked), self._instants(self.table.order, picked)
        return Page(keys, self._hashes(picked), cursors, orders, quarantined, self, picked)

    def build(self, page: Page, positions: Sequence[int], loaded_at: datetime) -> Batch:
        """See `Page.take`."""
        table, picked, drift = self.table, page.picked, Counter[Drift]()
        extra = [dict(picked.extra[i]) for i in positions]
        _note_fields(table.qualified_name, self._declared, extra, drift)
        arrays = self._arrays(
            table.qualified_name, table.columns, [[v[i] for i in positions] for v in picked.values], extra, drift
        )
        n = len(positions)
        instant = Type.TIMESTAMP.arrow
        arrays += [
            _json_array(extra),
            pa.array([page.hashes[i] for i in positions], pa.string()),
            pa.array([loaded_at] * n, instant),
            pa.nulls(n, instant),
        ]
        tables = {table.name: pa.Table.from_arrays(arrays, schema=arrow_schema(table))}
        owners = [page.keys[i] for i in positions]
        for index, child in enumerate(table.children):
            lists = [picked.lists[index][i] for i in positions]
            tables[child.name] = self._child_table(index, child, owners, lists, drift)
        return Batch(n, tables, drift)

    def empty(self) -> dict[str, pa.Table]:
        """Empty Arrow tables, root and children: what makes every declared table and column exist."""
        return {name: arrow_schema(self.table, child).empty_table() for name, child in every_table(self.table)}

    def _key_of(self, record: Any) -> tuple[Key | None, str]:
        if type(record) is not dict:
            return None, f"a {_json_type(record)} where a record was expected"
        column = self.table.key_column
        value = normalise(column, record.get(column.name))
        if value is None or value == "":
            return None, f"no {column.name}"
        stored = fit(column, value)
        if stored is MISFIT:
            return None, f"{column.name} is a {_json_type(value)}, not {column.type.value}"
        if type(stored) is str and (len(stored) > _LONGEST_KEY or stored != value):
            return None, f"{column.name} is longer than {_LONGEST_KEY} characters, or not valid text"
        return stored, ""

    def _pick(self, group: _Group, objects: list[dict[str, Any]], width: int, lists: int) -> _Picked:
        picked = _Picked([[]] * width, [[]] * lists, [_NO_OBJECT] * len(objects))
        self._pick_group(group, objects, picked)
        return picked

    def _pick_group(self, group: _Group, objects: list[dict[str, Any]], picked: _Picked) -> None:
        for name, index in group.columns:
            picked.values[index] = [o.get(name) for o in objects]
        for name, index in group.lists:
            picked.lists[index] = [o.get(name) for o in objects]
        for name, inner in group.objects:
            self._pick_group(
                inner, [self._inner_object(o, name, inner, picked, i) for i, o in enumerate(objects)], picked
            )
        for i, o in enumerate(objects):
            if not o.keys() <= group.members:
                unknown = {n: v for n, v in o.items() if n not in group.members}
                for name, value in self._scrub(unknown, group.path).items():
                    _put(picked.extra, i, (*group.path, name), value)

    def _inner_object(
        self, outer: dict[str, Any], name: str, inner: _Group, picked: _Picked, row: int
    ) -> dict[str, Any]:
        value = outer.get(name)
        if type(value) is dict:
            return value
        if value is not None and value not in self.table.empty_objects:
            _put(picked.extra, row, inner.path, self._scrub(value, inner.path))
        return _NO_OBJECT

    def _settle_lists(self, picked: _Picked) -> None:
        """One form for lists: absent and null become empty, a bare item a list; anything else goes to `_extra`."""
        for index, child in enumerate(self.table.children):
            lists = picked.lists[index]
            for i, value in enumerate(lists):
                if type(value) is list:
                    continue
                lists[i] = []
                if type(value) is dict and child.single_object:
                    lists[i] = [value]
                elif value is not None and value not in self.table.empty_objects:
                    _put(picked.extra, i, child.path, self._scrub(value, child.path))

    def _hashes(self, picked: _Picked) -> list[str]:
        lists = [
            [v if _is_plain(group, v) else self._scrub(v, child.path) for v in lists]
            for child, group, lists in zip(self.table.children, self._items, picked.lists, strict=True)
        ]
        return [
            hashlib.blake2b(canonical(row), digest_size=16, key=self._salt).hexdigest()
            for row in zip(*picked.values, *lists, picked.extra, strict=True)
        ]

    def _instants(self, name: str | None, picked: _Picked) -> list[int | None]:
        """A column of instants in microseconds since 1970; all None where there is no such column."""
        if name is None:
            return [None] * len(picked.extra)
        index = next(i for i, c in enumerate(self.table.columns) if c.name == name)
        array, _ = column_array(self.table.columns[index], picked.values[index])
        instants: list[int | None] = array.cast(pa.int64()).to_pylist()
        return instants

    def _arrays(
        self,
        table: str,
        columns: Sequence[Column],
        values: list[list[Any]],
        extra: list[dict[str, Any]],
        drift: Counter[Drift],
    ) -> list[pa.Array]:
        arrays = []
        for column, column_values in zip(columns, values, strict=True):
            array, misfits = column_array(column, column_values)
            for i in misfits:
                _put(extra, i, column.path, self._scrub(column_values[i], column.path))
                drift[Drift(table, ".".join(column.path), "other type", _json_type(column_values[i]))] += 1
            arrays.append(array)
        return arrays

    def _child_table(
        self, index: int, child: ChildTable, owners: list[Key], lists: list[list[Any]], drift: Counter[Drift]
    ) -> pa.Table:
        name = f"{self.table.schema}.{child.name}"
        items = [item for values in lists for item in values]
        if child.plain_values:
            picked = _Picked([items], [], [_NO_OBJECT] * len(items))
        else:
            picked = self._pick(
                self._items[index], [i if type(i) is dict else _NO_OBJECT for i in items], len(child.columns), 0
            )
            for i, item in enumerate(items):
                if type(item) is not dict and item is not None:
                    _put(picked.extra, i, ("value",), self._scrub(item, child.path))
        _note_fields(name, self._declared_items[index], picked.extra, drift)
        arrays = self._arrays(name, child.columns, picked.values, picked.extra, drift)
        owner_values = [owner for owner, values in zip(owners, lists, strict=True) for _ in values]
        positions = [i for values in lists for i in range(len(values))]
        arrays = [
            pa.array(owner_values, self.table.key_column.type.arrow),
            pa.array(positions, pa.int64()),
            *arrays,
            _json_array(picked.extra),
        ]
        return pa.Table.from_arrays(arrays, schema=arrow_schema(self.table, child))

    def _raw(self, record: Any) -> str:
        return canonical(self._scrub(record, ())).decode()

    def _scrub(self, value: Any, path: Sequence[str]) -> Any:
        return _scrub(value, self._dropped, in_video=any(map(_names_video, path)))


def _scrub(value: Any, dropped: frozenset[str], *, in_video: bool, depth: int = 0) -> Any:
    """A value from outside the declared columns, without what must never be stored.

    Args:
        value: any JSON value.
        dropped: members, folded, that this vendor's records must lose besides live-access links.
        in_video: whether it was found under a member named for a video: addresses lose their query.
        depth: how deep inside a value this is. Only a hostile value goes past the limit, and is cut off there.

    Returns:
        A copy without live-access links at any depth, signed video queries and U+0000.
    """
    if depth > _DEEPEST:
        return f"(cut off: nested more than {_DEEPEST} deep)"
    if type(value) is dict:
        kept: dict[str, Any] = {}
        # sorted, so that names alike but for U+0000 are told apart in the same way each time
        for name, inner in sorted(value.items()):
            folded = _folded(name)
            if not folded.endswith(_NEVER_STORED) and (in_video or folded not in dropped):
                video = in_video or _names_video(name)
                kept[_free(kept, text(name))] = _scrub(inner, dropped, in_video=video, depth=depth + 1)
        return kept
    if type(value) is list:
        return [_scrub(v, dropped, in_video=in_video, depth=depth + 1) for v in value]
    if type(value) is str:
        return without_query(text(value)) if in_video and _ADDRESS.match(value) else text(value)
    return value


def _folded(name: str) -> str:
    """A member's name without case, separators and plural."""
    return re.sub(r"[\W_]", "", name).lower().removesuffix("s")


def _names_video(name: str) -> bool:
    return "video" in name.lower()


def _free(taken: dict[str, Any], name: str) -> str:
    """`name`, or with a number behind it where another member is written the same: `a.b` may be one name or two."""
    number, free = 1, name
    while free in taken:
        number += 1
        free = f"{name}#{number}"
    return free


def _put(extra: list[dict[str, Any]], row: int, path: tuple[str, ...], value: Any) -> None:
    if extra[row] is _NO_OBJECT:
        extra[row] = {}
    extra[row][_free(extra[row], text(".".join(path)))] = value


def _note_fields(table: str, declared: frozenset[str], extra: list[dict[str, Any]], drift: Counter[Drift]) -> None:
    for fields in extra:
        for path, value in fields.items():
            kind = "other type" if path in declared else "new field"
            drift[Drift(table, path, kind, _json_type(value))] += 1


def _with_prefixes(paths: Iterable[tuple[str, ...]]) -> frozenset[str]:
    return frozenset(".".join(path[:depth]) for path in paths for depth in range(1, len(path) + 1))


def _is_plain(group: _Group, items: list[Any]) -> bool:
    """Whether all items are objects with declared members alone and no object or list where a value is declared."""
    for item in items:
        if type(item) is not dict or not item.keys() <= group.members:
            return False
        if not _SCALARS.issuperset(map(type, item.values())):
            objects = dict(group.objects)
            inner = [(n, v) for n, v in item.items() if type(v) not in _SCALARS]
            if not all(n in objects and _is_plain(objects[n], [v]) for n, v in inner):
                return False
    return True


def _json_array(extra: list[dict[str, Any]]) -> pa.Array:
    return pa.array([canonical(e).decode() if e else None for e in extra], pa.string())


def _json_type(value: Any) -> str:
    names = {
        type(None): "null",
        bool: "boolean",
        int: "number",
        float: "number",
        str: "text",
        list: "list",
        dict: "object",
    }
    return names[type(value)]

"""Records -> Arrow: columns, children, `_extra`, row hash, quarantine and drift.

A page of records is read column by column. Every record ends in one of two places: in the declared tables, with
whatever fits no column kept in `_extra`; or in quarantine, with the reason, where no usable key says which row it is.
Records that came as `Columns` hold nothing but declared values, and take a way of their own to the same result.
"""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sources._columns import Columns, member
from sources._known import NONE, words_of
from sources._privacy import TablePrivacy
from sources._schema import ChildTable, Column, Form, Table, Type, arrow_schema, every_table
from sources._values import MISFIT, canonical, column_array, declared_array, fit, normalise, text, without_query

if TYPE_CHECKING:
    import numpy.typing as npt

Key = str | int

# ends of member names, as `_folded` writes them; `client_preview_url` ends like `preview_url`
_NEVER_STORED: Final = ("connecturl", "inviteurl", "invitecode", "permanenturl", "previewurl", "uploadtoken")
_ADDRESS: Final = re.compile(r"\s*[^\s?#]*/[^\s?#]*[?#]")
_LONGEST_KEY: Final = 512
_LEADS_ELSEWHERE: Final = r"[\x00-\x1f\x7f\\]|(^|/)\.\.?(/|$)"
"""What `sources._origin` refuses in an address, even encoded: such a key could never be asked for once it vanished."""
_DEEPEST: Final = 200
NEW_FIELD: Final = "new field"
FURTHER_PATHS: Final = ("*", "further fields", "any")
"""Path, kind and type of the drift that stands for new fields of a table beyond those that are named."""
_END: Final = pa.scalar(b"\0", pa.binary())
"""Ends a value when a row is hashed: stored text holds no U+0000."""
_JOINED: Final = pc.JoinOptions(null_handling="replace", null_replacement=b"\xff")
"""When a row is hashed, a byte of no text stands for no value."""
_NO_OBJECT: Final[dict[str, Any]] = {}


@dataclass(frozen=True)
class Quarantined:
    """A record that cannot be a row: its scrubbed JSON as it is stored, and why; `mark` tells what came from the vendor."""

    table: str
    raw: str
    reason: str
    mark: str = ""

    @property
    def digest(self) -> str:
        """Identifies the record, so that meeting it again is not a second row."""
        return self.mark or hashlib.blake2b(f"{self.table}\n{self.raw}".encode(), digest_size=16).hexdigest()


@dataclass(frozen=True, slots=True)
class Drift:
    """One way in which the vendor's JSON differs from the declaration."""

    table: str
    path: str
    kind: str  # `new field`, `other type` or one of few more
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


@dataclass(frozen=True)
class Page:
    """Records read, converted and hashed, from which rows are taken.

    Attributes:
        keys: the key of each row.
        hashes: the content hash of each row, in hexadecimal.
        words: the first eight bytes of each.
        cursors: the cursor of each row in microseconds since 1970, NONE where absent or unreadable.
        orders: the date each row is listed by, likewise.
        places: which of the records read each row is, from 0; records without a usable key are no row.
        quarantined: those records.
    """

    keys: pa.Array
    hashes: pa.Array
    words: "npt.NDArray[np.uint64]"
    cursors: "npt.NDArray[np.int64]"
    orders: "npt.NDArray[np.int64]"
    places: "npt.NDArray[np.int64]"
    quarantined: list[Quarantined]
    _table: Table
    _columns: list[pa.Array]
    _lists: list[pa.ListArray]
    _drift: list[tuple[int, Drift]]

    def __len__(self) -> int:
        return len(self.keys)

    def take(self, positions: "Sequence[int] | npt.NDArray[np.int64]", loaded_at: datetime) -> Batch:
        """The rows at `positions` as Arrow tables, marked as written at `loaded_at` (aware)."""
        everything = np.array_equal(positions, np.arange(len(self)))
        chosen = None if everything else pa.array(positions, pa.int64())

        def rows(array: pa.Array) -> pa.Array:
            return array if chosen is None else array.take(chosen)

        table, keys, n = self._table, rows(self.keys), len(positions)
        instant = Type.TIMESTAMP.arrow
        own = [rows(self.hashes), pa.repeat(pa.scalar(loaded_at, instant), n), pa.nulls(n, instant)]
        tables = {
            table.name: pa.Table.from_arrays([*map(rows, self._columns), *own], schema=arrow_schema(table)),
        }
        for child, lists in zip(table.children, self._lists, strict=True):
            items = rows(lists)
            parents = pc.list_parent_indices(items)
            arrays = [keys.take(parents), _places(items), *items.flatten().flatten()]
            tables[child.name] = pa.Table.from_arrays(arrays, schema=arrow_schema(table, child))
        taken = set(np.asarray(positions).tolist()) if self._drift else ()
        return Batch(n, tables, Counter(drift for row, drift in self._drift if row in taken))


class Converter:
    """Turns a vendor's records into rows of one declared table and its children."""

    def __init__(self, table: Table, prepare: Callable[[dict[str, Any]], dict[str, Any]] | None = None) -> None:
        """`prepare` brings a record of a vendor that writes one thing in several shapes into the declared shape."""
        self.table = table
        self._prepare = prepare
        self._group = _Group.of((), table.columns, table.children, frozenset())
        self._items = [_Group.of((), child.columns, (), frozenset()) for child in table.children]
        self._salt = table.fingerprint.encode()
        self._privacy = TablePrivacy(table, table.policy) if table.policy else None
        self._dropped = frozenset(map(_folded, table.never_stored))
        self._declared = _with_prefixes([*(c.path for c in table.columns), *(c.path for c in table.children)])
        self._declared_items = [
            _with_prefixes([("value",), *(c.path for c in child.columns)]) for child in table.children
        ]

    def read(self, records: Sequence[Any] | Columns) -> Page:
        """Read a page: split off what has no usable key, convert the rest and hash it."""
        if not isinstance(records, Columns):
            return self._read_values(records)
        page = self._read_columns(records)
        return self._read_values(records.structs.to_pylist()) if page is None else page

    def _read_columns(self, records: Columns) -> Page | None:
        """As `read`; None where a value needs a closer look after all."""
        table, n = self.table, len(records)
        arrays = []
        for column in table.columns:
            array = declared_array(column, member(records.structs, column.path))
            if array is None:
                return None
            arrays.append(array)
        keys = arrays[table.columns.index(table.key_column)]
        if keys.null_count or (table.key_column.type is Type.TEXT and not _are_keys(keys)):
            return None
        lists = []
        for child in table.children:
            found = member(records.structs, child.path)
            inner = found.flatten()
            members = [declared_array(c, inner if child.plain_values else member(inner, c.path)) for c in child.columns]
            if any(array is None for array in members):
                return None
            lists.append(list_array(child, _offsets(found), [*members, pa.nulls(len(inner), pa.string())]))
        return self._page(keys, [*arrays, pa.nulls(n, pa.string())], lists, [], [])

    def _read_values(self, records: Iterable[Any]) -> Page:
        rows: list[dict[str, Any]] = []
        keys: list[Key] = []
        places: list[int] = []
        quarantined = []
        for place, record in enumerate(records):
            key, reason = self._key_of(record)
            if key is None:
                quarantined.append(self._quarantine(record, reason))
            else:
                rows.append(self._prepare(record) if self._prepare else record)
                keys.append(key)
                places.append(place)
        picked = self._pick(self._group, rows, len(self.table.columns), len(self.table.children))
        for index, column in enumerate(self.table.columns):
            if column.form is not Form.PLAIN:
                picked.values[index] = [normalise(column, v) for v in picked.values[index]]
        self._settle_lists(picked)
        drift = _noted(self.table.qualified_name, self._declared, picked.extra, range(len(rows)))
        columns = self._arrays(
            self.table.qualified_name,
            self.table.columns,
            picked.values,
            picked.extra,
            drift=drift,
            owners=range(len(rows)),
        )
        lists = [
            self._child_list(index, child, picked.lists[index], drift)
            for index, child in enumerate(self.table.children)
        ]
        key_array = pa.array(keys, self.table.key_column.type.arrow)
        columns.append(_json_array(picked.extra))
        return self._page(key_array, columns, lists, quarantined, drift, places=np.array(places, np.int64))

    def _page(
        self,
        keys: pa.Array,
        columns: list[pa.Array],
        lists: list[pa.ListArray],
        quarantined: list[Quarantined],
        drift: list[tuple[int, Drift]],
        *,
        places: "npt.NDArray[np.int64] | None" = None,
    ) -> Page:
        if self._privacy is not None:
            columns = self._privacy.columns(columns)
            keys = columns[self.table.columns.index(self.table.key_column)]
            lists = [self._private_items(i, items) for i, items in enumerate(lists)]
            drift = [(row, replace(found, path=self._privacy.path(found.path))) for row, found in drift]
        hashes = pa.array(_hashed(_rows_as_bytes(columns, lists), self._salt), pa.string())
        cursors, orders = self._instants(self.table.cursor, columns), self._instants(self.table.order, columns)
        if places is None:
            places = np.arange(len(keys))
        words = words_of(hashes)
        return Page(keys, hashes, words, cursors, orders, places, quarantined, self.table, columns, lists, drift)

    def stored(self, columns: list[pa.Array], lists: list[pa.ListArray]) -> Page:
        """Rows as the warehouse holds them, brought under the table's policy: declared columns with `_extra`, and lists."""
        keys = columns[self.table.columns.index(self.table.key_column)]
        return self._page(keys, columns, lists, [], [])

    def stored_raw(self, raw: str) -> str:
        """The JSON of a quarantined record, brought under the table's policy."""
        return raw if self._privacy is None else canonical(self._privacy.raw(json.loads(raw))).decode()

    def stored_text(self, text: str) -> str:
        """A path or a reason in words, brought under the table's policy."""
        return text if self._privacy is None else self._privacy.path(text)

    def _private_items(self, index: int, lists: pa.ListArray) -> pa.ListArray:
        assert self._privacy is not None
        members = self._privacy.items(index, lists.flatten().flatten())
        return list_array(self.table.children[index], _offsets(lists), members)

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
        if type(stored) is str and re.search(_LEADS_ELSEWHERE, stored):
            return None, f"{column.name} reads like a path, so the record could not be asked for by it"
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

    def _instants(self, name: str | None, columns: list[pa.Array]) -> "npt.NDArray[np.int64]":
        """A column of instants in microseconds since 1970; all NONE where there is no such column."""
        if name is None:
            return np.full(len(columns[0]), NONE, np.int64)
        index = next(i for i, c in enumerate(self.table.columns) if c.name == name)
        found: npt.NDArray[np.int64] = columns[index].cast(pa.int64()).fill_null(NONE).to_numpy(zero_copy_only=False)
        return found

    def _arrays(
        self,
        table: str,
        columns: Sequence[Column],
        values: list[list[Any]],
        extra: list[dict[str, Any]],
        *,
        drift: list[tuple[int, Drift]],
        owners: Sequence[int],
    ) -> list[pa.Array]:
        """Declared columns; what does not fit goes to `extra` and `drift`, noted for the row that owns it."""
        arrays = []
        for column, column_values in zip(columns, values, strict=True):
            array, misfits = column_array(column, column_values)
            for i in misfits:
                _put(extra, i, column.path, self._scrub(column_values[i], column.path))
                found = Drift(table, ".".join(column.path), "other type", _json_type(column_values[i]))
                drift.append((owners[i], found))
            arrays.append(array)
        return arrays

    def _child_list(
        self, index: int, child: ChildTable, lists: list[list[Any]], drift: list[tuple[int, Drift]]
    ) -> pa.ListArray:
        """The lists of all rows, converted."""
        name = f"{self.table.schema}.{child.name}"
        items = [item for values in lists for item in values]
        owners = [row for row, values in enumerate(lists) for _ in values]
        if child.plain_values:
            picked = _Picked([items], [], [_NO_OBJECT] * len(items))
        else:
            picked = self._pick(
                self._items[index], [i if type(i) is dict else _NO_OBJECT for i in items], len(child.columns), 0
            )
            for i, item in enumerate(items):
                if type(item) is not dict and item is not None:
                    _put(picked.extra, i, ("value",), self._scrub(item, child.path))
        drift += _noted(name, self._declared_items[index], picked.extra, owners)
        arrays = self._arrays(name, child.columns, picked.values, picked.extra, drift=drift, owners=owners)
        lengths = np.fromiter(map(len, lists), np.int32, len(lists))
        offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]), pa.int32())
        return list_array(child, offsets, [*arrays, _json_array(picked.extra)])

    def _quarantine(self, record: Any, reason: str) -> Quarantined:
        name, raw = self.table.qualified_name, canonical(self._scrub(record, ())).decode()
        kept = self.stored_raw(raw)
        if kept == raw or self.table.policy is None:
            return Quarantined(name, raw, reason)
        # records that are alike but for what is not stored are two all the same
        return Quarantined(name, kept, reason, mark=self.table.policy.mark(f"{name}\n{raw}"))

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


def _noted(
    table: str, declared: frozenset[str], extra: list[dict[str, Any]], owners: Sequence[int]
) -> list[tuple[int, Drift]]:
    """What `extra` holds, as drift of the row that owns it."""
    return [
        (owners[i], Drift(table, path, "other type" if path in declared else NEW_FIELD, _json_type(value)))
        for i, fields in enumerate(extra)
        for path, value in fields.items()
    ]


def _with_prefixes(paths: Iterable[tuple[str, ...]]) -> frozenset[str]:
    return frozenset(".".join(path[:depth]) for path in paths for depth in range(1, len(path) + 1))


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


def _are_keys(keys: pa.StringArray) -> bool:
    """Whether each text can be a key; what is longer in bytes may still be, and is looked at one by one."""
    if pc.any(pc.match_substring_regex(keys, _LEADS_ELSEWHERE)).as_py():
        return False
    lengths = pc.min_max(pc.binary_length(keys))
    return lengths["min"].as_py() is None or (lengths["min"].as_py() > 0 and lengths["max"].as_py() <= _LONGEST_KEY)


def _offsets(lists: pa.ListArray) -> pa.Array:
    """Offsets into what `flatten` gives, which holds no gap and begins at 0; no list is an empty one."""
    lengths = pc.list_value_length(lists).fill_null(0).to_numpy(zero_copy_only=False)
    return pa.array(np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]), pa.int32())


def list_array(child: ChildTable, offsets: pa.Array, members: list[pa.Array]) -> pa.ListArray:
    """Lists of a child's items: declared columns and `_extra`."""
    names = [*(c.name for c in child.columns), "_extra"]
    return pa.ListArray.from_arrays(offsets, pa.StructArray.from_arrays(members, names))


def _places(lists: pa.ListArray) -> pa.Array:
    """The position of each item in its list."""
    lengths = pc.list_value_length(lists).to_numpy(zero_copy_only=False).astype(np.int64)
    starts = np.cumsum(lengths) - lengths
    return pa.array(np.arange(lengths.sum()) - np.repeat(starts, lengths), pa.int64())


def _hashed(rows: Iterable[bytes], salt: bytes) -> Iterator[str]:
    begun = hashlib.blake2b(digest_size=16, key=salt)
    for row in rows:
        # a copy is made in three quarters of the time
        one = begun.copy()
        one.update(row)
        yield one.hexdigest()


def _rows_as_bytes(columns: Sequence[pa.Array], lists: Sequence[pa.ListArray]) -> list[bytes]:
    """All values of each row in one run of bytes, different for different rows."""
    parts = [_as_bytes(array) for array in columns]
    for items in lists:
        inner = pc.binary_join_element_wise(*map(_as_bytes, items.flatten().flatten()), _END, options=_JOINED)
        # the number of items tells an empty list from one that holds an empty text
        parts += [
            _as_bytes(pc.list_value_length(items)),
            pc.binary_join(pa.ListArray.from_arrays(_offsets(items), inner), _END),
        ]
    rows: list[bytes] = pc.binary_join_element_wise(*parts, _END, options=_JOINED).to_pylist()
    return rows


def _as_bytes(array: pa.Array) -> pa.BinaryArray:
    if pa.types.is_timestamp(array.type):
        array = array.cast(pa.int64())
    if not pa.types.is_string(array.type):
        array = array.cast(pa.string())
    return array.cast(pa.binary())

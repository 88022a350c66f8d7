"""A list reply straight from its bytes to Arrow, where all of it is as declared.

Arrow reads JSON into typed columns without the interpreter's lock and without an object for each value: a third of the
time that values one by one take. It is believed only where it cannot read anything else than they would: a reply with a
member that is not declared, a value of another type, or anything Arrow is more lenient about, is left to them.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json as pj

from sources._schema import Form, Type

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from sources._schema import ChildTable, Column, Table

_BACKSLASH: Final = ord("\\")
_NUL: Final = b"\\u0000"
_DEEP: Final = 4_000
"""Objects and lists inside each other that Arrow's parser, which calls itself, has room for."""
_SHALLOW: Final = 64
_OPENING: Final = ord("{")
_CASE: Final = ord("{") ^ ord("[")
_PLAIN: Final = bytes(set(range(256)) - set(b'[]{}"'))
_TEXT: Final = re.compile(rb'"[^"]*"')
_EXACT: Final = 2**53
_JSON_TYPE: Final = {
    Type.TEXT: pa.string(),
    Type.INTEGER: pa.int64(),
    Type.NUMBER: pa.float64(),
    Type.BOOLEAN: pa.bool_(),
    Type.TIMESTAMP: pa.string(),
}


@dataclass(frozen=True, eq=False)
class Columns:
    """Records of one page or several, as an Arrow struct whose members are as the vendor nests them.

    Attributes:
        structs: the records.
        body_bytes: how large the replies were that they came in; about what they take.
    """

    structs: pa.StructArray
    body_bytes: int

    def __len__(self) -> int:
        return len(self.structs)

    def __iter__(self) -> Iterator[Any]:
        """The records as JSON values; what was absent is null."""
        yield from self.structs.to_pylist()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Columns) and bool(self.structs.equals(other.structs))

    __hash__ = None  # type: ignore[assignment]

    @classmethod
    def joined(cls, parts: Sequence[Columns]) -> Columns:
        """Several pages as one."""
        return cls(pa.concat_arrays([part.structs for part in parts]), sum(part.body_bytes for part in parts))


class ColumnReader:
    """Reads the list replies of one declared table, none of whose columns is of type JSON."""

    def __init__(self, table: Table, list_key: str) -> None:
        self._list_key = list_key
        self._expected = pa.list_(pa.struct(_fields(_tree(table.columns, table.children))))
        self._numbers: list[tuple[tuple[str, ...], tuple[str, ...]]] = [
            ((), c.path) for c in table.columns if c.type is Type.NUMBER
        ]
        self._numbers += [
            (child.path, c.path) for child in table.children for c in child.columns if c.type is Type.NUMBER
        ]
        self._options = pj.ParseOptions(
            explicit_schema=pa.schema([(list_key, self._expected)]), unexpected_field_behavior="infer"
        )

    def read(self, body: bytes | bytearray) -> dict[str, Any] | None:
        """The reply's members, with its list as `Columns`; None where the reply must be read value by value."""
        (reply,) = self.read_all([body])
        return reply

    def read_all(self, bodies: Sequence[bytes | bytearray]) -> list[dict[str, Any] | None]:
        """Several replies at once, each as `read` returns it; a member that only others of them have is null."""
        if all(map(_is_sound, bodies)):
            replies = self._read_together(bodies)
            if replies is not None:
                return [*replies]
        return [None] if len(bodies) == 1 else [self.read(body) for body in bodies]

    def _read_together(self, bodies: Sequence[bytes | bytearray]) -> list[dict[str, Any]] | None:
        count, body = len(bodies), bodies[0] if len(bodies) == 1 else b"\n".join(bodies)
        once = pj.ReadOptions(use_threads=False, block_size=len(body) + 1)
        try:
            _refuse_if_no_utf8(body)
            replies = pj.read_json(pa.BufferReader(body), read_options=once, parse_options=self._options)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OverflowError):
            return None
        column = replies.column(self._list_key)
        if replies.num_rows != count or column.type != self._expected:
            return None
        # all is one block
        lists = column.chunk(0)
        others = replies.drop_columns(self._list_key)
        # a member that is whole here and not there would not be whole anywhere
        if lists.null_count or (count > 1 and any(_holds_fractions(other.type) for other in others.schema)):
            return None
        structs = lists.flatten()
        members: list[dict[str, Any]] = others.to_pylist() if others.num_columns else [{} for _ in range(count)]
        if not all(map(_is_finite, members)) or not self._are_as_written(structs):
            return None
        ends = lists.offsets.to_numpy() - lists.offsets[0].as_py()
        return [
            {**of_one, self._list_key: Columns(structs.slice(begin, end - begin), len(body))}
            for body, of_one, begin, end in zip(bodies, members, ends[:-1].tolist(), ends[1:].tolist(), strict=True)
        ]

    def _are_as_written(self, structs: pa.StructArray) -> bool:
        """Whether each record is an object, and each number what stands in its text."""
        return not structs.null_count and all(
            _are_exact(member(member(structs, lists_at).flatten() if lists_at else structs, path))
            for lists_at, path in self._numbers
        )


def member(structs: pa.StructArray, path: Iterable[str]) -> pa.Array:
    """A member of nested objects; null where an object around it is."""
    for name in path:
        structs = pc.struct_field(structs, name)
    return structs


def _refuse_if_no_utf8(body: bytes | bytearray) -> None:
    """Arrow's JSON reader does not look whether text is UTF-8, and hands it on; asking Arrow leaves other threads at work."""
    offsets = pa.array([0, len(body)], pa.int32()).buffers()[1]
    pa.StringArray.from_buffers(1, offsets, pa.py_buffer(body)).validate(full=True)


def _is_sound(body: bytes | bytearray) -> bool:
    """Whether Arrow can be given a reply, alone or among others."""
    return _is_object_outside(body) and not _holds_nul(body) and _is_shallow(body)


def _is_object_outside(body: bytes | bytearray) -> bool:
    """Whether it begins and ends like an object; on `null` Arrow's reader ends the process.

    Of bodies that do, joined by line breaks, none is part of another's value: no JSON holds a line break in a text, or
    `}` and `{` one after the other without a comma. So as many objects as bodies are one of each.
    """
    inside = body.strip()
    return inside.startswith(b"{") and inside.endswith(b"}")


def _holds_nul(body: bytes | bytearray) -> bool:
    """Whether U+0000 may be written in a text; in numpy, which leaves other threads at work."""
    data = np.frombuffer(body, np.uint8)
    places = np.flatnonzero(data[: 1 - len(_NUL)] == _BACKSLASH)
    for distance, byte in enumerate(_NUL[1:], 1):
        places = places[data[places + distance] == byte]
    return bool(places.size)


def _is_shallow(body: bytes | bytearray) -> bool:
    """Whether objects and lists are nested a little and no more; saying no of a damaged body does no harm."""
    if np.count_nonzero((np.frombuffer(body, np.uint8) | _CASE) == _OPENING) < _DEEP:
        return True
    left = body.replace(b"\\\\", b"").replace(b'\\"', b"").translate(None, _PLAIN).replace(b'""', b"")
    left = _TEXT.sub(b"", left)
    for _ in range(_SHALLOW):
        if not left:
            return True
        left = left.replace(b"{}", b"").replace(b"[]", b"")
    return False


def _holds_fractions(kind: pa.DataType) -> bool:
    return pa.types.is_floating(kind) or any(_holds_fractions(kind.field(i).type) for i in range(kind.num_fields))


def _is_finite(value: Any) -> bool:
    if isinstance(value, dict):
        return all(map(_is_finite, value.values()))
    if isinstance(value, list):
        return all(map(_is_finite, value))
    return not isinstance(value, float) or math.isfinite(value)


def _are_exact(numbers: pa.DoubleArray) -> bool:
    """Whether no number is NaN, or whole and so large that it may not be what was written."""
    bounds = pc.min_max(numbers)
    largest = max(abs(bounds["min"].as_py() or 0), abs(bounds["max"].as_py() or 0))
    return largest < _EXACT and pc.all(pc.is_finite(numbers)).as_py() is not False


def _tree(columns: Iterable[Column], children: Iterable[ChildTable] = ()) -> dict[str, Any]:
    """Members by name: a type, or the members of an object."""
    root: dict[str, Any] = {}
    leaves = [(c.path, pa.int64() if c.form is Form.UNIX_SECONDS else _JSON_TYPE[c.type]) for c in columns]
    for child in children:
        item = _JSON_TYPE[child.columns[0].type] if child.plain_values else pa.struct(_fields(_tree(child.columns)))
        leaves.append((child.path, pa.list_(item)))
    for path, leaf in leaves:
        inner = root
        for name in path[:-1]:
            inner = inner.setdefault(name, {})
        inner[path[-1]] = leaf
    return root


def _fields(tree: Mapping[str, Any]) -> list[pa.Field]:
    return [pa.field(name, pa.struct(_fields(leaf)) if isinstance(leaf, dict) else leaf) for name, leaf in tree.items()]

"""One JSON value -> one stored value, or the verdict that it does not fit its declared column.

`column_array` converts a whole column at once in Arrow's own code. Where a value does not fit, it falls back to
`fit`, value by value, so that one odd value costs itself and not the column.
"""

import json
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final

import orjson
import pyarrow as pa
import pyarrow.compute as pc

from sources._schema import Column, Form, Type

MISFIT: Final = object()
"""Says that a value does not fit; never stored."""

_EARLIEST = int(datetime(1, 1, 1, tzinfo=UTC).timestamp())
_LATEST = int(datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC).timestamp())
_INT64 = range(-(2**63), 2**63)
_MICROSECOND = 1_000_000
_DIGITS = re.compile(r"0|[1-9][0-9]{0,18}")
_SURROGATE = re.compile("[\ud800-\udfff]")
_ABSENT = type(None)
_EXPECTED: dict[Type, frozenset[type]] = {
    Type.TEXT: frozenset({str, _ABSENT}),
    Type.INTEGER: frozenset({int, _ABSENT}),
    Type.NUMBER: frozenset({int, float, _ABSENT}),
    Type.BOOLEAN: frozenset({bool, _ABSENT}),
}
_UNIX = frozenset({int, float, _ABSENT})


def without_query(url: str) -> str:
    """A URL without query and fragment."""
    return url.split("?", 1)[0].split("#", 1)[0]


def canonical(value: Any) -> bytes:
    """JSON text of a value, the same for equal values whatever the order of members."""
    try:
        return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
    except TypeError:
        # integers past 64 bit and lone surrogates are legal JSON that orjson does not write
        return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def normalise(column: Column, value: Any) -> Any:
    """One form for values the vendor writes in several: ids as text, 0 for none, signed video addresses."""
    if column.form is Form.ID:
        if type(value) is str and _DIGITS.fullmatch(value):
            value = int(value)
        return None if value in (0, "") and type(value) is not bool else value
    if column.form is Form.UNIX_SECONDS:
        return None if value in (0, "") and type(value) is not bool else value
    if column.form is Form.VIDEO_URL and type(value) is str:
        return without_query(value)
    return value


def fit(column: Column, value: Any) -> Any:  # noqa: PLR0911 - one return per type reads best
    """The stored form of one normalised value, or MISFIT.

    Args:
        column: the declared column.
        value: what the vendor's JSON holds, after `normalise`.

    Returns:
        None, str, int, float, bool or an aware datetime in UTC as the column's type asks; MISFIT where storing it
        would change its meaning. U+0000 is removed from text, and a lone surrogate becomes U+FFFD.
    """
    if value is None:
        return None
    if column.type is Type.TEXT:
        return text(value) if type(value) is str else MISFIT
    if column.type is Type.BOOLEAN:
        return value if type(value) is bool else MISFIT
    if column.type is Type.TIMESTAMP:
        return _instant(column, value)
    if type(value) not in (int, float):
        return MISFIT
    if column.type is Type.NUMBER:
        return float(value) if type(value) is float or _is_exact(value) else MISFIT
    if type(value) is float and not value.is_integer():
        return MISFIT
    return int(value) if int(value) in _INT64 else MISFIT


def text(value: str) -> str:
    """Text as DuckDB can hold it: without U+0000, and with U+FFFD for a lone surrogate."""
    value = value.replace("\x00", "")
    return value if value.isascii() else _SURROGATE.sub("\ufffd", value)


def _is_exact(value: int) -> bool:
    return abs(value) <= 2**53 or (abs(value) < 2**1023 and int(float(value)) == value)


def _instant(column: Column, value: Any) -> Any:
    if column.form is Form.UNIX_SECONDS:
        if type(value) not in (int, float) or not _EARLIEST <= value <= _LATEST:
            return MISFIT
        instant = datetime.fromtimestamp(value, UTC)
        return instant if instant.timestamp() == value else MISFIT
    if type(value) is not str:
        return MISFIT
    try:
        array = _parsed([value])
    except (pa.ArrowInvalid, UnicodeEncodeError):
        return MISFIT
    return MISFIT if array is None else array[0].as_py().astimezone(UTC)


def column_array(column: Column, values: Sequence[Any]) -> tuple[pa.Array, list[int]]:
    """A column of normalised values as Arrow, and the positions of those that do not fit (NULL in the array)."""
    fast = _fast_array(column, values)
    if fast is not None:
        return fast, []
    fitted = [fit(column, v) for v in values]
    misfits = [i for i, v in enumerate(fitted) if v is MISFIT]
    return pa.array([None if v is MISFIT else v for v in fitted], type=column.type.arrow), misfits


def declared_array(column: Column, values: pa.Array) -> pa.Array | None:
    """A column of declared values that Arrow read, as it is stored; None where some value needs a closer look.

    Args:
        column: the declared column.
        values: text for dates written as text, else what `column.type` is carried by.
    """
    try:
        if column.form is Form.UNIX_SECONDS:
            seconds = _none_for_zero(values)
            return pc.multiply(seconds, _MICROSECOND).cast(Type.TIMESTAMP.arrow) if _within(seconds, 1) else None
        if column.type is Type.TIMESTAMP:
            return _instants_of(values)
    except pa.ArrowInvalid:
        return None
    if column.form is Form.ID:
        return _none_for_zero(values)
    if column.form is Form.VIDEO_URL:
        return pc.replace_substring_regex(values, r"(?s)[?#].*", "")
    return values


def _none_for_zero(numbers: pa.Array) -> pa.Array:
    return pc.if_else(pc.equal(numbers, 0), pa.scalar(None, numbers.type), numbers)


def _fast_array(column: Column, values: Sequence[Any]) -> pa.Array | None:
    """The column converted in one go, or None where some value needs a closer look."""
    types = set(map(type, values))
    try:
        if column.type is Type.TIMESTAMP:
            return _fast_instants(column, values, types)
        if not types <= _EXPECTED[column.type]:
            return None
        array = pa.array(values, type=column.type.arrow)
    except (pa.ArrowInvalid, OverflowError, UnicodeEncodeError):
        return None
    return None if column.type is Type.TEXT and _holds_nul(array) else array


def _fast_instants(column: Column, values: Sequence[Any], types: set[type]) -> pa.Array | None:
    if column.form is Form.UNIX_SECONDS:
        if not types <= {int, _ABSENT}:
            return None
        seconds = pa.array(values, type=pa.int64())
        return pc.multiply(seconds, _MICROSECOND).cast(Type.TIMESTAMP.arrow) if _within(seconds, 1) else None
    return _parsed(values) if types <= _EXPECTED[Type.TEXT] else None


def _parsed(values: Sequence[Any]) -> pa.Array | None:
    return _instants_of(pa.array(values, type=pa.string()))


def _instants_of(texts: pa.Array) -> pa.Array | None:
    """Text as instants, or None where one lies outside the years 1 to 9999, which Python could not read back."""
    instants = texts.cast(Type.TIMESTAMP.arrow)
    return instants if _within(instants.view(pa.int64()), _MICROSECOND) else None


def _within(numbers: pa.Array, unit: int) -> bool:
    bounds = pc.min_max(numbers)
    low, high = bounds["min"].as_py(), bounds["max"].as_py()
    return low is None or (_EARLIEST * unit <= low and high < (_LATEST + 1) * unit)


def _holds_nul(array: pa.Array) -> bool:
    data = array.buffers()[2]
    if data is None:
        return False
    # the buffer may be padded with zeros past its end: only what the offsets cover is text
    offsets = array.buffers()[1]
    end = int.from_bytes(offsets[4 * len(array) : 4 * len(array) + 4].to_pybytes(), "little")
    return b"\x00" in memoryview(data)[:end].tobytes()

"""What the warehouse holds of a table, found by key: some fifty bytes a row, in arrays instead of objects.

A key is kept as sixteen bytes: a UUID or an integer as what it is, any other text as its hash, with the text beside it.
Rows are numbered in the order they were placed; everything else about a row is told by its number.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final

import numpy as np
import pyarrow as pa

if TYPE_CHECKING:
    from collections.abc import Iterable

    import numpy.typing as npt

    from sources._tables import Key

    Numbers = npt.NDArray[np.int64]
    Flags = npt.NDArray[np.bool_]
    Words = npt.NDArray[np.uint64]

NONE: Final = -(2**63)
"""Stands for a date that is not there."""
_UUID: Final = 36
_DASHES: Final = (8, 13, 18, 23)
_DIGIT_PLACES: Final = np.array([i for i in range(_UUID) if i not in _DASHES])
_NO_DIGIT: Final = 255
_DIGITS: Final = np.full(256, _NO_DIGIT, np.uint8)
_DIGITS[np.frombuffer(b"0123456789abcdef", np.uint8)] = np.arange(16)
_LEAST: Final = 1024
_FULLEST: Final = 0.6
_SPREAD: Final = np.uint64(0x9E3779B97F4A7C15)


class Known:
    """Rows by key.

    Attributes:
        hashes: the first eight bytes of each row's content hash.
        cursors: each row's cursor in microseconds since 1970, or NONE.
        stored: whether a row with that key has been written.
        deleted: whether it is marked deleted.
        starts: tables read by dates: when each began, in microseconds since 1970, as the last run left it, or NONE.
        stops: likewise, when each ended.
    """

    def __init__(self) -> None:
        self._count = 0
        self._high = np.empty(_LEAST, np.uint64)
        self._low = np.empty(_LEAST, np.uint64)
        self._integers = False
        self._texts: dict[int, str] = {}
        self._slots = np.full(2 * _LEAST, -1, np.int32)
        self.hashes = np.zeros(_LEAST, np.uint64)
        self.cursors = np.full(_LEAST, NONE, np.int64)
        self.stored = np.zeros(_LEAST, np.bool_)
        self.deleted = np.zeros(_LEAST, np.bool_)
        self.starts = np.empty(0, np.int64)
        self.stops = np.empty(0, np.int64)

    def __len__(self) -> int:
        """Rows placed, stored or not."""
        return self._count

    @property
    def live(self) -> int:
        """Rows that are stored and not marked deleted."""
        return int(np.count_nonzero(self.live_rows()))

    def live_rows(self) -> Flags:
        """For each row whether it is stored and not marked deleted."""
        flags: Flags = self.stored[: self._count] & ~self.deleted[: self._count]
        return flags

    def find(self, keys: pa.Array) -> Numbers:
        """The number of each key's row, -1 where there is none. No key may be null."""
        return self._find(*_words(keys))

    def place(self, keys: pa.Array) -> Numbers:
        """The number of each key's row; a key that has none gets the next, not stored yet. No key may be null."""
        high, low = _words(keys)
        numbers = self._find(high, low)
        unknown = np.flatnonzero(numbers < 0)
        if not unknown.size:
            return numbers
        places, fresh = _first_places(high[unknown], low[unknown])
        numbers[unknown], fresh = self._count + places, unknown[fresh]
        self._integers = pa.types.is_integer(keys.type)
        self._append(high[fresh], low[fresh])
        if not self._integers:
            self._keep_texts(keys, fresh, numbers)
        return numbers

    def keys(self, numbers: Iterable[int]) -> list[Key]:
        """The keys of rows."""
        return [self._key(int(number)) for number in numbers]

    def write(self, numbers: Numbers, hashes: Words, cursors: Numbers, *, deleted: Flags | bool = False) -> None:
        """Note what has been written to rows."""
        self.hashes[numbers] = hashes
        self.cursors[numbers] = cursors
        self.deleted[numbers] = deleted
        self.stored[numbers] = True
        if self.starts.size:
            self.starts[numbers[numbers < self.starts.size]] = NONE
            self.stops[numbers[numbers < self.stops.size]] = NONE

    def note_spans(self, numbers: Numbers, starts: Numbers, stops: Numbers) -> None:
        """Note when records began and ended."""
        missing = self._count - self.starts.size
        if missing > 0:
            none = np.full(missing, NONE, np.int64)
            self.starts, self.stops = np.concatenate([self.starts, none]), np.concatenate([self.stops, none])
        self.starts[numbers], self.stops[numbers] = starts, stops

    def spans(self) -> tuple[Numbers, Numbers]:
        """When each record began and ended."""
        self.note_spans(*(np.empty(0, np.int64),) * 3)
        return self.starts, self.stops

    def _key(self, number: int) -> Key:
        if number in self._texts:
            return self._texts[number]
        if self._integers:
            return int(self._low[number].astype(np.int64))
        digits = f"{int(self._high[number]):016x}{int(self._low[number]):016x}"
        return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))

    def _keep_texts(self, keys: pa.Array, fresh: Numbers, numbers: Numbers) -> None:
        for index in fresh[~_are_uuids(keys)[fresh]]:
            self._texts[int(numbers[index])] = keys[int(index)].as_py()

    def _home(self, high: Words, low: Words) -> Numbers:
        shift = np.uint64(64 - (len(self._slots).bit_length() - 1))
        home: Numbers = (((high ^ low) * _SPREAD) >> shift).astype(np.int64)
        return home

    def _find(self, high: Words, low: Words) -> Numbers:
        found = np.full(len(high), -1, np.int64)
        waiting, at = np.arange(len(high)), self._home(high, low)
        mask = len(self._slots) - 1
        while waiting.size:
            held = self._slots[at]
            taken = held >= 0
            same = taken & (self._high[held] == high[waiting]) & (self._low[held] == low[waiting])
            found[waiting[same]] = held[same]
            on = taken & ~same
            waiting, at = waiting[on], (at[on] + 1) & mask
        return found

    def _append(self, high: Words, low: Words) -> None:
        first, self._count = self._count, self._count + len(high)
        if self._count > len(self._high):
            self._grow(max(self._count, int(len(self._high) * 1.5)))
        self._high[first : self._count], self._low[first : self._count] = high, low
        if self._count > _FULLEST * len(self._slots):
            size = 1 << int(np.ceil(np.log2(self._count / _FULLEST)))
            self._slots = np.full(size, -1, np.int32)
            first = 0
        self._settle(np.arange(first, self._count))

    def _settle(self, numbers: Numbers) -> None:
        """Give rows a slot."""
        at, mask = self._home(self._high[numbers], self._low[numbers]), len(self._slots) - 1
        while numbers.size:
            free = self._slots[at] < 0
            self._slots[at[free]] = numbers[free]
            on = self._slots[at] != numbers
            numbers, at = numbers[on], (at[on] + 1) & mask

    def _grow(self, size: int) -> None:
        for name, filling in (
            ("_high", 0),
            ("_low", 0),
            ("hashes", 0),
            ("cursors", NONE),
            ("stored", False),
            ("deleted", False),
        ):
            old = getattr(self, name)
            new = np.full(size, filling, old.dtype)
            new[: len(old)] = old
            setattr(self, name, new)


class Marks:
    """Some of the rows of a `Known`."""

    def __init__(self, numbers: Numbers | None = None) -> None:
        self._flags = np.zeros(0, np.bool_)
        self._count = 0
        if numbers is not None:
            self.add(numbers)

    def __len__(self) -> int:
        return self._count

    def add(self, numbers: Numbers) -> None:
        """Mark rows."""
        if not numbers.size:
            return
        most = int(numbers.max()) + 1
        if most > len(self._flags):
            flags = np.zeros(max(most, int(len(self._flags) * 1.5)), np.bool_)
            flags[: len(self._flags)] = self._flags
            self._flags = flags
        self._count += count_distinct(numbers[~self._flags[numbers]])
        self._flags[numbers] = True

    def has(self, numbers: Numbers) -> Flags:
        """For each of these rows whether it is marked."""
        inside = numbers < len(self._flags)
        marked = np.zeros(len(numbers), np.bool_)
        marked[inside] = self._flags[numbers[inside]]
        return marked

    def first(self, count: int) -> Flags:
        """For each of the first `count` rows whether it is marked."""
        flags = np.zeros(count, np.bool_)
        known = min(count, len(self._flags))
        flags[:known] = self._flags[:known]
        return flags


def count_distinct(numbers: Numbers | Words) -> int:
    """How many different numbers there are; numpy's own way imports its masked arrays first."""
    ordered = np.sort(numbers)
    return int(np.count_nonzero(ordered[1:] != ordered[:-1])) + bool(ordered.size)


def words_of(hashes: pa.Array) -> Words:
    """The first eight bytes of hashes written as hexadecimal text of one length, of which none is null."""
    text = _bytes_of(hashes, 32)
    if text is None:
        return np.array([int(value[:16] or "0", 16) for value in hashes.to_pylist()], np.uint64)
    return _packed(_DIGITS[text[:, :16]])


def _first_places(high: Words, low: Words) -> tuple[Numbers, Numbers]:
    """Keys numbered in order of their first appearance, and where each number appears first."""
    if count_distinct(high ^ (low * _SPREAD)) == len(high):
        return np.arange(len(high)), np.arange(len(high))
    _, first, which = np.unique(np.stack([high, low], axis=1), axis=0, return_index=True, return_inverse=True)
    order = np.argsort(first)
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    return rank[which.reshape(-1)], first[order]


def _words(keys: pa.Array) -> tuple[Words, Words]:
    if pa.types.is_integer(keys.type):
        low = keys.to_numpy(zero_copy_only=False).astype(np.int64).view(np.uint64)
        return np.zeros(len(low), np.uint64), low
    text = _bytes_of(keys, _UUID)
    if text is not None and _are_digits(text).all():
        digits = _DIGITS[text[:, _DIGIT_PLACES]]
        return _packed(digits[:, :16]), _packed(digits[:, 16:])
    blobs = b"".join(_sixteen(key) for key in keys.to_pylist())
    pairs = np.frombuffer(blobs, ">u8").astype(np.uint64).reshape(-1, 2)
    return pairs[:, 0].copy(), pairs[:, 1].copy()


def _sixteen(key: str) -> bytes:
    if _is_uuid(key):
        return bytes.fromhex(key.replace("-", ""))
    return hashlib.blake2b(key.encode(), digest_size=16).digest()


def _is_uuid(key: str) -> bool:
    text = np.frombuffer(key.encode(), np.uint8)
    return len(text) == _UUID and bool(_are_digits(text.reshape(1, _UUID))[0])


def _are_uuids(keys: pa.Array) -> Flags:
    text = _bytes_of(keys, _UUID)
    if text is not None:
        return _are_digits(text)
    return np.array([_is_uuid(key) for key in keys.to_pylist()], np.bool_)


def _are_digits(text: npt.NDArray[np.uint8]) -> Flags:
    """For each row of 36 characters whether it is a UUID in small letters."""
    dashed = (text[:, _DASHES] == ord("-")).all(axis=1)
    flags: Flags = dashed & (_DIGITS[text[:, _DIGIT_PLACES]] != _NO_DIGIT).all(axis=1)
    return flags


def _packed(digits: npt.NDArray[np.uint8]) -> Words:
    """Sixteen hexadecimal digits a row as one word."""
    pairs = np.ascontiguousarray((digits[:, ::2] << 4) | digits[:, 1::2])
    return pairs.view(">u8").reshape(-1).astype(np.uint64)


def _bytes_of(texts: pa.Array, width: int) -> npt.NDArray[np.uint8] | None:
    """The characters of texts that are all `width` bytes long, one row each; None where they are not."""
    if not len(texts) or texts.null_count:
        return None if texts.null_count else np.empty((0, width), np.uint8)
    _, offsets, data = texts.buffers()
    places = np.frombuffer(offsets, np.int32)[texts.offset : texts.offset + len(texts) + 1]
    if data is None or (np.diff(places) != width).any():
        return None
    return np.frombuffer(data, np.uint8)[places[0] : places[-1]].reshape(-1, width)

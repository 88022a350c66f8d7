"""Records kept as the bytes that are served, with the few values needed to sort and filter them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

import orjson

from sandbox.records import Record, assign

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable
    from datetime import datetime

    from sandbox.scene import Scene

Key = str | int
FactsT = TypeVar("FactsT")

_CACHED_VIEWS = 64


@dataclass(slots=True)
class Entry(Generic[FactsT]):
    """One record: its JSON and the values lists are sorted and filtered by."""

    body: bytes
    facts: FactsT


class Order(NamedTuple):
    """A sort order; the name tells cached views apart."""

    name: str
    key: Callable[[Any], Any]
    descending: bool = True


class Table(Generic[FactsT]):
    """One vendor collection. Every read gives fresh copies; every change shows in the next request.

    `describe` takes a record's facts, `order` names the order lists are served in, `make` invents a new record, and
    `updated_at` is the path of the vendor's own stamp with its way of writing time, where it has one.
    """

    def __init__(
        self,
        key_field: str,
        *,
        scene: Scene,
        describe: Callable[[Record], FactsT],
        order: Callable[[], Order],
        make: Callable[[datetime], Record],
        updated_at: tuple[str, Callable[[datetime], str]] | None = None,
    ) -> None:
        self.key_field = key_field
        self.lock = scene.lock
        self._clock = scene.clock
        self._describe = describe
        self._order = order
        self._make = make
        self._updated_at = updated_at
        self._entries: dict[Key, Entry[FactsT]] = {}
        self._views: dict[Hashable, list[Entry[FactsT]]] = {}
        self._unkeyed = 0

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, key: object) -> bool:
        return key in self._entries

    def keys(self) -> list[Key]:
        """The keys of all records, in list order."""
        with self.lock:
            order = self._order()
            ranked = sorted(self._entries.items(), key=lambda item: order.key(item[1].facts), reverse=order.descending)
            return [key for key, _ in ranked]

    def all(self) -> list[Record]:
        """Every record as the list endpoint serves it, in list order."""
        with self.lock:
            return [orjson.loads(entry.body) for entry in self.view()]

    def get(self, key: Key) -> Record:
        """A copy of one record; KeyError when there is none."""
        with self.lock:
            record: Record = orjson.loads(self._entries[key].body)
            return record

    def body(self, key: Key) -> bytes | None:
        """One record's JSON, or None."""
        with self.lock:
            entry = self._entries.get(key)
            return entry.body if entry else None

    def dump(self) -> bytes:
        """All records in list order as one JSON array."""
        with self.lock:
            return b"[" + b",".join([entry.body for entry in self.view()]) + b"]"

    def view(self, tag: Hashable = None, where: Callable[[FactsT], bool] | None = None) -> list[Entry[FactsT]]:
        """Entries in list order, narrowed by `where`. `tag` must tell one `where` from another: views are cached."""
        with self.lock:
            order = self._order()
            cached = self._views.get((order.name, tag))
            if cached is not None:
                return cached
            if where is None:
                chosen = list(self._entries.values())
            else:
                chosen = [entry for entry in self._entries.values() if where(entry.facts)]
            chosen.sort(key=lambda entry: order.key(entry.facts), reverse=order.descending)
            if len(self._views) >= _CACHED_VIEWS:
                self._views.clear()
            self._views[order.name, tag] = chosen
            return chosen

    def load(self, records: Iterable[Record]) -> None:
        """Add many records at once."""
        with self.lock:
            for record in records:
                self._entries[record[self.key_field]] = Entry(_packed(record), self._describe(record))
            self._views.clear()

    def insert(self, record: Record | None = None, **overrides: Any) -> Key:
        """Add a record and return its key; without one, invent a plausible record dated at the present.

        Overrides replace fields of it: `insert(status="error", metadata__title=None)`; two underscores step inside.
        A record without a usable key is kept too, under an `unkeyed-N` handle, since vendors can serve such rows.
        """
        with self.lock:
            added: Record = orjson.loads(orjson.dumps(self._make(self._clock.now) if record is None else record))
            for name, value in overrides.items():
                assign(added, name.replace("__", "."), value)
            key = self._key_of(added)
            if key is None:
                self._unkeyed += 1
                key = f"unkeyed-{self._unkeyed}"
            if key in self._entries:
                raise KeyError(f"{key!r} is already in the table; use replace or update")
            self._put(key, added)
            return key

    def replace(self, key: Key, record: Record) -> None:
        """Serve exactly this record in place of the one under `key`."""
        with self.lock:
            if key not in self._entries:
                raise KeyError(key)
            self._put(key, record)

    def update(self, key: Key, changes: Record, *, touch: bool = True) -> None:
        """Set values at dotted paths; `touch` also stamps the vendor's `updated_at`, as most edits do but not all.

        Use `records.ABSENT` as a value to remove a field.
        """
        with self.lock:
            record = self.get(key)
            if touch and self._updated_at:
                path, write = self._updated_at
                assign(record, path, write(self._clock.now))
            for path, value in changes.items():
                assign(record, path, value)
            self._put(key, record)

    def delete(self, key: Key) -> None:
        """Remove a record without trace, as vendors do."""
        with self.lock:
            del self._entries[key]
            self._views.clear()

    def _key_of(self, record: Record) -> Key | None:
        key = record.get(self.key_field)
        usable = isinstance(key, str | int) and not isinstance(key, bool) and key != ""
        return key if usable else None

    def _put(self, key: Key, record: Record) -> None:
        """Store under `key`, or under the record's own key where that has changed."""
        own = self._key_of(record)
        entry = Entry(_packed(record), self._describe(record))
        if own is not None and own != key:
            if own in self._entries:
                raise KeyError(f"{own!r} is already in the table")
            self._entries.pop(key, None)
            self._entries[own] = entry
            self._views.clear()
            return
        present = self._entries.get(key)
        if present is not None and present.facts == entry.facts:
            present.body = entry.body
            return
        self._entries[key] = entry
        self._views.clear()


def _packed(record: Record) -> bytes:
    # orjson hands out the end of a larger buffer; the copy keeps a big world at a third of the memory
    return memoryview(orjson.dumps(record)).tobytes()

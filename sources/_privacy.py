"""A policy applied to a table's rows: one action for every declared column, and for everything a vendor sends beside them.

It is applied to a page's Arrow columns before a row is hashed. So a change the policy hides does not rewrite a row, and a
changed policy gives every row it touches another hash.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sources._policy import ERASED, KEEP, TOMBSTONE, Action, Deed, Policy, strictest, without_hosts
from sources._schema import EXTRA, Privacy, Type
from sources._values import canonical

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sources._schema import ChildTable, Table

_IPV4_ALONE: Final = r"^(\d{1,3}\.\d{1,3}\.\d{1,3})\.\d{1,3}$"
_GONE: Final = object()
_LONG_ENOUGH: Final = 8
"""Characters from which a declared name is recognised at the end of a longer one: `browserConsoleLogs`."""


class TablePrivacy:
    """A policy as it bears on one declared table and its children."""

    def __init__(self, table: Table, policy: Policy) -> None:
        self.policy = policy
        self._table = table
        self._root = _Fields(table, None, policy)
        self._children = [_Fields(table, child, policy) for child in table.children]
        rules = dict(self._root.rules)
        for child, fields in zip(table.children, self._children, strict=True):
            fields.json = _Json(fields.rules, fields.unknown, policy, fields.inside)
            for path, action in fields.rules.items():
                rules[child.path if child.plain_values else (*child.path, *path)] = action
        self._raw = self._root.json = _Json(rules, self._root.unknown, policy, self._root.inside)

    def columns(self, arrays: list[pa.Array]) -> list[pa.Array]:
        """The root's declared columns and `_extra`, as they are stored."""
        return self._root.applied(arrays)

    def items(self, child: int, arrays: list[pa.Array]) -> list[pa.Array]:
        """The declared columns and `_extra` of a child's items, as they are stored."""
        return self._children[child].applied(arrays)

    def raw(self, record: Any) -> Any:
        """A whole record that is no row, as it is stored in quarantine."""
        kept = self._raw.cleaned(record)
        return None if kept is _GONE else kept

    def path(self, path: str) -> str:
        """The path of a member, as it is stored: names may be personal too."""
        return self._raw.text(path)


class _Fields:
    """The declared columns of one table under a policy."""

    def __init__(self, table: Table, child: ChildTable | None, policy: Policy) -> None:
        owner = child or table
        self._policy, self._columns = policy, owner.columns
        self._actions = [policy.column_action(table, column, child) for column in owner.columns]
        self._key = next((i for i, c in enumerate(owner.columns) if child is None and c.name == table.key), None)
        self._in_list = child is not None
        self._kept_of_erased = {i for i, c in enumerate(owner.columns) if c.name in {table.key, table.cursor}}
        places = {column.name: i for i, column in enumerate(owner.columns)}
        self._about = {places[c.name]: [places[name] for name in c.about] for c in owner.columns if c.about}
        name = f"{table.schema}.{owner.name}"
        self.rules = {column.path: action for column, action in zip(owner.columns, self._actions, strict=True)}
        self.inside = {
            tuple(path.removeprefix(f"{name}.{EXTRA.name}.").split(".")): action
            for path, action in policy.paths.items()
            if path.startswith(f"{name}.{EXTRA.name}.")
        }
        self.unknown = policy.action(name, EXTRA)
        self.json: _Json

    def applied(self, arrays: list[pa.Array]) -> list[pa.Array]:
        """Declared columns and `_extra` as they are stored."""
        if self._policy.erased:
            arrays = self._without_erased(arrays)
        *values, extra = arrays
        values = [_changed(array, action, self._policy) for array, action in zip(values, self._actions, strict=True)]
        if extra.null_count < len(extra):
            extra = pa.array([text and self.json.document(text) for text in extra.to_pylist()], pa.string())
        return [*values, extra]

    def _without_erased(self, arrays: list[pa.Array]) -> list[pa.Array]:
        """Values of erased persons, and what stands beside them about the same person, become NULL."""
        before, arrays = arrays, list(arrays)
        for i, column in enumerate(self._columns):
            personal = column.privacy is Privacy.PERSONAL
            if column.type is Type.TEXT and i != self._key and (personal or _may_hold_email(arrays[i])):
                arrays[i] = _mapped(arrays[i], self._erase_personal if personal else self._erase_text)
        for i, others in self._about.items():
            gone = pc.and_(pc.is_valid(before[i]), pc.is_null(arrays[i]))
            for other in others:
                arrays[other] = _blanked(arrays[other], gone)
            arrays[-1] = self._without_members(arrays[-1], gone, self._columns[i].path[:-1])
        if self._key is not None and self._columns[self._key].privacy is Privacy.PERSONAL:
            self._leave_tombstones(arrays)
        return arrays

    def _erase_personal(self, text: str) -> str | None:
        return text if self._policy.erase(text, names=True) == text else None

    def _erase_text(self, text: str) -> str | None:
        return self._policy.erase(text, names=False)

    def _without_members(self, extra: pa.Array, where: pa.BooleanArray, around: tuple[str, ...]) -> pa.Array:
        """`_extra` without what stood in the same object as an erased person; of a list item nothing is left."""
        if extra.null_count == len(extra) or not pc.any(where).as_py():
            return extra
        if not around:
            return _blanked(extra, where) if self._in_list else extra
        beside = ".".join(around) + "."
        texts: list[str | None] = extra.to_pylist()
        for i in np.flatnonzero(where.to_numpy(zero_copy_only=False)):
            if text := texts[i]:
                kept = {name: value for name, value in json.loads(text).items() if not name.startswith(beside)}
                texts[i] = canonical(kept).decode() if kept else None
        return pa.array(texts, pa.string())

    def _leave_tombstones(self, arrays: list[pa.Array]) -> None:
        """A row whose key is an erased person keeps a pseudonym and its cursor, so that the vendor's count still holds."""
        assert self._key is not None
        keys = _mapped(arrays[self._key], self._pseudonym)
        erased = pc.starts_with(keys, TOMBSTONE)
        for i, array in enumerate(arrays):
            if i not in self._kept_of_erased:
                arrays[i] = _blanked(array, erased)
        arrays[self._key] = keys

    def _pseudonym(self, key: str) -> str:
        mark = self._policy.mark(key)
        return f"{TOMBSTONE}{mark}" if mark in self._policy.erased else key


class _Json:
    """JSON from outside the declared columns under a policy.

    The action of a member is that of the nearest declared column at or above its path, of a column with the same name,
    or that of `_extra`.
    """

    def __init__(
        self,
        rules: Mapping[tuple[str, ...], Action],
        unknown: Action,
        policy: Policy,
        own: Mapping[tuple[str, ...], Action],
    ) -> None:
        self._policy, self._unknown, self._own = policy, unknown, own
        self._rules = {**rules, **own}
        self._around: dict[tuple[str, ...], Action] = {}
        self._names: dict[str, Action] = {}
        for path, action in (*rules.items(), *((path, strictest(unknown, action)) for path, action in own.items())):
            for depth in range(1, len(path)):
                self._around[path[:depth]] = strictest(self._around.get(path[:depth], KEEP), action)
        for path, action in rules.items():
            if action.deed is not Deed.KEEP:
                name = _folded(path[-1])
                self._names[name] = strictest(self._names.get(name, KEEP), action)
        self._long = tuple(name for name in self._names if len(name) >= _LONG_ENOUGH)

    def document(self, text: str) -> str | None:
        """The text of `_extra`, keyed by dotted paths, as it is stored; None where nothing is left."""
        kept: dict[str, Any] = {}
        for name, value in json.loads(text).items():
            path = tuple(re.sub(r"#\d+$", "", name).split("."))
            cleaned = self._value(value, path, self._above(path))
            if cleaned is not _GONE:
                kept[_free(kept, self.text(name))] = cleaned
        return canonical(kept).decode() if kept else None

    def cleaned(self, value: Any) -> Any:
        """Any JSON value as it is stored, or nothing at all."""
        return self._value(value, (), None)

    def text(self, text: str) -> str:
        """A text that no action is meant for, as it is stored."""
        erased = self._policy.erase(text, names=False) if self._policy.erased else text
        return self._policy.found(ERASED if erased is None else erased)

    def _above(self, path: tuple[str, ...]) -> Action | None:
        """The action of the nearest ruled object around a path."""
        for depth in range(len(path) - 1, 0, -1):
            if path[:depth] in self._rules:
                return self._rules[path[:depth]]
            if path[:depth] in self._around:
                return None
        return None

    def _value(self, value: Any, path: tuple[str, ...], above: Action | None) -> Any:
        action = self._rules.get(path, above)
        if action is None and path and path not in self._around:
            action = self._unknown
        if path and path not in self._rules:
            action = self._by_name(path[-1], action)
        if action is not None and action.deed is Deed.DROP:
            return _GONE
        if isinstance(value, dict):
            kept: dict[str, Any] = {}
            for name, inner in value.items():
                cleaned = self._value(inner, (*path, name), action)
                if cleaned is not _GONE:
                    kept[_free(kept, self.text(name))] = cleaned
            return kept
        if isinstance(value, list):
            items = [self._value(item, path, action) for item in value]
            return [item for item in items if item is not _GONE]
        if action is None:
            # a bare value where an object with declared members was expected: as strict as the strictest of them
            action = self._around.get(path, self._unknown)
            if action.deed is Deed.TRUNCATE and not isinstance(value, str):
                return value
        return self._scalar(value, action)

    def _by_name(self, name: str, action: Action | None) -> Action | None:
        folded = _folded(name)
        named = self._names.get(folded)
        if named is None and folded.endswith(self._long):
            named = strictest(*(self._names[n] for n in self._long if folded.endswith(n)))
        return named if action is None else strictest(named or KEEP, action)

    def _scalar(self, value: Any, action: Action) -> Any:
        if action.deed is Deed.DROP:
            return _GONE
        if isinstance(value, str):
            if self._policy.erased:
                left = self._policy.erase(value, names=True)
                value = ERASED if left is None else left
            if action.deed is Deed.HASH:
                return self._policy.hashed(value)
            cut = value[: action.length] if action.length else value
            return self._policy.found(without_hosts(cut) if action.deed is Deed.TRUNCATE else cut)
        if isinstance(value, bool) or value is None or action.deed is Deed.KEEP:
            return value
        return _GONE


def _mapped(array: pa.Array, function: Callable[[Any], Any]) -> pa.Array:
    """An array with each distinct value replaced; null stays null."""
    if array.null_count == len(array):
        return array
    encoded = array.dictionary_encode()
    values = pa.array([function(value) for value in encoded.dictionary.to_pylist()], array.type)
    return values.take(encoded.indices)


def _changed(array: pa.Array, action: Action, policy: Policy) -> pa.Array:
    if action.deed is Deed.KEEP:
        return array
    if action.deed is Deed.DROP:
        return pa.nulls(len(array), array.type)
    if action.deed is Deed.HASH:
        return _mapped(array, policy.hashed if pa.types.is_string(array.type) else policy.hashed_number)
    array = pc.replace_substring_regex(array, _IPV4_ALONE, r"\1.0")
    # what is more than one IPv4 address is looked at more closely
    if pc.any(pc.invert(pc.match_substring_regex(array, r"^[\d.]*$"))).as_py():
        array = _mapped(array, without_hosts)
    return pc.utf8_slice_codeunits(array, 0, action.length) if action.length else array


def _blanked(array: pa.Array, where: pa.BooleanArray) -> pa.Array:
    return pc.if_else(where, pa.scalar(None, array.type), array)


def _may_hold_email(array: pa.StringArray) -> bool:
    return bool(pc.any(pc.match_substring_regex(array, r"@|%40")).as_py())


def _folded(name: str) -> str:
    return re.sub(r"[\W_]", "", name).lower()


def _free(taken: Mapping[str, Any], name: str) -> str:
    number, free = 1, name
    while free in taken:
        number += 1
        free = f"{name}#{number}"
    return free

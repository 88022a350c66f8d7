"""What is stored of personal data: one action for every declared column, and for everything a vendor sends beside them.

A policy is applied to a page's Arrow columns before a row is hashed. So a change the policy hides does not rewrite a
row, and a changed policy gives every row it touches another hash. Every action gives the same when it is applied
again, so stored rows can be brought under a policy as if they came from the vendor.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
from dataclasses import dataclass, field
from enum import IntEnum
from ipaddress import IPv6Address, IPv6Network
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sources._schema import EXTRA, Column, Privacy, Type
from sources._values import canonical

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sources._schema import ChildTable, Table

ERASED: Final = "[erased]"
"""Stands where an erased person's e-mail stood inside a text."""
HASHED_DOMAIN: Final = "hashed.invalid"
"""Hashed e-mails keep the form of an e-mail, so that whatever tells e-mails from names still does (RFC 2606: no such host)."""
_PSEUDONYM: Final = re.compile(rf"(?:hashed|erased)-([0-9a-f]{{32}})|([0-9a-f]{{32}})@{re.escape(HASHED_DOMAIN)}")
TOMBSTONE: Final = "erased-"
"""Begins what stands in place of a key that was an erased person's e-mail."""
_LONGEST_NAME: Final = 320
_LONGEST_LOCAL: Final = 64
_AT: Final = re.compile(r"@|%40")
_BEFORE_AT: Final = re.compile(r"[^\s<>\"(),;\[\]\\@]*$")
_AFTER_AT: Final = re.compile(r"[^\s<>\"(),;\[\]\\@]{1,255}")
_EMAIL: Final = re.compile(r"[\w.!#$%&'*+/=?^`{|}~-]{1,64}@[\w-]+(?:\.[\w-]+)+")
_IPV4: Final = re.compile(r"(?<![\d.])(\d{1,3}\.\d{1,3}\.\d{1,3})\.\d{1,3}(?!\d|\.\d)")
_IPV4_ALONE: Final = r"^(\d{1,3}\.\d{1,3}\.\d{1,3})\.\d{1,3}$"
_IPV6: Final = re.compile(
    r"(?<![\w:.])[0-9A-Fa-f]{0,4}"
    r"(?:(?::[0-9A-Fa-f]{0,4}){1,7}:(?:\d{1,3}\.){3}\d{1,3}|(?::[0-9A-Fa-f]{0,4}){2,8})(?![\w:])"
)
_6TO4: Final = IPv6Network("2002::/16")
_REMOVED: Final = "[removed]"
_GONE: Final = object()
_LONG_ENOUGH: Final = 8
"""Characters from which a declared name is recognised at the end of a longer one: `browserConsoleLogs`."""


class Deed(IntEnum):
    """What is done to a value; the larger, the less is left."""

    KEEP = 0
    TRUNCATE = 1
    HASH = 2
    DROP = 3


@dataclass(frozen=True)
class Action:
    """What is done to a value.

    Attributes:
        deed: what.
        length: TRUNCATE: characters of text that are left; None for all but the end of IP addresses.
    """

    deed: Deed
    length: int | None = None

    def __str__(self) -> str:
        return self.deed.name.lower() + (f":{self.length}" if self.length else "")

    @classmethod
    def parsed(cls, text: str) -> Action:
        """An action as it is written in settings.

        Raises:
            ValueError: there is no such action.
        """
        found = re.fullmatch(r"(keep|hash|drop|truncate)|truncate:([1-9]\d{0,8})", text.strip().lower())
        if found is None:
            raise ValueError(f"must be keep, hash, truncate, truncate:N (characters) or drop, not {text!r}")
        return cls(Deed[(found[1] or "truncate").upper()], int(found[2]) if found[2] else None)


KEEP: Final = Action(Deed.KEEP)
TRUNCATE: Final = Action(Deed.TRUNCATE)
HASH: Final = Action(Deed.HASH)
DROP: Final = Action(Deed.DROP)


@dataclass(frozen=True)
class Profile:
    """A policy to start from.

    Attributes:
        classes: actions by privacy class; KEEP where one is missing.
        members: actions by the last part of a column's name, in any table.
        addresses: what is done to IP addresses found outside declared columns, wherever they stand in a text.
    """

    classes: Mapping[Privacy, Action]
    members: Mapping[str, Action]
    addresses: Action


PROFILES: Final = {
    "full": Profile({}, {}, KEEP),
    "standard": Profile({}, {"ip": TRUNCATE, "ip_address": TRUNCATE, "console_logs": DROP}, TRUNCATE),
    "strict": Profile(
        {Privacy.PERSONAL: HASH, Privacy.SENSITIVE: DROP},
        dict.fromkeys(("ip", "ip_address", "isp", "city", "user_agent", "console_logs"), DROP),
        DROP,
    ),
}


@dataclass(frozen=True)
class Policy:
    """What is stored of personal data.

    Attributes:
        profile: the name of the profile it starts from.
        classes: actions for privacy classes, beside those of the profile; the stricter of the two holds.
        paths: actions for columns, by `schema.table.column`, and for what is in `_extra`, by
            `schema.table._extra.path`; they hold whatever else is said.
        key: what values are hashed with; never stored beside them.
        erased: hashes of the e-mails and names of erased persons.
    """

    profile: str = "standard"
    classes: Mapping[Privacy, Action] = field(default_factory=dict)
    paths: Mapping[str, Action] = field(default_factory=dict)
    key: bytes = field(default=b"", repr=False)
    erased: frozenset[str] = field(default=frozenset(), repr=False)

    def action(self, table: str, column: Column) -> Action:
        """What is done to a column, by class and path alone; `table` is qualified."""
        path = f"{table}.{column.name}"
        if path in self.paths:
            return self.paths[path]
        profile = PROFILES[self.profile]
        ours = profile.members.get(column.path[-1], profile.classes.get(column.privacy, KEEP))
        # a path of the profile's own is weakened by nothing but a path
        return strictest(ours, self.classes.get(column.privacy, KEEP))

    @property
    def addresses(self) -> Action:
        """What is done to IP addresses outside declared columns."""
        return PROFILES[self.profile].addresses

    @property
    def emails(self) -> Action:
        """What is done to e-mails inside texts outside declared columns: that of personal values."""
        ours = PROFILES[self.profile].classes.get(Privacy.PERSONAL, KEEP)
        return strictest(ours, self.classes.get(Privacy.PERSONAL, KEEP))

    # -- texts

    def mark(self, text: str) -> str:
        """The keyed hash of an e-mail or a name, the same in any letter case, and of what was made of it before."""
        if pseudonym := _PSEUDONYM.fullmatch(text):
            return str(pseudonym[1] or pseudonym[2])
        return self._digest(text.strip().lower())

    def hashed(self, text: str) -> str:
        """A text as it is stored where it is hashed: an e-mail stays one in form."""
        normal = text.strip().lower()
        if not normal or _PSEUDONYM.fullmatch(text):
            return text
        digest = self._digest(normal)
        return f"{digest}@{HASHED_DOMAIN}" if "@" in normal else f"hashed-{digest}"

    def hashed_number(self, number: int) -> int:
        """An id as it is stored where it is hashed: below zero, where no vendor's ids are."""
        return number if number < 0 else -(int(self._digest(str(number))[:15], 16) + 1)

    def found(self, text: str) -> str:
        """A text from outside the declared columns, without the addresses and e-mails that are not to be stored."""
        if self.addresses.deed is Deed.TRUNCATE:
            text = without_hosts(text)
        elif self.addresses.deed is Deed.DROP:
            text = _IPV4.sub(_REMOVED, _IPV6.sub(lambda m: _REMOVED if _is_ipv6(m[0]) else m[0], text))
        if self.emails.deed is not Deed.KEEP and "@" in text:
            is_hash = self.emails.deed is Deed.HASH
            text = _EMAIL.sub(lambda m: self.hashed(m[0]) if is_hash else _REMOVED, text)
        return text

    def erase(self, text: str, *, names: bool) -> str | None:
        """A text without erased persons: None where it is one's e-mail, or with `names` one's name, and nothing else."""
        if not self.erased or len(text) > _LONGEST_NAME:
            whole = False
        else:
            whole = (names or "@" in text) and self.mark(text) in self.erased
        if whole:
            return None
        return self._erase_inside(text) if "@" in text or "%40" in text else text

    def _erase_inside(self, text: str) -> str:
        spans: list[tuple[int, int]] = []
        for at in _AT.finditer(text):
            before = _BEFORE_AT.search(text, max(0, at.start() - _LONGEST_LOCAL), at.start())
            after = _AFTER_AT.match(text, at.end())
            if before is None or after is None:
                continue
            span = self._erased_span(before[0], after[0])
            if span is not None:
                spans.append((at.start() - span[0], at.end() + span[1]))
        for start, end in reversed(spans):
            text = f"{text[:start]}{ERASED}{text[end:]}"
        return text

    def _erased_span(self, local: str, domain: str) -> tuple[int, int] | None:
        """How many characters before and after an @ are an erased person's e-mail, at the edges of words."""
        starts = [i for i in range(len(local)) if i == 0 or not local[i - 1].isalnum()]
        ends = [j for j in range(len(domain), 0, -1) if j == len(domain) or not domain[j].isalnum()]
        for start in starts:
            for end in ends:
                if self.mark(f"{local[start:]}@{domain[:end]}") in self.erased:
                    return len(local) - start, end
        return None

    def _digest(self, text: str) -> str:
        return hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=16, key=self.key).hexdigest()

    # -- declared tables

    def column_action(self, table: Table, column: Column, child: ChildTable | None = None) -> Action:
        """What is really done to a column: never so much that a row cannot be told, or a column not hold it."""
        name = (child or table).name
        action = self.action(f"{table.schema}.{name}", column)
        if child is None and column.name == table.key:
            personal = column.privacy in {Privacy.PERSONAL, Privacy.SENSITIVE}
            return HASH if personal and action.deed is not Deed.KEEP else KEEP
        if child is None and column.name in needed_dates(table):
            return KEEP
        if action.deed is Deed.HASH and column.type not in {Type.TEXT, Type.INTEGER}:
            return DROP
        if action.deed is Deed.TRUNCATE and column.type is not Type.TEXT:
            return DROP
        return action

    def hashes_key(self, table: Table) -> bool:
        """Whether a table's rows are stored under hashed keys, which the vendor does not know."""
        return self.column_action(table, table.key_column).deed is Deed.HASH

    def describe(self, table: Table) -> str:
        """All that is done to a table's rows, as one text: two policies that do the same give the same."""
        parts = [f"_extra: {self.action(table.qualified_name, EXTRA)} {self.addresses} {self.emails}"]
        hashing = self.emails.deed is Deed.HASH
        for child in (None, *table.children):
            name = f"{table.schema}.{(child or table).name}"
            for column in (child or table).columns:
                action = self.column_action(table, column, child)
                hashing |= action.deed is Deed.HASH
                if action.deed is not Deed.KEEP:
                    parts.append(f"{name}.{column.name}: {action}")
            inside = {p: a for p, a in self.paths.items() if p.startswith(f"{name}.{EXTRA.name}")}
            hashing |= any(a.deed is Deed.HASH for a in inside.values())
            parts += [f"{path}: {action}" for path, action in sorted(inside.items())]
        return "; ".join([*parts, f"key {self.key_mark}" if hashing else ""])

    def key_action(self, table: Table) -> str:
        """What is done to a table's key: rows stored under another cannot be told from the vendor's."""
        return f"hash with key {self.key_mark}" if self.hashes_key(table) else "keep"

    @property
    def key_mark(self) -> str:
        """Tells one key from another, and nothing else."""
        return hashlib.blake2b(b"mark", digest_size=8, key=self.key).hexdigest()


STANDARD: Final = Policy()
FULL: Final = Policy("full")


def needed_dates(table: Table) -> frozenset[str]:
    """Columns by which deskhouse finds what changed: a policy cannot hide them."""
    return frozenset(name for name in (table.cursor, table.order, *(table.span or ())) if name)


def without_hosts(text: str) -> str:
    """A text in which IP addresses end after the network: /24 for IPv4, /48 for IPv6 (/40 where it wraps an IPv4)."""
    if ":" in text:
        text = _IPV6.sub(_shortened, text)
    return _IPV4.sub(r"\1.0", text)


def _shortened(found: re.Match[str]) -> str:
    try:
        address = IPv6Address(found[0])
    except ValueError:
        return found[0]
    if (mapped := address.ipv4_mapped) is not None:
        return "::ffff:" + _IPV4.sub(r"\1.0", str(mapped))
    bits = 40 if address in _6TO4 else 48
    return str(IPv6Network((address, bits), strict=False).network_address)


def _is_ipv6(text: str) -> bool:
    try:
        IPv6Address(text)
    except ValueError:
        return False
    return True


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
                arrays[i] = mapped(arrays[i], self._erase_personal if personal else self._erase_text)
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
        keys = mapped(arrays[self._key], self._pseudonym)
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


def mapped(array: pa.Array, function: Callable[[Any], Any]) -> pa.Array:
    """An array with each distinct value replaced; null stays null."""
    if array.null_count == len(array):
        return array
    encoded = array.dictionary_encode()
    values = pa.array([function(value) for value in encoded.dictionary.to_pylist()], array.type)
    return values.take(encoded.indices)


def is_pseudonym(text: str) -> bool:
    """Whether a text is what is stored instead of a hashed or an erased one."""
    return _PSEUDONYM.fullmatch(text) is not None


def strictest(*actions: Action) -> Action:
    """That of several actions which leaves least."""
    return max(actions, key=lambda action: (action.deed, -(action.length or sys.maxsize)), default=KEEP)


def _changed(array: pa.Array, action: Action, policy: Policy) -> pa.Array:
    if action.deed is Deed.KEEP:
        return array
    if action.deed is Deed.DROP:
        return pa.nulls(len(array), array.type)
    if action.deed is Deed.HASH:
        return mapped(array, policy.hashed if pa.types.is_string(array.type) else policy.hashed_number)
    array = pc.replace_substring_regex(array, _IPV4_ALONE, r"\1.0")
    # what is more than one IPv4 address is looked at more closely
    if pc.any(pc.invert(pc.match_substring_regex(array, r"^[\d.]*$"))).as_py():
        array = mapped(array, without_hosts)
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

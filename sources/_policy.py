"""What is to be stored of personal data: an action for every class of it, for single columns, and for texts.

Every action gives the same when it is applied again, so stored rows can be brought under a policy as if they came from the
vendor. `sources._privacy` applies a policy to a table.
"""

from __future__ import annotations

import hashlib
import re
import sys
from dataclasses import dataclass, field
from enum import IntEnum
from ipaddress import IPv6Address, IPv6Network
from typing import TYPE_CHECKING, Final

from sources._schema import EXTRA, Column, Privacy, Type

if TYPE_CHECKING:
    from collections.abc import Mapping

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
_IPV6: Final = re.compile(
    r"(?<![\w:.])[0-9A-Fa-f]{0,4}"
    r"(?:(?::[0-9A-Fa-f]{0,4}){1,7}:(?:\d{1,3}\.){3}\d{1,3}|(?::[0-9A-Fa-f]{0,4}){2,8})(?![\w:])"
)
_6TO4: Final = IPv6Network("2002::/16")
_REMOVED: Final = "[removed]"


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


def is_pseudonym(text: str) -> bool:
    """Whether a text is what is stored instead of a hashed or an erased one."""
    return _PSEUDONYM.fullmatch(text) is not None


def strictest(*actions: Action) -> Action:
    """That of several actions which leaves least."""
    return max(actions, key=lambda action: (action.deed, -(action.length or sys.maxsize)), default=KEEP)

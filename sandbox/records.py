"""Dotted paths into a record."""

from __future__ import annotations

from typing import Any, Final

Record = dict[str, Any]


class _Absent:
    """A value that, when set, removes the field."""

    def __repr__(self) -> str:
        return "ABSENT"


ABSENT: Final = _Absent()


def look_up(record: Any, path: str, default: Any = None) -> Any:
    """The value at a dotted path, or `default` where the path leads nowhere."""
    value = record
    for part in path.split("."):
        if isinstance(value, dict) and part in value:
            value = value[part]
        elif isinstance(value, list) and part.isdigit() and int(part) < len(value):
            value = value[int(part)]
        else:
            return default
    return value


def assign(record: Record, path: str, value: Any) -> None:
    """Set the value at a dotted path, making objects on the way; numbers index lists; ABSENT removes the field."""
    *parents, leaf = path.split(".")
    target: Any = record
    for part in parents:
        if isinstance(target, list):
            target = target[int(part)]
            continue
        if not isinstance(target.get(part), dict | list):
            target[part] = {}
        target = target[part]
    if isinstance(target, list):
        target[int(leaf)] = value
    elif value is ABSENT:
        target.pop(leaf, None)
    else:
        target[leaf] = value

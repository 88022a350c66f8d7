"""What reading a table needs to know beforehand, and what it came to."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from typing import Any

from sources._http import ApiError, Traffic
from sources._known import Known
from sources._pages import Walk
from sources._schema import Table
from sources._tables import Batch, Key, Quarantined


class Presence(Enum):
    """The vendor's answer for one key, where it is not a record in the list's shape."""

    GONE = "gone"
    PRESENT = "present"


Answer = dict[str, Any] | Presence
Ask = Callable[[Key, Traffic], Awaitable[Answer]]


@dataclass(frozen=True, slots=True)
class Span:
    """When a record began and ended, in unix seconds, as told when it was asked for; no `stop` while it is open."""

    start: float | None
    stop: float | None


@dataclass(frozen=True)
class DatePlan:
    """How a table is read by dates.

    Attributes:
        between: a pass over the records of a period, from and to in unix seconds. Nothing says whether the vendor
            compares a record's start, its end or both, and whether bounds are in; a page of which the vendor does not
            say that the period was applied is not in place.
        total: asks for the vendor's count of the whole list; None where it says none.
        span: asks when one record began and ended; `PRESENT` where it exists and the answer does not tell.
    """

    between: Callable[[int, int], Walk]
    total: Callable[[Traffic], Awaitable[int | None]]
    span: Callable[[Key, Traffic], Awaitable[Span | Presence]]


@dataclass(frozen=True)
class ListPlan:
    """How one table is read.

    Attributes:
        table: the declared table.
        walk: starts one pass over the vendor's list.
        ask: asks the vendor for one record by key.
        sees_everything: whether the token may see the whole account; asked only before rows are marked deleted.
        prepare: brings a record into the declared shape.
        rewalk: starts a further pass, where the vendor's list needs another way to be read when the first failed.
        step: starts a pass that fetches a page only when it is taken; needed for light passes.
        cleaned_at_midnight: the vendor deletes rows at midnight UTC, so a pass across it proves nothing gone.
        dates: how it is read by dates, where the vendor can.
    """

    table: Table
    walk: Walk
    ask: Ask
    sees_everything: Callable[[Traffic], Awaitable[bool]]
    prepare: Callable[[dict[str, Any]], dict[str, Any]] | None = None
    rewalk: Walk | None = None
    step: Walk | None = None
    cleaned_at_midnight: bool = False
    dates: DatePlan | None = None


@dataclass
class History:
    """What is known of a table from earlier runs.

    Attributes:
        known: what the warehouse holds; updated as rows are handed on.
        last_full_at: when the last complete full sweep began; None before the first.
        order_held: whether that sweep saw the list in the order light passes rely on.
        last_complete: whether the table's last run was complete.
        quarantined: records without usable key that the last full sweep met; the vendor counts them too.
        same_token: whether the token is the one that read the table last.
        checkpoint: tables read by dates: the time up to which the last complete run knows the vendor's list.
    """

    known: Known = field(default_factory=Known)
    last_full_at: datetime | None = None
    order_held: bool = False
    last_complete: bool = False
    quarantined: int = 0
    same_token: bool = True
    checkpoint: datetime | None = None


@dataclass
class Outcome:
    """What reading one table came to; the source of its receipt.

    Attributes:
        sweep_kind: `full`, `light` or `windows`.
        sweep_reason: why that kind.
        newest_cursor: how far the table reaches, in microseconds since 1970; for a table read by dates, its checkpoint.
        expected_live: rows the warehouse must hold live if the reading is complete.
        present_unlisted: rows a clean pass did not show, which exist all the same when asked for.
    """

    table: Table
    started_at: datetime
    finished_at: datetime | None = None
    sweep_kind: str = "full"
    sweep_reason: str = ""
    vendor_count: int | None = None
    distinct_read: int = 0
    inserted: int = 0
    updated: int = 0
    unchanged: int = 0
    quarantined: int = 0
    passes: int = 0
    pages: int = 0
    complete: bool = False
    reason: str = ""
    error: ApiError | None = None
    newest_cursor: int | None = None
    order_held: bool = True
    gone: list[Key] = field(default_factory=list)
    present_unlisted: int = 0
    expected_live: int = 0
    traffic: Traffic = field(default_factory=Traffic)


@dataclass(frozen=True)
class Slice:
    """A piece of a table on its way to the loader; rows of one slice are committed together and have distinct keys."""

    number: int
    batch: Batch | None
    quarantined: list[Quarantined]

"""What a warehouse holds against everything that was ever true at the vendor.

After every run, killed or not:
- each row with its children is, as a whole, a version the vendor had (nothing invented, nothing half written);
- each key has one row, each list runs from 0, no child lacks its parent (nothing duplicated);
- a row is newly marked deleted only if the vendor lacked it at some moment of that run (nothing wrongly deleted).

After a run whose receipt says `complete`, of a full sweep: every row the token could see during the whole run is there,
live, with content that was true at some moment of the run; every live row was at the vendor at some moment of it. Where
nothing changed during the run that is equality with the vendor.

After a light run (or one by windows): the same for rows dated within the settle window, which such runs always re-read,
and as many live rows as the vendor has. Older rows may be stale, or missing against as many surplus ones: that is what a
light pass does not promise.

What a full sweep cannot see, and is allowed for: rows that swap places between two pages of one pass. Where a row already
read is deleted and another appears further down, the count stays and a row slips through between the two pages.
A run in which both happened may miss as many rows as swapped.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from datetime import timedelta
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

from truth import INSTANT, canonical

from simulation.chronicle import dates, form

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    import duckdb

    from pipelines.ledger import Receipt
    from simulation.chronicle import Key, Page, Version
    from sources._schema import ChildTable, Table

KINDS: Final = ("lost", "duplicated", "stale", "wrongly deleted", "invented", "untrue")
SHOWN: Final = 3


class Wrong(AssertionError):
    """The warehouse, or a receipt, is not true."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(f"{kind}: {text}")
        self.kind = kind


@dataclass(frozen=True)
class Held:
    """One row of the warehouse with its children."""

    form: str
    deleted: bool
    dates: tuple[int | None, ...] = ()


State = dict[str, dict[Any, Held]]


@dataclass(frozen=True)
class Ran:
    """A run as seen from outside: the moments it spans, when it began by its own clock, and its receipts."""

    first: int
    last: int
    began: datetime
    settle: timedelta
    receipts: Mapping[str, Receipt]
    lied: bool = False


def state_of(con: duckdb.DuckDBPyConnection, tables: Mapping[str, Table]) -> State:
    """Every row of these tables.

    Raises:
        Wrong: a key has two rows, a list has gaps or doubles, or a child lacks its parent.
    """
    state: State = {}
    for name, table in tables.items():
        roots = _rows(con, table, None)
        keys = Counter(row[table.key] for row in roots)
        if twice := [key for key, count in keys.items() if count > 1]:
            raise Wrong("duplicated", f"{name}: {twice[:SHOWN]}")
        items: dict[Any, dict[str, list[dict[str, Any]]]] = {key: {} for key in keys}
        for child in table.children:
            for item in _rows(con, table, child):
                owner = item[child.parent_key]
                if owner not in items:
                    raise Wrong("invented", f"{child.name}: items of {owner!r}, which {name} has not")
                items[owner].setdefault(child.name, []).append(item)
        for key, lists in items.items():
            for child_name, found in lists.items():
                if sorted(item["_dlt_list_idx"] for item in found) != list(range(len(found))):
                    raise Wrong("duplicated", f"{child_name}: the list of {key!r} has gaps or doubles")
        state[name] = {
            row[table.key]: Held(
                form(table, row, items[row[table.key]]),
                row["_deleted_at"] is not None,
                tuple(row[column] for column in dates(table)),
            )
            for row in roots
        }
    return state


def _rows(con: duckdb.DuckDBPyConnection, table: Table, child: ChildTable | None) -> list[dict[str, Any]]:
    columns = child.columns if child else table.columns
    names = [c.name for c in columns]
    shown = [f'epoch_us("{c.name}")' if c.type.value == INSTANT else f'"{c.name}"' for c in columns]
    more = [child.parent_key, "_dlt_list_idx", "_extra"] if child else ["_extra", "_deleted_at"]
    source = f'"{table.schema}"."{child.name if child else table.name}"'
    found = con.execute(f"SELECT {', '.join([*shown, *more])} FROM {source}").fetchall()
    rows = [dict(zip((*names, *more), values, strict=True)) for values in found]
    for row in rows:
        if row["_extra"] is not None:
            row["_extra"] = canonical(json.loads(row["_extra"]))
    return rows


def judge_state(pages: Mapping[str, Page], state: State) -> None:
    """Every row is something the vendor had at some time."""
    for name, page in pages.items():
        for key, held in state[name].items():
            if not any(v.form == held.form for v in page.versions.get(key, ())):
                raise Wrong("invented", f"{name}: {_shown(page, key, held.form)} was never at the vendor")
            if held.deleted and not page.missing_at_some_time(key, page.versions[key][0].since, 1 << 59):
                raise Wrong("wrongly deleted", f"{name}: {key!r} was at the vendor all the time")


def judge_run(pages: Mapping[str, Page], before: State, after: State, ran: Ran) -> None:
    """A run, whatever became of it, and what its receipts say."""
    for name, page in pages.items():
        old, new = before[name], after[name]
        for key, held in new.items():
            fresh = held.deleted and not (key in old and old[key].deleted)
            if fresh and not page.missing_at_some_time(key, ran.first, ran.last):
                raise Wrong("wrongly deleted", f"{name}: {key!r} was at the vendor during the whole run")
        if lost := [key for key in old if key not in new]:
            raise Wrong("lost", f"{name}: {lost[:SHOWN]} were taken out of the warehouse")
        receipt = ran.receipts.get(name)
        if receipt is None:
            continue
        live = {key for key, held in new.items() if not held.deleted}
        if receipt.live_rows != len(live):
            raise Wrong("untrue", f"{name}: the receipt says {receipt.live_rows} live rows, there are {len(live)}")
        if receipt.complete and not ran.lied:
            if receipt.sweep_kind == "full":
                _judge_full(name, page, new, ran)
            else:
                _judge_light(name, page, old, new, ran)


def judge_end(pages: Mapping[str, Page], state: State) -> None:
    """The world has come to rest and has been read: the warehouse is equal to it."""
    for name, page in pages.items():
        world, held = page.now(), state[name]
        for key, version in world.items():
            if key not in held:
                raise Wrong("lost", f"{name}: {key!r} is at the vendor and not in the warehouse")
            if held[key].deleted:
                raise Wrong("wrongly deleted", f"{name}: {key!r} is at the vendor and marked deleted")
            if held[key].form != version.form:
                raise Wrong("stale", f"{name}: {_shown(page, key, held[key].form)} is not what the vendor has")
        for key, row in held.items():
            if key not in world and not row.deleted:
                raise Wrong("stale", f"{name}: {key!r} is gone at the vendor and live in the warehouse")


def _judge_full(name: str, page: Page, rows: Mapping[Key, Held], ran: Ran) -> None:
    seen = page.seen(ran.first, ran.last)
    always = frozenset.intersection(*seen)
    spare = _swapped(page, ran)
    for key in sorted(always, key=repr):
        held = rows.get(key)
        if held is None or held.deleted:
            problem = Wrong("lost", f"{name}: called complete (full) without {key!r}")
        elif not any(v.form == held.form for v in page.during(key, ran.first, ran.last)):
            problem = Wrong("stale", f"{name}: called complete (full) with an old {_shown(page, key, held.form)}")
        else:
            continue
        if spare <= 0:
            raise problem
        spare -= 1
    for key, held in rows.items():
        if not held.deleted and not page.existed(key, ran.first, ran.last):
            raise Wrong("stale", f"{name}: called complete (full) with {key!r}, which was gone before the run")


def _judge_light(name: str, page: Page, before: Mapping[Key, Held], rows: Mapping[Key, Held], ran: Ran) -> None:
    always = frozenset.intersection(*page.seen(ran.first, ran.last))
    spare = _swapped(page, ran)
    for key in sorted(always, key=repr):
        versions = list(page.during(key, ran.first, ran.last))
        if not (_is_recent(versions, ran) or _has_ended(versions, before.get(key), ran)):
            continue
        held = rows.get(key)
        if held is None or held.deleted:
            problem = Wrong("lost", f"{name}: called complete (light) without the recent {key!r}")
        elif not any(v.form == held.form for v in versions):
            problem = Wrong("stale", f"{name}: called complete (light) with old, recent {_shown(page, key, held.form)}")
        else:
            continue
        if spare <= 0:
            raise problem
        spare -= 1
    if ran.first == ran.last:
        live = sum(not held.deleted for held in rows.values())
        # a record without key that the last full sweep counted may be gone, and an old row stand in its place
        if not len(always) - page.keyless_gone(0, ran.last) <= live <= len(always):
            raise Wrong("lost", f"{name}: called complete (light) with {live} live rows of {len(always)}")


def _is_recent(versions: Sequence[Version], ran: Ran) -> bool:
    """Whether a light run must have read a row: all its dates lie between the settle window's beginning and the run's."""
    oldest = (ran.began - ran.settle).timestamp() * 1_000_000
    newest = ran.began.timestamp() * 1_000_000
    dates = [date for v in versions for date in v.dates]
    return bool(dates) and all(date is not None and oldest < date <= newest for date in dates)


def _has_ended(versions: Sequence[Version], held: Held | None, ran: Ran) -> bool:
    """Whether a connection that the warehouse knew as open, and must ask for, has ended well before the run."""
    if held is None or held.deleted or len(versions[0].dates) < 2 or held.dates[1] is not None:
        return False
    oldest = (ran.began - timedelta(days=29)).timestamp() * 1_000_000
    newest = ran.began.timestamp() * 1_000_000
    # where the start was moved as well, a window around the old one may not show it; the next full sweep does
    return all(
        v.dates[0] == held.dates[0] and None not in v.dates and oldest < v.dates[0] <= v.dates[1] <= newest
        for v in versions
    )


def _swapped(page: Page, ran: Ran) -> int:
    """How many rows may have slipped through between two pages unseen."""
    gone, came = page.keyless_gone(ran.first, ran.last), 0
    for versions in page.versions.values():
        inside = [v for v in versions if v.since <= ran.last and v.until > ran.first]
        if not inside:
            continue
        moved = any(a.dates != b.dates for a, b in pairwise(inside))
        came += inside[0].since > ran.first or moved
        gone += inside[-1].until <= ran.last or moved
    return min(gone, came)


def _shown(page: Page, key: Key, found: str) -> str:
    last = page.versions[key][-1].form if key in page.versions else ""
    at = next((i for i, (a, b) in enumerate(zip(found, last, strict=False)) if a != b), 0)
    return f"{key!r} (…{found[max(0, at - 30) : at + 50]}…, latest …{last[max(0, at - 30) : at + 50]}…)"

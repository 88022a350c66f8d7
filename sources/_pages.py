"""List endpoints: by page number, by offset with `next`, by offset with `total`.

Each walk yields the pages of one pass in order and judges each: the vendor's own count, and whether the page is the
one that was asked for. A walk ends where the vendor says the list ends, never because a page was short or odd; a list that
does not advance is ended as well, with a page that says so.
"""

import asyncio
import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from sources._columns import ColumnReader, Columns
from sources._http import ApiClient, BadReply, Traffic, query_of

_DIGITS: Final = re.compile(r"[0-9]{1,18}")
MOST_PAGES: Final = 1_000_000
"""Pages after which a list counts as endless."""
MOST_AHEAD: Final = 64
MOST_AHEAD_BYTES: Final = 16 << 20
"""What may be fetched ahead of the reader: so many pages, or so many of the size of the page before."""
MORE_AHEAD: Final = 4
"""Pages more that are fetched ahead each time the reader has to wait for one."""


@dataclass(frozen=True)
class ListPage:
    """One page of a list.

    Attributes:
        records: what the vendor sent: JSON values, or columns where all is as declared.
        count: the vendor's count of the whole list, as said on this page; None where it said none.
        in_place: whether the page is the one that was asked for.
        problem: what is wrong with the page's place, for a receipt; empty when in place.
        overlap: how many records at the end the next page holds as well.
    """

    records: list[Any] | Columns
    count: int | None
    in_place: bool
    problem: str = ""
    overlap: int = 0


Walk = Callable[[Traffic], AsyncGenerator[ListPage, None]]
"""Starts one pass over a list; requests are counted in the traffic given."""


async def by_page_number(
    client: ApiClient,
    path: str,
    *,
    list_key: str,
    traffic: Traffic,
    params: Mapping[str, str | int] | None = None,
    ahead: bool = True,
    columns: ColumnReader | None = None,
) -> AsyncGenerator[ListPage, None]:
    """Walk a list by page number (Screendesk).

    The first page says how many there are; the others are fetched side by side. `next_page` is absent or null on the
    last page, both are documented. Page size is the vendor's choice and may change, so no offset is ever computed.
    Without `ahead` a page is fetched only when it is taken.

    Raises:
        ApiError: a page could not be had.
    """

    async def fetch(number: int) -> dict[str, Any]:
        asked = {**(params or {}), "page": number}
        return await client.get_list(path, asked, list_key=list_key, traffic=traffic, columns=columns)

    first = await fetch(1)
    last = _last_page(_pagination(client, first)) or 1
    number, reply, guard = 1, first, _Guard()
    pages = _Ahead(fetch, 2, last, 2 * client.concurrency if ahead else 0, list_key)
    try:
        while True:
            records, pagination = reply[list_key], _pagination(client, reply)
            if stuck := guard.stuck(records):
                yield ListPage([], None, in_place=False, problem=stuck)
                return
            yield _numbered_page(records, pagination, number)
            more, end = _integer(pagination.get("next_page")), _last_page(pagination)
            # this page's word for where the list ends: rows may have gone since the first page was sent
            if not records or (number >= (last if end is None else end) and (more is None or more <= number)):
                return
            number += 1
            last = max(last, number)
            pages.extend_to(last)
            reply = await pages.take()
    finally:
        await pages.close()


def _numbered_page(records: list[Any] | Columns, pagination: dict[str, Any], number: int) -> ListPage:
    page, last, more = (_integer(pagination.get(k)) for k in ("page", "last_page", "next_page"))
    start, end = _integer(pagination.get("from")), _integer(pagination.get("to"))
    problem = ""
    if page != number:
        problem = f"page {page} came when page {number} was asked for"
    elif more is not None and more != number + 1:
        problem = f"page {number} names page {more} as the next"
    elif last is not None and (more is None) != (number >= last):
        problem = f"page {number} of {last} disagrees with itself about being the last"
    elif records and start is not None and end is not None and end - start + 1 != len(records):
        problem = f"page {number} holds {len(records)} records and claims {end - start + 1}"
    return ListPage(records, _integer(pagination.get("count")), not problem, problem)


async def by_next_offset(
    client: ApiClient,
    path: str,
    *,
    list_key: str,
    limit: int,
    traffic: Traffic,
    overlap: int = 0,
    ahead: bool = True,
    columns: ColumnReader | None = None,
) -> AsyncGenerator[ListPage, None]:
    """Walk a list by limit and offset, with an absolute `next` (PostHog).

    `next` is used for its query alone: it tells the step the server really makes, and that there is more. With an
    `overlap`, each page ends with the first records of the next one, so equals in the list's order that swap places
    between two requests are still seen in one reply, as long as there are no more of them than that. Without `ahead` a
    page is fetched only when it is taken.

    Raises:
        ApiError: a page could not be had.
    """

    async def fetch(offset: int) -> dict[str, Any]:
        asked = {"limit": limit + overlap, "offset": offset}
        return await client.get_list(path, asked, list_key=list_key, traffic=traffic, columns=columns)

    first = await fetch(0)
    size = _next_offset(first) or limit + overlap
    # a server that clamps the limit below the overlap leaves none
    shared = overlap if size > overlap else 0
    step = size - shared
    count = _integer(first.get("count")) or 0
    offset, reply, guard = 0, first, _Guard()
    window = 2 * client.concurrency if ahead else 0
    pages = _Ahead(lambda i: fetch(i * step), 1, -(-(count - shared) // step) - 1, window, list_key)
    try:
        while True:
            records, upcoming = reply[list_key], _next_offset(reply)
            if stuck := guard.stuck(records):
                yield ListPage([], None, in_place=False, problem=stuck)
                return
            problem = ""
            if upcoming is not None and upcoming != offset + size:
                problem = f"the page at offset {offset} names offset {upcoming} as the next"
            elif upcoming is not None and len(records) != size:
                problem = f"the page at offset {offset} holds {len(records)} records, not {size}"
            repeated = 0 if upcoming is None else shared
            yield ListPage(records, _integer(reply.get("count")), not problem, problem, repeated)
            if not records or upcoming is None:
                return
            offset += step
            pages.extend_to(offset // step)
            reply = await pages.take()
    finally:
        await pages.close()


async def by_total(
    client: ApiClient,
    path: str,
    *,
    list_key: str,
    limit: int,
    params: Mapping[str, str | int],
    traffic: Traffic,
    columns: ColumnReader | None = None,
) -> AsyncGenerator[ListPage, None]:
    """Walk a list by offset and limit up to its `total` (Getscreen.me).

    The offset advances by what came back, not by the limit, which the vendor may clamp. With filters in `params` each
    page must repeat them in `filter`, as numbers or as text; the walk ends with the first page that does not.

    Raises:
        ApiError: a page could not be had.
    """
    offset, guard = 0, _Guard()
    while True:
        asked = {**params, "offset": offset, "limit": limit}
        reply = await client.get_list(path, asked, list_key=list_key, traffic=traffic, columns=columns)
        records, total = reply[list_key], _integer(reply.get("total"))
        if stuck := guard.stuck(records):
            yield ListPage([], None, in_place=False, problem=stuck)
            return
        problem = ""
        if _integer(reply.get("offset")) != offset:
            problem = f"the page at offset {reply.get('offset')} came when offset {offset} was asked for"
        told = reply.get("filter")
        ignored = [n for n, v in params.items() if type(told) is not dict or str(told.get(n)) != str(v)]
        if ignored:
            problem = f"the vendor does not say that it filtered by {' and '.join(ignored)}"
        yield ListPage(records, total, not problem, problem)
        offset += len(records)
        if ignored or not records or (total is not None and offset >= total):
            return


async def by_overlapping_offset(
    client: ApiClient, path: str, *, list_key: str, limit: int, order: str, traffic: Traffic
) -> AsyncGenerator[ListPage, None]:
    """Walk a list that is ordered by `order` alone, whose equals may swap places between two requests (PostHog).

    The equals at a page's end are left to the next page, which begins with the first of them: so all equals are seen
    in one reply, in which each stands once. Where equals fill a whole page, the page is asked for again, larger.

    Raises:
        ApiError: a page could not be had.
    """
    offset, size, guard = 0, limit, _Guard()
    while True:
        reply = await client.get_list(path, {"limit": size, "offset": offset}, list_key=list_key, traffic=traffic)
        records, upcoming, count = reply[list_key], _next_offset(reply), _integer(reply.get("count"))
        if stuck := guard.stuck(records):
            yield ListPage([], None, in_place=False, problem=stuck)
            return
        if not records or upcoming is None:
            yield ListPage(records, count, in_place=True)
            return
        equals = _equals_at_end(records, order)
        if equals == len(records):
            size *= 2
            continue
        whole = records[: len(records) - equals]
        yield ListPage(whole, count, in_place=True)
        offset, size = offset + len(whole), limit


def _equals_at_end(records: list[Any], order: str) -> int:
    """How many records at the end share the last one's place in the order."""
    places = [record.get(order) if type(record) is dict else None for record in records]
    return next((n for n, place in enumerate(reversed(places)) if place != places[-1]), len(places))


class _Ahead:
    """Fetches numbered pages side by side, a bounded number ahead of the reader, and hands them out in order.

    A reader that has to wait has more fetched ahead of it, one that lets all of them wait fewer: a sweep takes twenty
    at once, and while it writes nothing it is faster than any vendor.

    Args:
        fetch: fetches the page with a number.
        start: the first number.
        last: the number of the last page that is known of.
        least: pages ahead, whatever they hold; none are fetched before they are taken where it is 0. Callers ask for
            two a connection, which then never idles.
        list_key: the member that holds a page's records.
    """

    def __init__(
        self, fetch: Callable[[int], Awaitable[dict[str, Any]]], start: int, last: int, least: int, list_key: str
    ) -> None:
        self._fetch, self._next, self._last = fetch, start, last
        self._least, self._list_key = least, list_key
        self._ahead, self._most = least, least
        self._tasks: list[asyncio.Task[dict[str, Any]]] = []
        self._fill(least)

    def extend_to(self, last: int) -> None:
        """More pages than the first one promised."""
        self._last = max(self._last, last)

    async def take(self) -> dict[str, Any]:
        """The next page in order."""
        self._fill(max(1, self._ahead))
        if not self._tasks[0].done():
            self._ahead = min(self._ahead + MORE_AHEAD, self._most)
        elif all(task.done() for task in self._tasks):
            self._ahead = max(self._ahead - 1, self._least)
        reply = await self._tasks.pop(0)
        self._bound(reply[self._list_key])
        self._fill(self._ahead)
        return reply

    async def close(self) -> None:
        """Drop what is still being fetched."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _bound(self, records: list[Any] | Columns) -> None:
        """Allow no more ahead than fit, should all be as large as this page."""
        # Python objects are large, and how large would take long to find out
        size = max(1, records.body_bytes) if isinstance(records, Columns) else MOST_AHEAD_BYTES
        fitting = max(self._least, min(MOST_AHEAD, MOST_AHEAD_BYTES // size)) if self._least else 0
        self._most, self._ahead = fitting, min(self._ahead, fitting)

    def _fill(self, ahead: int) -> None:
        while len(self._tasks) < ahead and self._next <= self._last:
            self._tasks.append(asyncio.ensure_future(self._fetch(self._next)))
            self._next += 1


class _Guard:
    """Notices a list that does not advance."""

    def __init__(self) -> None:
        self._pages = 0
        self._previous: list[Any] | Columns = []

    def stuck(self, records: list[Any] | Columns) -> str:
        """What keeps the list from advancing; empty while it does."""
        self._pages += 1
        if records and records == self._previous:
            return "the same page came twice in a row, so the list does not advance"
        if self._pages >= MOST_PAGES:
            return f"the list goes on past {MOST_PAGES:,} pages"
        self._previous = records
        return ""


def _pagination(client: ApiClient, reply: dict[str, Any]) -> dict[str, Any]:
    pagination = reply.get("pagination")
    if type(pagination) is not dict:
        raise BadReply(client.vendor, "A list came without its `pagination` object, so its end cannot be known.")
    return pagination


def _last_page(pagination: dict[str, Any]) -> int | None:
    last = _integer(pagination.get("last_page"))
    return _integer(pagination.get("pages")) if last is None else last


def _next_offset(reply: dict[str, Any]) -> int | None:
    following = reply.get("next")
    if not isinstance(following, str):
        return None
    return _integer(query_of(following).get("offset"))


def _integer(value: Any) -> int | None:
    if type(value) is int:
        return value
    if type(value) is str and _DIGITS.fullmatch(value):
        return int(value)
    return None

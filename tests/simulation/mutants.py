"""Deliberate mistakes that every loader of this kind is tempted to make; the simulation must notice each.

They are kept as patches on the real code, so a simulation that has gone blind fails the test suite.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from sources import _sweep, getscreen
from sources._compare import Comparer, Seen
from sources._known import NONE
from sources._plan import Presence

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest

    from sources._http import ApiClient


def cursor_from_the_last_value_seen(patch: pytest.MonkeyPatch) -> None:
    """Rows dated before the newest row of the warehouse count as read."""
    changed = Comparer._changed

    def newer_only(self: Comparer, page: Any, rows: Any) -> Any:
        newest = self.__dict__.setdefault("newest_held", max(self.known.cursors.max(), 0))
        positions, doubtful = changed(self, page, rows)
        cursors = page.cursors[positions]
        return positions[(cursors == NONE) | (cursors > newest)], doubtful

    patch.setattr(Comparer, "_changed", newer_only)


def deletion_on_absence_alone(patch: pytest.MonkeyPatch) -> None:
    """A row that the list does not show is gone; the vendor is not asked."""
    init = _sweep.Sweep.__init__

    async def gone(*_: Any) -> Presence:
        return Presence.GONE

    def without_asking(self: _sweep.Sweep, plan: Any, *arguments: Any, **named: Any) -> None:
        init(self, plan, *arguments, **named)
        self._plan = replace(plan, ask=gone)

    patch.setattr(_sweep.Sweep, "__init__", without_asking)


def no_second_reading_on_drift(patch: pytest.MonkeyPatch) -> None:
    """The list is taken for what the first pass showed, whatever its counts say."""
    patch.setattr(Seen, "problem", lambda _: "")


def offset_advanced_by_the_limit(patch: pytest.MonkeyPatch) -> None:
    """The next page begins a limit later, whatever came back."""
    walk = getscreen.by_total

    def striding(client: ApiClient, *arguments: Any, limit: int, **named: Any) -> Any:
        return walk(_Striding(client, limit), *arguments, limit=limit, **named)  # type: ignore[arg-type]

    patch.setattr(getscreen, "by_total", striding)


class _Striding:
    """A client for one walk that asks for each page where one would be if all were full."""

    def __init__(self, client: ApiClient, limit: int) -> None:
        self._client, self._limit, self._pages = client, limit, 0

    async def get_list(self, path: str, params: dict[str, Any], **named: Any) -> dict[str, Any]:
        offset, self._pages = self._pages * self._limit, self._pages + 1
        reply = await self._client.get_list(path, {**params, "offset": offset}, **named)
        return {**reply, "offset": params["offset"]}


MUTANTS: Final[dict[str, Callable[[pytest.MonkeyPatch], None]]] = {
    mutant.__name__: mutant
    for mutant in (
        cursor_from_the_last_value_seen,
        deletion_on_absence_alone,
        no_second_reading_on_drift,
        offset_advanced_by_the_limit,
    )
}

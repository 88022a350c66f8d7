"""What the sandbox was asked, without any secret it was asked with."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_KEPT = 100_000


@dataclass(frozen=True, slots=True)
class LoggedRequest:
    """One request and the status it was answered with; 0 when the connection was dropped instead."""

    method: str
    path: str
    query: dict[str, str]
    status: int
    vendor: str
    at: float


class RequestLog:
    """The requests served so far, oldest first; only the last 100,000 are kept."""

    def __init__(self) -> None:
        self._entries: deque[LoggedRequest] = deque(maxlen=_KEPT)
        self._in_flight = 0
        self.peak_concurrency = 0

    @property
    def entries(self) -> list[LoggedRequest]:
        """A copy, safe to keep while the server goes on."""
        return list(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[LoggedRequest]:
        return iter(self.entries)

    def began(self) -> None:
        """Count a request as being in flight."""
        self._in_flight += 1
        self.peak_concurrency = max(self.peak_concurrency, self._in_flight)

    def ended(self) -> None:
        """Count it as over."""
        self._in_flight -= 1

    def add(self, request: LoggedRequest) -> None:
        """Append one request."""
        self._entries.append(request)

    def clear(self) -> None:
        """Forget everything so far."""
        self._entries.clear()
        self.peak_concurrency = self._in_flight

    def select(self, vendor: str | None = None, path_contains: str | None = None) -> list[LoggedRequest]:
        """Requests to one vendor, or whose path contains a text."""
        return [
            entry
            for entry in self.entries
            if (vendor is None or entry.vendor == vendor) and (path_contains is None or path_contains in entry.path)
        ]

    def count(self, vendor: str | None = None, path_contains: str | None = None) -> int:
        """How many requests `select` would return."""
        return len(self.select(vendor, path_contains))

    def non_get(self) -> list[LoggedRequest]:
        """Requests that were not a GET: a reader must never send one."""
        return [entry for entry in self.entries if entry.method != "GET"]

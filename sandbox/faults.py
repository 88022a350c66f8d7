"""The switchboard: which requests are to go wrong, how, and how often. `front.py` carries it out."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

Kind = Literal[
    "status",
    "reset",
    "slow",
    "drip",
    "truncate",
    "html",
    "empty",
    "wrong_type",
    "error_object",
    "missing_list",
    "redirect",
    "replace",
    "bomb",
    "endless",
    "echo",
]


@dataclass(frozen=True, slots=True)
class Fault:
    """One way for a request to go wrong, and which requests it strikes.

    Attributes:
        kind: `status` answers with `status` and the vendor's own error body. `reset` drops the connection before the
            reply, or within the body (`mid_body`). `slow` waits `delay` seconds, then answers. `drip` sends `chunk`
            bytes every `delay` seconds. `truncate` cuts the body to `keep` of its length: with `declared` the
            Content-Length still promises all of it, without it the reply ends cleanly and the JSON is invalid.
            `html` is a 200 login page, `empty` a 200 without body, `wrong_type` the reply sent as text/html,
            `error_object` a 200 that holds the vendor's error, `missing_list` a 200 without the list,
            `redirect` a redirect to `to`, `replace` the reply with its body passed through `body`. `bomb` is a list of
            `size` bytes zipped to a thousandth and declared as `encoding`, `endless` a list that goes on until the
            reader leaves. `echo` answers with `status` and the credential it was sent, in body, headers and `to`.
        vendor: strike requests to this vendor only: screendesk, getscreen or posthog.
        path_contains: strike only paths with this text in them.
        method: strike only this method.
        query: strike only requests with these query parameters.
        times: how many requests to strike; None strikes for good.
        after: how many matching requests to let through first.
        status: the status of `status`, and of `redirect` where it is a 3xx.
        retry_after: the raw Retry-After header of `status`.
    """

    kind: Kind
    vendor: str | None = None
    path_contains: str | None = None
    method: str | None = None
    query: Mapping[str, str] = field(default_factory=dict)
    times: int | None = 1
    after: int = 0
    status: int = 503
    retry_after: str | None = None
    delay: float = 0.05
    chunk: int = 64
    keep: float = 0.5
    declared: bool = True
    mid_body: bool = False
    to: str = ""
    size: int = 1 << 30
    encoding: str = "gzip"
    body: Callable[[bytes], bytes] | None = None

    def strikes(self, method: str, path: str, vendor: str, query: Mapping[str, str]) -> bool:
        """Whether a request is one of those this fault is for."""
        return (
            (self.vendor is None or self.vendor == vendor)
            and (self.path_contains is None or self.path_contains in path)
            and (self.method is None or self.method == method)
            and all(query.get(name) == value for name, value in self.query.items())
        )


@dataclass(slots=True)
class _Armed:
    fault: Fault
    matched: int = 0
    struck: int = 0


class Switchboard:
    """Faults in the order they were added; the first that is due strikes, and a request meets one fault at most."""

    def __init__(self) -> None:
        self._armed: list[_Armed] = []
        self._lock = threading.Lock()

    def add(self, fault: Fault) -> Fault:
        """Arm a fault."""
        with self._lock:
            self._armed.append(_Armed(fault))
        return fault

    def clear(self) -> None:
        """Disarm everything."""
        with self._lock:
            self._armed.clear()

    def struck(self, fault: Fault) -> int:
        """How many requests a fault has struck so far."""
        with self._lock:
            return sum(armed.struck for armed in self._armed if armed.fault is fault)

    def pick(self, method: str, path: str, vendor: str, query: Mapping[str, str]) -> Fault | None:
        """The fault that strikes this request, if any."""
        if not self._armed:
            return None
        with self._lock:
            for armed in self._armed:
                fault = armed.fault
                if not fault.strikes(method, path, vendor, query):
                    continue
                armed.matched += 1
                if armed.matched <= fault.after or (fault.times is not None and armed.struck >= fault.times):
                    continue
                armed.struck += 1
                return fault
        return None

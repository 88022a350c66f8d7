"""What can go wrong at a vendor's API, sorted by what a person can do about it.

ApiError
├── Unreachable          retry   connection, timeout, 5xx or a cut-off body, after every attempt
├── Throttled            wait    429, or 503 with Retry-After, for longer than the run may wait
├── QuotaExceeded        wait    402: the plan's number of requests is used up
├── WrongSetting         fix     names the setting to change
│   ├── Refused                  401, 403
│   └── EndpointMissing          404 where a list was expected
├── UntrustedAddress     stop    a redirect, or an address outside the configured origin: nothing was sent there
├── BadReply             stop    a success that is not the JSON asked for, or a request the vendor rejects
│   └── TooLarge                 more bytes than one reply may have
└── RecordMissing        stop    404 for one record: an answer, not a fault
"""

from __future__ import annotations

import ssl
from typing import ClassVar, Literal

from sources._causes import causes_of

Recovery = Literal["retry", "wait", "fix", "stop"]


class ApiError(Exception):
    """A request that gave no usable answer. The message may be printed: it holds no secret and no vendor text."""

    recovery: ClassVar[Recovery] = "stop"

    def __init__(self, vendor: str, message: str) -> None:
        super().__init__(vendor, message)
        self.vendor = vendor
        self.message = message

    def __str__(self) -> str:
        return self.message


class Unreachable(ApiError):
    """No answer worth having after every attempt. Running again later continues where this run stopped."""

    recovery = "retry"


class Throttled(ApiError):
    """The vendor asks for a longer pause than this run may take."""

    recovery = "wait"

    def __init__(self, vendor: str, message: str, retry_after: float | None = None) -> None:
        super().__init__(vendor, message)
        self.retry_after = retry_after
        """Seconds the vendor asked for, as it asked (not clamped); None when it did not say."""


class QuotaExceeded(ApiError):
    """The plan's number of requests is used up."""

    recovery = "wait"


class WrongSetting(ApiError):
    """Fails the same way until a person changes a setting."""

    recovery = "fix"

    def __init__(self, vendor: str, message: str, setting: str = "") -> None:
        super().__init__(vendor, message)
        self.setting = setting
        """The configuration key to change, and its environment variable."""


class Refused(WrongSetting):
    """The vendor does not accept the credential, or the credential may not read this."""


class EndpointMissing(WrongSetting):
    """There is no such list at the configured address."""


class UntrustedAddress(ApiError):
    """An address that is not the vendor's configured origin. No request was made to it."""


class BadReply(ApiError):
    """An answer that is not what the API promises. Never to be read as an empty page."""


class TooLarge(BadReply):
    """An answer with more bytes than one reply may have."""


class RecordMissing(ApiError):
    """The vendor says this one record does not exist."""


def certificate_refused(exc: BaseException) -> bool:
    """Whether a connection failed because the other side could not prove who it is."""
    return any(isinstance(link, ssl.SSLCertVerificationError) for link in causes_of(exc))


def cause_of(exc: BaseException) -> str:
    """What the operating system said, which no server can write; a server's own words stay out of messages."""
    said = [link.strerror for link in causes_of(exc) if isinstance(link, OSError) and link.strerror]
    return f"{type(exc).__name__}: {said[-1]}" if said else type(exc).__name__

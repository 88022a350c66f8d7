"""What a vendor's reply means: the JSON that was asked for, a failure another attempt may not meet, or one that stays.

What the body holds decides, not its content type: JSON labelled HTML is read, a login page labelled JSON is refused.
JSON is read exactly or not at all: integers of any size stay integers, NaN and Infinity are refused, a number too
large for its type stays text. Of a repeated key the last value counts, half a surrogate pair becomes U+FFFD.
"""

from __future__ import annotations

import json
import logging
import re
from typing import TYPE_CHECKING, Any, TypeVar

import httpx

from sources._body import is_markup, parse
from sources._columns import Columns
from sources._errors import (
    ApiError,
    BadReply,
    EndpointMissing,
    QuotaExceeded,
    RecordMissing,
    Refused,
    UntrustedAddress,
)
from sources._origin import Origin, host_of, named
from sources._pacing import RetryPolicy, retry_after

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime

_log = logging.getLogger("deskhouse.http")
_E = TypeVar("_E", bound=ApiError)


class Transient(Exception):
    """An attempt that failed in a way the next one may not.

    Attributes:
        reason: how, to stand after the vendor's name; holds no secret and no vendor text.
        throttled: the vendor asks to slow down.
        too_many: it says so because of the number of requests.
        unreadable: it sent something that is no JSON.
        asked: seconds it asked to wait, as it asked; None where it did not say.
        wait: the same, within what a run waits.
    """

    def __init__(
        self,
        reason: str,
        *,
        throttled: bool = False,
        too_many: bool = False,
        unreadable: bool = False,
        asked: float | None = None,
        wait: float | None = None,
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.throttled, self.too_many, self.unreadable = throttled, too_many, unreadable
        self.asked, self.wait = asked, wait


class Replies:
    """Judges one vendor's replies.

    Args:
        origin: where they come from.
        retry: how long a wait it may ask for.
        hints: what a person may want to know of a status, by its code.
        wall_clock: the current time, aware.
    """

    def __init__(
        self,
        origin: Origin,
        retry: RetryPolicy,
        hints: Mapping[int, str],
        wall_clock: Callable[[], datetime],
    ) -> None:
        self._origin = origin
        self._retry, self._hints, self._wall_clock = retry, dict(hints), wall_clock
        self._mislabelled = False

    def error(self, kind: type[_E], text: str, **more: Any) -> _E:
        """An error whose message is the vendor's name and the text, without the credential."""
        return kind(self._origin.vendor, self._origin.redactor.text(f"{self._origin.name} {text}"), **more)

    def check_status(self, reply: httpx.Response, path: str, *, one_record: bool) -> None:
        """Refuse a reply that is no success, before its body is read.

        Raises:
            Transient: another attempt may succeed.
            ApiError: none would.
        """
        status = reply.status_code
        if reply.is_success:
            return
        hint = f" {self._hints[status]}" if status in self._hints else ""
        if httpx.codes.is_redirect(status):
            host = host_of(reply.headers.get("location", ""), base=reply.request.url)
            raise self.error(
                UntrustedAddress,
                f"answered with a redirect (HTTP {status}) to {host}, which is not followed, so that the credential "
                f"stays where it belongs. If the API has moved, change {named(self._origin.setting)}.{hint}",
            )
        asked = retry_after(reply.headers.get("retry-after", ""), self._wall_clock())
        too_many = status == httpx.codes.TOO_MANY_REQUESTS
        if too_many or (status == httpx.codes.SERVICE_UNAVAILABLE and asked is not None):
            wait = None
            if asked is not None:
                wait = min(max(asked, self._retry.retry_after_floor), self._retry.retry_after_cap)
            reason = f"asks to slow down (HTTP {status})"
            raise Transient(reason, throttled=True, too_many=too_many, asked=asked, wait=wait)
        if reply.is_server_error or status == httpx.codes.REQUEST_TIMEOUT:
            raise Transient(f"is in trouble (HTTP {status})")
        raise self._refusal(status, path, hint, one_record=one_record)

    def _refusal(self, status: int, path: str, hint: str, *, one_record: bool) -> ApiError:
        """The error for an answer that stays the same however often one asks."""
        if status in {httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN}:
            return self.error(
                Refused,
                f"refused the credential (HTTP {status}). Set {named(self._origin.credential_setting)} in .dlt/secrets.toml to one that "
                f"is valid and may read {path}.{hint}",
                setting=named(self._origin.credential_setting),
            )
        if status == httpx.codes.PAYMENT_REQUIRED:
            return self.error(
                QuotaExceeded,
                f"says the plan's number of requests is used up (HTTP 402). Run again when it renews.{hint}",
            )
        if status in {httpx.codes.NOT_FOUND, httpx.codes.GONE}:
            if one_record:
                return self.error(RecordMissing, f"has no record at {path} (HTTP {status}).")
            return self.error(
                EndpointMissing,
                f"has no list at {path} (HTTP {status}). Check {named(self._origin.setting)}.{hint}",
                setting=named(self._origin.setting),
            )
        return self.error(BadReply, f"rejected the request for {path} (HTTP {status}).{hint}")

    def understood(self, reply: httpx.Response, body: bytearray, path: str, *, again: bool) -> dict[str, Any]:
        """The JSON object in a successful reply.

        Args:
            reply: its head.
            body: its body, unzipped.
            path: what was asked for.
            again: whether a body that is no JSON is worth another attempt.

        Raises:
            Transient: it is no JSON, for once.
            BadReply: it is no JSON, or no object.
        """
        where = ""
        try:
            data = parse(body)
        except json.JSONDecodeError as exc:
            where = f"unreadable from byte {exc.pos:,}"
        except (ValueError, RecursionError):
            where = "unreadable"
        # raised outside, so that the exception does not carry the body
        if where:
            raise self._no_json(reply, body, path, where, again=again)
        if not isinstance(data, dict):
            raise self.error(BadReply, f"sent JSON for {path} that is no object.")
        return data

    def _no_json(self, reply: httpx.Response, body: bytearray, path: str, where: str, *, again: bool) -> Exception:
        """Why a body that is no JSON is none: worth a second try, and then an error that says what it may mean."""
        instead = "a web page" if is_markup(body) else "an empty answer" if not body.strip() else ""
        if again:
            return Transient(f"sent {instead}, not JSON" if instead else f"sent JSON that is {where}", unreadable=True)
        what = f"{_label(reply) or 'no content type'}, {len(body):,} bytes"
        if not instead:
            return self.error(BadReply, f"did not send JSON for {path}: {what}, {where}, twice.")
        text = f"did not send JSON for {path} but {instead} ({what}), twice."
        if instead == "a web page":
            text += (
                " It may be a login page, a notice of maintenance, or come from a proxy in between. Check "
                f"{named(self._origin.setting)} and {named(self._origin.credential_setting)}, or run again later."
            )
        return self.error(BadReply, text)

    def check_content(self, data: dict[str, Any], path: str, list_key: str | None) -> None:
        """Refuse a JSON object that reports an error, or lacks the list that was asked for.

        Raises:
            BadReply: saying which.
        """
        if data.get("error") or data.get("errors"):
            raise self.error(BadReply, f"reported an error inside a successful answer for {path}.")
        if list_key is not None and not isinstance(data.get(list_key), list | Columns):
            state = "is no list" if list_key in data else "is missing"
            raise self.error(BadReply, f'changed its answer for {path}: "{list_key}" {state}.')

    def note_label(self, reply: httpx.Response, path: str) -> None:
        """Say once that JSON has the label of something else; what a body holds counts, not what it is called."""
        label = _label(reply)
        if label and not label.lower().endswith("json") and not self._mislabelled:
            self._mislabelled = True
            _log.info("%s calls the JSON at %s %s; it is read all the same", self._origin.vendor, path, label)


def _label(reply: httpx.Response) -> str:
    """The content type a reply claims, without what may be anything."""
    return re.sub(r"[^\w.+/-].*", "", reply.headers.get("content-type", ""))[:60]

"""Keeps secret values and private parts of addresses out of everything a person or a file can read."""

from __future__ import annotations

import json
import logging
import re
from typing import TYPE_CHECKING
from urllib.parse import quote

if TYPE_CHECKING:
    from collections.abc import Iterable

REDACTED = "[redacted]"
_SHORTEST_SECRET = 4  # anything shorter would blank out ordinary words


class Redactor:
    """Replaces known secret values in text, however the text spells them.

    A secret is found raw, percent-encoded (wholly or in part), JSON-escaped, in any letter case, and with a `Bearer`
    in front, which goes with it.
    """

    def __init__(self, secrets: Iterable[str]) -> None:
        values = {secret.strip() for secret in secrets}
        values |= {value[7:].strip() for value in values if value[:7].lower() == "bearer "}
        usable = sorted((value for value in values if len(value) >= _SHORTEST_SECRET), key=len, reverse=True)
        spellings = "|".join("".join(map(_spellings, value)) for value in usable)
        self._secret = re.compile(rf"(?:Bearer(?:\s|\+|%20)+)?(?:{spellings})", re.IGNORECASE) if usable else None

    def __repr__(self) -> str:
        return "Redactor()"

    def text(self, text: str) -> str:
        """The text with every secret replaced by `[redacted]`."""
        return self._secret.sub(REDACTED, text) if self._secret else text

    def filter(self) -> logging.Filter:
        """A logging filter that redacts message, arguments, traceback and stack, and drops no record."""
        return _RedactingFilter(self)


class _RedactingFilter(logging.Filter):
    def __init__(self, redactor: Redactor) -> None:
        super().__init__()
        self._redactor = redactor

    def filter(self, record: logging.LogRecord) -> bool:
        clean = self._redactor.text
        try:
            message, hidden = record.getMessage(), repr(record.args)
        except Exception:  # noqa: BLE001  a malformed log call, or an argument whose own __str__ fails
            message, hidden = f"{record.msg!s} (this log call is malformed)", ""
            record.msg, record.args = clean(message), None
        if clean(message) != message or clean(hidden) != hidden:
            record.msg, record.args = clean(message), None
        if record.exc_info and not record.exc_text:
            trace = logging.Formatter().formatException(record.exc_info)
            if clean(trace) != trace:
                # handlers that draw the traceback themselves must not get at the objects either
                record.exc_text, record.exc_info = clean(trace), None
        elif record.exc_text:
            record.exc_text = clean(record.exc_text)
        if record.stack_info:
            record.stack_info = clean(record.stack_info)
        return True


def _spellings(char: str) -> str:
    """A pattern for one character of a secret, in each way an address or a JSON text may write it."""
    encoded = char.encode("utf-8", "surrogatepass")
    forms = {char, json.dumps(char)[1:-1], quote(encoded, safe=""), "".join(f"%{byte:02x}" for byte in encoded)}
    if len(char.encode("utf-16-le", "surrogatepass")) == 2:  # noqa: PLR2004  one \uXXXX is enough
        forms.add(f"\\u{ord(char):04x}")
    if char == " ":
        forms.add("+")
    if char == "/":
        forms.add("\\/")
    return f"(?:{'|'.join(re.escape(form) for form in sorted(forms, key=len, reverse=True))})"


def redact_url(url: str) -> str:
    """The address without user name, password, query and fragment: what is left may be printed."""
    bare = re.sub(r"[\x00-\x20\x7f]", "", re.split(r"[?#]", url, maxsplit=1)[0])
    scheme, slashes, rest = bare.rpartition("//") if bare.startswith("//") else bare.partition("://")
    if not slashes:
        scheme, slashes, rest = "", "", bare
    authority, slash, path = rest.partition("/")
    return f"{scheme}{slashes}{authority.rpartition('@')[2]}{slash}{path}"

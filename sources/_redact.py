"""Keeps secret values and private parts of addresses out of everything a person or a file can read."""

from __future__ import annotations

import base64
import json
import logging
import re
import struct
import sys
from itertools import groupby
from typing import TYPE_CHECKING, Any, TextIO, cast
from urllib.parse import quote

if TYPE_CHECKING:
    from collections.abc import Iterable

REDACTED = "[redacted]"
_SHORTEST_SECRET = 4  # anything shorter would blank out ordinary words
_SHORTEST_ENCODED = 8  # anything shorter is found in other texts by chance
_NO_NUMBER = re.compile(r"[^\d.eE+-]")
_SHORT_ESCAPES = {"\n": "n", "\r": "r", "\t": "t", "\b": "b", "\f": "f", "\v": "v", "\a": "a", "\0": "0"}
_HTML_NAMES = {'"': "quot", "'": "apos", "&": "amp", "<": "lt", ">": "gt"}


class Redactor:
    """Replaces known secret values in text, however the text spells them.

    A secret is found raw, percent-encoded (wholly, in part or twice), escaped as JSON, HTML or Python write it, in
    hexadecimal, in Base64 alone or inside something longer (`user:secret`), in any letter case, and with a `Bearer` in
    front, which goes with it. A secret of fewer than four characters is not looked for: it would blank out ordinary
    words; one of fewer than eight bytes is not looked for in hexadecimal and Base64.
    """

    def __init__(self, secrets: Iterable[str]) -> None:
        values = {secret.strip() for secret in secrets}
        values |= {value[7:].strip() for value in values if value[:7].lower() == "bearer "}
        usable = sorted((value for value in values if len(value) >= _SHORTEST_SECRET), key=len, reverse=True)
        # a Base64 text may hold a shorter secret's letters by chance, so it goes first, as a whole
        whole = [pattern for value in usable for pattern in _encoded_whole(value)]
        plain = "|".join(map(_pattern, usable))
        found = "|".join([*whole, rf"(?:Bearer(?:\s|\+|%20){{1,4}})?(?:{plain})"])
        self._secret = re.compile(found, re.IGNORECASE) if usable else None
        # a secret that may be a JSON number or word would break a reply in which it stands for itself
        texts = [value for value in usable if len(value) >= _SHORTEST_ENCODED and _NO_NUMBER.search(value)]
        forms = (form for v in texts for form in (v, json.dumps(v)[1:-1], v.replace("/", "\\/"), quote(v, safe="")))
        usual = {form.encode() for form in forms}
        # what holds a shorter one is found by it
        self._usual = [form for form in usual if not any(other != form and other in form for other in usual)]

    def __repr__(self) -> str:
        return "Redactor()"

    def text(self, text: str) -> str:
        """The text with every secret replaced by `[redacted]`."""
        return self._secret.sub(REDACTED, text) if self._secret else text

    def body(self, body: bytearray) -> bytearray:
        """A reply without the secrets its server repeats; only one that holds some is looked at closely."""
        if not any(form in body for form in self._usual):
            return body
        return bytearray(self.text(body.decode("utf-8", "surrogateescape")).encode("utf-8", "surrogateescape"))

    def value(self, value: Any) -> Any:
        """A JSON value with every secret in its texts and member names replaced; a number that holds one becomes text."""
        if isinstance(value, dict):
            return {self.text(str(name)): self.value(inner) for name, inner in value.items()}
        if isinstance(value, list | tuple):
            return [self.value(inner) for inner in value]
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, int | float) and not isinstance(value, bool) and self.text(str(value)) != str(value):
            return REDACTED
        return value

    def json(self, text: str) -> str:
        """A JSON text with every secret replaced, still JSON."""
        clean = self.text(text)
        if clean == text:
            return text
        try:
            return json.dumps(self.value(json.loads(text)), separators=(",", ":"))
        except (ValueError, RecursionError):
            return json.dumps(clean)

    def filter(self) -> logging.Filter:
        """A logging filter that redacts message, arguments, traceback and stack, and drops no record."""
        return _RedactingFilter(self)

    def stream(self, stream: TextIO) -> TextIO:
        """The same stream, redacting what is written to it."""
        plain = stream.plain if isinstance(stream, _RedactingStream) else stream
        return cast("TextIO", _RedactingStream(plain, self))


def guard_process(redactor: Redactor) -> None:
    """Redact every log record this process makes, whichever library makes it, and all it prints, tracebacks included."""
    redacting = redactor.filter()

    def record(*args: Any, **kwargs: Any) -> logging.LogRecord:
        made = logging.LogRecord(*args, **kwargs)
        redacting.filter(made)
        return made

    logging.setLogRecordFactory(record)
    sys.stdout, sys.stderr = redactor.stream(sys.stdout), redactor.stream(sys.stderr)


class _RedactingStream:
    def __init__(self, stream: TextIO, redactor: Redactor) -> None:
        self.plain, self._redactor = stream, redactor

    def write(self, text: str) -> int:
        self.plain.write(self._redactor.text(text))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        self.write("".join(lines))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.plain, name)


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


def _pattern(secret: str) -> str:
    """A pattern for a secret in plain writing. Repetitions are bounded, so no text takes long to search."""
    parts = []
    for char, run in groupby(secret):
        count = len(list(run))
        one = _spellings(char)
        # escaped once more, each backslash of a run becomes two
        run_of_raw = rf"\\{{{count},{8 * count}}}|" if char == "\\" else ""
        parts.append(f"(?:{run_of_raw}{one}{{{count}}})")
    return "".join(parts)


def _spellings(char: str) -> str:
    """A pattern for one character of a secret, in each way an address, a program or a JSON text may write it."""
    encoded, itself = char.encode("utf-8", "surrogatepass"), re.escape(char)
    forms = {itself, "".join(f"%(?:25){{0,4}}{byte:02x}" for byte in encoded)}
    if char == " ":
        forms |= {r"\+", "%(?:25){0,4}2b"}
    if not (char.isascii() and char.isalnum()):
        point = ord(char)
        units = struct.iter_unpack(">H", char.encode("utf-16-be", "surrogatepass"))
        forms |= {
            "".join(rf"\\{{1,8}}u{unit:04x}" for (unit,) in units),
            rf"\\{{1,8}}U{point:08x}",
            "".join(rf"\\{{1,8}}x{byte:02x}" for byte in encoded),
            rf"\\{{1,8}}x{point:02x}",
            rf"&\#(?:0{{0,6}}{point}|x0{{0,6}}{point:x});",
        }
        if char != "\\":
            # more than one backslash: a text inside a text
            forms.add(rf"\\{{0,8}}{itself}")
    if char in _SHORT_ESCAPES:
        forms.add(rf"\\{{1,8}}{_SHORT_ESCAPES[char]}")
    if char in _HTML_NAMES:
        forms.add(f"&{_HTML_NAMES[char]};")
    return f"(?:{'|'.join(sorted(forms, key=len, reverse=True))})"


def _encoded_whole(secret: str) -> list[str]:
    """Patterns for it in hexadecimal, and in Base64 at each of the three places it may begin in a group of bytes."""
    encoded = secret.encode("utf-8", "surrogatepass")
    if len(encoded) < _SHORTEST_ENCODED:
        return []
    patterns = [encoded.hex()]
    for before in range(3):
        written = base64.b64encode(bytes(before) + encoded).decode()
        # the first and last characters hold bits of what stands beside
        sure = written[(0, 2, 3)[before] : (before + len(encoded)) * 8 // 6]
        either = "".join({"+": "[+-]", "/": "[/_]"}.get(char, char) for char in sure)
        patterns.append(rf"[A-Za-z0-9+/_-]{{0,4}}{either}[A-Za-z0-9+/_-]*={{0,2}}")
    return patterns


def redact_url(url: str) -> str:
    """The address without user name, password, query and fragment: what is left may be printed."""
    bare = re.sub(r"[\x00-\x20\x7f]", "", re.split(r"[?#]", url, maxsplit=1)[0])
    scheme, slashes, rest = bare.rpartition("//") if bare.startswith("//") else bare.partition("://")
    if not slashes:
        scheme, slashes, rest = "", "", bare
    authority, slash, path = rest.partition("/")
    return f"{scheme}{slashes}{authority.rpartition('@')[2]}{slash}{path}"

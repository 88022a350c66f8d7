"""From the bytes of one reply to its JSON: bounded on the way in, exact on the way out."""

from __future__ import annotations

import json
import math
import re
import zlib
from typing import Any, NoReturn

import orjson

_STEP = 1 << 20
_LOOK = 1024  # bytes that may be blank before a page begins
_LONGEST_INTEGER = 4300  # digits; Python refuses to parse more

_LONG_RUN = re.compile(rb"[0-9]{19,}")
# every digit a 0 and anything else an x: looking for nineteen of one byte is seven times faster than the expression
_DIGITS_ALIKE = bytes(ord("0") if byte in b"0123456789" else ord("x") for byte in range(256))
_LONG_RUN_ALIKE = b"0" * 19
# every escape is consumed, so that the second backslash of a pair never starts one; group 1 is half a surrogate pair
_ESCAPE = re.compile(
    rb"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(u[dD][89a-fA-F][0-9a-fA-F]{2})|.)", re.DOTALL
)


class BodyTooLargeError(Exception):
    """More bytes than the cap, on the wire or unzipped."""


class Body:
    """Collects the pieces of a body, unzipped step by step, so that little more than the cap is ever held."""

    def __init__(self, *, zipped: bool, max_bytes: int) -> None:
        self.received = 0
        self.content = bytearray()
        self._zipped = zipped
        self._unzip = zlib.decompressobj(wbits=31)
        self._max_bytes = max_bytes

    def add(self, chunk: bytes) -> None:
        """Takes what arrived. Raises BodyTooLargeError, or zlib.error where it is damaged."""
        self.received += len(chunk)
        if not self._zipped:
            self._keep(chunk)
            return
        while chunk:
            if self._unzip.eof:
                # a gzip file may have several members
                self._unzip = zlib.decompressobj(wbits=31)
            self._keep(self._unzip.decompress(chunk, _STEP))
            chunk = self._unzip.unconsumed_tail or self._unzip.unused_data

    def finish(self) -> bytearray:
        """The whole body. Raises zlib.error where the zipped one was cut short."""
        while self._zipped and self.received and not self._unzip.eof:
            piece = self._unzip.decompress(b"", _STEP)
            if not piece:
                message = "cut short"
                raise zlib.error(message)
            self._keep(piece)
        return self.content

    def _keep(self, piece: bytes) -> None:
        if max(len(self.content) + len(piece), self.received) > self._max_bytes:
            raise BodyTooLargeError
        self.content += piece


def parse(body: bytes | bytearray) -> Any:
    """The JSON value, or a ValueError (a json.JSONDecodeError where the place is known) or RecursionError."""
    if not _may_hold_big_integer(body):
        try:
            return orjson.loads(body)
        except orjson.JSONDecodeError:
            # lone surrogates, a byte order mark and huge numbers are read below; for the rest, it names the place
            pass
    whole = _ESCAPE.sub(lambda escape: rb"\ufffd" if escape[1] else escape[0], body.removeprefix(b"\xef\xbb\xbf"))
    return json.loads(whole.decode(), parse_constant=_no_number, parse_float=_float, parse_int=_int)


def is_markup(body: bytes | bytearray) -> bool:
    """Whether a body that is no JSON looks like HTML or XML."""
    return body[:_LOOK].removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"<")


def _may_hold_big_integer(body: bytes | bytearray) -> bool:
    """Whether orjson would make a float of an integer. Saying so of digits inside a string only costs time."""
    if _LONG_RUN_ALIKE not in body.translate(_DIGITS_ALIKE):
        return False
    for run in _LONG_RUN.finditer(body):
        before = body[max(0, run.start() - 64) : run.start()].removesuffix(b"-").rstrip()
        if before[-1:] in b":[,":
            return True
    return False


def _no_number(name: str) -> NoReturn:
    message = f"{name} is not JSON"
    raise ValueError(message)


def _float(digits: str) -> float | str:
    return value if math.isfinite(value := float(digits)) else digits


def _int(digits: str) -> int | str:
    return int(digits) if len(digits) <= _LONGEST_INTEGER else digits

"""JSON replies from bytes that are ready to send."""

from __future__ import annotations

from typing import TYPE_CHECKING

import orjson
from starlette.responses import Response

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
"""Every method is routed, so that each vendor refuses those that are not GET in its own way."""


def json_reply(body: bytes, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A JSON response."""
    return Response(body, status_code=status, headers=headers, media_type="application/json")


def listing(head: Mapping[str, object], key: str, rows: Iterable[bytes]) -> Response:
    """An envelope with its list last, made without parsing the rows again."""
    opening = orjson.dumps(head)[:-1]
    comma = b"," if head else b""
    return json_reply(b"".join((opening, comma, orjson.dumps(key), b":[", b",".join(rows), b"]}")))


def bearer(authorization: str | None) -> str | None:
    """The token of an Authorization header, or None."""
    scheme, _, token = (authorization or "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" and token else None

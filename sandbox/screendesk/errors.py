"""Screendesk's error bodies. Both shapes occur in its documents."""

from __future__ import annotations

from typing import Any, Literal

import orjson

Shape = Literal["documented", "string", "object"]

_MESSAGES = {
    400: "Bad request",
    401: "Invalid or missing API token",
    403: "API access not enabled or insufficient permissions",
    404: "Resource not found",
    409: "Video file is not available yet",
    422: "Validation error",
    429: "Too many requests",
}
_SERVER_ERROR = 500


def error_body(status: int, message: str | None = None, shape: Shape = "documented") -> bytes:
    """The body Screendesk sends with a status: an object for 404 and crashes, a text otherwise, unless told."""
    text = message or _MESSAGES.get(status, "Internal Server Error" if status >= _SERVER_ERROR else "Request failed")
    as_object = shape == "object" or (shape == "documented" and (status == 404 or status >= _SERVER_ERROR))  # noqa: PLR2004
    error: Any = {"message": text, "code": status} if as_object else text
    return orjson.dumps({"error": error})

"""Getscreen.me's error bodies. No document shows one; these say what the list of codes says."""

from __future__ import annotations

import orjson

_MESSAGES = {
    400: "Invalid parameters",
    402: "The request limit of your plan is exceeded",
    403: "Access denied",
    404: "Not found",
    429: "Too many requests",
}


def error_body(status: int, message: str | None = None) -> bytes:
    """A small JSON body for a status."""
    return orjson.dumps({"error": {"code": status, "message": message or _MESSAGES.get(status, "Server error")}})

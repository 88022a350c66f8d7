"""PostHog's error bodies, as drf-exceptions-hog writes them."""

from __future__ import annotations

import orjson

_ERRORS = {
    400: ("validation_error", "invalid_input", "Invalid input."),
    401: ("authentication_error", "not_authenticated", "Authentication credentials were not provided."),
    403: (
        "authentication_error",
        "authentication_failed",
        "Personal API key found in request Authorization header is invalid.",
    ),
    404: ("invalid_request", "not_found", "Not found."),
    405: ("invalid_request", "method_not_allowed", "Method not allowed."),
    429: ("throttled_error", "throttled", "Request was throttled."),
}
_CRASH = ("server_error", "error", "A server error occurred.")


def error_body(status: int, *, code: str | None = None, detail: str | None = None) -> bytes:
    """The body PostHog sends with a status."""
    kind, usual_code, usual_detail = _ERRORS.get(status, _CRASH)
    error = {"type": kind, "code": code or usual_code, "detail": detail or usual_detail, "attr": None}
    return orjson.dumps(error)


def throttled(seconds: int) -> bytes:
    """The body of a 429."""
    unit = "second" if seconds == 1 else "seconds"
    return error_body(429, detail=f"Request was throttled. Expected available in {seconds} {unit}.")

from __future__ import annotations

import io
import logging
from typing import Any
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sources._redact import Redactor, redact_url

SECRET = "phx_Canary/Ab+9==ü"


@pytest.mark.parametrize(
    "spelling",
    [
        pytest.param(SECRET, id="raw"),
        pytest.param(f"Bearer {SECRET}", id="bearer"),
        pytest.param(f"bearer%20{quote(SECRET, safe='')}", id="bearer encoded"),
        pytest.param(quote(SECRET, safe=""), id="percent upper"),
        pytest.param(quote(SECRET, safe="").replace("%2F", "%2f").replace("%C3%BC", "%c3%bc"), id="percent lower"),
        pytest.param(quote(SECRET), id="percent with slash kept"),
        pytest.param(quote_plus(SECRET), id="form"),
        pytest.param("".join(f"%{byte:02X}" for byte in SECRET.encode()), id="every character encoded"),
        pytest.param(SECRET.replace("ü", "\\u00fc").replace("/", "\\/"), id="json escapes"),
        pytest.param(SECRET.lower(), id="lower-cased as a host name"),
    ],
)
def test_each_way_to_write_a_secret_is_found(spelling: str) -> None:
    assert Redactor([SECRET]).text(f"a={spelling}&b=1") == "a=[redacted]&b=1"


@given(st.text(min_size=4).filter(lambda text: len(text.strip()) >= 4), st.text(), st.text())
def test_no_secret_survives_whatever_it_is_made_of(secret: str, before: str, after: str) -> None:
    cleaned = Redactor([secret]).text(f"{before}{secret}{after}")
    assert "[redacted]" in cleaned or secret.strip() in "[redacted]"


def test_the_longer_of_two_secrets_goes_first_so_that_no_tail_is_left() -> None:
    assert Redactor(["abcd", "abcdefgh"]).text("abcdefgh abcd") == "[redacted] [redacted]"


def test_a_secret_given_as_a_header_value_is_found_without_its_scheme() -> None:
    assert Redactor(["Bearer tok-123456"]).text("?key=tok-123456") == "?key=[redacted]"


@pytest.mark.parametrize("secret", ["", " ", "abc"])
def test_an_empty_or_short_secret_does_not_blank_out_everything(secret: str) -> None:
    assert Redactor([secret]).text("abc def") == "abc def"


def test_the_redactor_does_not_show_what_it_hides() -> None:
    assert "Canary" not in repr(Redactor([SECRET])) + str(Redactor([SECRET]))


class Holder:
    def __repr__(self) -> str:
        return f"Holder({SECRET})"


def write(*args: Any, **kwargs: Any) -> tuple[str, logging.LogRecord]:
    """What a handler prints for one log call, and the record it was given."""
    out = io.StringIO()
    handler = logging.StreamHandler(out)
    records: list[logging.LogRecord] = []
    handler.addFilter(Redactor([SECRET]).filter())
    handler.addFilter(lambda record: not records.append(record))  # type: ignore[func-returns-value]
    logger = logging.Logger("test")  # noqa: LOG001  not shared with other tests
    logger.addHandler(handler)
    logger.error(*args, **kwargs)
    return out.getvalue(), records[0]


@pytest.mark.parametrize(
    "args",
    [
        pytest.param((f"token {SECRET}",), id="message"),
        pytest.param(("token %s", SECRET), id="argument"),
        pytest.param(("token %r and %d", Holder(), 1), id="object"),
        pytest.param(("%(key)s", {"key": SECRET}), id="mapping"),
        pytest.param(("%d", SECRET), id="malformed call, which logging would print raw"),
        pytest.param(("%.3s", SECRET), id="argument cut by its format"),
    ],
)
def test_a_log_record_shows_no_secret(args: tuple[Any, ...], capsys: pytest.CaptureFixture[str]) -> None:
    written, record = write(*args)
    everything = written + repr(record.__dict__) + capsys.readouterr().err
    assert written
    assert "Canary" not in everything


def test_a_logged_traceback_shows_no_secret_and_keeps_its_type() -> None:
    try:
        raise ValueError(SECRET)  # noqa: TRY301
    except ValueError:
        written, record = write("failed", exc_info=True, stack_info=True)
    assert "Canary" not in written
    assert "ValueError: [redacted]" in written
    assert record.exc_info is None


def test_an_innocent_record_passes_unchanged() -> None:
    written, record = write("page %d of %s", 1, "users")
    assert written == "page 1 of users\n"
    assert record.args == (1, "users")


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://u:pw@ex.com:8443/a/b?key=s#f", "https://ex.com:8443/a/b"),
        ("https://ex.com/api/projects/@current/x", "https://ex.com/api/projects/@current/x"),
        ("https://u:pw\\@ex.com", "https://ex.com"),
        ("https://a@b@ex.com/x", "https://ex.com/x"),
        ("//u:pw@ex.com/a", "//ex.com/a"),
        ("u:pw@ex.com/a", "ex.com/a"),
        ("/a/b?token=x", "/a/b"),
        ("https://ex.com/#/?key=s", "https://ex.com/"),
        ("https://ex\n.com/\x00a", "https://ex.com/a"),
        ("", ""),
    ],
)
def test_an_address_is_shown_without_its_private_parts(url: str, shown: str) -> None:
    assert redact_url(url) == shown


@given(st.text())
def test_no_text_breaks_the_address_redaction(url: str) -> None:
    assert not {"?", "#"} & set(redact_url(url))

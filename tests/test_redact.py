from __future__ import annotations

import base64
import html
import io
import json
import logging
import subprocess
import sys
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sources._redact import Redactor, redact_url

if TYPE_CHECKING:
    from collections.abc import Callable

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


# ---- every spelling, of any secret, in any text


def base64_of(text: str, *, web: bool = False) -> str:
    return (base64.urlsafe_b64encode if web else base64.b64encode)(text.encode("utf-8", "surrogatepass")).decode()


def bytewise(secret: str, form: str) -> str:
    return "".join(form.format(byte) for byte in secret.encode("utf-8", "surrogatepass"))


# long and unusual enough to be a secret, and text a server can send
SECRETS = st.text(st.characters(exclude_categories=["Cs"]), min_size=8, max_size=40).filter(
    lambda t: len(t.strip()) >= 8
)
KEYS = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=8, max_size=40)
WRITTEN = {
    "raw": lambda s: s,
    "quote": quote,
    "quote all": lambda s: quote(s, safe=""),
    "quote_plus": quote_plus,
    "upper hex": lambda s: bytewise(s, "%{:02X}"),
    "lower hex": lambda s: bytewise(s, "%{:02x}"),
    "quoted twice": lambda s: quote(quote(s, safe=""), safe=""),
    "quoted three times": lambda s: quote_plus(quote_plus(quote_plus(s))),
    "JSON": lambda s: json.dumps(s)[1:-1],
    "JSON, not ASCII": lambda s: json.dumps(s, ensure_ascii=False)[1:-1],
    "JSON, slashes escaped": lambda s: json.dumps(s)[1:-1].replace("/", "\\/"),
    "JSON in JSON": lambda s: json.dumps(json.dumps(s))[3:-3],
    "repr": lambda s: repr(s)[1:-1],
    "repr of bytes": lambda s: repr(s.encode())[2:-1],
    "repr of repr": lambda s: repr(repr(s)[1:-1])[1:-1],
    "HTML": html.escape,
    "HTML numbers": lambda s: "".join(f"&#{ord(c)};" if not c.isalnum() else c for c in s),
    "hexadecimal": lambda s: s.encode().hex(),
    "Base64": base64_of,
    "Base64 for URLs": lambda s: base64_of(s, web=True),
    "Base64, no padding": lambda s: base64_of(s).rstrip("="),
    "Basic": lambda s: f"Basic {base64_of(f'user:{s}')}",
    "Basic, secret first": lambda s: base64_of(f"{s}:"),
    "Base64 inside": lambda s: base64_of(f"ab{s}cd", web=True),
}


def pieces_left(text: str) -> list[str]:
    return text.split("[redacted]")


@pytest.mark.parametrize("form", WRITTEN)
@settings(deadline=None)
@given(secret=SECRETS, before=st.text(), after=st.text())
@example(secret="pass:word", before="", after="")
@example(secret="a\\\\b\"'/c%25", before="\\", after="\\")
@example(secret="++//??>>", before="A", after="=")
def test_no_form_of_any_secret_survives_in_any_text(form: str, secret: str, before: str, after: str) -> None:
    """A spelling the pattern does not know; or one it loses because of what stands beside."""
    written = WRITTEN[form](secret.strip())
    cleaned = Redactor([secret]).text(f"{before} {written} {after}")
    assert not any(written in piece for piece in pieces_left(cleaned))
    assert "[redacted]" in cleaned


@given(secret=KEYS, user=st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), max_size=12))
def test_nothing_of_a_secret_can_be_decoded_from_what_is_left_of_base64(secret: str, user: str) -> None:
    """A few characters left at the end, which still say the last letters."""
    cleaned = Redactor([secret]).text(base64_of(f"{user}:{secret}") + " end")
    (left, right) = pieces_left(cleaned)
    assert right == " end"
    whole = base64_of(f"{user}:{secret}")
    assert len(left) * 6 <= (len(user) + 1) * 8
    assert whole.startswith(left)


@given(KEYS, st.sampled_from([str.upper, str.lower, str.swapcase]), st.sampled_from(["raw", "quote", "JSON", "HTML"]))
def test_letter_case_hides_nothing(secret: str, change: Callable[[str], str], form: str) -> None:
    written = change(WRITTEN[form](secret))
    assert not any(written in piece for piece in pieces_left(Redactor([secret]).text(f"<{written}>")))


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@given(secret=SECRETS, value=JSON_VALUES, wrap=st.sampled_from(["value", "name", "part", "alone"]))
def test_json_stays_json_without_the_secret(secret: str, value: Any, wrap: str) -> None:
    """A quarantined record that is no JSON any more once a secret was cut out of it wedges every later load."""
    shapes = {
        "value": {"a": secret, "b": value},
        "name": {secret: value},
        "part": [f"x {secret} y", value],
        "alone": secret,
    }
    text = json.dumps(shapes[wrap], ensure_ascii=False)
    found = Redactor([secret]).json(text)
    json.loads(found)
    assert not any(json.dumps(secret.strip(), ensure_ascii=False)[1:-1] in piece for piece in pieces_left(found))
    assert Redactor(["another-secret"]).json(text) == text


@pytest.mark.parametrize("secret", ["12345678", "null", "true", "-0.5e10", '":{"'])
def test_a_secret_that_looks_like_json_does_not_break_a_record(secret: str) -> None:
    raw = '{"id":12345678,"b":[null,true,-5000000000.0],"c":{"d":"12345678 null true"}}'
    json.loads(Redactor([secret]).json(raw))
    assert "12345678" not in Redactor(["12345678"]).json(raw)
    if secret != '":{"':
        assert Redactor([secret]).body(bytearray(raw.encode())) == raw.encode()


def test_no_text_takes_long() -> None:
    """A pattern that goes back and forth over a long text: a minute for one log line."""
    redactor = Redactor(["\\\\\\\\//\\&&%%%25%25aaaaaaaaaaaaaaaa"])
    for text in ("\\" * 9_000, "%25" * 9_000, "a" * 30_000, "%" + "25" * 9_000, "Bearer" + " " * 9_000, "&#0" * 9_000):
        # the limit of the whole test run is the only clock
        assert redactor.text(text) == text


# ---- a whole process


GUARDED = """
import logging, sys, threading, warnings
from sources._redact import Redactor, guard_process
secret = sys.stdin.read()
before = logging.getLogger("made.before")
guard_process(Redactor([secret]))
logging.basicConfig(level=logging.DEBUG)
for name in ("made.before", "httpx", "httpcore.http11", "dlt", "asyncio", "some.library"):
    for level in (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR, logging.CRITICAL):
        logging.getLogger(name).log(level, "GET https://x/?key=%s headers=%r", secret, [(b"X-Api-Key", secret.encode())])
try:
    raise ValueError(secret)
except ValueError as error:
    logging.getLogger("some.library").exception("failed")
    logging.getLogger("some.library").error("failed", exc_info=error, stack_info=True)
warnings.warn(secret)
print(secret, {"key": secret}, file=sys.stdout)
sys.stderr.writelines([secret[:5], secret[5:], "\\n"])
thread = threading.Thread(target=lambda: (_ for _ in ()).throw(RuntimeError(secret)))
thread.start()
thread.join()
class Broken:
    def __del__(self):
        raise RuntimeError(secret)
Broken()
raise RuntimeError("the end: " + secret)
"""


def test_a_guarded_process_says_no_secret_whoever_speaks() -> None:
    """Another library's log, a warning, a thread's traceback, the last traceback of all: none goes through our loggers."""
    done = subprocess.run([sys.executable, "-c", GUARDED], input=SECRET, capture_output=True, text=True, check=False)
    said = done.stdout + done.stderr
    assert "Canary" not in said
    assert said.count("GET https://x/?key=[redacted]") == 30
    for heard in ("the end: [redacted]", "RuntimeError: [redacted]", "Exception ignored", "UserWarning: [redacted]"):
        assert heard in said

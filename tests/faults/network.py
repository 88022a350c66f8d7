"""Faults 10 to 20: connections that break, vendors in trouble, and answers that are none."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import TYPE_CHECKING, Any

from faults.case import TOKENS, VENDORS, tables_of
from faults.process import LISTS

if TYPE_CHECKING:
    from faults.case import Case

HASTE = {"hasten": True}
ATTEMPTS = 6
BUDGET = 40
"""Requests a vendor that is down for good may cost a run: six attempts for each list, and what runs beside them."""


def unreachable(case: Case) -> None:
    """10: reset before and within a reply; then nobody listens; then the name is not known."""
    case.change(*VENDORS)
    for vendor in VENDORS:
        case.fault("reset", vendor=vendor, times=2, after=case.rng.randrange(2))
        case.fault("reset", vendor=vendor, times=1, after=1, mid_body=True, keep=case.rng.random())
    case.recovered(case.sync(plan=HASTE), "a run with reset connections")
    case.world.faults.clear()
    case.change("posthog")
    case.close_doors()
    case.resumed(case.sync(plan=HASTE), *VENDORS, says="gave up after")
    case.open_doors()
    if case.ours:
        _unknown_name(case)


def _unknown_name(case: Case) -> None:
    """In a warehouse of its own: another address is another account."""
    names = {
        key: value.replace("127.0.0.1", "localhost")
        for key, value in case._environment({}).items()
        if key.endswith("BASE_URL")
    }
    elsewhere = names | {"DESKHOUSE__WAREHOUSE_DIR": str(case.folder / "elsewhere")}
    case.resumed(case.sync(plan={**HASTE, "dns_fails": 10**6}, **elsewhere), *VENDORS, says="name resolution")
    case.recovered(case.sync(plan={**HASTE, "dns_fails": 2}, **elsewhere), "a run in which a name is known late")
    shutil.rmtree(case.folder / "elsewhere")


def cut_short(case: Case) -> None:
    """11: a body that ends early, with a Content-Length and without."""
    case.change(*VENDORS)
    for vendor in VENDORS:
        for declared in (True, False):
            case.fault(
                "truncate", path_contains=LISTS[vendor], declared=declared, keep=case.rng.uniform(0.05, 0.99),
                after=case.rng.randrange(2), vendor=vendor,
            )  # fmt: skip
    case.recovered(case.sync(plan=HASTE), "a run with bodies cut short")


def slow_drip(case: Case) -> None:
    """12: bytes arrive for ever, each in good time."""
    case.change(*VENDORS)
    drip = case.fault("drip", path_contains=LISTS[case.rng.choice(VENDORS)], chunk=1, delay=0.05)
    run = case.sync(plan={**HASTE, "deadline": 0.7})
    case.recovered(run, "a run with a reply that drips")
    case.expect(case.world.faults.struck(drip) == 1, "nothing dripped")
    case.expect_ours(sum(r["retries"] for r in run.receipts.values()) >= 1, "the drip was waited for")


def bursts(case: Case) -> None:
    """13: each server error a few times over, then answers."""
    case.change(*VENDORS)
    for vendor in VENDORS:
        for status in (500, 502, 503, 504):
            case.fault("status", vendor=vendor, status=status, times=1, after=case.rng.randrange(2))
    case.world.requests.clear()
    run = case.sync(plan=HASTE)
    case.recovered(run, "a run through server errors")
    retries = sum(r["retries"] for r in run.receipts.values())
    case.expect_ours(retries == 12, f"12 errors, and {retries} retries")
    for vendor in VENDORS:
        seen: dict[tuple[str, str], int] = {}
        for entry in case.world.requests.select(vendor):
            seen[entry.path, str(entry.query)] = seen.get((entry.path, str(entry.query)), 0) + 1
        most = max(seen.values())
        case.expect_ours(most <= ATTEMPTS, f"{vendor}: one page was asked for {most} times")


def throttled(case: Case) -> None:
    """14: 429 with a Retry-After: nothing is asked in that time."""
    case.change("getscreen")
    wait = 1
    strike = case.fault("status", vendor="getscreen", status=429, retry_after=str(wait), after=case.rng.randrange(2))
    case.world.requests.clear()
    case.recovered(case.sync("getscreen") if case.ours else case.sync(plan=HASTE), "a run that was told to wait")
    case.expect(case.world.faults.struck(strike) == 1, "nothing was throttled")
    asked = case.world.requests.select("getscreen")
    refusal = next(entry.at for entry in asked if entry.status == 429)
    early = [entry for entry in asked if refusal < entry.at < refusal + wait]
    case.expect(not early, f"{len(early)} requests came while a pause had been asked for")


def odd_waits(case: Case) -> None:
    """15: Retry-After in every form; then one that no run can wait for."""
    now = datetime.now(UTC)
    forms = ["0", "-5", "soon", "", "1.5", "2026-11-22", format_datetime(now - timedelta(days=1)),
             format_datetime(now + timedelta(seconds=1), usegmt=True), "999999", "9" * 400]  # fmt: skip
    plan = {**HASTE, "retry_after_cap": 0.6}
    picked = forms if case.deep else [forms[0], forms[1], forms[2], forms[6], forms[8], case.rng.choice(forms)]
    # one for each vendor at a time: several may meet one request, which then rightly gives up for this run
    for first in range(0, len(picked), len(VENDORS)):
        case.change(*VENDORS)
        for vendor, form in zip(VENDORS, picked[first:], strict=False):
            case.fault("status", vendor=vendor, status=case.rng.choice([429, 503]), retry_after=form)
        case.recovered(case.sync(plan=plan), "a run with odd Retry-After headers")
    case.world.faults.clear()
    case.change("screendesk")
    case.world.requests.clear()
    case.fault("status", vendor="screendesk", times=None, status=429, retry_after="999999")
    run = case.sync(plan=plan)
    case.resumed(run, "screendesk", says="Run again after")
    if case.ours:
        asked = case.world.requests.count("screendesk")
        case.expect(asked <= BUDGET, f"{asked} requests to a vendor that asked for eleven days of peace")


def down_for_good(case: Case) -> None:
    """16: run after run, one vendor answers 503; the others stay fresh, and it is not asked without end."""
    vendor = case.rng.choice(VENDORS)
    down = case.fault("status", vendor=vendor, status=503, times=None)
    for _ in range(30 if case.deep else 2):
        case.change(*VENDORS)
        case.world.requests.clear()
        run = case.sync(plan=HASTE)
        case.resumed(run, vendor, says=vendor)
        asked = case.world.requests.count(vendor)
        case.expect(0 < asked <= BUDGET, f"{asked} requests to a vendor that is down")
        if case.ours:
            for other in (v for v in VENDORS if v != vendor):
                for table in tables_of(other):
                    _fresh(case, table)
    case.expect(case.world.faults.struck(down) > 0, "nothing was down")


def _fresh(case: Case, table: str) -> None:
    held = case.query(f"SELECT count(*) FILTER (_deleted_at IS NULL) FROM {table}")[0][0]
    vendor, _, name = table.partition(".")
    there = len(getattr(getattr(case.world, vendor), name))
    case.expect(held == there, f"{table} holds {held} rows, its vendor {there}")


def key_refused(case: Case) -> None:
    """17: 401 or 403: asked once for each list, and the setting is named."""
    case.change(*VENDORS)
    vendor, status = case.rng.choice(VENDORS), case.rng.choice([401, 403])
    case.fault("status", vendor=vendor, status=status, times=None)
    case.world.requests.clear()
    run = case.sync(plan=HASTE)
    case.resumed(run, vendor, says=TOKENS[vendor])
    asked = case.world.requests.count(vendor)
    case.expect_ours(asked <= len(tables_of(vendor)), f"{asked} requests with a key that is refused")
    if case.ours:
        for other in (v for v in VENDORS if v != vendor):
            for table in tables_of(other):
                _fresh(case, table)


def no_json(case: Case) -> None:
    """18: a login page, or nothing at all, and 200 each time; JSON that calls itself HTML is read, whole."""
    case.change(*VENDORS)
    kinds = case.rng.sample(["html", "empty"], 2)
    for vendor, kind in zip(case.rng.sample(VENDORS, 2), kinds, strict=True):
        case.fault(kind, vendor=vendor, times=None)
    troubled = {fault.fault.vendor for fault in case.world.faults._armed}
    case.resumed(case.sync(plan=HASTE), *(v for v in VENDORS if v in troubled), says="did not send JSON")
    case.world.faults.clear()
    case.fault("wrong_type", times=None)
    case.recovered(case.sync(plan=HASTE), "a run with mislabelled JSON")


def no_list(case: Case) -> None:
    """19: 200 with an error, without its list, or with a list that is suddenly empty."""
    case.change(*VENDORS)
    kinds: list[tuple[str, dict[str, Any]]] = [
        ("error_object", {}),
        ("missing_list", {}),
        ("replace", {"body": _emptied}),
    ]
    case.rng.shuffle(kinds)
    for vendor, (kind, options) in zip(VENDORS, kinds, strict=True):
        case.fault(kind, vendor=vendor, times=None, **options)
    case.resumed(case.sync(plan=HASTE), *VENDORS)
    if case.ours:
        case.expect(not case.query("SELECT 1 FROM ops.receipts WHERE deleted > 0"), "rows were marked as deleted")


def _emptied(body: bytes) -> bytes:
    import json  # noqa: PLC0415

    reply = json.loads(body)
    for name in ("records", "users", "data", "results"):
        if name in reply:
            reply[name] = []
    if "pagination" in reply:
        reply["pagination"] = {"count": 0, "page": 1, "items": 20, "pages": 1, "last_page": 1, "from": 0, "to": 0}
    reply |= {name: 0 for name in ("total", "count") if name in reply}
    return json.dumps(reply | ({"next": None} if "next" in reply else {})).encode()


def odd_json(case: Case) -> None:
    """20: broken JSON once, then fine; odd values that can be read; NaN for good, which cannot."""
    case.change("posthog")
    breakages = [lambda b: b[:-2], lambda b: b.replace(b'"', b"'", 9), lambda b: b"\xff\xfe" + b, lambda b: b + b"{}"]
    for vendor in VENDORS:
        case.fault("replace", vendor=vendor, body=case.rng.choice(breakages), after=case.rng.randrange(2))
    case.recovered(case.sync(plan=HASTE), "a run with replies that are broken once")
    case.world.faults.clear()
    key = case.world.screendesk.recordings.keys()[0]
    case.world.screendesk.recordings.update(key, {"title": "odd-title"})

    def odd(body: bytes) -> bytes:
        return b"\xef\xbb\xbf" + body.replace(b'"title":"odd-title"', b'"title":"first","title":"half \\ud800 pair"')

    case.fault("replace", vendor="screendesk", path_contains="recordings", times=None, body=odd)
    case.recovered(case.sync(plan=HASTE), "a run with a byte order mark, a repeated key and half a surrogate pair")
    if case.ours:
        shown = case.query("SELECT title FROM screendesk.recordings WHERE uuid = ?", key)
        case.expect(shown == [("half \ufffd pair",)], f"the odd title is {shown}")
    case.world.faults.clear()
    with case.noting():
        case.world.posthog.desktop_recordings.update(case.world.posthog.desktop_recordings.keys()[0], {"notes": "new"})
    case.fault(
        "replace", vendor="posthog", times=None, body=lambda body: body.replace(b'"count":', b'"NaN":NaN,"count":')
    )
    case.resumed(case.sync(plan=HASTE), "posthog", says="unreadable")

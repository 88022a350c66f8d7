"""The dashboard as somebody sees it: in Chromium, on a warehouse that goes on being loaded."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import duckdb
import httpx
import pytest
from browser import CHROMIUM, Browser, Page, chromium
from conftest import Desk, small_world

from pipelines.dashboard import notebook
from pipelines.opening import open_published
from sandbox.server import SandboxServer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sandbox.world import World

ROOT = Path(__file__).resolve().parent.parent
DEEP = bool(os.environ.get("DESKHOUSE_DEEP"))
NOTHING = "\N{EN DASH}"
SYNCS = 20 if DEEP else 3
needs_chromium = pytest.mark.skipif(
    CHROMIUM is None, reason="Chromium is not installed here (apt-get install chromium); CI installs it and runs these"
)
SECTIONS = (
    *("top", "banner", "tiles", "activity", "agents", "tickets", "talk", "meetings", "unseen", "unseen-agents"),
    *("systems", "countries", "customers", "devices", "freshness"),
)
DRAWN = f"{list(SECTIONS)!r}.every(id => document.getElementById(id))"
SPY = """
import os, sys
def note(event, arguments):
    if event == "socket.getaddrinfo" and arguments[0] not in ("127.0.0.1", "localhost", None, ""):
        where = arguments[0]
    elif event == "socket.connect" and isinstance(arguments[1], tuple) and arguments[1][0] not in ("127.0.0.1", "::1"):
        where = arguments[1][0]
    else:
        return
    with open(os.environ["SPY_FILE"], "a") as file:
        print(event, where, file=file)
sys.addaudithook(note)
"""


def _documented() -> dict[str, list[str]]:
    """The queries of docs/metrics.md for the dashboard, by heading."""
    text = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    text = text.split("\n## Dashboard\n")[1].split("\n## ")[0]
    sections = re.split(r"\n### (.+)\n", text)[1:]
    return {
        heading: re.findall(r"```sql\n(.*?)```", body, re.DOTALL)
        for heading, body in zip(sections[::2], sections[1::2], strict=True)
    }


QUERIES = _documented()


@dataclass
class Dashboard:
    """A dashboard that is being served, its warehouse and the world that fills it."""

    desk: Desk
    world: World
    address: str
    spied: Path

    def ask(self, heading: str, number: int = 0) -> list[dict[str, Any]]:
        """What the documented query says of the published file."""
        with open_published(self.desk.warehouse) as published:
            found = published.connection.execute(QUERIES[heading][number])
            names = [column[0] for column in found.description or []]
            return [dict(zip(names, row, strict=True)) for row in found.fetchall()]

    def generation(self) -> str:
        return (self.desk.warehouse / "current").resolve().name


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as started:
        yield started


def _serving(desk: Desk, spied: Path) -> str:
    """Start a dashboard and return its address; whatever it asks the network for is noted."""
    spied.parent.mkdir(exist_ok=True)
    (spied.parent / "sitecustomize.py").write_text(SPY)
    desk.environment |= {"PYTHONPATH": str(spied.parent), "SPY_FILE": str(spied)}
    started = desk.start("dashboard", "--no-browser", "--port", "0")
    assert started.process.stdout is not None
    found = re.search(r"http://127\.0\.0\.1:\d+\S*", started.process.stdout.readline())
    assert found, started.wait().output
    port = int(urlsplit(found[0]).port or 0)
    for _ in range(600):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return found[0]
        try:
            started.process.wait(0.1)
        except subprocess.TimeoutExpired:
            continue
        raise AssertionError(started.process.communicate())
    raise AssertionError("the dashboard did not start")


def _stop(desk: Desk) -> None:
    for one in desk.started:
        if one.running:
            one.kill(signal.SIGKILL)
            one.process.communicate()


@pytest.fixture(scope="module")
def dashboard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dashboard]:
    desk, world = Desk(tmp_path_factory.mktemp("dashboard")), small_world()
    with SandboxServer(world) as server:
        desk.environment = server.environment()
        spied = desk.root / "spy" / "asked"
        try:
            desk.sync()
            yield Dashboard(desk, world, _serving(desk, spied), spied)
        finally:
            _stop(desk)


@pytest.fixture
def page(browser: Browser, dashboard: Dashboard) -> Iterator[Page]:
    """The dashboard, drawn; at the end nobody has complained and nothing was asked of another machine."""
    with browser.open(dashboard.address) as opened:
        opened.wait_for(DRAWN)
        opened.wait_for("deep(document, 'svg.marks').length >= 5")
        yield opened
        opened.evaluate("new Promise(done => setTimeout(done, 200))")
    own = urlsplit(dashboard.address).netloc
    outside = [
        url for url in opened.asked if urlsplit(url).scheme not in {"data", "blob"} and urlsplit(url).netloc != own
    ]
    assert outside == []
    assert opened.asked
    assert opened.complaints == []
    assert not dashboard.spied.exists(), dashboard.spied.read_text()


def _tiles(page: Page) -> dict[str, str]:
    """Numbers of the tiles, without units."""
    found: dict[str, str] = page.evaluate(
        "Object.fromEntries([...document.querySelectorAll('.dh-tile')].map(tile =>"
        " [tile.id.replace('tile-', ''), tile.querySelector('.value').firstChild.textContent]))"
    )
    return found


def _shown(row: dict[str, Any]) -> dict[str, str]:
    return {
        name: NOTHING if row[name] is None else f"{row[name]:,.{digits}f}"
        for name, digits in (
            ("sessions", 0),
            ("hours", 1),
            ("median_minutes", 1),
            ("tickets", 0),
            ("customers", 0),
            ("never_viewed", 0),
        )
    }


def _table(page: Page, key: str) -> list[list[str]]:
    found: list[list[str]] = page.wait_for(f"cells({key!r}).length ? cells({key!r}) : null")
    return found


def _bars(page: Page, key: str) -> list[dict[str, str]]:
    """The bars of a chart as Vega describes them to screen readers: what is drawn."""
    labels = page.evaluate(
        f"deep(document.getElementById({key!r}), '[aria-roledescription=bar]').map(bar => bar.getAttribute('aria-label'))"
    )
    return [dict(part.split(": ", 1) for part in label.split("; ")) for label in labels]


def _as_cells(rows: list[dict[str, Any]], *names: str) -> list[list[str]]:
    def cell(value: object) -> str:
        return NOTHING if value is None else f"{value:,}" if isinstance(value, int | float) else str(value)

    return [[cell(row[name]) for name in names] for row in rows[:10]]


def _choose(page: Page, label: str, option: str) -> None:
    """Pick an option of a plain select by its label."""
    page.evaluate(
        f"""(() => {{
            const select = deep(document, 'select').find(one => [...one.options].some(o => o.textContent.trim() === {option!r}));
            const chosen = [...select.options].find(o => o.textContent.trim() === {option!r});
            Object.getOwnPropertyDescriptor(HTMLSelectElement.prototype, 'value').set.call(select, chosen.value);
            select.dispatchEvent(new Event('change', {{bubbles: true}}));
        }})()"""
    )
    assert label


def _refresh(page: Page) -> None:
    page.evaluate("deep(document, 'button').find(one => one.innerText.trim() === 'Refresh').click()")


@needs_chromium
def test_the_first_page_shows_the_numbers_that_the_documented_queries_give(page: Page, dashboard: Dashboard) -> None:
    now, before = dashboard.ask("Tiles")
    assert _tiles(page) == _shown(now)
    change = page.evaluate("document.querySelector('#tile-sessions .change').innerText")
    assert change.endswith(f"from {before['sessions']:,}")
    agents = dashboard.ask("Who held them?")
    counted = ("sessions", "recordings", "live_calls", "remote_sessions", "hands_on_hours", "median_minutes")
    assert [row[1:] for row in _table(page, "agents")] == _as_cells(agents, *counted, "customers", "tickets")
    tickets = dashboard.ask("Which tickets needed a live call or a remote session?")
    assert _table(page, "tickets") == _as_cells(tickets, *tickets[0])
    meetings = dashboard.ask("Who was in the meeting, and who talked most?")
    assert _table(page, "meetings") == _as_cells(meetings, *meetings[0])
    unseen = dashboard.ask("Which recordings were never watched?")
    assert [row[:2] for row in _table(page, "unseen")] == _as_cells(unseen, "day", "title")
    heading = "Which customers and devices come back within the period?"
    customers, devices = dashboard.ask(heading), dashboard.ask(heading, 1)
    if customers:
        assert _table(page, "customers") == _as_cells(customers, *customers[0])
    if devices:
        assert _table(page, "devices") == _as_cells(devices, *devices[0])
    banner = page.evaluate("document.getElementById('banner').innerText")
    assert banner.startswith("Complete.")
    kinds = {
        "recording": "Screendesk recording",
        "live_call": "Screendesk live call",
        "remote_session": "Getscreen.me remote session",
        "meeting": "PostHog meeting",
    }
    activity = dashboard.ask("How many sessions, and of which kind?")
    drawn = {(bar["day"], bar["kind"]): bar["sessions"] for bar in _bars(page, "activity")}
    assert drawn == {(str(row["local_day"]), kinds[row["kind"]]): str(row["sessions"]) for row in activity}
    places = dashboard.ask("On which devices, in which countries?")
    countries = {bar["country"]: int(bar["sessions"]) for bar in _bars(page, "countries")}
    assert countries
    for country, sessions in countries.items():
        assert sessions == sum(row["sessions"] for row in places if row["country"] == country)
    systems = sum(int(bar["sessions"]) for bar in _bars(page, "systems"))
    assert systems == sum(row["sessions"] for row in places if row["device_os"] is not None)


@needs_chromium
def test_a_filter_changes_every_number_to_that_of_the_rows_it_leaves(page: Page, dashboard: Dashboard) -> None:
    _choose(page, "Vendor", "Getscreen.me")
    page.wait_for(
        "!cells('agents').some(row => row[2] !== '0') && document.querySelector('#tile-tickets .value').innerText === '0'"
    )
    with open_published(dashboard.desk.warehouse) as published:
        sessions, median = published.connection.execute(
            """
            WITH period AS (SELECT max(local_day) AS last_day FROM analytics.support_sessions WHERE local_day <= current_date)
            SELECT count(*), round(median(duration_seconds) FILTER (WHERE duration_flag = 'ok') / 60, 1)
            FROM analytics.support_sessions CROSS JOIN period
            WHERE vendor = 'getscreen' AND local_day > last_day - 30 AND local_day <= last_day
            """
        ).fetchall()[0]
        total = published.connection.execute(
            "SELECT count(*) FROM analytics.support_sessions WHERE vendor = 'getscreen' AND local_day <= current_date"
        ).fetchall()[0][0]
    assert _tiles(page)["sessions"] == f"{sessions:,}"
    assert _tiles(page)["median_minutes"] == f"{median:,.1f}"
    _choose(page, "Period", "Everything")
    page.wait_for(f"document.querySelector('#tile-sessions .value').innerText === '{total:,}'")
    assert page.evaluate("document.querySelector('#tile-sessions .change').innerText") == "in all"


@needs_chromium
def test_an_agent_is_found_by_typing_and_meetings_then_have_nothing_to_show(page: Page, dashboard: Dashboard) -> None:
    busiest = dashboard.ask("Who held them?")[0]
    page.evaluate("deep(document, '[role=combobox], button').find(one => one.innerText.includes('All agents')).click()")
    page.wait_for("deep(document, 'input').some(one => one === (one.getRootNode().activeElement))")
    page.call("Input.insertText", text=busiest["agent_email"])
    page.wait_for(f"deep(document, '[role=option]').some(one => one.innerText.includes({busiest['agent_email']!r}))")
    page.evaluate(
        f"deep(document, '[role=option]').find(one => one.innerText.includes({busiest['agent_email']!r})).click()"
    )
    page.wait_for(f"document.querySelector('#tile-sessions .value').innerText === '{busiest['sessions']}'")
    page.wait_for("document.getElementById('meetings').innerText.includes('meetings have no agent')")
    # what was chosen outlives a refresh
    _refresh(page)
    page.evaluate("new Promise(done => setTimeout(done, 500))")
    assert _tiles(page)["sessions"] == str(busiest["sessions"])


@needs_chromium
def test_a_page_held_open_through_syncs_shows_new_data_after_refresh_and_never_an_error(
    page: Page, dashboard: Dashboard
) -> None:
    before = page.evaluate("document.getElementById('banner').dataset.generation")
    for _ in range(SYNCS):
        dashboard.world.live_a_day()
        dashboard.desk.sync()
        assert page.evaluate("document.getElementById('banner').dataset.generation") == before
        _refresh(page)
        before = dashboard.generation()
        page.wait_for(f"document.getElementById('banner').dataset.generation === {before!r}")
        expected = _shown(dashboard.ask("Tiles")[0])
        page.wait_for(f"document.querySelector('#tile-sessions .value').innerText === {expected['sessions']!r}")
        page.wait_for(f"document.querySelector('#tile-hours .value').firstChild.textContent === {expected['hours']!r}")
        assert _tiles(page) == expected


@needs_chromium
def test_before_the_first_sync_the_page_says_what_to_do_and_refresh_finds_the_first_data(
    browser: Browser, tmp_path: Path
) -> None:
    desk = Desk(tmp_path)
    with SandboxServer(small_world()) as server:
        desk.environment = server.environment()
        try:
            with browser.open(_serving(desk, tmp_path / "spy" / "asked")) as page:
                page.wait_for("!!document.getElementById('nothing')")
                assert "deskhouse sync" in page.evaluate("document.body.innerText")
                desk.sync()
                _refresh(page)
                page.wait_for(DRAWN)
                assert page.complaints == []
        finally:
            _stop(desk)


def test_without_the_secret_of_the_address_nothing_is_shown(dashboard: Dashboard) -> None:
    """Other users of the machine can reach the port."""
    answer = httpx.get(dashboard.address.split("?")[0], trust_env=False)
    assert answer.status_code == 303
    assert answer.headers["location"].startswith("/auth/login")


@needs_chromium
def test_a_phone_sees_the_whole_width_without_scrolling_sideways(page: Page) -> None:
    page.call("Emulation.setDeviceMetricsOverride", width=390, height=844, deviceScaleFactor=2, mobile=True)
    page.wait_for("window.innerWidth <= 400")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert page.evaluate(
        "[...document.querySelectorAll('.dh-tile, .dh-card, .dh-banner')].every(one => one.getBoundingClientRect().right <= 391)"
    )


def _rendered(folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """What the notebook's cells show, without a browser."""
    monkeypatch.setenv("DESKHOUSE__WAREHOUSE_DIR", str(folder))
    monkeypatch.syspath_prepend(str(notebook().parent))
    import support_overview  # noqa: PLC0415 - lies beside the tests, not in a package

    try:
        outputs, _ = support_overview.app.run()
    finally:
        del sys.modules["support_overview"]
    return "".join(output.text for output in outputs if hasattr(output, "text"))


def _changed(dashboard: Dashboard, folder: Path, *statements: str) -> Path:
    """A warehouse of its own whose published file was changed by hand."""
    generation = folder / "generations" / dashboard.generation()
    shutil.copytree(dashboard.desk.warehouse / "generations" / generation.name, generation)
    (folder / "current").symlink_to(generation.relative_to(folder))
    with duckdb.connect(str(generation / "deskhouse.duckdb")) as connection:
        for statement in statements:
            connection.execute(statement)
    return folder


def test_old_data_is_called_old(dashboard: Dashboard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shift = "UPDATE ops.receipts SET started_at = started_at - INTERVAL 3 DAY"
    shown = _rendered(_changed(dashboard, tmp_path, shift), monkeypatch)
    assert "dh-banner warn" in shown
    assert "Complete, but old: the newest data is of 3 days ago" in shown


def test_an_incomplete_table_is_named_with_its_reason(
    dashboard: Dashboard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed = (
        "UPDATE ops.receipts SET complete = false, reason = 'the vendor counts <b>7</b> more'"
        " WHERE table_name = 'getscreen.connections'"
    )
    shown = _rendered(_changed(dashboard, tmp_path, failed), monkeypatch)
    assert "dh-banner bad" in shown
    assert "getscreen.connections: the vendor counts &lt;b&gt;7&lt;/b&gt; more" in shown


def test_a_warehouse_without_a_session_is_an_empty_page_and_not_an_error(
    dashboard: Dashboard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = _rendered(_changed(dashboard, tmp_path, "DELETE FROM analytics.support_sessions"), monkeypatch)
    assert "No session matches these filters" in shown
    assert shown.count("dh-empty") >= 8


def test_what_a_customer_typed_is_text_on_the_page(
    dashboard: Dashboard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A title or a reason with HTML in it must not become a part of the page, nor a quote break a query or a chart."""
    evil = """'; DROP TABLE x; -- <img src=x onerror=alert(1)> \\' " """
    text = "'" + evil.replace("'", "''") + "'"
    shown = _rendered(
        _changed(
            dashboard,
            tmp_path,
            f"UPDATE analytics.support_sessions SET title = {text}, device_name = {text}, country = {text}",
            f"UPDATE analytics.people SET name = {text}",
            f"UPDATE analytics.meeting_talk SET speaker = {text} || position FROM (SELECT 1 AS position)",
        ),
        monkeypatch,
    )
    assert "<img src=x" not in shown
    assert "Support overview" in shown


def test_a_port_that_is_taken_is_said_in_one_line(dashboard: Dashboard) -> None:
    port = str(urlsplit(dashboard.address).port)
    done = dashboard.desk.run("dashboard", "--no-browser", "--port", port)
    assert done.code == 2
    assert len(done.stderr.splitlines()) == 1
    assert f"port {port} is taken" in done.stderr

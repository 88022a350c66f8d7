"""Light passes, through whole syncs: a few requests on a quiet run, and a full sweep as soon as anything is in doubt."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from pipelines.database import connect
from pipelines.progress import SilentReporter
from pipelines.settings import Settings, configure_dlt
from sandbox.app import create_app
from sandbox.world import World
from sources import _sweep
from sources._settings import SourceSettings

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pipelines.ledger import Receipt

configure_dlt()
from pipelines.sync import sync  # noqa: E402 - dlt must be configured before it is imported

ROWS = 1_150


class Account:
    """A Screendesk account, a warehouse, and a clock that both go by."""

    def __init__(self, folder: Path) -> None:
        self.world = World(recordings=ROWS, users=3, connections=0, meetings=0)
        self.now = self.world.now
        self.source = SourceSettings(
            "screendesk",
            self.world.screendesk.token,
            "http://127.0.0.1/screendesk/api/v2",
            max_concurrency=4,
            requests_per_second=0,
            lookback_days=0.25,
            full_sweep_every=1,
        )
        self.folder = folder
        self.before_page: Callable[[int], None] = lambda _: None

    def clock(self) -> datetime:
        """The time."""
        return self.now

    def later(self, **passed: float) -> None:
        """Time passes, here and at the vendor."""
        self.now += timedelta(**passed)
        self.world.now = self.now

    def sync(self, *, full: bool = False) -> Receipt:
        """One run; the receipt of the recordings."""
        self.world.requests.clear()
        transport = Watched(self)
        settings = Settings(self.folder / "warehouse", {"screendesk": self.source})
        result = sync(
            settings,
            ["screendesk"],
            SilentReporter(),
            full=full,
            transports={"screendesk": transport},
            clock=self.clock,
        )
        return next(r for r in result.receipts if r.table_name == "screendesk.recordings")

    @property
    def pages(self) -> int:
        """List pages of recordings asked for in the last run."""
        return sum(e.path.endswith("/recordings") for e in self.world.requests.entries)

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        """Rows of the private database."""
        with connect(self.folder / "warehouse" / "work" / "deskhouse.duckdb", read_only=True) as con:
            return con.execute(sql).fetchall()

    def live(self) -> set[str]:
        """Keys that are live in the warehouse."""
        return {uuid for (uuid,) in self.rows("SELECT uuid FROM screendesk.recordings WHERE _deleted_at IS NULL")}


class Watched(httpx.ASGITransport):
    """The account's API; tells the account before each list page of recordings is answered."""

    def __init__(self, account: Account) -> None:
        super().__init__(create_app(account.world))
        self.account, self.page = account, 0

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("/recordings"):
            self.page += 1
            self.account.before_page(self.page)
        return await super().handle_async_request(request)


@pytest.fixture
def account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Account:
    """An account that has been loaded whole, some minutes ago."""
    monkeypatch.setattr(_sweep, "LIGHT_FROM_ROWS", ROWS - 50)
    account = Account(tmp_path)
    first = account.sync()
    assert (first.complete, first.sweep_kind, first.sweep_reason) == (True, "full", "a short list is always read whole")
    account.later(minutes=30)
    return account


def counts(receipt: Receipt) -> tuple[int, int, int]:
    return receipt.inserted, receipt.updated, receipt.deleted


def test_a_quiet_run_asks_for_a_page_or_two_and_writes_nothing(account: Account) -> None:
    receipt = account.sync()
    assert (receipt.sweep_kind, receipt.complete, counts(receipt)) == ("light", True, (0, 0, 0))
    assert account.pages <= 2
    assert receipt.vendor_count == receipt.live_rows == ROWS


def test_what_is_new_or_recently_changed_is_loaded_by_a_light_pass(account: Account) -> None:
    recordings = account.world.screendesk.recordings
    new = recordings.insert()
    recordings.update(recordings.keys()[3], {"metadata.impressions_count": 77}, touch=False)
    receipt = account.sync()
    assert (receipt.sweep_kind, receipt.complete, counts(receipt)) == ("light", True, (1, 1, 0))
    assert new in account.live()


def test_a_row_that_is_still_settling_is_read_again_behind_pages_that_are_known(account: Account) -> None:
    """Catches a light pass that ends at the first known page, although rows behind it are minutes old."""
    recordings = account.world.screendesk.recordings
    account.world.screendesk.settings.page_size = 5
    for _ in range(12):
        recordings.insert()
    assert account.sync().inserted == 12
    account.later(minutes=20)
    recordings.update(recordings.keys()[9], {"summary": "processed"}, touch=False)
    receipt = account.sync()
    assert (receipt.sweep_kind, counts(receipt)) == ("light", (0, 1, 0))


def test_a_silent_change_of_an_old_row_is_found_by_the_next_full_sweep(account: Account) -> None:
    recordings = account.world.screendesk.recordings
    recordings.update(recordings.keys()[-1], {"metadata.impressions_count": 99}, touch=False)
    assert counts(account.sync()) == (0, 0, 0)
    account.later(days=1)
    receipt = account.sync()
    assert (receipt.sweep_kind, receipt.sweep_reason) == ("full", "the last full sweep is old enough")
    assert counts(receipt) == (0, 1, 0)


def test_a_deleted_row_shows_in_the_count_and_is_found_in_the_same_run(account: Account) -> None:
    recordings = account.world.screendesk.recordings
    gone = recordings.keys()[700]
    recordings.delete(gone)
    receipt = account.sync()
    assert (receipt.sweep_kind, receipt.complete, counts(receipt)) == ("full", True, (0, 0, 1))
    assert f"the vendor counts {ROWS - 1} and the warehouse holds {ROWS}" in receipt.sweep_reason
    assert gone not in account.live()


def test_a_row_deleted_and_another_added_do_not_hide_each_other(account: Account) -> None:
    """Catches a light pass that compares the vendor's count with what it held before, not after."""
    recordings = account.world.screendesk.recordings
    gone, new = recordings.keys()[700], recordings.insert()
    recordings.delete(gone)
    receipt = account.sync()
    assert (receipt.sweep_kind, counts(receipt)) == ("full", (1, 0, 1))
    assert new in account.live()
    assert gone not in account.live()


def test_an_old_row_that_appears_late_is_found(account: Account) -> None:
    """Catches rows dated before the point where a light pass stops, which show in nothing but the count."""
    late = account.world.screendesk.recordings.insert(metadata__created_at="2026-08-01T00:00:00.000Z")
    receipt = account.sync()
    assert (receipt.sweep_kind, counts(receipt)) == ("full", (1, 0, 0))
    assert late in account.live()


def test_a_list_in_another_order_is_read_whole(account: Account) -> None:
    account.world.screendesk.settings.order = "shuffled"
    receipt = account.sync()
    assert (receipt.sweep_kind, receipt.complete, receipt.order_held) == ("full", True, False)
    again = account.sync()
    assert again.sweep_reason == "the list is not ordered by metadata__created_at"


def test_records_without_key_count_at_the_vendor_and_do_not_force_full_sweeps(account: Account) -> None:
    account.world.screendesk.recordings.insert(uuid=None)
    assert account.sync().sweep_kind in {"light", "full"}
    account.later(hours=1)
    assert account.sync(full=True).quarantined == 1
    account.later(hours=9)
    receipt = account.sync()
    assert (receipt.sweep_kind, receipt.complete) == ("light", True)


def test_full_and_a_run_that_failed_call_for_a_full_sweep(account: Account) -> None:
    assert account.sync(full=True).sweep_reason == "asked for"
    token, account.source = account.source.secret, replace(account.source, secret="wrong")
    failed = account.sync()
    assert (failed.complete, failed.deleted) == (False, 0)
    account.source = replace(account.source, secret=token)
    assert account.sync().sweep_reason == "the last run was not complete"
    assert account.sync().sweep_kind == "light"


def test_a_sweep_dated_in_the_future_is_not_relied_on(account: Account) -> None:
    """Catches a clock that ran ahead once and then keeps full sweeps away for as long."""
    account.now += timedelta(days=400)
    assert account.sync(full=True).complete
    account.now -= timedelta(days=400)
    assert account.sync().sweep_reason == "the last full sweep is dated in the future"


def test_with_a_new_token_nothing_is_marked_deleted_until_it_has_read_once(account: Account) -> None:
    gone = account.world.screendesk.recordings.keys()[5]
    account.world.screendesk.recordings.delete(gone)
    account.world.screendesk.token = "another-token"
    account.source = replace(account.source, secret="another-token")
    first = account.sync()
    assert (first.complete, first.deleted) == (False, 0)
    assert "the token is not the one" in first.reason
    second = account.sync()
    assert (second.complete, second.deleted) == (True, 1)


def test_a_pass_across_midnight_marks_nothing_deleted_before_it_is_read_again(account: Account) -> None:
    """Catches rows that the nightly clean-up moved to a page already read, and that still exist."""
    account.now = datetime(2026, 11, 20, 23, 59, 59, tzinfo=UTC)

    def midnight(page: int) -> None:
        if page == 5:
            account.later(seconds=2)

    account.before_page = midnight
    gone = account.world.screendesk.recordings.keys()[40]
    account.world.screendesk.recordings.delete(gone)
    receipt = account.sync(full=True)
    assert (receipt.passes, receipt.complete, receipt.deleted) == (2, True, 1)

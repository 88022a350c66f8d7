"""Settings come from dlt's own places, keep their exact text, and are refused with the name of the key."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from dlt.common.runtime.run_context import active, switch_context

from pipelines.settings import VENDORS, SettingsError, choose, load_settings, setting_name

if TYPE_CHECKING:
    from collections.abc import Iterator

POSTHOG = {"SOURCES__POSTHOG__API_KEY": "phx_1", "SOURCES__POSTHOG__PROJECT_ID": "42"}


@pytest.fixture
def set_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """An empty folder and no setting inherited; dlt reads its files once per context, so the context is left again."""
    before = str(Path(active().run_dir).resolve())
    monkeypatch.chdir(tmp_path)
    for name in [n for n in os.environ if n.startswith(("SOURCES__", "DESKHOUSE__"))]:
        monkeypatch.delenv(name)
    switch_context(str(tmp_path))
    yield monkeypatch
    switch_context(before)


def given(set_environment: pytest.MonkeyPatch, variables: dict[str, str]) -> None:
    for name, value in variables.items():
        set_environment.setenv(name, value)


@pytest.mark.parametrize("token", ["007", "1e5", "true", "null", "0x1F", "1_000", "3.10", "{a}"])
def test_a_token_that_looks_like_a_number_or_a_literal_keeps_its_text(
    set_environment: pytest.MonkeyPatch, token: str
) -> None:
    given(set_environment, {"SOURCES__GETSCREEN__API_KEY": token})
    assert load_settings().sources["getscreen"].secret == token


def test_the_polite_limits_hold_for_a_vendor_and_none_for_this_machine(set_environment: pytest.MonkeyPatch) -> None:
    given(set_environment, {"SOURCES__SCREENDESK__API_TOKEN": "t"})
    vendor = load_settings().sources["screendesk"]
    assert (vendor.max_concurrency, vendor.requests_per_second) == (2, 2.0)
    given(set_environment, {"SOURCES__SCREENDESK__BASE_URL": "http://127.0.0.1:1/api/v2/"})
    local = load_settings().sources["screendesk"]
    assert (local.requests_per_second, local.base_url) == (0.0, "http://127.0.0.1:1/api/v2")


def test_a_limit_that_is_set_holds_on_this_machine_too(set_environment: pytest.MonkeyPatch) -> None:
    given(
        set_environment,
        {
            "SOURCES__SCREENDESK__API_TOKEN": "t",
            "SOURCES__SCREENDESK__BASE_URL": "http://localhost/api",
            "SOURCES__SCREENDESK__REQUESTS_PER_SECOND": "3",
            "SOURCES__SCREENDESK__MAX_CONCURRENCY": "1",
        },
    )
    source = load_settings().sources["screendesk"]
    assert (source.max_concurrency, source.requests_per_second) == (1, 3.0)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("max_concurrency", "0"),
        ("max_concurrency", "2.5"),
        ("max_concurrency", "many"),
        ("requests_per_second", "-1"),
        ("requests_per_second", "nan"),
        ("lookback_days", "a week"),
        ("full_sweep_every", "-0.5"),
        ("project_id", "@current"),
        ("project_id", ""),
    ],
)
def test_a_value_that_cannot_be_used_is_refused_by_name(
    set_environment: pytest.MonkeyPatch, key: str, value: str
) -> None:
    given(set_environment, {**POSTHOG, f"SOURCES__POSTHOG__{key.upper()}": value})
    with pytest.raises(SettingsError) as refused:
        load_settings()
    assert setting_name(f"sources.posthog.{key}") in str(refused.value)


def test_files_and_environment_give_the_same_and_the_environment_wins(
    set_environment: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder = tmp_path / ".dlt"
    folder.mkdir()
    (folder / "secrets.toml").write_text('[sources.getscreen]\napi_key = "from file"\n')
    (folder / "config.toml").write_text('[sources.getscreen]\nmax_concurrency = 3\n[deskhouse]\nwarehouse_dir = "w"\n')
    switch_context(str(tmp_path))
    settings = load_settings()
    source = settings.sources["getscreen"]
    assert (source.secret, source.max_concurrency) == ("from file", 3)
    assert settings.warehouse_dir == tmp_path / "w"
    given(set_environment, {"SOURCES__GETSCREEN__API_KEY": "from environment", "DESKHOUSE__WAREHOUSE_DIR": "v"})
    assert load_settings().sources["getscreen"].secret == "from environment"
    assert load_settings().warehouse_dir == tmp_path / "v"


def test_the_placeholders_of_the_example_count_as_no_token(set_environment: pytest.MonkeyPatch) -> None:
    given(
        set_environment, {"SOURCES__SCREENDESK__API_TOKEN": "<personal API token>", "SOURCES__GETSCREEN__API_KEY": " "}
    )
    assert load_settings().skipped == VENDORS


def test_without_any_token_the_message_names_every_key_and_the_demo(set_environment: pytest.MonkeyPatch) -> None:
    with pytest.raises(SettingsError) as refused:
        choose(load_settings(), [])
    message = str(refused.value)
    assert "make demo" in message
    for key in ("sources.screendesk.api_token", "sources.getscreen.api_key", "sources.posthog.api_key"):
        assert setting_name(key) in message


def test_a_vendor_asked_for_by_name_without_a_token_is_refused(set_environment: pytest.MonkeyPatch) -> None:
    given(set_environment, POSTHOG)
    with pytest.raises(SettingsError, match="SOURCES__SCREENDESK__API_TOKEN"):
        choose(load_settings(), ["screendesk"])
    assert choose(load_settings(), ["posthog"]) == ["posthog"]


def test_settings_never_show_a_secret(set_environment: pytest.MonkeyPatch) -> None:
    given(set_environment, {**POSTHOG, "SOURCES__POSTHOG__API_KEY": "phx_do_not_show"})
    assert "phx_do_not_show" not in repr(load_settings())

"""What the documents say is what the code does."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pipelines.cli import app
from pipelines.settings import BASE_URLS, DLT_ENVIRONMENT, LOOKBACK_DAYS, POLITE, SECRET_KEYS, VENDORS
from pipelines.sync import ALL_TABLES
from sources._schema import every_table
from sources._settings import SourceSettings

REPOSITORY = Path(__file__).resolve().parent.parent
README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
CONFIG = (REPOSITORY / ".dlt" / "config.toml").read_text(encoding="utf-8")
COMMANDS = ["sync", "check", "status", "dashboard", "query", "export", "forget", "quarantine", "demo", "sandbox"]


@pytest.mark.parametrize("name", [f"{t.schema}.{name}" for t in ALL_TABLES for name, _ in every_table(t)])
def test_the_readme_names_every_table(name: str) -> None:
    assert f"`{name}`" in README


@pytest.mark.parametrize("command", COMMANDS)
def test_the_readme_shows_every_command_and_its_help_teaches(command: str) -> None:
    assert f"deskhouse {command}" in README or f"make {command}" in README
    shown = CliRunner().invoke(app, [command, "--help"])
    assert shown.exit_code == 0
    assert len(shown.output.splitlines()) > 5


def test_the_readme_names_no_command_that_does_not_exist() -> None:
    named = set(re.findall(r"(?:bin/|`)deskhouse (\w+)", README))
    assert named <= set(COMMANDS)


def test_every_make_target_in_the_readme_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (REPOSITORY / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    named = {word for line in re.findall(r"make ([a-z ]+)", README) for word in line.split(" ")[:1]}
    assert named - {"anew"} <= targets


def test_the_values_shown_in_config_toml_are_the_defaults() -> None:
    """A default changed in code and not in the documented file would mislead whoever reads the file."""
    shown = tomllib.loads(re.sub(r"^# (\w+ = )", r"\1", CONFIG, flags=re.MULTILINE))
    defaults = {"warehouse_dir": "warehouse", "timezone": "UTC", "file_mode": "owner"}
    assert {n: v for n, v in shown["deskhouse"].items() if n != "privacy"} == defaults
    for vendor in VENDORS:
        defaults = SourceSettings(vendor, "", "")
        expected = {
            "base_url": BASE_URLS[vendor],
            "max_concurrency": POLITE[vendor][0],
            "requests_per_second": POLITE[vendor][1],
            "lookback_days": LOOKBACK_DAYS[vendor],
            "full_sweep_every": defaults.full_sweep_every,
        }
        section = dict(shown["sources"][vendor])
        section.pop("project_id", None)
        assert section == expected


def test_config_toml_sets_for_dlt_what_the_code_sets() -> None:
    """Whoever runs dlt's own tools in the repository must get the same behaviour."""
    values = tomllib.loads(CONFIG)
    for variable, value in DLT_ENVIRONMENT.items():
        found = values
        for part in variable.lower().split("__"):
            found = found[part]
        assert str(found).lower() == value, variable


def test_the_example_of_secrets_has_every_token_and_counts_as_none() -> None:
    example = tomllib.loads((REPOSITORY / ".dlt" / "secrets.example.toml").read_text(encoding="utf-8"))
    for vendor, key in SECRET_KEYS.items():
        assert re.fullmatch(r"<.+>", example["sources"][vendor][key])


def test_no_lock_file_names_an_index() -> None:
    for name in ("requirements.lock", "requirements-dev.lock"):
        text = (REPOSITORY / name).read_text(encoding="utf-8")
        assert "://" not in text
        assert "index-url" not in text
        entries = re.findall(r"^[a-z0-9][\w.-]*(?:\[[\w,]+\])?==", text, re.MULTILINE | re.IGNORECASE)
        assert len(entries) > 40
        assert text.count("--hash=sha256:") > len(entries)


def test_the_two_locks_agree_on_every_version() -> None:
    pinned = [
        dict(re.findall(r"^([\w.-]+)==([\w.]+)", (REPOSITORY / name).read_text(encoding="utf-8"), re.MULTILINE))
        for name in ("requirements.lock", "requirements-dev.lock")
    ]
    assert pinned[0].items() <= pinned[1].items()

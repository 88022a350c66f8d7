"""What a run is configured with, from dlt's own places: environment, `.dlt/secrets.toml`, `.dlt/config.toml`.

Every default holds without any file. What dlt itself needs set is set here as well, so `deskhouse` behaves the same in
an empty folder as in the repository.
"""

import math
import os
import tomllib
import urllib.parse
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from pipelines.permissions import Access
from sources._settings import SourceSettings

if TYPE_CHECKING:
    from sources._policy import Policy

VENDORS: Final = ("screendesk", "getscreen", "posthog")
VENDOR_NAMES: Final = {"screendesk": "Screendesk", "getscreen": "Getscreen.me", "posthog": "PostHog"}
SECRET_KEYS: Final = {"screendesk": "api_token", "getscreen": "api_key", "posthog": "api_key"}
BASE_URLS: Final = {
    "screendesk": "https://app.screendesk.io/api/v2",
    "getscreen": "https://api.getscreen.me/v1",
    "posthog": "https://us.posthog.com",
}

# requests in flight, requests started per second; reasons are in .dlt/config.toml
POLITE: Final = {"screendesk": (2, 2.0), "getscreen": (1, 1.0), "posthog": (2, 1.2)}
LOOKBACK_DAYS: Final = {"screendesk": 0.25, "getscreen": 7.0, "posthog": 0.25}
LOCAL: Final = (8, 0.0)
"""On loopback there is nobody to be polite to."""

DLT_ENVIRONMENT: Final = {
    # dlt reports usage to its makers by default
    "RUNTIME__DLTHUB_TELEMETRY": "false",
    # dlt would write anew after each step what it noted of all steps before; the ledger says what a run did
    "PIPELINES__ENABLE_RUNTIME_TRACE": "false",
    # says which load wrote a row
    "NORMALIZE__PARQUET_NORMALIZER__ADD_DLT_LOAD_ID": "true",
    # parquet files are read once, a moment after they are written
    "DATA_WRITER__COMPRESSION": "none",
    # a package that can never load would otherwise block every later run
    "LOAD__AUTO_ABORT_ON_TERMINAL_ERROR": "true",
    # loaded packages hold copies of personal data and would stay for ever
    "LOAD__DELETE_COMPLETED_JOBS": "true",
    # more brings nothing here (facts/dlt.md §7)
    "LOAD__WORKERS": "4",
}

NO_LOG: Final = "CRITICAL"
"""The level of dlt's log at which it says nothing."""

N = TypeVar("N", int, float)


class SettingsError(Exception):
    """A setting is missing or wrong; the message names it and says what to do."""


@dataclass(frozen=True)
class Settings:
    """All settings of a run.

    Attributes:
        warehouse_dir: where everything that must survive is kept.
        sources: settings of each vendor that has a token.
        skipped: vendors without a token.
        timezone: IANA name of the zone in which local days are counted.
        access: who may read what is published, besides its owner.
        privacy: what is stored of personal data; None is the profile `standard`.
        hash_key: what its key is made from, where that is configured.
    """

    warehouse_dir: Path
    sources: dict[str, SourceSettings] = field(default_factory=dict)
    skipped: tuple[str, ...] = ()
    timezone: str = "UTC"
    access: Access = Access.OWNER
    privacy: "Policy | None" = None
    hash_key: str = field(default="", repr=False)

    @property
    def secrets(self) -> list[str]:
        """Every secret in use, for redaction."""
        keys = [self.hash_key] if self.hash_key else []
        return [*(s.secret for s in self.sources.values()), *keys]


def configure_dlt() -> None:
    """Set what deskhouse needs of dlt; called before dlt is imported."""
    os.environ.update(DLT_ENVIRONMENT)
    # dlt's own log is for its developers; --log-level debug turns it on
    os.environ.setdefault("RUNTIME__LOG_LEVEL", NO_LOG)


def setting_name(key: str) -> str:
    """A key as a person finds it: in the file, or as an environment variable."""
    return f"{key} (environment: {key.replace('.', '__').upper()})"


def load_settings() -> Settings:
    """Resolve all settings.

    Raises:
        SettingsError: a value cannot be used.
    """
    sources, skipped = {}, []
    for vendor in VENDORS:
        secret = _text(f"sources.{vendor}.{SECRET_KEYS[vendor]}", secret=True)
        if not secret or (secret.startswith("<") and secret.endswith(">")):
            skipped.append(vendor)
        else:
            sources[vendor] = _source(vendor, secret)
    from pipelines.privacy import load_privacy  # noqa: PLC0415 - needs Arrow, which --help must not wait for

    hash_key = text_setting("deskhouse.privacy.hash_key", secret=True)
    return Settings(warehouse_dir(), sources, tuple(skipped), timezone(), access(), load_privacy(), hash_key)


def warehouse_dir() -> Path:
    """The configured warehouse folder, absolute."""
    return Path(text_setting("deskhouse.warehouse_dir") or "warehouse").expanduser().absolute()


def timezone() -> str:
    """The configured time zone.

    Raises:
        SettingsError: there is no such zone.
    """
    from pipelines.transform import check_timezone  # noqa: PLC0415 - asks DuckDB, which --help must not wait for

    try:
        return check_timezone(text_setting("deskhouse.timezone") or "UTC")
    except ValueError as error:
        raise SettingsError(f"{setting_name('deskhouse.timezone')}: {error}") from None


def access() -> Access:
    """Who may read what is published.

    Raises:
        SettingsError: it is none of the words that say so.
    """
    value = text_setting("deskhouse.file_mode") or Access.OWNER
    try:
        return Access(value)
    except ValueError:
        allowed = ", ".join(Access)
        raise SettingsError(f"{setting_name('deskhouse.file_mode')} must be one of {allowed}, not {value!r}.") from None


def exposed_secrets() -> list[Path]:
    """Files that hold secrets and that other users of this machine may read."""
    files = [folder.absolute() / "secrets.toml" for folder in _folders()]
    return [file for file in dict.fromkeys(files) if _others_may_read(file)]


def _others_may_read(file: Path) -> bool:
    try:
        return os.name == "posix" and bool(file.stat().st_mode & 0o044)
    except OSError:
        return False


def _folders() -> tuple[Path, Path]:
    return Path(os.environ.get("DLT_PROJECT_DIR", ".")) / ".dlt", Path.home() / ".dlt"


def text_setting(key: str, *, secret: bool = False) -> str:
    """One of deskhouse's own settings, empty where it is not set.

    Raises:
        SettingsError: a file cannot be read.
    """
    return _text(key, secret=secret)


def settings_sections(key: str) -> list[dict[str, Any]]:
    """A section as each file has it, the file that counts most first.

    Raises:
        SettingsError: a file cannot be read.
    """
    sections = []
    for folder in _folders():
        for name in ("secrets.toml", "config.toml"):
            found: Any = _toml(folder / name, key)
            for part in key.split("."):
                found = found.get(part) if isinstance(found, dict) else None
            if found is not None:
                sections.append(found if isinstance(found, dict) else {str(found): None})
    return sections


def choose(settings: Settings, vendors: Sequence[str]) -> list[str]:
    """The vendors a run reads: those asked for, or all that have a token.

    Raises:
        SettingsError: an unknown vendor, one without a token, or none has a token.
    """
    for vendor in vendors:
        if vendor not in VENDORS:
            raise SettingsError(f"There is no source {vendor!r}. Sources are: {', '.join(VENDORS)}.")
        if vendor not in settings.sources:
            key = setting_name(f"sources.{vendor}.{SECRET_KEYS[vendor]}")
            raise SettingsError(f"{VENDOR_NAMES[vendor]} has no token. Set {key}.")
    if not settings.sources:
        keys = "\n".join(f"  {setting_name(f'sources.{v}.{SECRET_KEYS[v]}')}" for v in VENDORS)
        raise SettingsError(
            "No source has a token. Set at least one of these in .dlt/secrets.toml "
            f"(copy .dlt/secrets.example.toml), or in the environment:\n{keys}\n"
            "To look around without any account, run: make demo  (or: deskhouse demo)"
        )
    return [v for v in VENDORS if v in settings.sources and (not vendors or v in vendors)]


def is_loopback(url: str) -> bool:
    """Whether a URL points at this machine."""
    try:
        host = urllib.parse.urlsplit(url).hostname or ""
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def _source(vendor: str, secret: str) -> SourceSettings:
    prefix = f"sources.{vendor}"
    base_url = (_text(f"{prefix}.base_url") or BASE_URLS[vendor]).rstrip("/")
    concurrency, rate = LOCAL if is_loopback(base_url) else POLITE[vendor]
    project_id = ""
    if vendor == "posthog":
        project_id = _text(f"{prefix}.project_id")
        if not project_id:
            raise SettingsError(f"PostHog needs its project. Set {setting_name(f'{prefix}.project_id')}.")
        if not project_id.isascii() or not project_id.isdigit():
            raise SettingsError(
                f"{setting_name(f'{prefix}.project_id')} must be the project's number, not {project_id!r}: "
                "other forms may point to another project tomorrow."
            )
    return SourceSettings(
        vendor=vendor,
        secret=secret,
        base_url=base_url,
        max_concurrency=_number(f"{prefix}.max_concurrency", concurrency, int, least=1, most=64),
        requests_per_second=_number(f"{prefix}.requests_per_second", rate, float, least=0),
        lookback_days=_number(f"{prefix}.lookback_days", LOOKBACK_DAYS[vendor], float, least=0),
        full_sweep_every=_number(f"{prefix}.full_sweep_every", 1.0, float, least=0),
        project_id=project_id,
    )


def _lookup(key: str, *, secret: bool) -> str | None:
    """A value from where dlt looks, in its order, without the third of a second that importing dlt takes."""
    value = os.environ.get(key.replace(".", "__").upper())
    if value is not None:
        return value
    for folder in _folders():
        for name in ("secrets.toml",) if secret else ("secrets.toml", "config.toml"):
            found: Any = _toml(folder / name, key)
            for part in key.split("."):
                found = found.get(part) if isinstance(found, dict) else None
            if found is not None:
                return str(found)
    return None


def _toml(file: Path, key: str) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise SettingsError(
            f"The settings in .dlt/ cannot be read: {type(error).__name__} in {file} while looking up {key}."
        ) from None


def _text(key: str, *, secret: bool = False) -> str:
    value = _lookup(key, secret=secret)
    return "" if value is None else str(value).strip()


def _number(key: str, default: N, kind: Callable[[str], N], *, least: float, most: float = math.inf) -> N:
    value = _lookup(key, secret=False)
    if value is None or value == "":
        return default
    try:
        number = kind(str(value))
    except ValueError:
        number = None
    if number is None or not least <= number <= most:
        allowed = f"{least} or more" if most == math.inf else f"from {least} to {most}"
        raise SettingsError(f"{setting_name(key)} must be a number, {allowed}, not {value!r}.")
    return number

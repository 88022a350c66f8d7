"""How each contestant is started, and where it leaves its file."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dataset import LIST_PATHS, REPOSITORY, Dataset
from measure import Cost, Failed, timed
from verify import verify

from sandbox.credentials import POSTHOG_KEY, POSTHOG_PROJECT_ID, SCREENDESK_TOKEN

if TYPE_CHECKING:
    from collections.abc import Sequence

_HERE = Path(__file__).resolve().parent
PANDAS = REPOSITORY / "bench/.pandas"
DLT = REPOSITORY / "bench/.dlt"
"""A virtual environment with dlt as `pip install "dlt[duckdb,parquet]"` gives it, which brings a newer DuckDB than deskhouse uses."""
_SLOW_BATCH = str(64 << 20)
# in the order they run; what it is, how its tables are laid out, its script and options
CONTESTANTS: dict[str, tuple[str, str, Sequence[str]]] = {
    "deskhouse": ("deskhouse sync, published", "deskhouse", ()),
    "limit": ("the limit: httpx with 8 connections, DuckDB read_json", "limit", ("limit.py",)),
    "floor": ("the same with plain sockets and small row groups", "limit", ("limit.py", "--bare")),
    "plain": ("plain script: httpx, json_normalize, DuckDB", "plain", ("plain_script.py",)),
    "dlt-tuned": ("dlt rest_api, tuned", "dlt", ("dlt_rest_api.py", "--tuned")),
    "dlt": ("dlt rest_api, defaults", "dlt", ("dlt_rest_api.py",)),
    "dlt-older": ("dlt rest_api, defaults, with deskhouse's DuckDB", "dlt", ("dlt_rest_api.py",)),
}
_AS_INSTALLED = frozenset({"dlt-tuned", "dlt"})


def first_load(name: str, data: Dataset, address: str, folder: Path, *, slow: bool) -> tuple[Cost, str]:
    """Load everything into a new file, verify it, and say what it cost and what was verified.

    Raises:
        Failed: the contestant failed, or what it loaded is wrong.
    """
    if name == "deskhouse":
        cost, _ = sync(data, address, folder)
        return cost, verify("deskhouse", data, published(folder))
    _, layout, (script, *options) = CONTESTANTS[name]
    database = folder / "loaded.duckdb"
    python = str(DLT / "bin/python") if name in _AS_INSTALLED else sys.executable
    if not Path(python).exists():
        raise Failed(f"{name} needs {DLT}, which `make bench` makes")
    command = [python, str(_HERE / script), *options, "--vendor", data.vendor]
    command += ["--url", address + LIST_PATHS[data.vendor], "--database", str(database)]
    if layout == "limit" and slow:
        command += ["--batch", _SLOW_BATCH]
    # pandas is kept out of everybody else's way: Arrow imports it wherever it finds it
    shelf = {"PYTHONPATH": f"{REPOSITORY}{os.pathsep}{PANDAS}"} if name == "plain" else {}
    cost = timed(command, cwd=folder, env={**environment(), **shelf})
    if name in _AS_INSTALLED:
        written, database = database, folder / "older.duckdb"
        timed([python, str(_HERE / "older_format.py"), str(written), str(database)], cwd=folder, env=environment())
    return cost, verify(layout, data, database)


def sync(data: Dataset, address: str, folder: Path, *options: str) -> tuple[Cost, dict[str, Any]]:
    """One `deskhouse sync` of a set, in the folder that holds its warehouse, with the run's own summary.

    Raises:
        Failed: it failed, or a table is not complete.
    """
    command = [sys.executable, "-m", "pipelines.cli", "sync", data.vendor, "--json", *options]
    cost = timed(command, cwd=folder, env=settings_of(data, address, folder))
    summary = json.loads(cost.output)
    incomplete = [table["table"] for table in summary["tables"] if not table["complete"]]
    if summary["exit_code"] or incomplete or len(summary["tables"]) != len(data.tables):
        raise Failed(f"deskhouse says it is not complete: {cost.output[-2000:]}")
    return cost, summary


def settings_of(data: Dataset, address: str, folder: Path) -> dict[str, str]:
    """The environment of a `deskhouse sync`: eight connections and no rate limit."""
    vendor = data.vendor.upper()
    secret = {"SOURCES__SCREENDESK__API_TOKEN": SCREENDESK_TOKEN}
    if data.vendor == "posthog":
        secret = {"SOURCES__POSTHOG__API_KEY": POSTHOG_KEY, "SOURCES__POSTHOG__PROJECT_ID": POSTHOG_PROJECT_ID}
    return {
        **environment(),
        **secret,
        f"SOURCES__{vendor}__BASE_URL": address,
        f"SOURCES__{vendor}__MAX_CONCURRENCY": "8",
        f"SOURCES__{vendor}__REQUESTS_PER_SECOND": "0",
        "DESKHOUSE__WAREHOUSE_DIR": str(folder / "warehouse"),
        # what the others store as well
        "DESKHOUSE__PRIVACY__PROFILE": "full",
    }


def pages_alone(data: Dataset, address: str, folder: Path) -> Cost:
    """Fetch and parse all pages, and nothing else.

    Raises:
        Failed: it failed, or counted other records than there are.
    """
    command = [sys.executable, str(_HERE / "pages_alone.py"), "--url", address + LIST_PATHS[data.vendor]]
    cost = timed(command, cwd=folder, env=environment())
    if int(cost.output) != data.size:
        raise Failed(f"pages_alone saw {cost.output.strip()} records of {data.size}")
    return cost


def published(folder: Path) -> Path:
    """The file readers open, in a folder that holds a warehouse."""
    return folder / "warehouse/current/deskhouse.duckdb"


def environment() -> dict[str, str]:
    """This process's environment without settings of deskhouse and dlt, and with the repository's own packages."""
    ours = ("DESKHOUSE", "SOURCES__", "RUNTIME__", "NORMALIZE__", "LOAD__", "DATA_WRITER__", "DLT_", "DESTINATION__")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    return {**kept, "PYTHONPATH": str(REPOSITORY)}

"""`deskhouse status`: what the published warehouse holds and how the last run ended."""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table as RichTable

from pipelines.database import connect
from pipelines.lock import LockNote, lock_holder
from pipelines.warehouse import Generation, Warehouse, current_generation


@dataclass(frozen=True)
class TableStatus:
    """One table: rows now live, when a row last changed, and how far its data reaches."""

    table: str
    live_rows: int
    last_change: datetime | None
    data_through: datetime | None
    last_complete_run: str | None
    last_run: str
    last_run_complete: bool
    last_run_reason: str


@dataclass
class Status:
    """What `status` shows."""

    warehouse: Path
    generation: Generation | None = None
    tables: list[TableStatus] = field(default_factory=list)
    running: LockNote | None = None

    @property
    def healthy(self) -> bool:
        """Whether something is published and every table's last run was complete."""
        return bool(self.tables) and all(t.last_run_complete for t in self.tables)

    @property
    def database(self) -> Path:
        """The path readers open."""
        return Warehouse(self.warehouse).published_database

    def as_json(self) -> dict[str, Any]:
        """JSON-ready values."""
        generation, running = self.generation, self.running
        return {
            "warehouse": str(self.warehouse),
            "published": str(self.database) if generation else None,
            "published_at": generation.published_at.isoformat() if generation else None,
            "bytes": generation.bytes if generation else None,
            "healthy": self.healthy,
            "running": {"pid": running.pid, "since": running.since} if running else None,
            "tables": [vars(table) for table in self.tables],
        }


def read_status(folder: Path) -> Status:
    """Read the published file; the private one may be in use."""
    warehouse = Warehouse(folder)
    status = Status(folder, current_generation(warehouse), running=lock_holder(warehouse.lock_file))
    if status.generation is None:
        return status
    with connect(status.generation.database, read_only=True) as con:
        rows = con.execute(
            "SELECT table_name, live_rows, data_through, last_complete_run, last_run, last_run_complete, "
            "last_run_reason FROM ops.freshness ORDER BY table_name"
        ).fetchall()
        for name, live, through, complete_run, run, complete, reason in rows:
            changed = con.execute(f"SELECT max(_loaded_at) FROM {name}").fetchall()[0][0]
            status.tables.append(TableStatus(name, live, changed, through, complete_run, run, complete, reason))
    return status


def show_status(status: Status, console: Console) -> None:
    """The same for people."""
    now = datetime.now(UTC)
    if status.generation is None:
        console.print(f"Nothing is published in {status.warehouse} yet.", highlight=False, soft_wrap=True)
        console.print("Run `deskhouse sync`, or `deskhouse demo` to look around without an account.", highlight=False)
    else:
        table = RichTable(box=box.SIMPLE_HEAD, pad_edge=False)
        for heading, justify in (
            ("table", "left"),
            ("live rows", "right"),
            ("last change", "left"),
            ("data through", "left"),
            ("last complete run", "left"),
            ("last receipt", "left"),
        ):
            table.add_column(heading, justify=justify)  # type: ignore[arg-type]  # rich's Literal
        for row in status.tables:
            verdict = "complete" if row.last_run_complete else f"NOT COMPLETE: {row.last_run_reason}"
            table.add_row(
                row.table,
                f"{row.live_rows:,}",
                _ago(row.last_change, now),
                _ago(row.data_through, now),
                row.last_complete_run or "never",
                verdict,
            )
        console.print(table)
        console.print(
            f"Published {status.database} ({status.generation.bytes / 1e6:.1f} MB), "
            f"{_ago(status.generation.published_at, now)}.",
            highlight=False,
            soft_wrap=True,
        )
    if status.running is not None:
        since = f" since {status.running.since:%Y-%m-%d %H:%M:%S} UTC" if status.running.since else ""
        console.print(f"A run is at work now: pid {status.running.pid}{since}.", highlight=False)


def _ago(then: datetime | None, now: datetime) -> str:
    if then is None:
        return "never"
    seconds = int((now - then).total_seconds())
    for size, unit in ((86_400, "day"), (3_600, "hour"), (60, "minute")):
        if seconds >= 2 * size:
            return f"{seconds // size} {unit}s ago"
    return f"{max(seconds, 0)} seconds ago"

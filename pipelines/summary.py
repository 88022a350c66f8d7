"""How a run is told at its end: a table for people, a dictionary for machines."""

from collections.abc import Iterable, Iterator
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table as RichTable

from pipelines.ledger import Receipt
from pipelines.settings import SECRET_KEYS, VENDOR_NAMES, Settings, setting_name
from pipelines.sync import RunResult
from pipelines.warehouse import Warehouse


def as_dict(result: RunResult, settings: Settings) -> dict[str, Any]:
    """The run as JSON-ready values; times are ISO 8601 in UTC."""
    return {
        "run_id": result.run_id,
        "status": result.status,
        "exit_code": result.exit_code,
        "started_at": result.started_at.isoformat(),
        "finished_at": result.finished_at.isoformat() if result.finished_at else None,
        "tables": [_receipt_dict(receipt) for receipt in result.receipts],
        "skipped": list(result.skipped),
        "problems": result.problems,
        "published": str(Warehouse(settings.warehouse_dir).published_database) if result.generation else None,
        "generation": result.generation.name if result.generation else None,
    }


def print_summary(result: RunResult, settings: Settings, console: Console) -> None:
    """What was read, what changed, what is wrong, and where the file is."""
    table = RichTable(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("table")
    for heading in ("at vendor", "read", "new", "changed", "deleted", "unchanged", "in warehouse", "requests"):
        table.add_column(heading, justify="right")
    table.add_column("complete")
    for receipt in result.receipts:
        counts = (
            receipt.vendor_count,
            receipt.distinct_read,
            receipt.inserted,
            receipt.updated,
            receipt.deleted,
            receipt.unchanged,
            receipt.live_rows,
            receipt.traffic.requests,
        )
        verdict = "[green]yes[/]" if receipt.complete else "[red]NO[/]"
        table.add_row(receipt.table_name, *("?" if c is None else f"{c:,}" for c in counts), verdict)
    console.print(table)
    for line in _lines(result, settings):
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def skipped_lines(skipped: Iterable[str]) -> Iterator[str]:
    """One line for each vendor without a token."""
    for vendor in skipped:
        key = setting_name(f"sources.{vendor}.{SECRET_KEYS[vendor]}")
        yield f"{VENDOR_NAMES[vendor]} was skipped: it has no token. To use it, set {key}."


def _lines(result: RunResult, settings: Settings) -> Iterator[str]:
    for receipt in result.receipts:
        if not receipt.complete:
            yield f"{receipt.table_name} is not complete: {receipt.reason}"
        if receipt.quarantined:
            yield f"{receipt.table_name}: {receipt.quarantined} records without a usable key are in ops.quarantine"
    yield from result.problems
    yield from skipped_lines(result.skipped)
    seconds = (result.finished_at - result.started_at).total_seconds() if result.finished_at else 0.0
    yield f"Run {result.run_id}: {result.status} in {seconds:.1f} s."
    if result.generation is not None:
        database = Warehouse(settings.warehouse_dir).published_database
        yield f"Published {database} ({result.generation.bytes / 1e6:.1f} MB)."
    else:
        yield "Nothing was published; readers keep what was published before."


def _receipt_dict(receipt: Receipt) -> dict[str, Any]:
    traffic = receipt.traffic
    plain = {k: v for k, v in vars(receipt).items() if k not in {"traffic", "table_name", "started_at", "finished_at"}}
    return {
        "table": receipt.table_name,
        **plain,
        "requests": traffic.requests,
        "retries": traffic.retries,
        "throttled_seconds": round(traffic.throttled_seconds, 3),
        "bytes_read": traffic.bytes_read,
        "started_at": receipt.started_at.isoformat(),
        "finished_at": receipt.finished_at.isoformat(),
    }

"""docs/tables.md, written from the declared tables: `python -m pipelines.dictionary [--check]`."""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from pipelines.ledger import DRIFT_PATHS
from pipelines.settings import VENDOR_NAMES
from pipelines.sync import SOURCES
from sources._schema import LOAD_ID, ROOT_COLUMNS, ChildTable, Column, Table, every_table, stored_columns
from sources._tables import FURTHER_PATHS

PATH: Final = Path(__file__).resolve().parent.parent / "docs" / "tables.md"

_HEAD: Final = """# Tables

<!-- written by `make docs` from sources/*/tables.py; edits here are lost -->

Open `<warehouse_dir>/current/deskhouse.duckdb` read-only. There is one schema for each vendor, and `ops` for what
deskhouse knows about its own runs. Every table and column below exists from the first run, rows or not.

- **Names**: objects in the vendor's JSON are flattened with `__`; lists are tables of their own, named by their path,
  that carry the key of the row they belong to and their position `_dlt_list_idx`, from 0.
- **Times** are `TIMESTAMP WITH TIME ZONE`, instants; set `SET TimeZone = 'UTC'` or your own to see them your way.
- **Nothing is lost when a vendor changes its JSON**: a field without a column, and a value that does not fit its column's
  type (the column is NULL then), is kept in `_extra`, as JSON keyed by its path, e.g. `_extra->>'metadata.sentiment'`.
  `ops.drift` lists what was met. Text loses only U+0000.
- **Deleted rows stay**: `_deleted_at` says when a row was found gone at the vendor. `WHERE _deleted_at IS NULL` is what
  the vendor has now.
- **Never stored**: links that give access to a device or a call (`connect_url`, `invite_url`, `invite_code`,
  `permanent_url`, preview URLs, `history/info.url`) and the query of video URLs, wherever they appear.
- **Privacy** classes: `public`, `internal` (about work), `personal` (identifies or locates a person), `sensitive` (what
  people said, typed or saw).
"""

_OPS: Final = f"""## ops

| table | one row per |
|---|---|
| `ops.runs` | run: when, which vendors, status, exit code, rows written |
| `ops.receipts` | run and table: the vendor's own count, distinct keys read, live rows, what changed, requests, and whether it is complete, with the reason in words if not |
| `ops.freshness` (view) | table: how far its data reaches (`data_through`), its last complete run, its last receipt |
| `ops.drift` | way in which a vendor's JSON differs from the columns below: table, path, kind, JSON type met, how often. The first {DRIFT_PATHS:,} new fields of a table are named; one row with the path `{FURTHER_PATHS[0]}` counts the values of all others |
| `ops.quarantine` | record without a usable key: raw JSON and reason |
| `ops.models` | analytics table: when it was made, its rows, seconds, time zone and a hash of its inputs |
| `ops.model_rows` | vendor's row that a table of analytics is made from: what it was like then, as hashes |
| `ops.origins` | vendor: the base URL and project this warehouse was filled from |
| `ops.privacy` | table: the privacy policy that all its rows are stored under, and since which run |
| `ops.suppressions` | e-mail or name of an erased person, as a keyed hash, which keeps them out of later runs |
| `ops.erasures` | person erased: when, the keyed hash of the e-mail, how many rows were changed |
"""


def main(arguments: Sequence[str]) -> int:
    """Write the file, or with `--check` compare it; returns the exit code."""
    wanted = "\n".join(lines())
    if "--check" in arguments:
        if PATH.read_text(encoding="utf-8") == wanted:
            return 0
        sys.stderr.write("docs/tables.md is not what the declared tables say; run: make docs\n")
        return 1
    PATH.parent.mkdir(exist_ok=True)
    PATH.write_text(wanted, encoding="utf-8")
    return 0


def lines() -> Iterator[str]:
    """The document, line by line."""
    yield _HEAD
    for vendor, module in SOURCES.items():
        yield f"## {vendor} ({VENDOR_NAMES[vendor]})\n"
        for table in module.TABLES:
            for name, child in every_table(table):
                yield from _table(table, name, child)
    yield "## Columns of every root table\n"
    yield from _columns((*ROOT_COLUMNS, LOAD_ID), {})
    yield _OPS


def _table(table: Table, name: str, child: ChildTable | None) -> Iterator[str]:
    yield f"### {table.schema}.{name}\n"
    key = f"`{table.key}`" if child is None else f"`{child.parent_key}`, `_dlt_list_idx`"
    yield f"{(child or table).description} Key: {key}.\n"
    common = {c.name for c in (*ROOT_COLUMNS, LOAD_ID)}
    keys = {table.key: "key"} if child is None else {child.parent_key: "key", "_dlt_list_idx": "key"}
    yield from _columns([c for c in stored_columns(table, child) if c.name not in common], keys)


def _columns(columns: Sequence[Column], keys: dict[str, str]) -> Iterator[str]:
    yield "| column | type | privacy | |"
    yield "|---|---|---|---|"
    for column in columns:
        key = f" ({keys[column.name]})" if column.name in keys else ""
        yield f"| `{column.name}`{key} | {column.type.value} | {column.privacy.value} | {column.description} |"
    yield ""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

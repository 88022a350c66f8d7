"""What one writes in an afternoon: an httpx loop over the pages, pandas' `json_normalize`, DuckDB."""

import argparse
from pathlib import Path

import duckdb
import httpx
import pandas as pd

LISTS = {
    "screendesk": ("recordings", "records", "uuid", [("room_insights", "participants_insights")]),
    "posthog": (
        "desktop_recordings",
        "results",
        "id",
        [("participants",), ("transcript_segments",), ("extracted_tasks",)],
    ),
}
PARENT = {"recordings": "recording_uuid", "desktop_recordings": "desktop_recording_id"}


def main() -> None:
    """Load one vendor's list into a new DuckDB file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--vendor", choices=LISTS, required=True)
    parser.add_argument("--url", required=True, help="the list's address")
    parser.add_argument("--database", type=Path, required=True)
    options = parser.parse_args()
    table, list_key, key, lists = LISTS[options.vendor]
    records = read_all(options.vendor, options.url, list_key)
    children = {path: [] for path in lists}
    for record in records:
        for path in lists:
            inside = record
            for name in path[:-1]:
                inside = inside[name] or {}
            for item in inside.pop(path[-1], None) or []:
                value = item if isinstance(item, dict) else {"value": item}
                children[path].append({PARENT[table]: record[key], **value})
    with duckdb.connect(str(options.database)) as con:
        con.execute(f"CREATE SCHEMA {options.vendor}")
        con.register("roots", pd.json_normalize(records, sep="__"))
        con.execute(f"CREATE TABLE {options.vendor}.{table} AS SELECT * FROM roots")
        for path, rows in children.items():
            con.register("items", pd.DataFrame(rows))
            con.execute(f"CREATE TABLE {options.vendor}.{table}__{'__'.join(path)} AS SELECT * FROM items")


def read_all(vendor: str, url: str, list_key: str) -> list[dict]:
    """Every record of the list, page by page."""
    records = []
    with httpx.Client(timeout=60) as client:
        while True:
            paged = {"page": len(records) // 100 + 1}
            place = paged if vendor == "screendesk" else {"limit": 100, "offset": len(records)}
            reply = client.get(url, params=place).raise_for_status().json()
            records += reply[list_key]
            more = reply["pagination"].get("next_page") if vendor == "screendesk" else reply["next"]
            if not more:
                return records


if __name__ == "__main__":
    main()

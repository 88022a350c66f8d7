"""Copies a DuckDB file into one that older versions can read: what a newer DuckDB wrote is verified with deskhouse's."""

import sys
from pathlib import Path

import duckdb


def main() -> None:
    """Copy the file named first into the one named second."""
    written, readable = map(Path, sys.argv[1:])
    with duckdb.connect() as con:
        con.execute(f"ATTACH '{written}' AS written (READ_ONLY)")
        con.execute(f"ATTACH '{readable}' AS readable (STORAGE_VERSION 'v1.2.0')")
        con.execute("COPY FROM DATABASE written TO readable")


if __name__ == "__main__":
    main()

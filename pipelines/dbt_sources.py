"""docs/bi/dbt/models/sources.yml, written from what is declared: `python -m pipelines.dbt_sources [--check]`."""

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from pipelines.model_files import SCHEMA, load_models
from pipelines.settings import VENDOR_NAMES
from pipelines.sync import SOURCES
from sources._schema import every_table, stored_columns

PATH: Final = Path(__file__).resolve().parent.parent / "docs" / "bi" / "dbt" / "models" / "sources.yml"

_HEAD: Final = """# written by `make docs`; edits here are lost
version: 2

sources:"""


def main(arguments: Sequence[str]) -> int:
    """Write the file, or with `--check` compare it; returns the exit code."""
    wanted = "\n".join([*lines(), ""])
    if "--check" in arguments:
        if PATH.read_text(encoding="utf-8") == wanted:
            return 0
        sys.stderr.write("docs/bi/dbt/models/sources.yml is not what is declared; run: make docs\n")
        return 1
    PATH.write_text(wanted, encoding="utf-8")
    return 0


def lines() -> Iterator[str]:
    """The file, line by line."""
    yield _HEAD
    yield from _source(SCHEMA, "What to build on: sessions, people, tickets and more over all three tools.")
    for model in sorted(load_models(), key=lambda one: one.name):
        yield from _table(
            model.name, model.description, [(column.name, column.description) for column in model.columns]
        )
    for vendor, module in SOURCES.items():
        yield from _source(vendor, f"{VENDOR_NAMES[vendor]}, as its API says, rows deleted there included.")
        for table in module.TABLES:
            for name, child in every_table(table):
                columns = [(column.name, column.description) for column in stored_columns(table, child)]
                yield from _table(name, (child or table).description, columns)


def _source(name: str, description: str) -> Iterator[str]:
    yield f"  - name: {name}"
    yield f"    description: {_text(description)}"
    yield "    database: deskhouse"
    yield f"    schema: {name}"
    yield "    tables:"


def _table(name: str, description: str, columns: Sequence[tuple[str, str]]) -> Iterator[str]:
    yield f"      - name: {name}"
    yield f"        description: {_text(description)}"
    yield "        columns:"
    for column, about in columns:
        yield f"          - {{name: {_text(column)}, description: {_text(about)}}}"


def _text(text: str) -> str:
    """A text as YAML reads it, and with nothing in it that dbt would take for a template."""
    return json.dumps(text.replace("{{", "{ {").replace("{%", "{ %"), ensure_ascii=False)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

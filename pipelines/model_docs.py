"""docs/models.md and its picture, written from the models: `python -m pipelines.model_docs [--check]`."""

import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final
from xml.sax.saxutils import escape

from pipelines import ledger
from pipelines.database import connect
from pipelines.declare import declare_tables
from pipelines.model_files import SCHEMA, Model, ModelColumn, load_models, order
from pipelines.transform import DEFAULT_TIMEZONE, run_models
from sources.getscreen.tables import TABLES as GETSCREEN_TABLES
from sources.posthog.tables import TABLES as POSTHOG_TABLES
from sources.screendesk.tables import TABLES as SCREENDESK_TABLES

DOCS: Final = Path(__file__).resolve().parent.parent / "docs"
PAGE: Final = DOCS / "models.md"
PICTURE: Final = DOCS / "models.svg"

_HEAD: Final = f"""# Models

<!-- written by `make docs` from pipelines/models/; edits here are lost -->

The schema `{SCHEMA}` joins the three tools. Its tables are made anew after each sync, in one transaction, from the raw
tables ([tables.md](tables.md)); a table is kept when nothing that it is made from has changed, and of sessions and
transcript segments only those are made again that changed. Each is one SQL file in
`pipelines/models/`. [metrics.md](metrics.md) defines every number and says why some differ from a vendor's screen.

- **Days** are local days in the time zone `deskhouse.timezone` (default UTC). Times are instants.
- **Rows deleted at the vendor stay**, with `deleted_at`, and count in `agent_days`, `daily_activity`, `tickets` and
  `devices`: the work was done. `WHERE deleted_at IS NULL` is what the vendor has now.
- **Checks** run before anything is published. One that fails stops publishing, and readers keep what they had.
- The same descriptions are comments in the database: `SELECT column_name, comment FROM duckdb_columns()`.
- `ops.models` says when each table was last made, how many rows it got, and how long that took.

![Which table is made from which](models.svg)
"""

_BOX_HEIGHT: Final = 26
_ROW: Final = 38
_COLUMN_GAP: Final = 90
_MARGIN: Final = 16
_LETTER: Final = 7.3
_COLOURS: Final = {
    "screendesk": "#2f6fde",
    "getscreen": "#0f8f6f",
    "posthog": "#c25d10",
    "ops": "#6b7280",
    SCHEMA: "#5b3fb5",
}


def main(arguments: Sequence[str]) -> int:
    """Write both files, or with `--check` compare them; returns the exit code."""
    models = order(load_models())
    wanted = {PAGE: "\n".join(page(models)), PICTURE: "\n".join(picture(models))}
    if "--check" in arguments:
        stale = [path.name for path, text in wanted.items() if not path.exists() or path.read_text("utf-8") != text]
        if stale:
            sys.stderr.write(f"docs/{', docs/'.join(stale)} is not what the models say; run: make docs\n")
        return 1 if stale else 0
    for path, text in wanted.items():
        path.write_text(text, encoding="utf-8")
    return 0


def page(models: Sequence[Model]) -> Iterator[str]:
    """docs/models.md, line by line."""
    types = _column_types()
    yield _HEAD
    yield "| table | one row per |"
    yield "|---|---|"
    for model in sorted(models, key=lambda one: one.name):
        yield f"| [`{model.qualified_name}`](#{SCHEMA}{model.name}) | {_one_row_per(model)} |"
    yield ""
    for model in sorted(models, key=lambda one: one.name):
        yield from _section(model, types)


def picture(models: Sequence[Model]) -> Iterator[str]:
    """docs/models.svg, line by line: tables from left to right, each right of those it is made from."""
    columns = _placed(models)
    height = max(len(names) for names in columns) * _ROW
    made_from = {model.qualified_name: model.reads for model in models}
    spot: dict[str, tuple[float, float, float]] = {}
    left = float(_MARGIN)
    for names in columns:
        width = max(_width(name) for name in names)
        # each box near the middle of those it is made from, so that fewer lines cross
        middle = {name: _mean([spot[read][1] for read in made_from.get(name, ())]) for name in names}
        for row, name in enumerate(sorted(names, key=middle.__getitem__)):
            spot[name] = (left, _MARGIN + (row + 0.5) * height / len(names) - _BOX_HEIGHT / 2, width)
        left += width + _COLUMN_GAP
    total_width, total_height = left - _COLUMN_GAP + _MARGIN, height + 2 * _MARGIN
    yield (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {total_width:.0f} {total_height:.0f}" '
        'font-family="ui-monospace, SFMono-Regular, Menlo, Consolas, monospace" font-size="12" role="img">'
    )
    yield "<title>Which analytics table is made from which tables</title>"
    yield '<rect width="100%" height="100%" rx="8" fill="#ffffff"/>'
    for model in sorted(models, key=lambda one: one.name):
        for read in model.reads:
            yield _edge(spot[read], spot[model.qualified_name], _COLOURS[read.partition(".")[0]])
    for name, place in sorted(spot.items()):
        yield from _box(name, place)
    yield "</svg>\n"


def _one_row_per(model: Model) -> str:
    return model.sql.partition("\n")[0].removeprefix("-- one row per ").replace("|", "\\|")


def _section(model: Model, types: Mapping[tuple[str, str], str]) -> Iterator[str]:
    yield f"## {model.qualified_name}\n"
    yield f"{model.description}\n"
    key = ", ".join(f"`{name}`" for name in model.grain)
    reads = ", ".join(f"`{name}`" for name in model.reads)
    kind = " A view." if model.is_view else ""
    yield f"Key: {key}. Made from {reads} by [{model.name}.sql](../pipelines/models/{model.name}.sql).{kind}\n"
    yield "| column | type | privacy | | checked |"
    yield "|---|---|---|---|---|"
    for column in model.columns:
        is_key = " (key)" if column.name in model.grain else ""
        promised = "; ".join(_promises(model, column))
        yield (
            f"| `{column.name}`{is_key} | {types[model.name, column.name]} | {column.privacy.value} "
            f"| {column.description} | {promised} |"
        )
    yield ""
    if model.invariants:
        yield "Also checked on every run:\n"
        yield from (f"- **{one.name}**; otherwise {one.meaning}." for one in model.invariants)
        yield ""


def _promises(model: Model, column: ModelColumn) -> Iterator[str]:
    if (column.name,) == model.grain or column.unique:
        yield "unique"
    if column.not_null or column.name in model.grain:
        yield "not null"
    if column.one_of:
        yield "one of the values named"
    low, high = column.range
    if low is not None:
        yield f"at least {low}"
    if high is not None:
        yield f"at most {high}"
    if column.references:
        yield f"in `{'.'.join(column.references)}`"


def _column_types() -> dict[tuple[str, str], str]:
    """Types of all columns, by model and column, as an empty database has them."""
    with tempfile.TemporaryDirectory() as folder:
        database = Path(folder) / "empty.duckdb"
        ledger.prepare(database)
        declare_tables(database, [*SCREENDESK_TABLES, *GETSCREEN_TABLES, *POSTHOG_TABLES])
        with connect(database) as connection:
            run_models(connection, timezone=DEFAULT_TIMEZONE)
            rows = connection.execute(
                f"SELECT table_name, column_name, data_type FROM duckdb_columns() WHERE schema_name = '{SCHEMA}'"
            ).fetchall()
    return {(table, column): kind for table, column, kind in rows}


def _placed(models: Sequence[Model]) -> list[list[str]]:
    """Names by column: raw tables first, then each model one right of the last it reads."""
    raw = sorted({name for model in models for name in model.raw_tables_read}, key=_vendor_first)
    at = dict.fromkeys(raw, 0)
    for model in models:
        at[model.qualified_name] = 1 + max(at[name] for name in model.reads)
    return [[name for name in at if at[name] == column] for column in range(max(at.values()) + 1)]


def _vendor_first(name: str) -> tuple[int, str]:
    return list(_COLOURS).index(name.partition(".")[0]), name


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def _label(name: str) -> str:
    """A name short enough to draw: a child table by its list."""
    schema, _, table = name.partition(".")
    return (
        table if schema == SCHEMA else f"{schema}.{table if table.count('__') == 0 else '…__' + table.split('__')[-1]}"
    )


def _width(name: str) -> float:
    return len(_label(name)) * _LETTER + 20


def _edge(start: tuple[float, float, float], end: tuple[float, float, float], colour: str) -> str:
    x1, y1 = start[0] + start[2], start[1] + _BOX_HEIGHT / 2
    x2, y2 = end[0], end[1] + _BOX_HEIGHT / 2
    bend = max(40.0, (x2 - x1) / 2)
    return (
        f'<path d="M{x1:.0f},{y1:.0f} C{x1 + bend:.0f},{y1:.0f} {x2 - bend:.0f},{y2:.0f} {x2:.0f},{y2:.0f}" '
        f'fill="none" stroke="{colour}" stroke-opacity="0.45" stroke-width="1.4"/>'
    )


def _box(name: str, place: tuple[float, float, float]) -> Iterator[str]:
    x, y, width = place
    colour = _COLOURS[name.partition(".")[0]]
    filled = name.startswith(f"{SCHEMA}.")
    yield (
        f'<rect x="{x:.0f}" y="{y:.0f}" width="{width:.0f}" height="{_BOX_HEIGHT}" rx="5" '
        f'fill="{colour if filled else "#ffffff"}" stroke="{colour}" stroke-width="1.4"/>'
    )
    yield (
        f'<text x="{x + 10:.0f}" y="{y + 17:.0f}" fill="{"#ffffff" if filled else colour}">{escape(_label(name))}'
        f"<title>{escape(name)}</title></text>"
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

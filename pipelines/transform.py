"""The analytics schema, made from the raw tables: every model, its checks and its comments in one transaction.

analytics.<model>   one table per file in models/, or a view where the declaration says so
ops.models          what was made when, from which inputs: lets a run that changed nothing skip the work, and one
                    that changed one vendor's rows keep the tables made from others'
"""

import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

import duckdb

from pipelines.database import limited
from pipelines.model_checks import check_against_others, check_model
from pipelines.model_files import (
    MODELS_DIR,
    SCHEMA,
    Model,
    ModelFailed,
    ModelTooLarge,
    load_models,
    order,
)
from pipelines.model_inputs import Inputs, fingerprint_of_all, raw_fingerprints
from pipelines.model_rows import LEDGER, make_changed_rows, refuse_other_sources, remember

__all__ = [
    "ModelFailed",
    "ModelRun",
    "ModelTooLarge",
    "check_timezone",
    "load_models",
    "order",
    "run_models",
]

DEFAULT_TIMEZONE: Final = "UTC"
_LEDGER: Final = """
CREATE SCHEMA IF NOT EXISTS ops;
CREATE TABLE IF NOT EXISTS ops.models (
    model VARCHAR PRIMARY KEY,
    row_count BIGINT,
    built_at TIMESTAMPTZ NOT NULL,
    seconds DOUBLE NOT NULL,
    timezone VARCHAR NOT NULL,
    inputs VARCHAR NOT NULL,
    made_from VARCHAR
);
ALTER TABLE ops.models ADD COLUMN IF NOT EXISTS made_from VARCHAR;
COMMENT ON TABLE ops.models IS 'One row per table of analytics: when it was last made, from which inputs.';
COMMENT ON COLUMN ops.models.model IS 'Name of the table in analytics.';
COMMENT ON COLUMN ops.models.row_count IS 'Rows it has; NULL for a view.';
COMMENT ON COLUMN ops.models.built_at IS 'When it was last made.';
COMMENT ON COLUMN ops.models.seconds IS 'How long that took, its checks included.';
COMMENT ON COLUMN ops.models.made_from IS 'Hash of what it alone depends on: while it stays, the table is kept as it is.';
COMMENT ON COLUMN ops.models.timezone IS 'Time zone of its local days.';
COMMENT ON COLUMN ops.models.inputs IS 'Hash of the raw rows, the models and the time zone it was made from.';
"""


@dataclass(frozen=True)
class ModelRun:
    """What a run of the models came to.

    Attributes:
        rows: rows by model, NULL for a view; empty when nothing was made.
        seconds: how long all of it took.
        kept: models whose own inputs were those of the last run, so that only their checks against others were made.
        unchanged: the inputs were those of the last run, so the tables were left as they are.
        inputs: hash of what the tables are made from.
    """

    rows: dict[str, int | None] = field(default_factory=dict)
    seconds: float = 0.0
    kept: tuple[str, ...] = ()
    unchanged: bool = False
    inputs: str = ""


def check_timezone(name: str, connection: duckdb.DuckDBPyConnection | None = None) -> str:
    """Refuse a time zone that DuckDB does not know.

    Args:
        name: IANA name of a zone.
        connection: any DuckDB connection, where one is at hand.

    Returns:
        The name.

    Raises:
        ValueError: with a message for whoever set it.
    """
    if name == DEFAULT_TIMEZONE:
        return name
    if connection is None:
        with duckdb.connect() as passing:
            return check_timezone(name, passing)
    known = [zone for (zone,) in connection.execute("SELECT name FROM pg_timezone_names()").fetchall()]
    # offsets and abbreviations are accepted by DuckDB as well, but know nothing of summer time
    if name in known and ("/" in name or name == "UTC"):
        return name
    wanted = re.sub(r"[^a-z]", "", name.lower())
    near = [zone for zone in known if "/" in zone and wanted and wanted in re.sub(r"[^a-z]", "", zone.lower())]
    hint = f"; did you mean {', '.join(sorted(near)[:3])}?" if near else ""
    raise ValueError(f"{name!r} is no time zone: use an IANA name like Europe/Berlin, or UTC{hint}")


def run_models(
    connection: duckdb.DuckDBPyConnection,
    *,
    timezone: str = DEFAULT_TIMEZONE,
    folder: Path = MODELS_DIR,
    force: bool = False,
    memory: str | None = None,
) -> ModelRun:
    """Make every table of the analytics schema, check it and describe it, all or nothing.

    Args:
        connection: the private database, open for writing and not in a transaction.
        timezone: IANA name of the zone local days are counted in.
        folder: where the models are.
        force: make the tables even if their inputs are those of the last run.
        memory: what DuckDB may hold meanwhile, e.g. `200MB`; None is as much as it takes.

    Returns:
        What was made.

    Raises:
        ModelTooLarge: DuckDB may not hold as much memory as a model or a check needs.
        ModelFailed: a model cannot be made or a check does not hold. The database is as it was either way.
    """
    began = time.perf_counter()
    try:
        check_timezone(timezone, connection)
    except ValueError as error:
        raise ModelFailed(str(error)) from None
    with _written_fast(connection):
        return _run(connection, timezone, folder, began, force=force, memory=memory)


def _run(
    connection: duckdb.DuckDBPyConnection,
    timezone: str,
    folder: Path,
    began: float,
    *,
    force: bool,
    memory: str | None,
) -> ModelRun:
    connection.begin()
    try:
        with limited(connection, memory):
            connection.execute(_LEDGER + LEDGER)
            raw = raw_fingerprints(connection, _existing(connection))
            everything = fingerprint_of_all(raw, timezone, folder)
            if not force and _made_from(connection) == {everything}:
                connection.rollback()
                return ModelRun(seconds=time.perf_counter() - began, unchanged=True, inputs=everything)
            models = order(load_models(folder, connection))
            _prepare(connection, models, timezone)
            inputs = Inputs(connection, models, timezone, raw)
            made, kept = _make_all(connection, models, inputs, timezone, force=force)
            rows = _check_all(connection, models, made, timezone)
            connection.execute("UPDATE ops.models SET inputs = ?", [everything])
        connection.commit()
    except BaseException as error:
        # a failed commit has already ended the transaction
        if not isinstance(error, duckdb.TransactionException):
            connection.rollback()
        if isinstance(error, duckdb.OutOfMemoryException):
            raise ModelTooLarge(f"the models: {_told(error)}") from None
        raise
    return ModelRun(rows, time.perf_counter() - began, kept=kept, inputs=everything)


@contextmanager
def _written_fast(connection: duckdb.DuckDBPyConnection) -> Iterator[None]:
    """Let rows be written in any order, and without the two compressions that take longest.

    The order takes half the time and memory. FSST and ALPRD take a tenth of the time of all models, for a tenth of a file
    with a million transcript segments; raw tables, with their long texts, keep them, as they would be twice as large.
    """
    settings = {"preserve_insertion_order": "false", "disabled_compression_methods": "fsst,alprd"}
    before = {
        name: connection.execute(f"SELECT current_setting('{name}')::VARCHAR").fetchall()[0][0] for name in settings
    }
    try:
        for name, value in settings.items():
            connection.execute(f"SET {name} = '{value}'")
        yield
    finally:
        for name, value in before.items():
            connection.execute(f"SET {name} = '{value}'")


def _made_from(connection: duckdb.DuckDBPyConnection) -> set[str]:
    """The inputs of the tables there are; of a table that is missing, none."""
    rows = connection.execute(
        "SELECT DISTINCT CASE WHEN made.name IS NOT NULL THEN inputs ELSE '' END FROM ops.models "
        "LEFT JOIN (SELECT table_name AS name FROM information_schema.tables "
        f"WHERE table_catalog = current_database() AND table_schema = '{SCHEMA}') AS made ON made.name = model"
    ).fetchall()
    return {inputs for (inputs,) in rows}


@dataclass(frozen=True)
class _Made:
    """A model that was made in this run: in how many seconds, and from what."""

    seconds: float
    fingerprint: str | None


def _prepare(connection: duckdb.DuckDBPyConnection, models: Sequence[Model], timezone: str) -> None:
    _refuse_missing_tables(models, _existing(connection))
    for model in models:
        refuse_other_sources(model)
    connection.execute(f"CREATE SCHEMA IF NOT EXISTS {SCHEMA}")
    _drop_strays(connection, models)
    connection.execute(f"SET VARIABLE deskhouse_timezone = '{timezone}'")


def _make_all(
    connection: duckdb.DuckDBPyConnection, models: Sequence[Model], inputs: Inputs, timezone: str, *, force: bool
) -> tuple[dict[str, _Made], tuple[str, ...]]:
    """Make every model but those that would be as they are; what was made, and the names of those kept."""
    before = dict(connection.execute("SELECT model, made_from FROM ops.models").fetchall())
    existing = _existing(connection)
    made: dict[str, _Made] = {}
    kept = []
    for model in models:
        fingerprint = inputs.fingerprint(model)
        there = not force and not model.is_view and model.qualified_name in existing
        if there and fingerprint is not None and before.get(model.name) == fingerprint:
            kept.append(model.name)
        else:
            step = partial(_bring_in_step if there else _make, timezone=timezone)
            made[model.name] = _Made(_timed(connection, model, step), fingerprint)
        inputs.made(model, fingerprint)
    return made, tuple(sorted(kept))


def _check_all(
    connection: duckdb.DuckDBPyConnection, models: Sequence[Model], made: Mapping[str, _Made], timezone: str
) -> dict[str, int | None]:
    """Check every model, once all are made: a check may look at models made later. Rows by model."""
    before = dict(connection.execute("SELECT model, row_count FROM ops.models").fetchall())
    connection.execute(
        "DELETE FROM ops.models WHERE list_contains(?, model) OR NOT list_contains(?, model)",
        [list(made), [model.name for model in models]],
    )
    rows: dict[str, int | None] = {}
    for model in models:
        if model.name not in made:
            _timed(connection, model, check_against_others)
            rows[model.name] = before[model.name]
            continue
        seconds = made[model.name].seconds + _timed(connection, model, check_model)
        rows[model.name] = None if model.is_view else _count(connection, model)
        connection.execute(
            "INSERT INTO ops.models (model, row_count, built_at, seconds, timezone, inputs, made_from) "
            "VALUES (?, ?, now(), ?, ?, '', ?)",
            [model.name, rows[model.name], round(seconds, 3), timezone, made[model.name].fingerprint],
        )
    return rows


def _timed(
    connection: duckdb.DuckDBPyConnection, model: Model, step: Callable[[duckdb.DuckDBPyConnection, Model], None]
) -> float:
    began = time.perf_counter()
    try:
        step(connection, model)
    except duckdb.Error as error:
        kind = ModelTooLarge if isinstance(error, duckdb.OutOfMemoryException) else ModelFailed
        raise kind(f"model {model.name}: {_told(error)}", model=model.name) from None
    return time.perf_counter() - began


def _bring_in_step(connection: duckdb.DuckDBPyConnection, model: Model, timezone: str) -> None:
    if not make_changed_rows(connection, model, timezone):
        _make(connection, model, timezone)


def _make(connection: duckdb.DuckDBPyConnection, model: Model, timezone: str) -> None:
    kind = "VIEW" if model.is_view else "TABLE"
    connection.execute(f"CREATE OR REPLACE {kind} {model.qualified_name} AS {model.sql}")
    connection.execute("; ".join(_comments(model, kind)))
    remember(connection, model, timezone)


def _count(connection: duckdb.DuckDBPyConnection, model: Model) -> int:
    ((rows,),) = connection.execute(f"SELECT count(*) FROM {model.qualified_name}").fetchall()
    return int(rows)


def _comments(model: Model, kind: str) -> Iterator[str]:
    yield f"COMMENT ON {kind} {model.qualified_name} IS {_quoted(model.description)}"
    for column in model.columns:
        yield f'COMMENT ON COLUMN {model.qualified_name}."{column.name}" IS {_quoted(column.description)}'


def _refuse_missing_tables(models: Sequence[Model], existing: set[str]) -> None:
    for model in models:
        missing = [name for name in model.raw_tables_read if name not in existing]
        if missing:
            raise ModelFailed(
                f"model {model.name} reads {', '.join(missing)}, which this database does not have", model=model.name
            )


def _drop_strays(connection: duckdb.DuckDBPyConnection, models: Sequence[Model]) -> None:
    """Remove tables whose model was renamed or removed, or is a view now and was a table before."""
    wanted = {model.name: "VIEW" if model.is_view else "BASE TABLE" for model in models}
    for name, kind in connection.execute(
        "SELECT table_name, table_type FROM information_schema.tables "
        f"WHERE table_catalog = current_database() AND table_schema = '{SCHEMA}'"
    ).fetchall():
        if wanted.get(name) != kind:
            connection.execute(f'DROP {"VIEW" if kind == "VIEW" else "TABLE"} {SCHEMA}."{name}"')


def _existing(connection: duckdb.DuckDBPyConnection) -> set[str]:
    return {
        name
        for (name,) in connection.execute(
            "SELECT table_schema || '.' || table_name FROM information_schema.tables "
            "WHERE table_catalog = current_database()"
        ).fetchall()
    }


def _told(error: duckdb.Error) -> str:
    """What DuckDB says, unless it may quote a value from a row."""
    about_the_query = (duckdb.CatalogException, duckdb.BinderException, duckdb.ParserException)
    if isinstance(error, (*about_the_query, duckdb.OutOfMemoryException, duckdb.IOException)):
        return f"it cannot be made: {str(error).splitlines()[0]}"
    return (
        f"it cannot be made: {type(error).__name__} while it was made. What DuckDB says may quote a person's data "
        "and is not shown; run the file's SQL on a copy of the database to see it"
    )


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"

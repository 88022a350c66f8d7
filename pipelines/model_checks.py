"""Checks of the analytics models: what a declaration promises, asked of the rows."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import duckdb

from pipelines.database import columns_of
from pipelines.model_files import SCHEMA, Model, ModelColumn, ModelFailed
from sources._schema import Privacy

SHOWN: Final = 3
"""Rows shown of a failed check."""


@dataclass(frozen=True)
class _Check:
    """One promise about rows: a condition that holds for a row that breaks it."""

    name: str
    meaning: str
    broken: str


def check_model(connection: duckdb.DuckDBPyConnection, model: Model) -> None:
    """Check everything declared about a model that has just been made.

    Raises:
        ModelFailed: naming the model and the check, with up to three offending rows by their keys.
    """
    _check_columns_match(connection, model)
    _check_rows(connection, model)
    _check_unique(connection, model)
    check_against_others(connection, model)


def check_against_others(connection: duckdb.DuckDBPyConnection, model: Model) -> None:
    """Check what may break though the model's own rows stay as they are: its references and invariants.

    Raises:
        ModelFailed: as `check_model` does.
    """
    _check_references(connection, model)
    for invariant in model.invariants:
        rows = connection.execute(f"SELECT *, count(*) OVER () FROM ({invariant.sql}) LIMIT {SHOWN}").fetchall()
        if rows:
            names = [column[0] for column in connection.description or []][:-1]
            # whoever writes an invariant chooses what it shows; docs/models.md says to show no personal data
            shown = [", ".join(f"{name}={value}" for name, value in zip(names, row[:-1], strict=True)) for row in rows]
            raise _failed(model, invariant.name, invariant.meaning, rows[0][-1], shown)


def _check_columns_match(connection: duckdb.DuckDBPyConnection, model: Model) -> None:
    made = columns_of(connection, model.qualified_name)
    declared = [column.name for column in model.columns]
    if made == declared:
        return
    if unknown := sorted(set(made) ^ set(declared)):
        told = "; ".join(f"{name} {'is not declared' if name in made else 'is not made'}" for name in unknown)
    else:
        told = f"the order differs: {', '.join(made)}"
    raise ModelFailed(
        f"model {model.name}: its columns are not those models.yml describes: {told}", model=model.name, check="columns"
    )


def _check_rows(connection: duckdb.DuckDBPyConnection, model: Model) -> None:
    """Ask for all columns at once: one pass over the table while nothing is wrong."""
    checks = list(_row_checks(model))
    if not checks:
        return
    counted = ", ".join(f"count(*) FILTER (WHERE {check.broken})" for check in checks)
    (counts,) = connection.execute(f"SELECT {counted} FROM {model.qualified_name}").fetchall()
    for check, count in zip(checks, counts, strict=True):
        if count:
            shown = _shown_rows(connection, model, f"FROM {model.qualified_name} WHERE {check.broken}")
            raise _failed(model, check.name, check.meaning, count, shown)


def _row_checks(model: Model) -> Iterator[_Check]:
    for column in model.columns:
        name = f'"{column.name}"'
        if column.not_null or column.name in model.grain:
            yield _Check(f"{column.name} is not null", "every row must have a value", f"{name} IS NULL")
        if column.one_of:
            allowed = ", ".join(_text(value) for value in column.one_of)
            yield _Check(
                f"{column.name} is one of {', '.join(column.one_of)}",
                "readers group and colour by these values",
                f"{name} NOT IN ({allowed})",
            )
        if column.range != (None, None):
            yield _range_check(column)


def _range_check(column: ModelColumn) -> _Check:
    low, high = column.range
    parts = [f'"{column.name}" < {low}'] * (low is not None) + [f'"{column.name}" > {high}'] * (high is not None)
    told = " and ".join([f"at least {low}"] * (low is not None) + [f"at most {high}"] * (high is not None))
    return _Check(f"{column.name} is {told}", "a value outside cannot be right", " OR ".join(parts))


def _check_unique(connection: duckdb.DuckDBPyConnection, model: Model) -> None:
    keys = [
        model.grain,
        *((column.name,) for column in model.columns if column.unique and (column.name,) != model.grain),
    ]
    for key in keys:
        names = ", ".join(f'"{name}"' for name in key)
        present = " AND ".join(f'"{name}" IS NOT NULL' for name in key)
        # as many hashes as rows prove that no value repeats; only otherwise is the exact question worth its price
        screen = f"SELECT count(*) <> count(DISTINCT hash({names})) FROM {model.qualified_name} WHERE {present}"
        if connection.execute(screen).fetchall() == [(False,)]:
            continue
        repeated = f"FROM {model.qualified_name} WHERE {present} GROUP BY {names} HAVING count(*) > 1"
        ((count,),) = connection.execute(f"SELECT count(*) FROM (SELECT {names} {repeated})").fetchall()
        if count:
            shown = _shown_rows(connection, model, repeated, key)
            meaning = "a value that occurs twice is counted twice wherever the table is joined or summed"
            raise _failed(model, f"{', '.join(key)} is unique", meaning, count, shown)


def _check_references(connection: duckdb.DuckDBPyConnection, model: Model) -> None:
    for column in model.columns:
        if column.references is None:
            continue
        target, target_column = column.references
        pointing = f'"{column.name}" IS NOT NULL AND "{column.name}" NOT IN (SELECT "{target_column}" FROM {SCHEMA}.{target} WHERE "{target_column}" IS NOT NULL)'
        # values repeat, so each is looked up once
        screen = f'SELECT count(*) FROM (SELECT DISTINCT "{column.name}" FROM {model.qualified_name}) WHERE {pointing}'
        if connection.execute(screen).fetchall() == [(0,)]:
            continue
        orphaned = f"FROM {model.qualified_name} WHERE {pointing}"
        ((count,),) = connection.execute(f"SELECT count(*) {orphaned}").fetchall()
        raise _failed(
            model,
            f"{column.name} is in {target}.{target_column}",
            f"a row that points at no row of {SCHEMA}.{target} vanishes when the two are joined",
            count,
            _shown_rows(connection, model, orphaned),
        )


def _shown_rows(
    connection: duckdb.DuckDBPyConnection, model: Model, source: str, key: Sequence[str] | None = None
) -> list[str]:
    """The keys of some rows, without those that identify a person."""
    private = {column.name for column in model.columns if column.privacy in {Privacy.PERSONAL, Privacy.SENSITIVE}}
    names = list(key or model.grain)
    open_names = [name for name in names if name not in private]
    hidden = "".join(f", {name}=(personal)" for name in names if name in private)
    if not open_names:
        return []
    listed = ", ".join(f'"{name}"' for name in open_names)
    rows = connection.execute(f"SELECT {listed} {source} ORDER BY ALL LIMIT {SHOWN}").fetchall()
    return [", ".join(f"{n}={v}" for n, v in zip(open_names, row, strict=True)) + hidden for row in rows]


def _failed(model: Model, check: str, meaning: str, count: int, shown: Sequence[str]) -> ModelFailed:
    rows = f"{count} row{'' if count == 1 else 's'}"
    examples = f", e.g. {' | '.join(shown)}" if shown else " (not shown: what identifies them is personal)"
    return ModelFailed(
        f"model {model.name}: the check {check!r} failed for {rows}{examples}. It means: {meaning}.",
        model=model.name,
        check=check,
    )


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"

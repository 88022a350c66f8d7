"""The analytics models as they are written: `models/<name>.sql`, and their declarations in `models/models.yml`."""

import graphlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import duckdb
import yaml  # type: ignore[import-untyped]

from pipelines.model_queries import query_of
from sources._schema import Privacy

MODELS_DIR: Final = Path(__file__).resolve().parent / "models"
DECLARATIONS: Final = "models.yml"
SCHEMA: Final = "analytics"

# the C parser reads the declarations in a tenth of the time; not every platform's wheel has it
_LOADER: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_MODEL_KEYS: Final = {"description", "grain", "columns", "checks", "view", "rows_from"}
_COLUMN_KEYS: Final = {"description", "privacy", "not_null", "unique", "one_of", "range", "references"}
_CHECK_KEYS: Final = {"name", "meaning", "sql"}


class ModelFailed(Exception):
    """A model cannot be used; the message says which, why, and what it means. No table was changed.

    Attributes:
        model: the model's name; empty where it is not one model's fault.
        check: the check that failed; empty where it was not a check.
    """

    def __init__(self, message: str, *, model: str = "", check: str = "") -> None:
        super().__init__(message)
        self.model = model
        self.check = check


class ModelTooLarge(ModelFailed):
    """A model needs more memory than it was given."""


@dataclass(frozen=True)
class ModelColumn:
    """One declared column of a model.

    Attributes:
        name: the column's name.
        description: one sentence for a reader of the table.
        privacy: how carefully the content is to be handled.
        not_null: whether every row has a value.
        unique: whether no value occurs twice.
        one_of: the values it may have; empty for any.
        range: the least and the greatest value it may have, each None for no bound.
        references: `model.column` that must hold each value.
    """

    name: str
    description: str
    privacy: Privacy = Privacy.INTERNAL
    not_null: bool = False
    unique: bool = False
    one_of: tuple[str, ...] = ()
    range: tuple[float | None, float | None] = (None, None)
    references: tuple[str, str] | None = None


@dataclass(frozen=True)
class Invariant:
    """A check written in SQL that returns the rows, or sums, that break it.

    Attributes:
        name: a few words.
        meaning: what is wrong when it fails.
        sql: a query; no row means that it holds.
    """

    name: str
    meaning: str
    sql: str


@dataclass(frozen=True)
class Model:
    """One table of the analytics schema.

    Attributes:
        name: the table's name.
        description: one or two sentences for a reader of the table.
        grain: the columns that identify a row.
        columns: every column, in order.
        invariants: checks beyond those of its columns.
        sql: the query that makes it.
        reads: the tables the query reads, as `schema.name`.
        names: every name in the query, in small letters; a column of those tables that is not among them is not read.
        reads_whole: those of the tables of which every column counts as read.
        is_view: kept as a view, so that it is current between runs.
        rows_from: tables of vendors, each with the value of the first column of the grain for one of its rows, in SQL:
            each row of the model is made from such rows with its value, and their lists, alone; empty if it is not so.
    """

    name: str
    description: str
    grain: tuple[str, ...]
    columns: tuple[ModelColumn, ...]
    invariants: tuple[Invariant, ...]
    sql: str
    reads: tuple[str, ...] = field(default=())
    names: tuple[str, ...] = field(default=())
    reads_whole: tuple[str, ...] = field(default=())
    is_view: bool = False
    rows_from: tuple[tuple[str, str], ...] = ()

    @property
    def qualified_name(self) -> str:
        """`analytics.name`, as a reader writes it in SQL."""
        return f"{SCHEMA}.{self.name}"

    @property
    def models_read(self) -> tuple[str, ...]:
        """Names of the models it reads."""
        return tuple(name.partition(".")[2] for name in self.reads if name.startswith(f"{SCHEMA}."))

    @property
    def raw_tables_read(self) -> tuple[str, ...]:
        """The tables it reads that are no models."""
        return tuple(name for name in self.reads if not name.startswith(f"{SCHEMA}."))


def load_models(folder: Path = MODELS_DIR, connection: duckdb.DuckDBPyConnection | None = None) -> list[Model]:
    """Read every model of a folder, sorted by name.

    Args:
        folder: where the models are.
        connection: any DuckDB connection, where one is at hand: their queries are read with it.

    Raises:
        ModelFailed: a file is missing or cannot be read; the message names it and the fault.
    """
    declared = _declarations(folder / DECLARATIONS)
    written = {path.stem: path for path in sorted(folder.glob("*.sql"))}
    for name in sorted(written.keys() ^ declared.keys()):
        there, missing = (f"{name}.sql", DECLARATIONS) if name in written else (DECLARATIONS, f"{name}.sql")
        raise ModelFailed(f"model {name}: {there} has it and {missing} does not; every model needs both", model=name)
    queries = {name: path.read_text(encoding="utf-8") for name, path in written.items()}
    return [_model(name, sql, declared[name], connection) for name, sql in queries.items()]


def order(models: Sequence[Model]) -> list[Model]:
    """Put models behind those they read, otherwise by name.

    Raises:
        ModelFailed: models read each other in a circle, or one reads a model that does not exist.
    """
    by_name = {model.name: model for model in models}
    for model in models:
        for read in model.models_read:
            if read not in by_name:
                known = ", ".join(sorted(by_name))
                raise ModelFailed(
                    f"model {model.name} reads {SCHEMA}.{read}, which no model makes; models are: {known}",
                    model=model.name,
                )
    sorter = graphlib.TopologicalSorter({name: sorted(by_name[name].models_read) for name in sorted(by_name)})
    try:
        sorter.prepare()
    except graphlib.CycleError as error:
        circle = " -> ".join(reversed(error.args[1]))
        raise ModelFailed(
            f"models read each other in a circle, so none can be made first: {circle}", model=error.args[1][0]
        ) from None
    ordered: list[Model] = []
    while sorter.is_active():
        ready = sorted(sorter.get_ready())
        ordered += [by_name[name] for name in ready]
        sorter.done(*ready)
    return ordered


def _declarations(path: Path) -> dict[str, dict[str, Any]]:
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=_LOADER)  # noqa: S506 - one of the two safe loaders
    except (OSError, yaml.YAMLError) as error:
        raise ModelFailed(f"{path.name} cannot be read: {error}") from None
    if not isinstance(content, dict) or not all(isinstance(entry, dict) for entry in content.values()):
        raise ModelFailed(f"{path.name} must map the name of each model to its declaration")
    return content


def _model(name: str, sql: str, entry: Mapping[str, Any], connection: duckdb.DuckDBPyConnection | None) -> Model:
    if not sql.startswith("-- one row per "):
        raise ModelFailed(
            f"model {name}: the first line of {name}.sql must say what a row is: -- one row per …", model=name
        )
    try:
        query = query_of(sql, connection)
        _refuse_unknown("a model", entry, _MODEL_KEYS)
        columns = tuple(_column(column, about) for column, about in entry["columns"].items())
        grain = tuple(entry["grain"])
        invariants = tuple(_invariant(check) for check in entry.get("checks", ()))
        _refuse_missing_grain(grain, columns)
        description = str(entry["description"]).strip()
        rows_from = tuple((str(table), str(key)) for table, key in entry.get("rows_from", {}).items())
    except KeyError as error:
        raise ModelFailed(f"model {name}: {DECLARATIONS} gives it no {error.args[0]}", model=name) from None
    except (ValueError, TypeError, AttributeError) as error:
        raise ModelFailed(f"model {name}: {error}", model=name) from None
    return Model(
        name=name,
        description=description,
        grain=grain,
        columns=columns,
        invariants=invariants,
        sql=sql,
        reads=query.reads,
        names=query.names,
        reads_whole=query.reads_whole,
        is_view=bool(entry.get("view", False)),
        rows_from=rows_from,
    )


def _refuse_missing_grain(grain: Sequence[str], columns: Sequence[ModelColumn]) -> None:
    if missing := set(grain) - {column.name for column in columns}:
        raise ValueError(f"its grain names {', '.join(sorted(missing))}, which is no column of it")


def _column(name: str, about: Mapping[str, Any]) -> ModelColumn:
    _refuse_unknown(f"column {name}", about, _COLUMN_KEYS)
    references = str(about["references"]).split(".") if "references" in about else None
    if references is not None and len(references) != 2:  # noqa: PLR2004 - model and column
        raise ValueError(f"column {name}: references must be model.column")
    low, high = about.get("range", (None, None))
    return ModelColumn(
        name=name,
        description=str(about["description"]).strip(),
        privacy=Privacy(about.get("privacy", "internal")),
        not_null=bool(about.get("not_null", False)),
        unique=bool(about.get("unique", False)),
        one_of=tuple(about.get("one_of", ())),
        range=(low, high),
        references=None if references is None else (references[0], references[1]),
    )


def _invariant(check: Mapping[str, Any]) -> Invariant:
    _refuse_unknown("a check", check, _CHECK_KEYS)
    return Invariant(str(check["name"]), str(check["meaning"]).strip(), str(check["sql"]).strip())


def _refuse_unknown(what: str, entry: Mapping[str, Any], known: set[str]) -> None:
    if unknown := set(entry) - known:
        raise ValueError(
            f"{what} is declared with {', '.join(sorted(unknown))}, which means nothing; known: {', '.join(sorted(known))}"
        )

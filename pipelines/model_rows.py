"""Models of which only those rows are made again that are made from rows that changed.

A model may declare that each of its rows is made from one row of one of the vendors' tables and that row's lists, and
from nothing else (`rows_from` in models.yml). What it was made from is kept in `ops.model_rows`, as hashes: sixteen bytes
a row. Rows that differ from that are taken out and made by the model's own query, which then sees only what they
are made from. Whenever that would not do, the whole table is made.
"""

import hashlib
import re
from collections.abc import Iterator
from typing import Final

import duckdb

from pipelines.model_files import Model, ModelFailed
from pipelines.model_inputs import RAW_TABLES
from sources._schema import Table, every_table

LEDGER: Final = """
CREATE TABLE IF NOT EXISTS ops.model_rows (
    model VARCHAR NOT NULL,
    recipe VARCHAR NOT NULL,
    row_key UBIGINT NOT NULL,
    mark UBIGINT NOT NULL
);
COMMENT ON TABLE ops.model_rows IS 'One row per vendor''s row that a table of analytics is made from, as it was then.';
COMMENT ON COLUMN ops.model_rows.model IS 'Name of the table in analytics.';
COMMENT ON COLUMN ops.model_rows.recipe IS 'Hash of its query, of the time zone and of DuckDB''s version.';
COMMENT ON COLUMN ops.model_rows.row_key IS 'Hash of the first column of its grain.';
COMMENT ON COLUMN ops.model_rows.mark IS 'Hash of key, content and times of the row it is made from.';
"""
MOST_CHANGED: Final = 0.1
"""Share of rows from which on a whole table is made as fast."""
_BY_NAME: Final = {table.qualified_name: table for table in RAW_TABLES}
_CHANGED: Final = "temp.main.changed_rows"


def refuse_other_sources(model: Model) -> None:
    """Refuse a model that says what its rows are made from, and reads something else.

    Raises:
        ModelFailed: naming what.
    """
    told = ""
    if unknown := [name for name, _ in model.rows_from if name not in _BY_NAME]:
        told = f"names {', '.join(unknown)}, which is no table of a vendor"
    elif model.rows_from:
        covered = {f"{root.schema}.{name}" for root, _ in _roots(model) for name, _ in every_table(root)}
        if others := [name for name in model.reads if name not in covered]:
            told = f"leaves out {', '.join(others)}"
    if told:
        raise ModelFailed(f"model {model.name}: its rows_from {told}", model=model.name)


def remember(connection: duckdb.DuckDBPyConnection, model: Model, timezone: str) -> None:
    """Keep what a table was made from that has just been made whole."""
    connection.execute("DELETE FROM ops.model_rows WHERE model = ?", [model.name])
    if model.rows_from:
        connection.execute(
            f"INSERT INTO ops.model_rows SELECT ?, ?, hash(key), mark FROM ({_rows_now(model)})",
            [model.name, _recipe(model, timezone)],
        )


def make_changed_rows(connection: duckdb.DuckDBPyConnection, model: Model, timezone: str) -> bool:
    """Make the rows of a table again whose source rows changed; the table must be there.

    Returns:
        Whether that was done; otherwise the table is as it was, and must be made whole.
    """
    recipe = _recipe(model, timezone)
    mine = "FROM ops.model_rows WHERE model = ? AND recipe = ?"
    ((known,),) = connection.execute(f"SELECT count(*) {mine}", [model.name, recipe]).fetchall()
    if not known:
        return False
    connection.execute(
        f"CREATE OR REPLACE TEMP TABLE changed_rows AS SELECT * FROM ({_rows_now(model)}) "
        f"WHERE mark NOT IN (SELECT mark {mine})",
        [model.name, recipe],
    )
    ((changed, gone),) = connection.execute(
        f"SELECT (SELECT count(*) FROM {_CHANGED}), (SELECT count(*) FROM (SELECT row_key {mine}) "
        f"WHERE row_key NOT IN (SELECT hash(key) FROM ({_rows_now(model)})))",
        [model.name, recipe],
    ).fetchall()
    done = 0 < changed <= MOST_CHANGED * known and not gone
    if done:
        key = f'"{model.grain[0]}"'
        connection.execute(f"DELETE FROM {model.qualified_name} WHERE {key} IN (SELECT key FROM {_CHANGED})")
        connection.execute(f"INSERT INTO {model.qualified_name} {_on_changed_rows(model)}")
        connection.execute(
            f"DELETE FROM ops.model_rows WHERE model = ? AND row_key IN (SELECT hash(key) FROM {_CHANGED})",
            [model.name],
        )
        connection.execute(
            f"INSERT INTO ops.model_rows SELECT ?, ?, hash(key), mark FROM {_CHANGED}", [model.name, recipe]
        )
    connection.execute(f"DROP TABLE {_CHANGED}")
    return done


def _recipe(model: Model, timezone: str) -> str:
    told = "\n".join((duckdb.__version__, timezone, repr(model)))
    return hashlib.blake2b(told.encode(), digest_size=16).hexdigest()


def _rows_now(model: Model) -> str:
    """A query for what the model would be made from: table, its key, the key it has in the model, and what it is like."""
    return " UNION ALL ".join(
        f"SELECT '{root.qualified_name}' AS source, CAST(\"{root.key}\" AS VARCHAR) AS root_key, {key} AS key, "
        f"hash('{root.qualified_name}', \"{root.key}\", _row_hash, _loaded_at, _deleted_at) AS mark "
        f"FROM {root.qualified_name}"
        for root, key in _roots(model)
    )


def _on_changed_rows(model: Model) -> str:
    """The model's query, for which its tables hold nothing but the rows that changed, and their lists."""
    sql = model.sql
    for root, _ in _roots(model):
        keys = (
            f"SELECT CAST(root_key AS {root.key_column.type.value}) FROM {_CHANGED} "
            f"WHERE source = '{root.qualified_name}'"
        )
        for name, child in every_table(root):
            column = child.parent_key if child else root.key
            part = f'(SELECT rowid, * FROM {root.schema}.{name} WHERE "{column}" IN ({keys}))'
            sql = re.sub(rf"(?<![\w.]){re.escape(f'{root.schema}.{name}')}(?!\w)", part, sql)
    return sql


def _roots(model: Model) -> Iterator[tuple[Table, str]]:
    """The tables whose rows its rows are made from, each with the key they have in the model, as SQL."""
    for name, key in model.rows_from:
        yield _BY_NAME[name], key

"""What the text of a model's query tells about what it reads, as DuckDB itself understands the text."""

import functools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import duckdb

_TREE: Final = "SELECT json_serialize_sql(?, skip_null := true, skip_empty := true, skip_default := true)"
_FAR: Final = 20
"""Characters shown of a text where it cannot be read."""

Node = dict[str, Any]

_understood: "dict[str, Query]" = {}


@dataclass(frozen=True)
class Query:
    """What the text of a query tells about what it reads; the attributes are those of `Model`."""

    reads: tuple[str, ...]
    names: tuple[str, ...]
    reads_whole: tuple[str, ...]


def query_of(sql: str, connection: duckdb.DuckDBPyConnection | None = None) -> Query:
    """The tables a query reads, as `schema.name`, and the names in it; all sorted.

    Args:
        sql: the text.
        connection: any DuckDB connection, where one is at hand.

    Raises:
        ValueError: the text is not one query, or names a table without its schema.
    """
    if sql not in _understood:
        ((answer,),) = (connection or _parser()).execute(_TREE, [sql]).fetchall()
        _understood[sql] = _understand(sql, json.loads(answer))
    return _understood[sql]


@functools.cache
def _parser() -> duckdb.DuckDBPyConnection:
    return duckdb.connect()


def _understand(sql: str, tree: Node) -> Query:
    if tree["error"] and tree["error_type"] == "parser":
        place = int(tree.get("position", 0))
        line, near = sql.count("\n", 0, place) + 1, sql[place : place + _FAR].partition("\n")[0]
        raise ValueError(f"the SQL cannot be read in line {line}, near {near!r}")
    if tree["error"] or len(tree.get("statements", ())) != 1:
        raise ValueError("it must be exactly one query")
    nodes, texts = _parts(tree)
    inner = {entry["key"] for node in nodes for entry in node.get("cte_map", {}).get("map", ())}
    for table in _tables(nodes):
        if "schema_name" not in table and table["table_name"] not in inner:
            raise ValueError(f"it reads {table['table_name']!r} without naming a schema")
    return Query(_names_of(nodes), tuple(sorted({text.lower() for text in texts})), _read_whole(nodes))


def _parts(tree: Any) -> tuple[list[Node], set[str]]:
    """Every object in a part of the tree, and every text: names are among them, and one that is no name does no harm."""
    nodes: list[Node] = []
    texts: set[str] = set()
    waiting = [tree]
    while waiting:
        part = waiting.pop()
        if isinstance(part, dict):
            nodes.append(part)
            waiting.extend(part.values())
        elif isinstance(part, list):
            waiting.extend(part)
        elif isinstance(part, str):
            texts.add(part)
    return nodes, texts


def _tables(nodes: list[Node]) -> Iterator[Node]:
    return (node for node in nodes if node.get("type") == "BASE_TABLE")


def _names_of(nodes: list[Node]) -> tuple[str, ...]:
    return tuple(sorted({_name_of(table) for table in _tables(nodes) if "schema_name" in table}))


def _name_of(table: Node) -> str:
    return f"{table['schema_name']}.{table['table_name']}"


def _read_whole(nodes: list[Node]) -> tuple[str, ...]:
    """Tables whose columns may be read without being named; rather one too many."""
    if any(node.get("type") == "PIVOT" or node.get("ref_type") == "NATURAL" or node.get("columns") for node in nodes):
        return _names_of(nodes)
    starred = {
        name
        for node in nodes
        if "select_list" in node and any(part.get("type") == "STAR" for part in _parts(node["select_list"])[0])
        for name in _names_of(_parts(node)[0])
    }
    # the name of a table, where a column could stand, is all its columns
    alone = {
        node["column_names"][0].lower()
        for node in nodes
        if node.get("type") == "COLUMN_REF" and len(node["column_names"]) == 1
    }
    as_values = {
        _name_of(table)
        for table in _tables(nodes)
        if "schema_name" in table and str(table.get("alias", table["table_name"])).lower() in alone
    }
    return tuple(sorted(starred | as_values))

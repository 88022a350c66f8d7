"""What the text of a model's query tells about what it reads."""

import functools
from dataclasses import dataclass

import sqlglot
from sqlglot import exp


@dataclass(frozen=True)
class Query:
    """What the text of a query tells about what it reads; the attributes are those of `Model`."""

    reads: tuple[str, ...]
    names: tuple[str, ...]
    reads_whole: tuple[str, ...]


@functools.cache
def query_of(sql: str) -> Query:
    """The tables a query reads, as `schema.name`, and the names in it; all sorted.

    Raises:
        ValueError: the text is not one query, or names a table without its schema.
    """
    try:
        statements = [statement for statement in sqlglot.parse(sql, dialect="duckdb") if statement is not None]
    except sqlglot.ParseError as error:
        first = error.errors[0] if error.errors else {}
        where = f" in line {first['line']}, near {first['highlight']!r}" if first.get("highlight") else ""
        raise ValueError(f"the SQL cannot be read{where}") from None
    if len(statements) != 1 or not isinstance(statements[0], exp.Query):
        raise ValueError("it must be exactly one query")
    query = statements[0]
    inner = {cte.alias_or_name for cte in query.find_all(exp.CTE)}
    for table in query.find_all(exp.Table):
        if table.name and not table.db and table.name not in inner:
            raise ValueError(f"it reads {table.name!r} without naming a schema")
    names = {identifier.name.lower() for identifier in query.find_all(exp.Identifier)}
    return Query(_tables_in(query), tuple(sorted(names)), _tables_read_whole(query))


def _tables_in(part: exp.Expr) -> tuple[str, ...]:
    return tuple(sorted({f"{table.db}.{table.name}" for table in part.find_all(exp.Table) if table.db}))


def _tables_read_whole(query: exp.Expr) -> tuple[str, ...]:
    """Tables whose columns may be read without being named; rather one too many."""
    if query.find(exp.Pivot, exp.Columns) or any(join.method == "NATURAL" for join in query.find_all(exp.Join)):
        return _tables_in(query)
    starred = {name for select in query.find_all(exp.Select) if select.is_star for name in _tables_in(select)}
    # the name of a table, where a column could stand, is all its columns
    named = {column.name.lower() for column in query.find_all(exp.Column) if not column.table}
    as_values = {
        f"{table.db}.{table.name}"
        for table in query.find_all(exp.Table)
        if table.db and table.alias_or_name.lower() in named
    }
    return tuple(sorted(starred | as_values))

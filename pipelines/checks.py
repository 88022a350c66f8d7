"""What must hold in the private database before it is published."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import duckdb

from pipelines.database import connect, limited, most_memory, on_threads
from sources._schema import Table

MEMORY: Final = "200MB"
"""What DuckDB may hold while it counts; larger tables are counted on disk."""


@dataclass(frozen=True)
class FailedCheck:
    """A broken invariant: what should hold, how often it does not, and a few keys to look at."""

    invariant: str
    violations: int
    examples: list[str]

    def __str__(self) -> str:
        return f"{self.invariant}: {self.violations} violations, e.g. {', '.join(self.examples)}"


def failed_checks(database: Path, tables: Sequence[Table], threads: int | None = 1) -> list[FailedCheck]:
    """Check that keys are unique, that no child lacks its parent, and that lists have no gaps.

    Args:
        database: the private database.
        tables: what to look at, with their lists.
        threads: how many work on it, each of which needs memory; None for as many as there are cores.

    Returns:
        The invariants that do not hold; empty when the database may be published.
    """
    failed = []
    with connect(database, read_only=True) as con, limited(con, MEMORY), on_threads(con, threads):
        for invariant, sql in (check for table in tables for check in _queries(table)):
            try:
                rows = con.execute(sql).fetchall()
            except duckdb.OutOfMemoryException:
                with limited(con, most_memory()):
                    rows = con.execute(sql).fetchall()
            if rows:
                failed.append(FailedCheck(invariant, rows[0][1], [str(key) for key, _ in rows[:3]]))
    return failed


def _queries(table: Table) -> list[tuple[str, str]]:
    name, key = table.qualified_name, table.key
    counted = "count(*) OVER ()"
    queries = [
        (
            f"{name}.{key} is unique",
            f'SELECT "{key}", {counted} FROM {name} GROUP BY "{key}" HAVING count(*) > 1 LIMIT 3',
        )
    ]
    for child in table.children:
        child_name, owner = f"{table.schema}.{child.name}", child.parent_key
        queries += [
            (
                f"every row of {child_name} has its parent",
                (
                    f'SELECT DISTINCT "{owner}", {counted} FROM {child_name} AS child '
                    f'WHERE NOT EXISTS (SELECT 1 FROM {name} WHERE "{key}" = child."{owner}") LIMIT 3'
                ),
            ),
            (
                f"lists in {child_name} run from 0 without gap or repeat",
                (
                    f'SELECT "{owner}", {counted} FROM {child_name} GROUP BY "{owner}" '
                    "HAVING max(_dlt_list_idx) + 1 <> count(*) OR count(DISTINCT _dlt_list_idx) <> count(*) LIMIT 3"
                ),
            ),
        ]
    return queries

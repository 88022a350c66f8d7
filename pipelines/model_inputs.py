"""What tells whether a model must be made again: fingerprints of what it reads, and of how it is made.

A vendor's rows are told by their stored hashes. What a model reads of another model, or of a vendor's lists, is told by
the values of the columns it names: so a recording that was viewed once more makes `support_sessions` again, and none
of the tables that do not count views. From MOST_HASHED rows on that costs more than it saves: there, a table is
what it was made from.
"""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import duckdb

from pipelines.database import columns_of
from pipelines.model_files import DECLARATIONS, Model
from sources._schema import Table, every_table
from sources.getscreen.tables import TABLES as GETSCREEN_TABLES
from sources.posthog.tables import TABLES as POSTHOG_TABLES
from sources.screendesk.tables import TABLES as SCREENDESK_TABLES

MOST_HASHED: Final = 250_000
RAW_TABLES: Final[tuple[Table, ...]] = (*SCREENDESK_TABLES, *GETSCREEN_TABLES, *POSTHOG_TABLES)
_CHILDREN: Final = frozenset(
    f"{table.schema}.{name}" for table in RAW_TABLES for name, child in every_table(table) if child
)


class Inputs:
    """Fingerprints of a run's models, asked for in the order in which they are made.

    Args:
        connection: the private database.
        models: every model, each after those it reads.
        timezone: the zone of local days.
        raw: what `raw_fingerprints` returns.
    """

    def __init__(
        self, connection: duckdb.DuckDBPyConnection, models: Sequence[Model], timezone: str, raw: Mapping[str, str]
    ) -> None:
        self._connection, self._models, self._timezone = connection, models, timezone
        self._told: dict[str, str | None] = dict(raw)
        self._content: dict[tuple[str, str], str] = {}
        for name in _CHILDREN & raw.keys():
            self._read_content(name)

    def fingerprint(self, model: Model) -> str | None:
        """A hash of what a model is made from; None if that cannot be told."""
        sources = [self._content.get((name, model.name), self._told.get(name)) for name in model.reads]
        known = [source for source in sources if source is not None]
        if len(known) < len(sources):
            return None
        told = "\n".join((duckdb.__version__, self._timezone, repr(model), *known))
        return hashlib.blake2b(told.encode(), digest_size=16).hexdigest()

    def made(self, model: Model, fingerprint: str | None) -> None:
        """The table of a model is there, made from what the fingerprint says."""
        self._told[model.qualified_name] = fingerprint
        if fingerprint is not None and not model.is_view:
            self._read_content(model.qualified_name)

    def _read_content(self, name: str) -> None:
        """Keep what each of the models that read a table sees of it."""
        columns = columns_of(self._connection, name)
        seen = {model.name: _columns_read(model, name, columns) for model in self._models if name in model.reads}
        if not seen:
            return
        ((rows,),) = self._connection.execute(f"SELECT count(*) FROM {name}").fetchall()
        if rows > MOST_HASHED:
            return
        sums = ", ".join(_content(names) if names else "count(*)" for names in seen.values())
        (found,) = self._connection.execute(f"SELECT {sums} FROM {name}").fetchall()
        for reader, names, hashed in zip(seen, seen.values(), found, strict=True):
            self._content[name, reader] = f"{name} {rows} {hashed} {' '.join(names)}"


def _content(names: Sequence[str]) -> str:
    """SQL that tells what rows hold in these columns, in any order.

    A sum, as rows that are alike would cancel each other out of an exclusive or; and of a hash of their hash, as DuckDB's
    own of several values changes in the same bits whenever the last of them changes in the same way.
    """
    return f"sum(hash(hash({', '.join(names)})))"


def _columns_read(model: Model, table: str, columns: Sequence[str]) -> list[str]:
    whole, names = table in model.reads_whole, set(model.names)
    return [f'"{column}"' for column in columns if whole or column.lower() in names]


def raw_fingerprints(connection: duckdb.DuckDBPyConnection, existing: set[str]) -> dict[str, str]:
    """What the rows of each of the vendors' tables that exist are, as a text that changes with them.

    A row's hash covers its lists, so child tables are counted only, and theirs is that of the table they belong to.
    """
    found: dict[str, str] = {}
    for table in RAW_TABLES:
        names = [(f"{table.schema}.{name}", child) for name, child in every_table(table)]
        told = ""
        for name, child in names:
            if name in existing:
                content = "0" if child else _content([f'"{table.key}"', "_row_hash", "_deleted_at"])
                ((rows, hashed),) = connection.execute(f"SELECT count(*), {content} FROM {name}").fetchall()
                told += f"\n{name} {rows} {hashed}"
        found |= {name: told for name, _ in names if name in existing}
    return found


def fingerprint_of_all(raw: Mapping[str, str], timezone: str, folder: Path) -> str:
    """A hash of everything the analytics tables are made from.

    Args:
        raw: what `raw_fingerprints` returns.
        timezone: the zone of local days.
        folder: where the models are.
    """
    digest = hashlib.blake2b(timezone.encode(), digest_size=16)
    for path in sorted([*folder.glob("*.sql"), folder / DECLARATIONS]):
        if path.exists():
            digest.update(f"\n{path.name}\n".encode() + path.read_bytes())
    digest.update("".join(raw.values()).encode())
    return digest.hexdigest()

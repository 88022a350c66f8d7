"""Declared tables as dlt resources: Arrow in, merge by key, children following their parent exactly.

A record that is written takes all its old list items away first. Which records those are is told by the staged items
alone, so it holds with any loader, in any order: a record without items is staged with one mark in their place, a row
at position -1, which is never merged.
"""

import logging
from collections.abc import Iterator
from typing import Any

import dlt
import pyarrow as pa
import pyarrow.compute as pc
from dlt.extract import DltResource, DltSource
from dlt.extract.items import DataItemWithMeta

from sources._reading import Feed, Reading
from sources._schema import (
    LIST_INDEX,
    ChildTable,
    Table,
    Type,
    arrow_schema,
    every_table,
    required_columns,
    stored_columns,
)
from sources._tables import Key

log = logging.getLogger("deskhouse.read")

_DLT_TYPE = {
    Type.TEXT: "text",
    Type.INTEGER: "bigint",
    Type.NUMBER: "double",
    Type.BOOLEAN: "bool",
    Type.TIMESTAMP: "timestamp",
    Type.JSON: "json",
}


class Incomplete(Exception):
    """A table could not be read whole, and why. Nothing of it is loaded."""


def slice_source(reading: Reading) -> DltSource:
    """The next slice of every table of a vendor that is being read, to be loaded in one transaction.

    Only tables that have rows take part, and their lists with them; the others must exist already.
    """

    def rows(feed: Feed) -> Iterator[DataItemWithMeta]:
        # a table without rows costs as much as a small one: the first rows say what dlt has to know of their table
        for number, tables in enumerate(feed.next_slice()):
            yield from _marked(feed.table, tables, hinted=number == 0)

    @dlt.source(name=reading.vendor, max_table_nesting=0)
    def vendor_slice() -> Iterator[DltResource]:
        for feed in reading.feeds.values():
            yield dlt.resource(rows, name=feed.table.name, max_table_nesting=0)(feed)

    return vendor_slice()


def whole_tables(reading: Reading) -> Iterator[DltResource]:
    """Every table of a vendor from beginning to end, for one load by any pipeline; started when first taken from."""
    begun: set[str] = set()

    def rows(feed: Feed) -> Iterator[DataItemWithMeta]:
        if feed.table.name in begun:
            raise RuntimeError(f"The source of {reading.vendor} was read already; make a new one for each run.")
        begun.add(feed.table.name)
        reading.start()
        try:
            yield from _declared(feed.table)
            seen: set[Key] = set()
            while not feed.finished:
                for tables in feed.next_slice():
                    yield from _marked(feed.table, _first_versions(feed.table, tables, seen))
        finally:
            reading.leave(feed)
        outcome = feed.outcome
        if outcome.error is not None:
            raise outcome.error
        if not outcome.complete:
            raise Incomplete(f"{feed.table.qualified_name} was not loaded: {outcome.reason}.")
        if outcome.quarantined:
            log.warning("%s: %d records without usable key left out", feed.table.qualified_name, outcome.quarantined)

    for feed in reading.feeds.values():
        yield dlt.resource(rows, name=feed.table.name, max_table_nesting=0)(feed)


def _first_versions(table: Table, tables: dict[str, pa.Table], seen: set[Key]) -> dict[str, pa.Table]:
    """Without records that `seen` holds: one load would mix the items of two versions. The next run has the newer."""
    keys = tables[table.name][table.key].to_pylist()
    again = pa.array([key for key in keys if key in seen], table.key_column.type.arrow)
    seen.update(keys)
    if not len(again):
        return tables
    owners = {table.name: table.key, **{child.name: child.parent_key for child in table.children}}
    return {name: rows.filter(pc.invert(pc.is_in(rows[owners[name]], again))) for name, rows in tables.items()}


def _declared(table: Table) -> Iterator[DataItemWithMeta]:
    """Empty Arrow tables with all hints: each table exists, and is merged, whether it has rows or not."""
    for name, child in every_table(table):
        yield _with_hints(arrow_schema(table, child).empty_table(), table, name, child)


def _marked(table: Table, tables: dict[str, pa.Table], *, hinted: bool = False) -> Iterator[DataItemWithMeta]:
    """Arrow tables, with a mark for each list without items, and the name of the dlt table they go to or all hints."""
    for name, child in every_table(table):
        rows = tables[name]
        if child is not None:
            rows = pa.concat_tables([rows, _marks(table, child, tables[table.name][table.key], rows)])
        yield _with_hints(rows, table, name, child) if hinted else dlt.mark.with_table_name(rows, name)


def _with_hints(rows: pa.Table, table: Table, name: str, child: ChildTable | None) -> DataItemWithMeta:
    return dlt.mark.with_hints(rows, _hints(table, name, child), create_table_variant=True)


def _marks(table: Table, child: ChildTable, keys: pa.ChunkedArray, items: pa.Table) -> pa.Table:
    schema = arrow_schema(table, child)
    bare = keys.filter(pc.invert(pc.is_in(keys, items[child.parent_key])))
    values = {child.parent_key: bare, LIST_INDEX.name: pa.array([-1] * len(bare), pa.int64())}
    return pa.table([values.get(f.name, pa.nulls(len(bare), f.type)) for f in schema], schema=schema)


def _hints(table: Table, name: str, child: ChildTable | None) -> Any:
    disposition: dict[str, Any] = {"disposition": "merge", "strategy": "delete-insert"}
    key: str | list[str] = table.key
    if child is not None:
        key = [child.parent_key, "_dlt_list_idx"]
        disposition["destination_scope"] = f"{child.parent_key} IN (SELECT {child.parent_key} FROM {{staging_table}})"
        disposition["source_filter"] = f"{LIST_INDEX.name} >= 0"
    required = required_columns(table, child)
    columns: dict[str, dict[str, Any]] = {
        c.name: {
            "name": c.name,
            "data_type": _DLT_TYPE[c.type],
            "nullable": c.name not in required,
            "description": c.description,
        }
        for c in stored_columns(table, child)
    }
    if child is None:
        columns["_loaded_at"]["dedup_sort"] = "desc"
    return dlt.mark.make_hints(
        table_name=name,
        write_disposition=disposition,  # type: ignore[arg-type]  # dlt's TypedDict has no room for a built one
        primary_key=key,
        columns=columns,
        # int -> float drift would round silently; nothing but declared types may reach the loader
        schema_contract={"data_type": "freeze"},
    )

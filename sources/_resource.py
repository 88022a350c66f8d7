"""Declared tables as dlt resources: Arrow in, merge by key, children following their parent exactly."""

from collections.abc import Iterator
from typing import Any

import dlt
import pyarrow as pa
from dlt.extract import DltResource, DltSource
from dlt.extract.items import DataItemWithMeta

from sources._reading import Feed, Reading
from sources._schema import ChildTable, Table, Type, arrow_schema, every_table, required_columns, stored_columns

_DLT_TYPE = {
    Type.TEXT: "text",
    Type.INTEGER: "bigint",
    Type.NUMBER: "double",
    Type.BOOLEAN: "bool",
    Type.TIMESTAMP: "timestamp",
    Type.JSON: "json",
}


def feed_resource(reading: Reading, feed: Feed, *, one_slice: bool) -> DltResource:
    """A root table and its children as they are read.

    Args:
        reading: the vendor being read; started when the resource is.
        feed: the table's slices.
        one_slice: end after one slice, so that each slice is a load of its own; else go on to the table's end.
    """

    def rows() -> Iterator[DataItemWithMeta]:
        reading.start()
        yield from _marked(feed.table, {}, with_hints=True)
        while True:
            for tables in feed.next_slice():
                yield from _marked(feed.table, tables, with_hints=False)
            if one_slice:
                return
            if feed.finished:
                if feed.outcome.error is not None:
                    raise feed.outcome.error
                return

    return dlt.resource(rows, name=feed.table.name, max_table_nesting=0)


def slice_source(reading: Reading) -> DltSource:
    """The next slice of every table of a vendor that is being read."""

    @dlt.source(name=reading.vendor, max_table_nesting=0)
    def vendor_slice() -> Iterator[DltResource]:
        for feed in reading.feeds.values():
            yield feed_resource(reading, feed, one_slice=True)

    return vendor_slice()


def _marked(table: Table, tables: dict[str, pa.Table], *, with_hints: bool) -> Iterator[DataItemWithMeta]:
    """Arrow tables marked with the dlt table they go to; empty ones, with all hints, where none are given."""
    for name, child in every_table(table):
        if with_hints:
            empty = arrow_schema(table, child).empty_table()
            yield dlt.mark.with_hints(empty, _hints(table, name, child), create_table_variant=True)
        else:
            yield dlt.mark.with_table_name(tables[name], name)


def _hints(table: Table, name: str, child: ChildTable | None) -> Any:
    disposition: dict[str, Any] = {"disposition": "merge", "strategy": "delete-insert"}
    key: str | list[str] = table.key
    if child is not None:
        key = [child.parent_key, "_dlt_list_idx"]
        # a parent that is written takes all its old items away, so a list that shrank or emptied leaves none behind;
        # the loader merges parent and children in one transaction, with the parent's new rows still in staging
        staged = f'SELECT "{table.key}" FROM "{table.schema}_staging"."{table.name}"'
        disposition["destination_scope"] = f'"{child.parent_key}" IN ({staged})'
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
        columns=columns,  # type: ignore[arg-type]
        # int -> float drift would round silently; nothing but declared types may reach the loader
        schema_contract={"data_type": "freeze"},
    )

"""Declared tables: the columns deskhouse promises, with type, description and privacy class.

A declaration is the one place a column is named. The loader, the reference docs and the checks all read it, so a
column cannot exist in one and not in the others.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING

import pyarrow as pa

if TYPE_CHECKING:
    from sources._policy import Policy


class Type(Enum):
    """What a column holds; the value is the DuckDB type a reader sees."""

    TEXT = "VARCHAR"
    INTEGER = "BIGINT"
    NUMBER = "DOUBLE"
    BOOLEAN = "BOOLEAN"
    TIMESTAMP = "TIMESTAMP WITH TIME ZONE"
    JSON = "JSON"

    @property
    def arrow(self) -> pa.DataType:
        """The Arrow type that carries it."""
        return _ARROW[self]


_ARROW = {
    Type.TEXT: pa.string(),
    Type.INTEGER: pa.int64(),
    Type.NUMBER: pa.float64(),
    Type.BOOLEAN: pa.bool_(),
    Type.TIMESTAMP: pa.timestamp("us", "UTC"),
    Type.JSON: pa.string(),
}


class Form(Enum):
    """How the vendor writes a value, where that is not simply the JSON form of the column's type."""

    PLAIN = "plain"
    UNIX_SECONDS = "unix seconds"  # a number; becomes TIMESTAMPTZ
    ID = "id"  # an integer, or the same in decimal digits as text; 0 means none
    VIDEO_URL = "video url"  # kept without query and fragment, which may carry a key or a signature


class Privacy(Enum):
    """How carefully a column's content is to be handled."""

    PUBLIC = "public"  # harmless outside the company
    INTERNAL = "internal"  # about work, not about a person
    PERSONAL = "personal"  # identifies or locates a person
    SENSITIVE = "sensitive"  # what people said, typed or saw


@dataclass(frozen=True)
class Column:
    """One declared column.

    Attributes:
        name: the column's name; `a__b` is member `b` of object `a` in the vendor's JSON.
        type: what the column holds.
        description: one sentence for a reader of the table.
        privacy: how carefully the content is to be handled.
        form: how the vendor writes it.
        about: columns of the same table that tell more of the person this one names; erased with it.
    """

    name: str
    type: Type
    description: str
    privacy: Privacy = Privacy.INTERNAL
    form: Form = Form.PLAIN
    about: tuple[str, ...] = ()

    @property
    def path(self) -> tuple[str, ...]:
        """Where the value is in a record: object names, then the member."""
        return tuple(self.name.split("__"))


@dataclass(frozen=True)
class ChildTable:
    """A list inside a record, as a table of its own.

    Attributes:
        name: the table's name, the parent's name and the list's path.
        path: where the list is in a record.
        parent_key: the column that carries the parent's key.
        description: one sentence for a reader of the table.
        columns: declared columns of one list item; for a list of plain values, the single column `value`.
        plain_values: the list holds values, not objects.
        single_object: the vendor sometimes sends the one item bare, without the list.
    """

    name: str
    path: tuple[str, ...]
    parent_key: str
    description: str
    columns: tuple[Column, ...]
    plain_values: bool = False
    single_object: bool = False


@dataclass(frozen=True)
class Table:
    """A declared root table and its children.

    Attributes:
        schema: the vendor, which is also the DuckDB schema.
        name: the table's name.
        key: the column that identifies a row.
        cursor: the column that says when the vendor last changed the row, or None where no such value exists.
        description: one sentence for a reader of the table.
        columns: declared columns.
        children: declared child tables.
        order: the column by which the vendor seems to list, newest first, or None where nothing is to be relied on.
        empty_objects: values the vendor sends for "no object here", besides null.
        never_stored: members of a record that are dropped wherever they would end up.
        span: the columns that say when a record began and ended, where the vendor is read by dates.
        policy: what is stored of personal data; None keeps everything.
    """

    schema: str
    name: str
    key: str
    cursor: str | None
    description: str
    columns: tuple[Column, ...]
    children: tuple[ChildTable, ...] = ()
    order: str | None = None
    empty_objects: tuple[object, ...] = ()
    never_stored: tuple[str, ...] = ()
    span: tuple[str, str] | None = None
    policy: "Policy | None" = field(default=None, compare=False, repr=False)
    fingerprint: str = field(init=False)

    def __post_init__(self) -> None:
        names = [c.name for c in self.columns]
        if len(set(names)) != len(names) or self.key not in names:
            raise ValueError(f"{self.qualified_name}: column names repeat, or the key is not declared")
        parts = [self.qualified_name, self.key]
        tables: tuple[Table | ChildTable, ...] = (self, *self.children)
        for table in tables:
            parts += [table.name, *(f"{c.name} {c.type.name} {c.form.name}" for c in table.columns)]
        object.__setattr__(self, "fingerprint", hashlib.blake2b("\n".join(parts).encode()).hexdigest()[:16])

    @property
    def qualified_name(self) -> str:
        """`schema.name`, as a reader writes it in SQL."""
        return f"{self.schema}.{self.name}"

    @property
    def key_column(self) -> Column:
        """The declared column that is the key."""
        return next(c for c in self.columns if c.name == self.key)


# every root table carries these after the vendor's columns
ROOT_COLUMNS = (
    Column(
        "_extra", Type.JSON, "Fields and values that fit no declared column, keyed by their path.", Privacy.SENSITIVE
    ),
    Column("_row_hash", Type.TEXT, "Hash of the row's content, its lists included.", Privacy.PUBLIC),
    Column("_loaded_at", Type.TIMESTAMP, "When deskhouse last wrote the row.", Privacy.PUBLIC),
    Column(
        "_deleted_at",
        Type.TIMESTAMP,
        "When the row was found gone at the vendor; NULL while it is there.",
        Privacy.PUBLIC,
    ),
)
LOAD_ID = Column("_dlt_load_id", Type.TEXT, "The load that last wrote the row.", Privacy.PUBLIC)
LIST_INDEX = Column("_dlt_list_idx", Type.INTEGER, "Position in the vendor's list, from 0.", Privacy.PUBLIC)
EXTRA = ROOT_COLUMNS[0]


def parent_key_column(table: Table, child: ChildTable) -> Column:
    """The column of `child` that carries the key of its row in `table`."""
    key = table.key_column
    return Column(
        child.parent_key, key.type, f"`{table.qualified_name}.{table.key}` of the row this belongs to.", key.privacy
    )


def stored_columns(table: Table, child: ChildTable | None = None) -> tuple[Column, ...]:
    """All columns of a root table, or of one of its children, in stored order, without dlt's load id."""
    if child is None:
        return (*table.columns, *ROOT_COLUMNS)
    return (parent_key_column(table, child), LIST_INDEX, *child.columns, EXTRA)


def required_columns(table: Table, child: ChildTable | None = None) -> frozenset[str]:
    """Names of the columns that are never NULL."""
    if child is None:
        return frozenset({table.key, "_row_hash", "_loaded_at"})
    return frozenset({child.parent_key, LIST_INDEX.name})


def arrow_schema(table: Table, child: ChildTable | None = None) -> pa.Schema:
    """The explicit Arrow schema a table, or one of its children, is loaded with."""
    required = required_columns(table, child)
    return pa.schema([pa.field(c.name, c.type.arrow, c.name not in required) for c in stored_columns(table, child)])


def every_table(table: Table) -> Iterator[tuple[str, ChildTable | None]]:
    """Names of a root table and its children, with the child's declaration."""
    yield table.name, None
    for child in table.children:
        yield child.name, child

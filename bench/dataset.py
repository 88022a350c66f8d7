"""The data of the benchmark: static pages as the vendors send them, and the rows they must become.

Records are the sandbox's, made in list order one after another, so a million need no more memory than a page. Each set
is made once and kept under the work folder; the same name always holds the same bytes. What a correct load must hold
(the *truth*) is written as parquet while the records are made, flattened here by plain loops that share no code with
any contestant.
"""

from __future__ import annotations

import os
import random
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY))

from sandbox.clock import DEFAULT_NOW, WorkingHours, from_millis, to_millis  # noqa: E402
from sandbox.credentials import POSTHOG_PROJECT_ID  # noqa: E402
from sandbox.people import Cast  # noqa: E402
from sandbox.posthog.meetings import MeetingMaker  # noqa: E402
from sandbox.screendesk.recordings import RecordingMaker, UserMaker  # noqa: E402
from sources._schema import LIST_INDEX, ChildTable, Table, Type, parent_key_column  # noqa: E402
from sources.posthog import OVERLAP, PAGE_LIMIT  # noqa: E402
from sources.posthog.tables import DESKTOP_RECORDINGS  # noqa: E402
from sources.screendesk.tables import RECORDINGS, USERS  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

Record = dict[str, Any]

WORK = Path(os.environ.get("DESKHOUSE_BENCH_DIR") or Path(tempfile.gettempdir()) / "deskhouse-bench")
SEED = 7
PAGE = 100
SEGMENTS = 50
FORMAT = 1
"""Raised when what is generated changes, so that old folders are not taken for new ones."""
LIST_PATHS = {"screendesk": "/recordings", "posthog": f"/api/projects/{POSTHOG_PROJECT_ID}/desktop_recordings/"}
_TRUTH_ROWS = 20_000
_AMONG_EQUALS = 12


@dataclass(frozen=True)
class Dataset:
    """One vendor's account with `size` records in its main list."""

    vendor: str
    size: int

    @property
    def name(self) -> str:
        """What its folder and its addresses are called."""
        return f"{self.vendor}-{self.size}-v{FORMAT}"

    @property
    def folder(self) -> Path:
        """Where its pages and its truth are."""
        return WORK / "data" / self.name

    @property
    def tables(self) -> tuple[Table, ...]:
        """The declared root tables it fills."""
        return (RECORDINGS, USERS) if self.vendor == "screendesk" else (DESKTOP_RECORDINGS,)

    @property
    def pages(self) -> int:
        """How many pages its main list has."""
        return -(-self.size // PAGE)

    def truth(self, table: str) -> Path:
        """The rows a table must hold, by its name without schema."""
        return self.folder / "truth" / f"{table}.parquet"


def ensure(data: Dataset, say: Any = print) -> None:
    """Make the set unless it is there."""
    if data.folder.exists():
        return
    say(f"making {data.name} in {data.folder} (once) ...")
    making = data.folder.with_name(f"{data.name}.{os.getpid()}.part")
    making.mkdir(parents=True)
    try:
        (making / "truth").mkdir()
        (_make_screendesk if data.vendor == "screendesk" else _make_posthog)(data, making)
        making.rename(data.folder)
    finally:
        shutil.rmtree(making, ignore_errors=True)


def warm(data: Dataset) -> None:
    """Read every page once, so that all are in the system's cache."""
    for page in data.folder.rglob("*.json"):
        page.read_bytes()


def changed_page(data: Dataset, page: int) -> tuple[bytes, str, int]:
    """A page of recordings with its middle record viewed once more: the page, the record's key, its new count."""
    body = orjson.loads((data.folder / f"recordings/{page}.json").read_bytes())
    record = body["records"][len(body["records"]) // 2]
    record["metadata"]["impressions_count"] += 1
    return orjson.dumps(body), record["uuid"], record["metadata"]["impressions_count"]


def _make_screendesk(data: Dataset, folder: Path) -> None:
    hours, cast = WorkingHours(DEFAULT_NOW), Cast(SEED, 25)
    present, drawn = to_millis(DEFAULT_NOW), random.Random(f"{SEED}:bench.screendesk")
    maker = RecordingMaker(SEED, cast, hours)
    newest_first = sorted((min(hours.millis(drawn), present) for _ in range(data.size)), reverse=True)
    records = (maker.record(created, present) for created in newest_first)
    _write_numbered(folder / "recordings", "records", _truth_kept(records, RECORDINGS, folder), data.size)
    users = sorted(UserMaker(SEED, cast, hours).history(DEFAULT_NOW), key=lambda user: user["created_at"])
    _write_numbered(folder / "users", "users", _truth_kept(users, USERS, folder), len(users))


def _make_posthog(data: Dataset, folder: Path) -> None:
    hours, cast = WorkingHours(DEFAULT_NOW), Cast(SEED, 25)
    drawn = random.Random(f"{SEED}:bench.posthog")
    maker = MeetingMaker(SEED, cast, hours)
    started = [hours.millis(drawn) for _ in range(data.size)]
    for position in range(_AMONG_EQUALS, data.size, _AMONG_EQUALS):
        started[position] = started[position - 1]
    newest_first = sorted((min(at, to_millis(DEFAULT_NOW)) for at in started), reverse=True)

    def meetings() -> Iterator[Record]:
        for at in newest_first:
            meeting = maker.record(from_millis(at), DEFAULT_NOW)
            said = maker.segments(SEGMENTS, speakers=tuple(meeting["participants"]))
            meeting["transcript_segments"] = said
            meeting["transcript_text"] = " ".join(segment["text"] for segment in said)
            yield meeting

    bodies = [orjson.dumps(meeting) for meeting in _truth_kept(meetings(), DESKTOP_RECORDINGS, folder)]
    # dlt asks for PAGE at a time, deskhouse for as much as its source says; both step by a page
    for limit in sorted({PAGE, PAGE_LIMIT + OVERLAP}):
        (folder / f"desktop_recordings/{limit}").mkdir(parents=True)
        for offset in range(0, data.size, PAGE):
            head = orjson.dumps({
                "count": data.size,
                "next": _link(limit, offset + limit) if offset + limit < data.size else None,
                "previous": _link(limit, max(0, offset - limit)) if offset else None,
            })  # fmt: skip
            rows = b",".join(bodies[offset : offset + limit])
            page = head[:-1] + b',"results":[' + rows + b"]}"
            (folder / f"desktop_recordings/{limit}/{offset}.json").write_bytes(page)


def _link(limit: int, offset: int) -> str:
    return f"https://posthog.example{LIST_PATHS['posthog']}?limit={limit}&offset={offset}"


def _write_numbered(folder: Path, list_key: str, records: Iterable[Record], count: int) -> None:
    """Pages by number, in Screendesk's envelope."""
    folder.mkdir(parents=True)
    last, page, rows = max(1, -(-count // PAGE)), 1, []

    def write() -> None:
        first = (page - 1) * PAGE
        pagination = {
            "count": count,
            "page": page,
            "items": PAGE,
            "pages": last,
            "next_page": page + 1 if page < last else None,
            "prev_page": page - 1 or None,
            "last_page": last,
            "from": first + 1,
            "to": first + len(rows),
        }
        pagination = {name: value for name, value in pagination.items() if value is not None}
        (folder / f"{page}.json").write_bytes(orjson.dumps({"pagination": pagination, list_key: rows}))

    for record in records:
        rows.append(record)
        if len(rows) == PAGE:
            write()
            page, rows = page + 1, []
    if rows:
        write()


def _truth_kept(records: Iterable[Record], table: Table, folder: Path) -> Iterator[Record]:
    """The same records; the rows they must become are written on the way."""
    writers = [_Truth(folder, table, None), *(_Truth(folder, table, child) for child in table.children)]
    for record in records:
        for writer in writers:
            writer.add(record)
        yield record
    for writer in writers:
        writer.close()


class _Truth:
    """Rows of one table, instants still as the vendor writes them."""

    def __init__(self, folder: Path, table: Table, child: ChildTable | None) -> None:
        self._table, self._child = table, child
        own = child.columns if child else table.columns
        columns = (parent_key_column(table, child), LIST_INDEX, *own) if child else own
        self._paths = [c.path for c in own]
        self._schema = pa.schema([(c.name, pa.string() if c.type is Type.TIMESTAMP else c.type.arrow) for c in columns])
        self._rows: list[tuple[Any, ...]] = []
        self._file = pq.ParquetWriter(folder / "truth" / f"{child.name if child else table.name}.parquet", self._schema)

    def add(self, record: Record) -> None:
        if self._child is None:
            self._rows.append(tuple(_at(record, path) for path in self._paths))
        else:
            key = record[self._table.key]
            for index, item in enumerate(_at(record, self._child.path) or []):
                values = [item] if self._child.plain_values else [_at(item, path) for path in self._paths]
                self._rows.append((key, index, *values))
        if len(self._rows) >= _TRUTH_ROWS:
            self._flush()

    def close(self) -> None:
        self._flush()
        self._file.close()

    def _flush(self) -> None:
        columns = list(zip(*self._rows, strict=True)) or [()] * len(self._schema)
        arrays = [pa.array(values, field.type) for values, field in zip(columns, self._schema, strict=True)]
        self._file.write_table(pa.Table.from_arrays(arrays, schema=self._schema))
        self._rows = []


def _at(record: Record, path: tuple[str, ...]) -> Any:
    value: Any = record
    for name in path:
        value = None if value is None else value.get(name)
    return value

"""The limit: all pages fetched over 8 connections, DuckDB's `read_json` and `unnest` into the same tables, nothing else.

No comparison, hash, receipt, merge or published copy: what it leaves is a DuckDB file with the declared columns. Pages
are fetched into files in memory, with the HTTP client that every other contestant uses; from a slow server, DuckDB
reads those that are there while the others arrive.

With `--bare` it is the floor of this machine: pages come over plain sockets, with no HTTP client at all, and row groups
are small enough for two cores to write side by side: with DuckDB's own size, 100,000 rows are one group.
"""

import argparse
import asyncio
import json
import shutil
import socket
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from queue import SimpleQueue
from urllib.parse import urlsplit

import duckdb
import httpx

ROW_GROUP = 16_384

RECORDING = """STRUCT(
    uuid VARCHAR, title VARCHAR, summary VARCHAR, description VARCHAR,
    metadata STRUCT(
        created_at TIMESTAMPTZ, updated_at TIMESTAMPTZ, duration BIGINT, impressions_count BIGINT,
        recording_type VARCHAR, recording_source VARCHAR, url VARCHAR,
        helpdesk_info STRUCT(
            platform VARCHAR, conversation_id VARCHAR, ticket_id VARCHAR, user_id VARCHAR,
            operator_id VARCHAR, customer_id VARCHAR, issue_id VARCHAR
        )
    ),
    technical_details STRUCT(
        vendor VARCHAR, ip_address VARCHAR, timezone VARCHAR, network_type VARCHAR, isp VARCHAR
    ),
    console_logs VARCHAR,
    customer STRUCT(email VARCHAR),
    "user" STRUCT(email VARCHAR, name VARCHAR),
    room_insights STRUCT(
        started_at TIMESTAMPTZ, ended_at TIMESTAMPTZ, duration BIGINT,
        total_participant_minutes DOUBLE, total_unique_participants BIGINT,
        participants_insights STRUCT(
            participant_id VARCHAR, display_name VARCHAR, role VARCHAR, browser VARCHAR, os VARCHAR,
            device VARCHAR, device_type VARCHAR, user_agent VARCHAR, joined_at TIMESTAMPTZ, left_at TIMESTAMPTZ
        )[]
    )
)"""
RECORDING_COLUMNS = (
    "uuid title summary description metadata.created_at metadata.updated_at metadata.duration "
    "metadata.impressions_count metadata.recording_type metadata.recording_source metadata.url "
    "metadata.helpdesk_info.platform metadata.helpdesk_info.conversation_id metadata.helpdesk_info.ticket_id "
    "metadata.helpdesk_info.user_id metadata.helpdesk_info.operator_id metadata.helpdesk_info.customer_id "
    "metadata.helpdesk_info.issue_id technical_details.vendor technical_details.ip_address "
    "technical_details.timezone technical_details.network_type technical_details.isp console_logs customer.email "
    "user.email user.name room_insights.started_at room_insights.ended_at room_insights.duration "
    "room_insights.total_participant_minutes room_insights.total_unique_participants"
)
MEETING = """STRUCT(
    id VARCHAR, team BIGINT, created_by BIGINT, sdk_upload_id VARCHAR, recall_recording_id VARCHAR, platform VARCHAR,
    meeting_title VARCHAR, meeting_url VARCHAR, duration_seconds BIGINT, status VARCHAR, notes VARCHAR,
    error_message VARCHAR, video_url VARCHAR, video_size_bytes BIGINT, transcript_text VARCHAR, summary VARCHAR,
    tasks_generated_at TIMESTAMPTZ, summary_generated_at TIMESTAMPTZ, started_at TIMESTAMPTZ,
    completed_at TIMESTAMPTZ, created_at TIMESTAMPTZ, updated_at TIMESTAMPTZ,
    participants VARCHAR[],
    transcript_segments STRUCT("timestamp" DOUBLE, speaker VARCHAR, "text" VARCHAR, confidence DOUBLE, is_final BOOLEAN)[],
    extracted_tasks STRUCT(title VARCHAR, description VARCHAR, assignee VARCHAR)[]
)"""
MEETING_COLUMNS = (
    "id team created_by sdk_upload_id recall_recording_id platform meeting_title meeting_url duration_seconds status "
    "notes error_message video_url video_size_bytes transcript_text summary tasks_generated_at summary_generated_at "
    "started_at completed_at created_at updated_at"
)
# table, its list in a record, the parent's key and what the child calls it, what the list holds
RECORDING_LISTS = (
    (
        "recordings__room_insights__participants_insights",
        "room_insights.participants_insights",
        "uuid AS recording_uuid",
        "objects",
    ),
)
MEETING_LISTS = (
    ("desktop_recordings__participants", "participants", "id AS desktop_recording_id", "values"),
    ("desktop_recordings__transcript_segments", "transcript_segments", "id AS desktop_recording_id", "objects"),
    ("desktop_recordings__extracted_tasks", "extracted_tasks", "id AS desktop_recording_id", "objects"),
)
SHAPES = {
    "screendesk": ("recordings", "records", RECORDING, RECORDING_COLUMNS, RECORDING_LISTS),
    "posthog": ("desktop_recordings", "results", MEETING, MEETING_COLUMNS, MEETING_LISTS),
}


def main() -> None:
    """Load one vendor's list into a new DuckDB file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--vendor", choices=SHAPES, required=True)
    parser.add_argument("--url", required=True, help="the list's address")
    parser.add_argument("--database", type=Path, required=True)
    parser.add_argument("--connections", type=int, default=8)
    parser.add_argument("--batch", type=int, default=1 << 40, help="bytes of pages worth a statement of their own")
    parser.add_argument("--bare", action="store_true", help="plain sockets and small row groups")
    options = parser.parse_args()
    memory = Path("/dev/shm")
    folder = Path(tempfile.mkdtemp(dir=memory if memory.is_dir() else None))
    try:
        fetcher = (Fetcher if options.bare else HttpxFetcher)(options.vendor, options.url, folder)
        batches = fetcher.batches(options.connections, options.batch)
        load(options.vendor, options.database, batches, f"ROW_GROUP_SIZE {ROW_GROUP}" if options.bare else "")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def load(vendor: str, database: Path, pages: Iterator[list[str]], storage: str) -> None:
    """Read page files, in batches as they come, into the root table and its children."""
    table, list_key, record, columns, lists = SHAPES[vendor]
    with duckdb.connect() as con:
        con.execute("SET preserve_insertion_order = false")
        con.execute(f"ATTACH '{database}' AS warehouse {f'({storage})' if storage else ''}")
        con.execute(f"CREATE SCHEMA warehouse.{vendor}")
        con.execute(f"USE warehouse.{vendor}")
        taken = ", ".join(f"r.{path} AS list_{n}" for n, (_, path, _, _) in enumerate(lists))
        for number, files in enumerate(pages):
            target = f"memory.batch_{number}" if number else table
            con.execute(
                f"CREATE TABLE {target} AS SELECT {selected(columns)}, {taken} FROM (SELECT unnest({list_key}) AS r "
                f"FROM read_json({files!r}, format = 'unstructured', columns = {{{list_key}: '{record}[]'}}, "
                "maximum_object_size = 1000000000))"
            )
            for n, (child, _, key, shape) in enumerate(lists):
                item = "item.*" if shape == "objects" else "item AS value"
                query = (
                    f"SELECT {key}, i - 1 AS _dlt_list_idx, {item} "
                    f"FROM (SELECT *, unnest(list_{n}) AS item, unnest(range(1, len(list_{n}) + 1)) AS i FROM {target})"
                )
                con.execute(f"INSERT INTO {child} {query}" if number else f"CREATE TABLE {child} AS {query}")
                con.execute(f"ALTER TABLE {target} DROP list_{n}")
            if number:
                con.execute(f"INSERT INTO {table} FROM {target}")
                con.execute(f"DROP TABLE {target}")


def selected(paths: str) -> str:
    """`a.b` as column `a__b`."""
    columns = []
    for path in paths.split():
        inside = '"."'.join(path.split("."))
        columns.append(f'r."{inside}" AS "{path.replace(".", "__")}"')
    return ", ".join(columns)


class Fetcher:
    """Fetches a list's pages into files, over several connections.

    Args:
        vendor: whose list it is.
        url: the list's address.
        folder: where files go.
    """

    def __init__(self, vendor: str, url: str, folder: Path) -> None:
        address = urlsplit(url)
        assert address.hostname is not None
        self._place = (address.hostname, address.port or 80)
        self._path, self._host, self._folder, self._vendor = address.path, address.netloc, folder, vendor
        self._lock = threading.Lock()
        self._done: SimpleQueue[tuple[str, int] | BaseException | None] = SimpleQueue()

    def batches(self, connections: int, worth: int) -> Iterator[list[str]]:
        """Batches of files of `worth` bytes, while the others are still being fetched; a batch's files are then removed."""
        with socket.create_connection(self._place) as connection:
            first, size = self._fetch(connection, 0)
        start = json.loads(Path(first).read_bytes())
        last = start["pagination"]["last_page"] if self._vendor == "screendesk" else -(-start["count"] // 100)
        numbers, batch, running = iter(range(1, last)), [first], connections
        self._start(numbers, connections)
        while running:
            got = self._done.get()
            if got is None:
                running -= 1
                continue
            if isinstance(got, BaseException):
                raise got
            batch.append(got[0])
            size += got[1]
            if size >= worth:
                yield batch
                for file in batch:
                    Path(file).unlink()
                batch, size = [], 0
        if batch:
            yield batch

    def _start(self, numbers: Iterator[int], connections: int) -> None:
        for _ in range(connections):
            threading.Thread(target=self._work, args=(numbers,), daemon=True).start()

    def _work(self, numbers: Iterator[int]) -> None:
        try:
            with socket.create_connection(self._place) as connection:
                while (number := self._next(numbers)) is not None:
                    self._done.put(self._fetch(connection, number))
            self._done.put(None)
        except BaseException as error:
            self._done.put(error)
            raise

    def _next(self, numbers: Iterator[int]) -> int | None:
        with self._lock:
            return next(numbers, None)

    def _fetch(self, connection: socket.socket, number: int) -> tuple[str, int]:
        connection.sendall(f"GET {self._path}?{self._query(number)} HTTP/1.1\r\nHost: {self._host}\r\n\r\n".encode())
        return self._keep(number, read_reply(connection))

    def _query(self, number: int) -> str:
        return f"page={number + 1}" if self._vendor == "screendesk" else f"limit=100&offset={number * 100}"

    def _keep(self, number: int, body: bytes | bytearray) -> tuple[str, int]:
        file = self._folder / f"{number}.json"
        file.write_bytes(body)
        return str(file), len(body)


class HttpxFetcher(Fetcher):
    """The same with httpx, in one event loop."""

    def _start(self, numbers: Iterator[int], connections: int) -> None:
        threading.Thread(target=lambda: asyncio.run(self._fetch_all(numbers, connections)), daemon=True).start()

    async def _fetch_all(self, numbers: Iterator[int], connections: int) -> None:
        limits = httpx.Limits(max_connections=connections)
        async with httpx.AsyncClient(base_url=f"http://{self._host}", limits=limits, timeout=60) as client:
            await asyncio.gather(*(self._worker(client, numbers) for _ in range(connections)))

    async def _worker(self, client: httpx.AsyncClient, numbers: Iterator[int]) -> None:
        try:
            for number in numbers:
                reply = await client.get(f"{self._path}?{self._query(number)}")
                reply.raise_for_status()
                self._done.put(self._keep(number, reply.content))
            self._done.put(None)
        except BaseException as error:
            self._done.put(error)
            raise


def read_reply(connection: socket.socket) -> bytearray:
    """The body of one reply with a content length."""
    head = connection.recv(1 << 16)
    while b"\r\n\r\n" not in head:
        head += connection.recv(1 << 16)
    fields, _, rest = head.partition(b"\r\n\r\n")
    if not fields.startswith(b"HTTP/1.1 200 "):
        raise RuntimeError(fields.decode("latin-1"))
    length = int(fields.lower().split(b"content-length:")[1].split(b"\r\n")[0])
    body = bytearray(length)
    body[: len(rest)] = rest
    view, filled = memoryview(body), len(rest)
    while filled < length:
        got = connection.recv_into(view[filled:])
        if not got:
            raise RuntimeError("the server closed the connection")
        filled += got
    return body


if __name__ == "__main__":
    main()

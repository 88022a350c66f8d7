"""The private database seen from outside dlt: known rows, receipts, runs, quarantine, drift and origins.

Every function opens a connection and closes it before it returns, because dlt opens the same file in between.
"""

import hashlib
import secrets
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import duckdb

from pipelines.database import connect
from sources._http import Traffic
from sources._known import NONE, Known, words_of
from sources._plan import History, Outcome
from sources._policy import TOMBSTONE
from sources._redact import Redactor
from sources._schema import Privacy, Table
from sources._tables import FURTHER_PATHS, NEW_FIELD, Drift, Quarantined

DRIFT_PATHS: Final = 1_000
"""New fields of one table that `ops.drift` names: a vendor that uses ids as names would add to it for ever."""
_KNOWN_AT_A_TIME: Final = 50_000

_DDL: Final = """
CREATE SCHEMA IF NOT EXISTS ops;
CREATE TABLE IF NOT EXISTS ops.runs (
    run_id VARCHAR PRIMARY KEY,
    started_at TIMESTAMPTZ NOT NULL,
    finished_at TIMESTAMPTZ,
    status VARCHAR NOT NULL,
    exit_code INTEGER,
    vendors VARCHAR[] NOT NULL,
    skipped VARCHAR[] NOT NULL,
    "full" BOOLEAN NOT NULL,
    rows_written BIGINT,
    message VARCHAR,
    version VARCHAR NOT NULL,
    pid BIGINT NOT NULL
);
CREATE TABLE IF NOT EXISTS ops.receipts (
    run_id VARCHAR NOT NULL,
    vendor VARCHAR NOT NULL,
    table_name VARCHAR NOT NULL,
    vendor_count BIGINT,
    distinct_read BIGINT NOT NULL,
    live_rows BIGINT NOT NULL,
    inserted BIGINT NOT NULL,
    updated BIGINT NOT NULL,
    deleted BIGINT NOT NULL,
    unchanged BIGINT NOT NULL,
    quarantined BIGINT NOT NULL,
    passes BIGINT NOT NULL,
    requests BIGINT NOT NULL,
    retries BIGINT NOT NULL,
    throttled_seconds DOUBLE NOT NULL,
    bytes_read BIGINT NOT NULL,
    complete BOOLEAN NOT NULL,
    reason VARCHAR NOT NULL,
    cursor_before VARCHAR,
    cursor_after VARCHAR,
    sweep_kind VARCHAR NOT NULL,
    sweep_reason VARCHAR NOT NULL,
    order_held BOOLEAN NOT NULL,
    started_at TIMESTAMPTZ NOT NULL,
    finished_at TIMESTAMPTZ NOT NULL,
    suppressed BIGINT,
    PRIMARY KEY (run_id, table_name)
);
ALTER TABLE ops.receipts ADD COLUMN IF NOT EXISTS suppressed BIGINT;
CREATE TABLE IF NOT EXISTS ops.drift (
    table_name VARCHAR NOT NULL,
    path VARCHAR NOT NULL,
    kind VARCHAR NOT NULL,
    found VARCHAR NOT NULL,
    occurrences BIGINT NOT NULL,
    first_run_id VARCHAR NOT NULL,
    last_run_id VARCHAR NOT NULL,
    first_seen_at TIMESTAMPTZ NOT NULL,
    last_seen_at TIMESTAMPTZ NOT NULL,
    PRIMARY KEY (table_name, path, kind, found)
);
CREATE TABLE IF NOT EXISTS ops.quarantine (
    record_digest VARCHAR PRIMARY KEY,
    table_name VARCHAR NOT NULL,
    reason VARCHAR NOT NULL,
    raw JSON NOT NULL,
    first_run_id VARCHAR NOT NULL,
    last_run_id VARCHAR NOT NULL,
    first_seen_at TIMESTAMPTZ NOT NULL,
    last_seen_at TIMESTAMPTZ NOT NULL
);
CREATE TABLE IF NOT EXISTS ops.replays (
    run_id VARCHAR NOT NULL,
    table_name VARCHAR NOT NULL,
    inserted BIGINT NOT NULL,
    updated BIGINT NOT NULL,
    after_run_id VARCHAR,
    replayed_at TIMESTAMPTZ NOT NULL,
    PRIMARY KEY (run_id, table_name)
);
CREATE TABLE IF NOT EXISTS ops.origins (
    vendor VARCHAR PRIMARY KEY,
    base_url VARCHAR NOT NULL,
    project_id VARCHAR NOT NULL,
    first_run_id VARCHAR NOT NULL,
    token_mark VARCHAR NOT NULL
);
CREATE OR REPLACE VIEW ops.freshness AS
WITH newest AS (
    SELECT * FROM ops.receipts QUALIFY row_number() OVER (PARTITION BY table_name ORDER BY rowid DESC) = 1
), newest_complete AS (
    SELECT * FROM ops.receipts WHERE complete
    QUALIFY row_number() OVER (PARTITION BY table_name ORDER BY rowid DESC) = 1
), replayed AS (
    SELECT table_name, after_run_id AS run_id, sum(inserted)::BIGINT AS inserted FROM ops.replays GROUP BY ALL
)
SELECT
    newest.vendor,
    newest.table_name,
    newest.live_rows + coalesce(replayed.inserted, 0) AS live_rows,
    newest_complete.started_at AS data_through,
    newest_complete.run_id AS last_complete_run,
    newest_complete.finished_at AS last_complete_at,
    newest.run_id AS last_run,
    newest.complete AS last_run_complete,
    newest.reason AS last_run_reason,
    newest.sweep_kind AS last_run_sweep
FROM newest
LEFT JOIN newest_complete USING (table_name)
LEFT JOIN replayed ON replayed.table_name = newest.table_name AND replayed.run_id = newest.run_id;
COMMENT ON TABLE ops.runs IS 'One row per run.';
COMMENT ON TABLE ops.receipts IS 'One row per run and table: what was read, what changed, and whether it is complete.';
COMMENT ON TABLE ops.drift IS 'One row per way in which a vendor''s JSON differs from the declared columns; path * counts the values of a table at all further paths, once it has too many.';
COMMENT ON TABLE ops.quarantine IS 'One row per record that has no usable key, as raw JSON with the reason.';
COMMENT ON TABLE ops.replays IS 'One row per `quarantine retry` and table: rows it loaded, and after which run.';
COMMENT ON TABLE ops.origins IS 'One row per vendor: the account this warehouse was filled from.';
COMMENT ON VIEW ops.freshness IS 'One row per table: how far its data reaches, and its last complete run.';
"""


@dataclass(frozen=True)
class Origin:
    """Where a vendor's rows come from.

    Attributes:
        base_url: the API's address.
        project_id: PostHog only: the project.
        token_mark: salted hash of the token that last read them, which tells another token from it and nothing else.
    """

    base_url: str
    project_id: str
    token_mark: str = ""

    def read_with(self, token: str) -> bool:
        """Whether this is the token that last read the rows."""
        salt = self.token_mark.partition("$")[0]
        return self.token_mark == _mark(token, salt)


def mark_of(token: str) -> str:
    """A token's salted hash."""
    return _mark(token, secrets.token_hex(8))


def _mark(token: str, salt: str) -> str:
    return f"{salt}${hashlib.blake2b(token.encode(), salt=salt.encode(), digest_size=8).hexdigest()}"


@dataclass(frozen=True)
class Receipt:
    """What a run did to one table, proven by counts."""

    vendor: str
    table_name: str
    vendor_count: int | None
    distinct_read: int
    live_rows: int
    inserted: int
    updated: int
    deleted: int
    unchanged: int
    quarantined: int
    passes: int
    traffic: Traffic
    complete: bool
    reason: str
    cursor_before: str | None
    cursor_after: str | None
    sweep_kind: str
    sweep_reason: str
    order_held: bool
    started_at: datetime
    finished_at: datetime
    suppressed: int = 0

    @property
    def written(self) -> int:
        """Root rows written to the warehouse."""
        return self.inserted + self.updated + self.deleted


def prepare(path: Path) -> None:
    """Create the private database and the `ops` tables where they are missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with connect(path) as con:
        con.execute(_DDL)


def origins(path: Path) -> dict[str, Origin]:
    """The account each vendor's rows come from; empty for a file without ledger."""
    with connect(path, read_only=True) as con:
        if not con.execute(
            "SELECT 1 FROM duckdb_tables() WHERE schema_name = 'ops' AND table_name = 'origins'"
        ).fetchall():
            return {}
        rows = con.execute("SELECT vendor, base_url, project_id, token_mark FROM ops.origins").fetchall()
    return {vendor: Origin(*origin) for vendor, *origin in rows}


def begin_run(path: Path, run_id: str, started_at: datetime, **columns: Any) -> None:
    """Write the run's row, and close those of runs that ended without saying so."""
    row = {"run_id": run_id, "started_at": started_at, "status": "running", **columns}
    with connect(path) as con:
        con.execute("UPDATE ops.runs SET status = 'interrupted' WHERE status = 'running'")
        _insert(con, "ops.runs", row)


def end_run(path: Path, run_id: str, **columns: Any) -> None:
    """Complete the run's row."""
    assignments = ", ".join(f'"{name}" = ?' for name in columns)
    with connect(path) as con:
        con.execute(f"UPDATE ops.runs SET {assignments} WHERE run_id = ?", [*columns.values(), run_id])


def remember_origins(path: Path, found: Mapping[str, Origin], run_id: str) -> None:
    """Note the account of each vendor the first time it is read."""
    with connect(path) as con:
        for vendor, origin in found.items():
            con.execute(
                "INSERT INTO ops.origins VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
                [vendor, origin.base_url, origin.project_id, run_id, origin.token_mark],
            )


def forget_origin(path: Path, vendor: str) -> None:
    """Forget the account of a vendor of which nothing was ever read."""
    with connect(path) as con:
        con.execute("DELETE FROM ops.origins WHERE vendor = ?", [vendor])


def remember_token(path: Path, vendor: str, token_mark: str) -> None:
    """Note the token that has read a vendor's rows."""
    with connect(path) as con:
        con.execute("UPDATE ops.origins SET token_mark = ? WHERE vendor = ?", [token_mark, vendor])


def history_of(path: Path, table: Table, *, same_token: bool) -> History:
    """What is known of a table: the rows the warehouse holds, and how its last runs went.

    The last receipt is the one written last, not the one dated latest: clocks jump.
    """
    name = table.qualified_name
    with connect(path, read_only=True) as con:
        known = _known(con, table)
        last = con.execute(
            "SELECT complete, cursor_after FROM ops.receipts WHERE table_name = ? ORDER BY rowid DESC LIMIT 1", [name]
        ).fetchall()
        full = con.execute(
            "SELECT started_at, order_held, quarantined, rowid FROM ops.receipts "
            "WHERE table_name = ? AND complete AND sweep_kind = 'full' ORDER BY rowid DESC LIMIT 1",
            [name],
        ).fetchall()
        replayed = bool(full) and _replayed_since(con, name, full[0][3])
    history = History(known=known, last_complete=bool(last and last[0][0]), same_token=same_token)
    if table.span and history.last_complete and last[0][1]:
        history.checkpoint = datetime.fromisoformat(last[0][1])
    if full and not replayed:
        history.last_full_at, history.order_held, history.quarantined = full[0][:3]
    return history


def _replayed_since(con: duckdb.DuckDBPyConnection, table: str, rowid: int) -> bool:
    """Whether rows came back from quarantine since a receipt: it counts them among the records without a key."""
    return bool(
        con.execute(
            "SELECT 1 FROM ops.replays JOIN ops.receipts ON receipts.table_name = replays.table_name "
            "AND receipts.run_id = after_run_id WHERE replays.table_name = ? AND receipts.rowid >= ? LIMIT 1",
            [table, rowid],
        ).fetchall()
    )


def _known(con: duckdb.DuckDBPyConnection, table: Table) -> Known:
    """The rows the warehouse holds."""
    columns = [f'"{table.key}" AS key', "_row_hash", "_deleted_at IS NOT NULL AS deleted"]
    dates = {"cursor": table.cursor, **dict(zip(("start", "stop"), table.span or (), strict=False))}
    for name, column in dates.items():
        date = f'epoch_us("{column}")' if column else "NULL"
        columns.append(f'coalesce({date}, ({NONE})::BIGINT) AS "{name}"')
    known = Known()
    found = con.execute(f"SELECT {', '.join(columns)} FROM {table.qualified_name}")
    for rows in found.to_arrow_reader(_KNOWN_AT_A_TIME):
        numbers = known.place(rows["key"])
        values = {name: rows[name].to_numpy(zero_copy_only=False) for name in rows.schema.names[2:]}
        known.write(numbers, words_of(rows["_row_hash"]), values["cursor"], deleted=values["deleted"])
        if table.span:
            known.note_spans(numbers, values["start"], values["stop"])
    return known


def note_findings(
    path: Path,
    run_id: str,
    now: datetime,
    drift: Mapping[Drift, int],
    quarantined: Sequence[Quarantined],
    *,
    redactor: Redactor,
) -> None:
    """Keep quarantined records and drift, without secrets; meeting the same again moves its `last_seen_at`."""
    if not drift and not quarantined:
        return
    with connect(path) as con:
        con.begin()
        # one statement for all: each of its own takes a block of memory until the transaction ends, and none may name
        # a row twice
        counts = Counter[tuple[str, str, str, str]]()
        for found, count in drift.items():
            counts[found.table, redactor.text(found.path), found.kind, found.found] += count
        if counts:
            noted = zip(*((*found, count) for found, count in _bounded(con, counts).items()), strict=True)
            con.execute(
                "INSERT INTO ops.drift SELECT unnest($1), unnest($2), unnest($3), unnest($4), unnest($5::BIGINT[]), "
                "$6, $6, $7, $7 ON CONFLICT DO UPDATE SET "
                "occurrences = occurrences + excluded.occurrences, last_run_id = excluded.last_run_id, "
                "last_seen_at = excluded.last_seen_at",
                [*map(list, noted), run_id, now],
            )
        records = {record.digest: record for record in quarantined}
        if records:
            kept = zip(*((d, r.table, r.reason, redactor.json(r.raw)) for d, r in records.items()), strict=True)
            con.execute(
                "INSERT INTO ops.quarantine SELECT unnest($1), unnest($2), unnest($3), unnest($4), $5, $5, $6, $6 "
                "ON CONFLICT DO UPDATE SET "
                "reason = excluded.reason, last_run_id = excluded.last_run_id, last_seen_at = excluded.last_seen_at",
                [*map(list, kept), run_id, now],
            )
        con.commit()


def _bounded(
    con: duckdb.DuckDBPyConnection, counts: Counter[tuple[str, str, str, str]]
) -> Counter[tuple[str, str, str, str]]:
    """Drift in which new fields beyond what a table may have are counted together; the most frequent are named first."""
    named = defaultdict[str, set[str]](set)
    for table, path in con.execute(
        "SELECT DISTINCT table_name, path FROM ops.drift WHERE kind = $1 AND table_name IN (SELECT unnest($2))",
        [NEW_FIELD, list({table for table, *_ in counts})],
    ).fetchall():
        named[table].add(path)
    bounded = Counter[tuple[str, str, str, str]]()
    for (table, path, kind, found), count in counts.most_common():
        if kind != NEW_FIELD or path in named[table] or len(named[table]) < DRIFT_PATHS:
            bounded[table, path, kind, found] = count
            if kind == NEW_FIELD:
                named[table].add(path)
        else:
            bounded[table, *FURTHER_PATHS] += count
    return bounded


def quarantine_sizes(path: Path, table: Table) -> list[tuple[str, int]]:
    """Digest and size of each of a table's records in quarantine, those seen last at the end."""
    with connect(path, read_only=True) as con:
        return con.execute(
            "SELECT record_digest, strlen(raw) FROM ops.quarantine WHERE table_name = ? ORDER BY last_seen_at, record_digest",
            [table.qualified_name],
        ).fetchall()


def quarantined(path: Path, digests: Sequence[str]) -> list[tuple[str, str]]:
    """Records in quarantine by digest, in this order, each with its digest."""
    with connect(path, read_only=True) as con:
        return con.execute(
            "SELECT record_digest, raw::VARCHAR FROM unnest(?) WITH ORDINALITY AS wanted(record_digest, place) "
            "JOIN ops.quarantine USING (record_digest) ORDER BY place",
            [list(digests)],
        ).fetchall()


def begin_replay(path: Path, run_id: str, table: Table, now: datetime) -> None:
    """Note that a run loads rows from a table's quarantine, before it does: light passes must not rely on older counts."""
    with connect(path) as con:
        con.execute(
            "INSERT INTO ops.replays SELECT ?, ?, 0, 0, "
            "(SELECT last(run_id ORDER BY rowid) FROM ops.receipts WHERE table_name = ?), ? ON CONFLICT DO NOTHING",
            [run_id, table.qualified_name, table.qualified_name, now],
        )


def settle_replay(
    path: Path,
    run_id: str,
    table: Table,
    *,
    inserted: int,
    updated: int,
    settled: Sequence[str],
    reasons: Mapping[str, str],
) -> None:
    """Count rows that came back from quarantine, take out what is `settled`, and keep why others stay, all or nothing."""
    with connect(path) as con:
        con.begin()
        con.execute(
            "UPDATE ops.replays SET inserted = inserted + ?, updated = updated + ? WHERE run_id = ? AND table_name = ?",
            [inserted, updated, run_id, table.qualified_name],
        )
        con.execute("DELETE FROM ops.quarantine WHERE record_digest IN (SELECT unnest(?))", [list(settled)])
        for digest, reason in reasons.items():
            con.execute("UPDATE ops.quarantine SET reason = ? WHERE record_digest = ?", [reason, digest])
        con.commit()


def settle(path: Path, run_id: str, outcomes: Sequence[Outcome], now: datetime) -> list[Receipt]:
    """Mark rows found gone and write the receipts, in one transaction."""
    receipts = []
    with connect(path) as con:
        con.begin()
        for outcome in outcomes:
            _mark_deleted(con, outcome, now)
            receipt = _receipt(con, outcome, now)
            _insert(con, "ops.receipts", {"run_id": run_id, **_receipt_columns(receipt)})
            receipts.append(receipt)
        con.commit()
    return receipts


def _mark_deleted(con: duckdb.DuckDBPyConnection, outcome: Outcome, now: datetime) -> None:
    if outcome.gone:
        table = outcome.table
        con.execute(
            f"UPDATE {table.qualified_name} SET _deleted_at = ?, _loaded_at = ? "
            f'WHERE "{table.key}" IN (SELECT unnest(?)) AND _deleted_at IS NULL',
            [now, now, outcome.gone],
        )


def _receipt(con: duckdb.DuckDBPyConnection, outcome: Outcome, now: datetime) -> Receipt:
    name = outcome.table.qualified_name
    live = _one(con, f"SELECT count(*) FROM {name} WHERE _deleted_at IS NULL")
    before = _one(
        con,
        "SELECT last(cursor_after ORDER BY rowid) FROM ops.receipts WHERE table_name = ? AND complete",
        [name],
    )
    complete, reason = outcome.complete, outcome.reason
    if complete and live != outcome.expected_live:
        complete = False
        reason = f"the warehouse holds {live} live rows and should hold {outcome.expected_live}"
    after = _iso(outcome.newest_cursor) if complete else before
    return Receipt(
        vendor=outcome.table.schema,
        table_name=name,
        vendor_count=outcome.vendor_count,
        distinct_read=outcome.distinct_read,
        live_rows=live,
        inserted=outcome.inserted,
        updated=outcome.updated,
        deleted=len(outcome.gone),
        unchanged=outcome.unchanged,
        quarantined=outcome.quarantined,
        passes=outcome.passes,
        traffic=outcome.traffic,
        complete=complete,
        reason=reason,
        cursor_before=before,
        cursor_after=after,
        sweep_kind=outcome.sweep_kind,
        sweep_reason=outcome.sweep_reason,
        order_held=outcome.order_held,
        started_at=outcome.started_at,
        finished_at=outcome.finished_at or now,
        suppressed=_suppressed(con, outcome.table),
    )


def _suppressed(con: duckdb.DuckDBPyConnection, table: Table) -> int:
    """Live rows whose key was an erased person: a pseudonym in their place lets the vendor's count hold."""
    if table.key_column.privacy is not Privacy.PERSONAL:
        return 0
    erased = f"starts_with(\"{table.key}\", '{TOMBSTONE}')"
    return int(_one(con, f"SELECT count(*) FROM {table.qualified_name} WHERE _deleted_at IS NULL AND {erased}"))


def _receipt_columns(receipt: Receipt) -> dict[str, Any]:
    columns = {name: value for name, value in vars(receipt).items() if name != "traffic"}
    traffic = receipt.traffic
    return {
        **columns,
        "requests": traffic.requests,
        "retries": traffic.retries,
        "throttled_seconds": round(traffic.throttled_seconds, 3),
        "bytes_read": traffic.bytes_read,
    }


def _insert(con: duckdb.DuckDBPyConnection, table: str, row: Mapping[str, Any]) -> None:
    names = ", ".join(f'"{name}"' for name in row)
    con.execute(f"INSERT INTO {table} ({names}) VALUES ({', '.join('?' * len(row))})", list(row.values()))


def _one(con: duckdb.DuckDBPyConnection, sql: str, values: Sequence[Any] = ()) -> Any:
    return con.execute(sql, list(values)).fetchall()[0][0]


def _iso(microseconds: int | None) -> str | None:
    if microseconds is None:
        return None
    return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=microseconds)).isoformat(timespec="microseconds")

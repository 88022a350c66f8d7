"""`deskhouse query`, `deskhouse export` and the helper they share with notebooks."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import threading
from typing import TYPE_CHECKING

import duckdb
import pyarrow.parquet as pq
import pytest
from conftest import DESKHOUSE, Desk, small_world

from pipelines.opening import NothingPublishedError, open_published
from sandbox.server import SandboxServer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sandbox.world import World

COUNT = "SELECT count(*) FROM analytics.support_sessions"
TEXTS = """
UPDATE analytics.support_sessions
SET title = '=HYPERLINK("http://evil.example")', started_at = TIMESTAMPTZ '2026-07-01 22:30:00+00'
WHERE session_key = (SELECT min(session_key) FROM analytics.support_sessions WHERE title IS NOT NULL);
UPDATE analytics.support_sessions SET title = 'Zoë, "quoted"' || chr(10) || 'second line'
WHERE session_key = (SELECT max(session_key) FROM analytics.support_sessions WHERE title IS NOT NULL);
UPDATE ops.models SET timezone = 'Europe/Berlin';
"""


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    """A desk at which one sync was run; tests here only read."""
    desk = Desk(tmp_path_factory.mktemp("query"))
    with SandboxServer(small_world()) as server:
        desk.environment = server.environment()
        desk.sync()
    desk.environment = {}
    yield desk
    assert list(desk.home.rglob("*")) == []
    assert list(desk.scratch.rglob("*")) == []
    assert {path.name for path in desk.cwd.iterdir()} == {"warehouse"}


def _reader(desk: Desk) -> duckdb.DuckDBPyConnection:
    return duckdb.connect(str(desk.published), read_only=True)


@pytest.mark.parametrize("form", ["csv", "json", "parquet"])
def test_a_query_gives_every_row_in_order_in_each_format(loaded: Desk, tmp_path: Path, form: str) -> None:
    sql = "SELECT session_key, duration_seconds FROM analytics.support_sessions ORDER BY session_key DESC; -- a comment"
    file = tmp_path / f"answer.{form}"
    done = loaded.run("query", sql, "--output", str(file))
    assert done.code == 0, done.output
    assert done.output == ""
    with _reader(loaded) as reader:
        expected = reader.execute(sql).fetchall()
    if form == "parquet":
        found = [tuple(row.values()) for row in pq.read_table(file).to_pylist()]
    elif form == "json":
        found = [tuple(row.values()) for row in json.loads(file.read_text())]
    else:
        lines = list(csv.reader(io.StringIO(file.read_text())))
        assert lines[0] == ["session_key", "duration_seconds"]
        found = [(key, int(seconds) if seconds else None) for key, seconds in lines[1:]]
    assert found == expected
    assert [path.name for path in tmp_path.iterdir()] == [file.name]


def test_standard_output_gets_the_same_bytes_as_a_file_and_loses_none_that_were_there(
    loaded: Desk, tmp_path: Path
) -> None:
    """A redirected standard output must not be opened anew, which would cut what is in it."""
    file, redirected = tmp_path / "answer.csv", tmp_path / "redirected.csv"
    sql = "SELECT * FROM analytics.tickets ORDER BY ticket_key"
    assert loaded.run("query", sql, "--output", str(file)).code == 0
    with redirected.open("wb") as out:
        out.write(b"first\n")
        out.flush()
        subprocess.run(
            [str(DESKHOUSE), "query", sql, "--format", "csv"],
            stdout=out,
            check=True,
            cwd=loaded.cwd,
            env=loaded._environment(),
        )
    assert redirected.read_bytes() == b"first\n" + file.read_bytes()


def test_a_table_away_from_a_terminal_is_not_shortened(loaded: Desk) -> None:
    done = loaded.run("query", "SELECT * FROM analytics.support_sessions ORDER BY session_key")
    with _reader(loaded) as reader:
        keys = [key for (key,) in reader.execute("SELECT session_key FROM analytics.support_sessions").fetchall()]
    assert all(key in done.stdout for key in keys)
    assert "is_open" in done.stdout


@pytest.mark.parametrize(
    "sql",
    [
        "DESCRIBE analytics.tickets",
        "SHOW ALL TABLES",
        "SUMMARIZE analytics.tickets",
        "PIVOT analytics.daily_activity ON kind USING sum(sessions) GROUP BY local_day",
        "WITH a AS (SELECT 1 AS b) FROM a",
        "FROM analytics.tickets LIMIT 1",
    ],
)
def test_every_kind_of_statement_that_reads_can_be_written_as_csv(loaded: Desk, sql: str) -> None:
    done = loaded.run("query", sql, "--format", "csv")
    assert done.code == 0, done.output
    assert len(done.stdout.splitlines()) > 1
    assert loaded.run("query", f"EXPLAIN {sql}" if sql.startswith("FROM") else sql).code == 0


@pytest.mark.parametrize(
    ("sql", "says"),
    [
        ("DROP TABLE analytics.tickets", "DROP statement"),
        ("CREATE TABLE memory.main.x AS SELECT 1", "CREATE statement"),
        ("INSERT INTO analytics.tickets SELECT * FROM analytics.tickets", "INSERT statement"),
        ("COPY analytics.tickets TO 'stolen.csv'", "COPY"),
        ("SELECT 1) TO 'stolen.csv' (FORMAT csv) --", "syntax error"),
        ("ATTACH 'x.duckdb'", "ATTACH statement"),
        ("SET enable_external_access = true", "SET statement"),
        ("SELECT * FROM read_text('/etc/hostname')", "disabled by configuration"),
        ("SELECT * FROM 'warehouse/work/deskhouse.duckdb'", "disabled by configuration"),
        ("SELECT * FROM glob('*')", "disabled by configuration"),
        ("SELECT * FROM statement", "does not exist"),
        ("SELEC 1", "syntax error"),
        ("SELECT 1; SELECT 2", "one statement at a time"),
        ("SELECT nothing FROM analytics.tickets", "nothing"),
        (" ", "no SQL"),
    ],
    ids=lambda text: text[:30],
)
@pytest.mark.parametrize("form", ["table", "csv"])
def test_what_does_not_only_read_the_tables_is_refused_in_one_line(
    loaded: Desk, sql: str, says: str, form: str
) -> None:
    done = loaded.run("query", sql, "--format", form)
    assert done.code == 2
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert says in done.stderr


def test_a_file_that_cannot_be_written_is_said_and_what_was_there_stays(loaded: Desk, tmp_path: Path) -> None:
    kept = tmp_path / "kept.csv"
    kept.write_text("before")
    assert loaded.run("query", "SELECT nope", "--output", str(kept)).code == 2
    assert kept.read_text() == "before"
    done = loaded.run("query", "SELECT 1", "--output", str(tmp_path / "no" / "where.csv"))
    assert done.code == 2
    assert "no folder" in done.stderr
    done = loaded.run("query", "SELECT 1", "--format", "parquet")
    assert done.code == 2
    assert "--output" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["kept.csv"]


def test_a_reader_that_stops_early_is_no_error(loaded: Desk) -> None:
    done = subprocess.run(
        f"{DESKHOUSE} query 'FROM range(300000)' --format csv | head -n 2",
        shell=True,
        capture_output=True,
        text=True,
        check=True,
        cwd=loaded.cwd,
        env=loaded._environment(),
    )
    assert (done.stdout, done.stderr) == ("range\n0\n", "")


@pytest.mark.parametrize("command", [("query", "SELECT 1"), ("export", "out")])
def test_where_nothing_is_published_one_line_says_what_to_do(tmp_path: Path, command: tuple[str, ...]) -> None:
    done = Desk(tmp_path).run(*command)
    assert done.code == 1
    assert "deskhouse sync" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("form", ["parquet", "csv"])
def test_an_export_holds_every_row_of_every_table_and_nothing_of_ours(loaded: Desk, tmp_path: Path, form: str) -> None:
    out = tmp_path / "out"
    (out / "analytics").mkdir(parents=True)
    (out / "analytics" / "notes.txt").write_text("mine")
    for _ in range(2):
        assert loaded.run("export", str(out), "--format", form).code == 0
    files = {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()} - {"analytics/notes.txt"}
    with _reader(loaded) as reader:
        tables = reader.execute(
            "SELECT table_schema, table_name FROM information_schema.tables"
            " WHERE table_schema IN ('analytics', 'screendesk', 'getscreen', 'posthog') AND table_name NOT LIKE '\\_dlt%' ESCAPE '\\'"
        ).fetchall()
        assert files == {f"{schema}/{table}.{form}" for schema, table in tables}
        assert ("analytics", "freshness") in tables
        for schema, table in tables:
            file = out / schema / f"{table}.{form}"
            reading = f"read_parquet('{file}')" if form == "parquet" else f"read_csv('{file}', all_varchar = true)"
            both = duckdb.sql(f"SELECT count(*) FROM {reading}").fetchall()
            assert both == reader.execute(f"SELECT count(*) FROM {schema}.{table}").fetchall(), table
    assert (out / "analytics" / "notes.txt").read_text() == "mine"


def test_parquet_keeps_types_and_values(loaded: Desk, tmp_path: Path) -> None:
    assert loaded.run("export", str(tmp_path)).code == 0
    file = tmp_path / "analytics" / "support_sessions.parquet"
    with _reader(loaded) as reader:
        differing = reader.execute(
            f"(FROM read_parquet('{file}') EXCEPT FROM analytics.support_sessions)"
            f" UNION ALL (FROM analytics.support_sessions EXCEPT FROM read_parquet('{file}'))"
        ).fetchall()
        assert differing == []
        types = "SELECT column_name, column_type FROM (DESCRIBE FROM {})"
        assert (
            reader.execute(types.format(f"read_parquet('{file}')")).fetchall()
            == reader.execute(types.format("analytics.support_sessions")).fetchall()
        )


def test_csv_for_excel_is_marked_as_utf8_has_local_times_and_runs_no_formula(
    loaded: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = Desk(tmp_path)
    generation = desk.warehouse / "generations" / (loaded.warehouse / "current").resolve().name
    generation.parent.mkdir(parents=True)
    subprocess.run(["cp", "-r", (loaded.warehouse / "current").resolve(), generation], check=True)
    (desk.warehouse / "current").symlink_to(generation)
    with duckdb.connect(str(generation / "deskhouse.duckdb")) as connection:
        connection.execute(TEXTS)
    assert desk.run("export", str(tmp_path / "out"), "--format", "csv", "--excel").code == 0
    raw = (tmp_path / "out" / "analytics" / "support_sessions.csv").read_bytes()
    assert raw.startswith(b"\xef\xbb\xbf")
    rows = list(csv.DictReader(io.StringIO(raw.decode("utf-8-sig"), newline="")))
    assert any(row["title"] == 'Zoë, "quoted"\nsecond line' for row in rows)
    (formula,) = [row for row in rows if "evil.example" in row["title"]]
    assert formula["title"].startswith("'=HYPERLINK")
    assert formula["started_at"] == "2026-07-02 00:30:00"
    assert desk.run("export", str(tmp_path / "out"), "--excel").code == 2


def test_an_export_that_fails_leaves_the_files_that_were_there(loaded: Desk, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert loaded.run("export", str(out)).code == 0
    before = (out / "analytics" / "tickets.parquet").read_bytes()
    shutil_target = out / "screendesk"
    subprocess.run(["rm", "-r", shutil_target], check=True)
    shutil_target.write_text("a file where a folder should be")
    done = loaded.run("export", str(out))
    assert done.code == 1
    assert len(done.stderr.splitlines()) == 1
    assert (out / "analytics" / "tickets.parquet").read_bytes() == before
    assert not list(out.glob(".tmp-*"))


def test_an_open_reader_follows_publishes_keeps_its_own_tables_and_never_sees_half_a_load(tmp_path: Path) -> None:
    """The helper's promise: attached read-only, refreshed at will, through quiet and busy syncs alike."""
    desk, world = Desk(tmp_path), small_world()
    with SandboxServer(world) as server:
        desk.environment = server.environment()
        desk.sync()
        with open_published(desk.warehouse) as reader, open_published(desk.warehouse) as other:
            reader.connection.execute("CREATE TEMP TABLE mine AS SELECT 1 AS a")
            assert not reader.refresh()
            for step in range(3):
                _change(world, step)
                desk.sync()
                old = other.connection.execute(COUNT).fetchall()
                assert reader.refresh()
                assert reader.generation is not None
                assert reader.generation.path == (desk.warehouse / "current").resolve()
                expected = len(world.screendesk.recordings) + len(world.getscreen.connections)
                expected += len(world.posthog.desktop_recordings)
                live = reader.connection.execute(f"{COUNT} WHERE deleted_at IS NULL").fetchall()
                assert live == [(expected,)]
                assert other.connection.execute(COUNT).fetchall() == old
                runs = reader.connection.execute("SELECT count(*) FROM ops.runs").fetchall()
                assert runs == [(step + 2,)]
            assert reader.connection.execute("FROM mine").fetchall() == [(1,)]
            with pytest.raises(duckdb.InvalidInputException, match="read-only"):
                reader.connection.execute("DELETE FROM analytics.tickets")


def _change(world: World, step: int) -> None:
    # the middle one is quiet: its generation shares the database file and has a log of its own
    if step != 1:
        world.live_a_day()


def test_readers_that_open_refresh_and_close_while_syncs_run_never_fail(tmp_path: Path) -> None:
    desk, world = Desk(tmp_path), small_world()
    failures: list[BaseException] = []
    reads = 0
    done = threading.Event()

    def read() -> None:
        nonlocal reads
        with open_published(desk.warehouse) as published:
            while not done.is_set():
                try:
                    published.refresh()
                    published.connection.execute(
                        "SELECT count(*), sum(sessions) FROM analytics.support_sessions, analytics.daily_activity"
                    ).fetchall()
                    with open_published(desk.warehouse) as second:
                        second.connection.execute(COUNT).fetchall()
                    reads += 1
                except BaseException as error:  # noqa: BLE001 - handed to the test
                    failures.append(error)
                    return

    with SandboxServer(world) as server:
        desk.environment = server.environment()
        desk.sync()
        threads = [threading.Thread(target=read) for _ in range(2)]
        for thread in threads:
            thread.start()
        try:
            for _ in range(3):
                world.live_a_day()
                desk.sync()
        finally:
            done.set()
            for thread in threads:
                thread.join()
    assert failures == []
    assert reads > 3


def test_the_time_zone_is_that_of_the_published_tables(loaded: Desk) -> None:
    """A reader in another zone must cut days where the tables do."""
    with open_published(loaded.warehouse) as published:
        assert published.connection.execute("SELECT current_setting('TimeZone')").fetchall() == [("UTC",)]


def test_an_unreadable_file_is_named(tmp_path: Path) -> None:
    generation = tmp_path / "generations" / "20260101T000000.000000Z-run"
    generation.mkdir(parents=True)
    (generation / "deskhouse.duckdb").write_bytes(b"not a database")
    (tmp_path / "current").symlink_to(generation)
    with pytest.raises(NothingPublishedError, match=r"current/deskhouse\.duckdb cannot be read"):
        open_published(tmp_path)

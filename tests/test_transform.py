"""The machinery under the models: order, errors, one transaction, comments, and when the work is skipped."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import duckdb
import pytest

from pipelines import ledger
from pipelines.database import connect
from pipelines.declare import declare_tables
from pipelines.model_files import MODELS_DIR, ModelFailed, load_models, order
from pipelines.model_queries import query_of
from pipelines.sync import ALL_TABLES
from pipelines.transform import check_timezone, run_models

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("template") / "deskhouse.duckdb"
    ledger.prepare(path)
    declare_tables(path, ALL_TABLES)
    with connect(path) as connection:
        connection.execute(
            "INSERT INTO screendesk.recordings (uuid, user__email, metadata__created_at, metadata__duration, _row_hash, "
            "_loaded_at, _dlt_load_id) VALUES ('r1', 'ann@desk.example', '2026-03-02 10:00:00+00', 60, 'h', now(), '1')"
        )
        connection.execute("CHECKPOINT")
    return path


@pytest.fixture
def connection(template: Path, tmp_path: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    shutil.copy(template, tmp_path / "deskhouse.duckdb")
    with connect(tmp_path / "deskhouse.duckdb") as opened:
        opened.execute("SET threads = 2")
        yield opened


def entry(*columns: str, checks: str = "", grain: str = "", about: str = "") -> str:
    listed = "".join(f"    {name}: {{description: A {name}.{about}}}\n" for name in columns)
    return f"  description: Things.\n  grain: [{grain or columns[0]}]\n  columns:\n{listed}{checks}"


def folder_of(tmp_path: Path, **models: tuple[str, str]) -> Path:
    """A folder of models: SQL and declaration by name."""
    folder = tmp_path / "models"
    folder.mkdir(exist_ok=True)
    for name, (sql, _) in models.items():
        (folder / f"{name}.sql").write_text(f"-- one row per thing\n{sql}\n", encoding="utf-8")
    declared = "".join(f"{name}:\n{declaration}" for name, (_, declaration) in models.items())
    (folder / "models.yml").write_text(declared, encoding="utf-8")
    return folder


def everything(connection: duckdb.DuckDBPyConnection) -> dict[str, Any]:
    """Rows of every table and view of the database, and their comments."""
    found: dict[str, Any] = {}
    for (name,) in connection.execute(
        "SELECT table_schema || '.' || table_name FROM information_schema.tables WHERE table_catalog = current_database()"
    ).fetchall():
        found[name] = connection.execute(f"SELECT * FROM {name} ORDER BY ALL").fetchall()
    found["comments"] = connection.execute(
        "SELECT schema_name, table_name, column_name, comment FROM duckdb_columns() "
        "WHERE comment IS NOT NULL AND database_name = current_database() ORDER BY ALL"
    ).fetchall()
    return found


def failure(connection: duckdb.DuckDBPyConnection, folder: Path) -> ModelFailed:
    with pytest.raises(ModelFailed) as raised:
        run_models(connection, folder=folder)
    return raised.value


# ---- reading and ordering


def test_a_query_reads_the_tables_it_names_and_not_its_own_parts() -> None:
    sql = "WITH a AS (SELECT * FROM x.y), b AS (SELECT * FROM a JOIN x.z USING (k)) SELECT * FROM b WHERE k IN (SELECT k FROM q.r)"
    assert query_of(sql).reads == ("q.r", "x.y", "x.z")


@pytest.mark.parametrize(
    "sql", ["SELECT 1; SELECT 2", "DROP TABLE x.y", "SELECT * FROM nowhere", "SELECT FROM WHERE", ""]
)
def test_what_is_not_one_query_on_named_tables_is_refused(tmp_path: Path, sql: str) -> None:
    with pytest.raises(ModelFailed, match="model thing"):
        load_models(folder_of(tmp_path, thing=(sql, entry("a"))))


def test_models_come_after_those_they_read(tmp_path: Path) -> None:
    folder = folder_of(
        tmp_path,
        a=("SELECT * FROM analytics.c", entry("x")),
        b=("SELECT 1 AS x", entry("x")),
        c=("SELECT * FROM analytics.b", entry("x")),
    )
    assert [model.name for model in order(load_models(folder))] == ["b", "c", "a"]


def test_a_circle_of_models_is_named(connection: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    folder = folder_of(
        tmp_path,
        a=("SELECT * FROM analytics.b", entry("x")),
        b=("SELECT * FROM analytics.c", entry("x")),
        c=("SELECT * FROM analytics.a", entry("x")),
    )
    told = str(failure(connection, folder))
    assert "circle" in told
    assert " -> ".join("abca") in told or " -> ".join("bcab") in told or " -> ".join("cabc") in told or "a -> c" in told


def test_a_model_that_reads_a_model_nobody_makes_is_named(
    connection: duckdb.DuckDBPyConnection, tmp_path: Path
) -> None:
    failed = failure(connection, folder_of(tmp_path, a=("SELECT * FROM analytics.b", entry("x"))))
    assert failed.model == "a"
    assert "analytics.b, which no model makes" in str(failed)


def test_a_raw_table_that_is_missing_is_named(connection: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    failed = failure(connection, folder_of(tmp_path, a=("SELECT 1 AS x FROM zendesk.tickets", entry("x"))))
    assert "model a reads zendesk.tickets, which this database does not have" in str(failed)


@pytest.mark.parametrize(
    ("sql", "declared", "told"),
    [
        pytest.param(
            "SELECT 1 AS a", "  grain: [a]\n  columns: {a: {description: A.}}\n", "no description", id="description"
        ),
        pytest.param("SELECT 1 AS a", entry("a", grain="b"), "grain names b", id="grain"),
        pytest.param("SELECT 1 AS a", entry("a", about=""", unqiue: true"""), "", id="typo"),
    ],
)
def test_a_declaration_that_says_too_little_or_nonsense_is_refused(
    tmp_path: Path, sql: str, declared: str, told: str
) -> None:
    if not told:
        declared, told = declared.replace(".}", "., unqiue: true}"), "unqiue"
    with pytest.raises(ModelFailed, match=told):
        load_models(folder_of(tmp_path, a=(sql, declared)))


def test_a_file_without_declaration_and_one_without_file_are_named(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, a=("SELECT 1 AS x", entry("x")), b=("SELECT 1 AS x", entry("x")))
    (folder / "b.sql").unlink()
    with pytest.raises(ModelFailed, match=r"models\.yml has it and b\.sql does not"):
        load_models(folder)
    (folder / "c.sql").write_text("-- one row per c\nSELECT 1 AS x", encoding="utf-8")
    (folder / "models.yml").write_text("a:\n" + entry("x"), encoding="utf-8")
    (folder / "b.sql").unlink(missing_ok=True)
    with pytest.raises(ModelFailed, match=r"c\.sql has it and models\.yml does not"):
        load_models(folder)


# ---- checks


CHECKS = {
    "null": ("SELECT NULL::INTEGER AS k, 'x' AS v", entry("k", "v"), "k is not null", ""),
    "twice": ("SELECT k, 'x' AS v FROM (VALUES (4), (4), (5)) t(k)", entry("k", "v"), "k is unique", "k=4"),
    "value": (
        "SELECT 4 AS k, 'x' AS v",
        entry("k", "v").replace("A v.", "A v., one_of: [y, z]"),
        "v is one of y, z",
        "k=4",
    ),
    "range": (
        "SELECT 4 AS k, 'x' AS v",
        entry("k", "v").replace("A k.", "A k., range: [5, null]"),
        "k is at least 5",
        "k=4",
    ),
    "reference": (
        "SELECT 4 AS k, 'x' AS v",
        entry("k", "v").replace("A v.", "A v., references: good.name"),
        "v is in good.name",
        "k=4",
    ),
    "invariant": (
        "SELECT 4 AS k, 'x' AS v",
        entry(
            "k",
            "v",
            checks="  checks: [{name: all is well, meaning: it is not, sql: SELECT k FROM analytics.broken}]\n",
        ),
        "all is well",
        "k=4",
    ),
    "undeclared": ("SELECT 4 AS k, 'x' AS v, 1 AS more", entry("k", "v"), "columns", "more is not declared"),
}


@pytest.mark.parametrize("case", CHECKS)
def test_a_failed_check_names_itself_and_leaves_the_database_as_it_was(
    connection: duckdb.DuckDBPyConnection, tmp_path: Path, case: str
) -> None:
    """A half-made analytics schema, or a new one that fails its checks, must never be published."""
    sql, declared, check, shown = CHECKS[case]
    good = ("SELECT 'of the run before' AS name", entry("name"))
    sound = folder_of(tmp_path, good=good)
    run_models(connection, folder=sound)
    before = everything(connection)
    # good is made first: in a transaction of its own it would change
    changed = ("SELECT 'of the failed run' AS name", entry("name"))
    failed = failure(connection, folder_of(tmp_path, good=changed, broken=(sql, declared)))
    assert (failed.model, failed.check) == ("broken", check)
    assert check in str(failed)
    assert shown in str(failed)
    assert everything(connection) == before


def test_a_failed_check_shows_no_address_of_a_person(connection: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    sql = "SELECT user__email AS email, n AS part FROM screendesk.recordings, (VALUES (1), (1)) t(n)"
    declared = entry("email", "part", grain="email, part").replace("A email.", "A email., privacy: personal")
    told = str(failure(connection, folder_of(tmp_path, a=(sql, declared))))
    assert "part=1, email=(personal)" in told
    assert "desk.example" not in told


@pytest.mark.parametrize(
    ("sql", "told"),
    [
        pytest.param("SELECT nothing AS x FROM screendesk.recordings", "nothing", id="unknown column"),
        pytest.param(
            "SELECT CAST(user__email AS INTEGER) AS x FROM screendesk.recordings", "ConversionException", id="value"
        ),
    ],
)
def test_sql_that_fails_names_its_model_and_quotes_no_value(
    connection: duckdb.DuckDBPyConnection, tmp_path: Path, sql: str, told: str
) -> None:
    before = everything(connection)
    failed = failure(connection, folder_of(tmp_path, a=(sql, entry("x"))))
    assert failed.model == "a"
    assert told in str(failed)
    assert "ann@" not in str(failed)
    assert everything(connection) == before


def test_a_model_that_loses_a_session_does_not_reconcile(connection: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    """The invariants themselves must bite: a join that drops rows is what they are for."""
    folder = tmp_path / "models"
    shutil.copytree(MODELS_DIR, folder)
    path = folder / "support_sessions.sql"
    path.write_text(
        path.read_text("utf-8").replace("LEFT JOIN call_participants", "INNER JOIN call_participants"), encoding="utf-8"
    )
    failed = failure(connection, folder)
    assert (failed.model, failed.check) == ("support_sessions", "live rows are the vendors' live rows")
    assert "vendor=screendesk, raw_rows=1, sessions=0" in str(failed)


# ---- running


def test_every_table_and_column_is_described_in_the_database(connection: duckdb.DuckDBPyConnection) -> None:
    run_models(connection)
    declared = {(model.name, column.name): column.description for model in load_models() for column in model.columns}
    found = connection.execute(
        "SELECT table_name, column_name, comment FROM duckdb_columns() WHERE schema_name = 'analytics'"
    ).fetchall()
    assert {(table, column): comment for table, column, comment in found} == declared
    assert all(text.endswith(".") and len(text) > 4 for text in declared.values())
    about = connection.execute(
        "SELECT table_name, comment FROM duckdb_tables() WHERE schema_name = 'analytics' "
        "UNION ALL SELECT view_name, comment FROM duckdb_views() WHERE schema_name = 'analytics'"
    ).fetchall()
    assert dict(about) == {model.name: model.description for model in load_models()}


def test_a_run_on_the_same_rows_is_skipped_and_on_others_is_not(
    connection: duckdb.DuckDBPyConnection, tmp_path: Path
) -> None:
    """A skipped run on changed rows would publish old numbers as new."""

    folder = folder_of(tmp_path, a=("SELECT 1 AS x", entry("x")), b=("SELECT 1 AS x", entry("x") + "  view: true\n"))

    def runs_again() -> bool:
        return not run_models(connection, folder=folder).unchanged

    assert runs_again()
    assert not runs_again()
    insert = (
        "INSERT INTO screendesk.users (email, _row_hash, _loaded_at, _dlt_load_id) VALUES ('a', '1', '2020-01-01', '1')"
    )
    for change in (
        insert,
        "UPDATE screendesk.users SET _row_hash = '2'",
        "UPDATE screendesk.users SET _deleted_at = now()",
        "UPDATE screendesk.users SET _deleted_at = NULL",
        "INSERT INTO getscreen.connections__client (connection_id, _dlt_list_idx, _dlt_load_id) VALUES (1, 0, '1')",
        "DELETE FROM getscreen.connections__client",
        "DROP TABLE analytics.a",
        "DROP VIEW analytics.b",
    ):
        connection.execute(change)
        assert runs_again(), change
        assert not runs_again(), change
    assert not run_models(connection, folder=folder, timezone="Europe/Berlin").unchanged
    assert not run_models(connection, folder=folder, timezone="Europe/Berlin", force=True).unchanged
    folder_of(tmp_path, a=("SELECT 2 AS x", entry("x")), b=("SELECT 1 AS x", entry("x") + "  view: true\n"))
    assert not run_models(connection, folder=folder, timezone="Europe/Berlin").unchanged


def test_only_tables_whose_own_inputs_changed_are_made_again(
    connection: duckdb.DuckDBPyConnection, tmp_path: Path
) -> None:
    """A table kept although something it is made from changed, however far back, would show old numbers for ever."""
    view = entry("x") + "  view: true\n"
    models = {
        "calls": ("SELECT count(*) AS x FROM getscreen.connections__client", entry("x")),
        "meetings": ("SELECT count(*) AS x FROM posthog.desktop_recordings", entry("x")),
        "of_meetings": ("SELECT x FROM analytics.meetings", entry("x")),
        "of_those": ("SELECT o.x + c.x AS x FROM analytics.of_meetings AS o, analytics.calls AS c", entry("x")),
        "runs": ("SELECT count(*) AS x FROM ops.runs", entry("x")),
        "seen": ("SELECT x FROM analytics.meetings", view),
    }
    folder = folder_of(tmp_path, **models)

    def kept(**options: Any) -> set[str]:
        run = run_models(connection, folder=folder, **options)
        made = {"of_those": run.rows["of_those"], "runs": run.rows["runs"], "seen": run.rows["seen"]}
        assert made == {"of_those": 1, "runs": 1, "seen": None}
        assert connection.execute("SELECT count(*), count(DISTINCT inputs) FROM ops.models").fetchall() == [(6, 1)]
        assert run_models(connection, folder=folder, **{**options, "force": False}).unchanged
        return set(run.kept)

    assert kept() == set()
    meeting = (
        "INSERT INTO posthog.desktop_recordings (id, _row_hash, _loaded_at, _dlt_load_id) VALUES ('m', '1', now(), '1')"
    )
    # what a model reads from the ledger has no fingerprint, so that is never kept
    for change, rest in (
        ("UPDATE screendesk.recordings SET _row_hash = 'other'", {"calls", "meetings", "of_meetings", "of_those"}),
        (meeting, {"calls"}),
        # made again, it has the same rows, so those made from it would have as well
        ("UPDATE posthog.desktop_recordings SET _deleted_at = now()", {"calls", "of_meetings", "of_those"}),
        # its list of operators is as empty as before
        (
            "INSERT INTO getscreen.connections (id, _row_hash, _loaded_at, _dlt_load_id) VALUES (1, '1', now(), '1')",
            {"calls", "meetings", "of_meetings", "of_those"},
        ),
        (
            "INSERT INTO getscreen.connections__client (connection_id, _dlt_list_idx, _dlt_load_id) VALUES (1, 0, '1')",
            {"meetings", "of_meetings"},
        ),
        ("DROP TABLE analytics.meetings CASCADE", {"calls", "of_meetings", "of_those"}),
    ):
        connection.execute(change)
        assert kept() == rest, change
        assert (
            connection.execute("SELECT x FROM analytics.of_those").fetchall()
            == connection.execute(
                "SELECT (SELECT count(*) FROM posthog.desktop_recordings)"
                " + (SELECT count(*) FROM getscreen.connections__client)"
            ).fetchall()
        )
    folder_of(
        tmp_path, **{**models, "meetings": ("SELECT count(*) + 0 AS x FROM posthog.desktop_recordings", entry("x"))}
    )
    assert kept() == {"calls", "of_meetings", "of_those"}
    assert kept(timezone="Europe/Berlin") == set()
    assert kept(timezone="Europe/Berlin", force=True) == set()
    connection.execute("ALTER TABLE ops.models DROP COLUMN made_from")
    connection.execute("UPDATE screendesk.recordings SET _row_hash = 'third'")
    assert kept(timezone="Europe/Berlin") == set()


def test_a_kept_table_is_still_checked_against_those_made_again(
    connection: duckdb.DuckDBPyConnection, tmp_path: Path
) -> None:
    """Its rows are the same, but what they point at may be gone."""
    models = {
        "owners": ("SELECT user__email AS email FROM screendesk.recordings", entry("email")),
        "pointing": (
            "SELECT 'ann@desk.example' AS email FROM range(1)",
            entry("email").replace("A email.", "A email., references: owners.email"),
        ),
    }
    folder = folder_of(tmp_path, **models)
    run_models(connection, folder=folder)
    connection.execute("UPDATE screendesk.recordings SET user__email = 'bob@desk.example', _row_hash = 'other'")
    failed = failure(connection, folder)
    assert (failed.model, failed.check) == ("pointing", "email is in owners.email")


def test_a_renamed_model_leaves_no_table_behind(connection: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    run_models(
        connection, folder=folder_of(tmp_path, old=("SELECT 1 AS x", entry("x")), both=("SELECT 1 AS x", entry("x")))
    )
    shutil.rmtree(tmp_path / "models")
    view = entry("x") + "  view: true\n"
    run_models(connection, folder=folder_of(tmp_path, new=("SELECT 1 AS x", entry("x")), both=("SELECT 2 AS x", view)))
    assert connection.execute(
        "SELECT table_name, table_type FROM information_schema.tables WHERE table_schema = 'analytics' ORDER BY ALL"
    ).fetchall() == [("both", "VIEW"), ("new", "BASE TABLE")]
    assert connection.execute("SELECT model, row_count FROM ops.models ORDER BY ALL").fetchall() == [
        ("both", None),
        ("new", 1),
    ]


def test_settings_of_the_connection_are_as_they_were(connection: duckdb.DuckDBPyConnection) -> None:
    """Raw tables written without the compressions that models do without would be twice as large."""
    connection.execute("SET TimeZone = 'Asia/Tokyo'")
    names = ("preserve_insertion_order", "disabled_compression_methods", "TimeZone")
    read = f"SELECT {', '.join(f'current_setting({name!r})' for name in names)}"
    before = connection.execute(read).fetchall()
    run_models(connection)
    assert connection.execute(read).fetchall() == before
    assert connection.execute("SELECT local_day::VARCHAR FROM analytics.support_sessions").fetchall() == [
        ("2026-03-02",)
    ]


def test_the_published_view_needs_no_particular_connection(
    connection: duckdb.DuckDBPyConnection, tmp_path: Path
) -> None:
    """Readers attach the file under any name: a view bound to ours would fail for them."""
    run_models(connection)
    connection.close()
    with duckdb.connect() as reader:
        reader.execute(f"ATTACH '{tmp_path / 'deskhouse.duckdb'}' AS elsewhere (READ_ONLY)")
        assert len(reader.execute("SELECT * FROM elsewhere.analytics.freshness").fetchall()) == len(ALL_TABLES)


@pytest.mark.parametrize("name", ["UTC", "Europe/Berlin", "America/Argentina/Buenos_Aires"])
def test_known_time_zones_are_accepted(name: str) -> None:
    assert check_timezone(name) == name


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("Berlin", "Europe/Berlin"),
        ("europe/berlin", "Europe/Berlin"),
        ("CEST", ""),
        ("+02:00", ""),
        ("", ""),
        ("x'; DROP", ""),
    ],
)
def test_other_time_zones_are_refused_before_anything_is_touched(
    connection: duckdb.DuckDBPyConnection, name: str, hint: str
) -> None:
    before = everything(connection)
    with pytest.raises(ValueError, match="no time zone") as raised:
        check_timezone(name)
    assert hint in str(raised.value)
    with pytest.raises(ModelFailed, match="no time zone"):
        run_models(connection, timezone=name)
    assert everything(connection) == before


def test_a_kill_while_models_are_made_leaves_the_tables_of_the_run_before(
    connection: duckdb.DuckDBPyConnection, tmp_path: Path
) -> None:
    """Catches models that commit one by one: some tables would be of one run and some of another."""
    run_models(connection)
    before = everything(connection)
    connection.execute("UPDATE screendesk.recordings SET _row_hash = 'other', metadata__duration = 99")
    connection.close()
    database = tmp_path / "deskhouse.duckdb"
    script = (
        "import os, signal, sys\nfrom pathlib import Path\nfrom pipelines import transform\nfrom pipelines.database import connect\n"
        "real = transform.check_model\n"
        "def dies(connection, model):\n    real(connection, model)\n"
        "    if model.name == 'tickets':\n        os.kill(os.getpid(), signal.SIGKILL)\n"
        "transform.check_model = dies\n"
        "with connect(Path(sys.argv[1])) as connection:\n    transform.run_models(connection)\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(database)], env=os.environ, check=False, timeout=60)
    assert done.returncode == -9
    with connect(database) as again:
        after = everything(again)
    analytics: Mapping[str, Any] = {
        name: rows for name, rows in before.items() if name.startswith(("analytics.", "ops."))
    }
    assert {name: after[name] for name in analytics} == analytics


class Watched:
    """A connection that notes what DuckDB may hold at each commit."""

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self._connection = connection
        self.limits: list[str] = []

    def commit(self) -> None:
        self.limits.append(memory_limit(self._connection))
        self._connection.commit()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)


def memory_limit(connection: duckdb.DuckDBPyConnection) -> str:
    ((limit,),) = connection.execute("SELECT current_setting('memory_limit')").fetchall()
    return str(limit)


def test_models_are_committed_with_all_memory_there_is(connection: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    """A commit that runs out of memory leaves DuckDB's tables in disorder, and the run with another error than planned for."""
    before = memory_limit(connection)
    watched: Any = Watched(connection)
    folder = folder_of(tmp_path, a=("SELECT 1 AS x", entry("x")))
    assert not run_models(watched, folder=folder, memory="100MB").unchanged
    assert (watched.limits, memory_limit(connection)) == ([before], before)
    with pytest.raises(ModelFailed):
        run_models(watched, folder=folder_of(tmp_path, a=("SELECT 1 / 0 AS y", entry("x"))), memory="100MB")
    assert memory_limit(connection) == before

"""Other tools' ways in, while syncs go on: SQLAlchemy as Superset uses it, dbt, and what docs/bi says."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import duckdb
import pytest
from conftest import Desk, small_world

from pipelines import dbt_sources
from pipelines.export import SCHEMAS
from sandbox.server import SandboxServer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sandbox.world import World

BI = Path(__file__).resolve().parent.parent / "docs" / "bi"
DBT = os.environ.get("DESKHOUSE_DBT")
TOOLS = ("Metabase", "Superset", "Evidence", "Grafana", "Rill", "Tableau", "Power BI", "Excel", "dbt")


@pytest.fixture
def filled(tmp_path: Path) -> Iterator[tuple[Desk, World]]:
    """A warehouse with one generation, and the world to fill it further from."""
    desk, world = Desk(tmp_path), small_world()
    with SandboxServer(world) as server:
        desk.environment = server.environment()
        desk.sync()
        yield desk, world


def test_charts_drawn_through_sqlalchemy_during_syncs_never_fail_and_show_each_new_generation(
    filled: tuple[Desk, World],
) -> None:
    """What Superset does for each chart: a connection of its own, read-only, through the link."""
    reason = "duckdb-engine is not installed; `make test` installs it"
    sqlalchemy = pytest.importorskip("sqlalchemy", reason=reason)
    pytest.importorskip("duckdb_engine", reason=reason)
    desk, world = filled
    engine = sqlalchemy.create_engine(
        f"duckdb:///{desk.published}", connect_args={"read_only": True}, poolclass=sqlalchemy.pool.NullPool
    )

    def ask(sql: str) -> list[tuple[object, ...]]:
        with engine.connect() as connection:
            return [tuple(row) for row in connection.execute(sqlalchemy.text(sql))]

    together = """
        SELECT (SELECT count(*) FROM analytics.support_sessions WHERE local_day IS NOT NULL),
               (SELECT sum(sessions) FROM analytics.daily_activity)
    """
    failures: list[object] = []
    charts = 0
    done = threading.Event()

    def draw() -> None:
        nonlocal charts
        while not done.is_set():
            try:
                ((sessions, summed),) = ask(together)
                if sessions != summed:
                    failures.append((sessions, summed))
            except BaseException as error:  # noqa: BLE001 - handed to the test
                failures.append(error)
                return
            charts += 1

    thread = threading.Thread(target=draw)
    thread.start()
    try:
        for _ in range(3):
            world.live_a_day()
            desk.sync()
            live = (
                len(world.screendesk.recordings)
                + len(world.getscreen.connections)
                + len(world.posthog.desktop_recordings)
            )
            assert ask("SELECT count(*) FROM analytics.support_sessions WHERE deleted_at IS NULL") == [(live,)]
    finally:
        done.set()
        thread.join()
    assert failures == []
    assert charts > 3
    inspector = sqlalchemy.inspect(engine)
    assert {f"deskhouse.{schema}" for schema in SCHEMAS} <= set(inspector.get_schema_names())
    assert "support_sessions" in inspector.get_table_names(schema="analytics")
    assert "session_key" in {column["name"] for column in inspector.get_columns("support_sessions", schema="analytics")}
    with pytest.raises(sqlalchemy.exc.DBAPIError, match="read-only"):
        ask("CREATE TABLE analytics.mine AS SELECT 1 AS a")
    assert not list(desk.published.parent.glob("*.wal"))


@pytest.mark.skipif(
    DBT is None,
    reason="dbt cannot share this environment (dbt-core 1.11 wants an older pathspec); `make test-dbt` runs this in its own",
)
def test_dbt_builds_on_the_published_tables_during_syncs(filled: tuple[Desk, World], tmp_path: Path) -> None:
    desk, world = filled
    project = tmp_path / "project"
    shutil.copytree(BI / "dbt", project)
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "DESKHOUSE_PUBLISHED": str(desk.published),
        "DESKHOUSE_TEAM": str(tmp_path / "team.duckdb"),
        "DO_NOT_TRACK": "1",
    }
    for _ in range(2):
        running = subprocess.Popen(
            [str(DBT), "build", "--profiles-dir", "."],
            cwd=project,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        world.live_a_day()
        desk.sync()
        output, _ = running.communicate(timeout=120)
        assert running.returncode == 0, output
    subprocess.run(
        [str(DBT), "run", "--profiles-dir", "."], cwd=project, env=environment, check=True, capture_output=True
    )
    with duckdb.connect(str(tmp_path / "team.duckdb"), read_only=True) as team:
        built = team.execute("SELECT sum(sessions) FROM weekly_agents").fetchall()
    with duckdb.connect(str(desk.published), read_only=True) as published:
        assert published.execute("SELECT sum(sessions) FROM analytics.agent_days").fetchall() == built


def test_the_sources_of_dbt_are_the_published_tables(filled: tuple[Desk, World]) -> None:
    """A table that was renamed must not stay in the list that other people's models start from."""
    assert dbt_sources.main(["--check"]) == 0
    desk, _ = filled
    text = dbt_sources.PATH.read_text(encoding="utf-8")
    listed, schema = set(), ""
    for line in text.splitlines():
        if found := re.match(r"    schema: (\w+)$", line):
            schema = found[1]
        elif found := re.match(r"      - name: (\w+)$", line):
            listed.add((schema, found[1]))
    with duckdb.connect(str(desk.published), read_only=True) as published:
        there = published.execute(
            "SELECT table_schema, table_name FROM information_schema.tables"
            " WHERE table_schema IN ('analytics', 'screendesk', 'getscreen', 'posthog') AND NOT starts_with(table_name, '_dlt_')"
        ).fetchall()
    assert listed == set(there)


@pytest.mark.parametrize("tool", TOOLS)
def test_the_guide_speaks_of_every_tool_and_says_whether_it_was_run(tool: str) -> None:
    guide = (BI / "README.md").read_text(encoding="utf-8")
    assert re.search(rf"^## .*{tool}", guide, re.MULTILINE)
    (row,) = [line for line in guide.splitlines() if re.match(rf"\| \[.*{tool}", line)]
    assert "run" in row.split("|")[3]


def test_the_commands_and_settings_in_the_guide_are_ours() -> None:
    guide = (BI / "README.md").read_text(encoding="utf-8")
    assert set(re.findall(r"deskhouse (\w+)[ `/;&\n]", guide)) <= {
        "dashboard",
        "query",
        "export",
        "sync",
        "itself",
        "installed",
        "shows",
    }

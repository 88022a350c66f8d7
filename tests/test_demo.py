"""The demo: two loads of the sandbox into a folder of its own, told so that a first-time reader sees what happened."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import duckdb
import pytest

from sandbox.world import World

if TYPE_CHECKING:
    from conftest import Desk

NOTEBOOKS = Path(__file__).resolve().parent.parent / "notebooks"


@pytest.fixture
def demo_desk(tmp_path: Path) -> Desk:
    """A desk at which the demo leaves its folder."""
    from conftest import Desk  # noqa: PLC0415 - a fixture's helper, not a package

    return Desk(tmp_path)


def test_the_demo_loads_twice_and_its_last_words_are_commands_that_work(demo_desk: Desk) -> None:
    # somebody's real settings must not reach the demo, nor the demo's data their warehouse
    demo_desk.environment = {
        "SOURCES__GETSCREEN__API_KEY": "somebody's own",
        "SOURCES__GETSCREEN__BASE_URL": "https://127.0.0.1:9",
        "DESKHOUSE__WAREHOUSE_DIR": str(demo_desk.cwd / "real"),
    }
    for _ in range(2):
        done = demo_desk.run("demo")
        assert done.code == 0, done.output
        assert "First load:" in done.stdout
        assert "Second load" in done.stdout
    assert demo_desk.files()
    assert not (demo_desk.cwd / "real").exists()
    assert "demo-warehouse/current/deskhouse.duckdb" in done.stdout
    database = demo_desk.cwd / "demo-warehouse" / "current" / "deskhouse.duckdb"
    with duckdb.connect(str(database), read_only=True) as con:
        runs = con.execute("SELECT status, rows_written FROM ops.runs ORDER BY started_at").fetchall()
        live = dict(con.execute("SELECT table_name, live_rows FROM ops.freshness").fetchall())
    world = World()
    first = len(world.screendesk.recordings) + len(world.screendesk.users)
    first += len(world.getscreen.connections) + len(world.posthog.desktop_recordings)
    assert runs == [("complete", first), ("complete", sum(world.live_a_day().values()))]
    assert live["screendesk.recordings"] == len(world.screendesk.recordings)
    demo_desk.environment = {"DESKHOUSE__WAREHOUSE_DIR": "demo-warehouse"}
    status = demo_desk.run("status")
    assert status.code == 0
    assert "screendesk.recordings" in status.stdout


def test_the_demo_leaves_a_folder_alone_that_is_not_its_own(demo_desk: Desk) -> None:
    (demo_desk.cwd / "mine").mkdir()
    (demo_desk.cwd / "mine" / "thesis.txt").write_text("irreplaceable")
    done = demo_desk.run("demo", "--dir", "mine")
    assert done.code == 2
    assert "--dir" in done.stderr
    assert demo_desk.files() == {"mine/thesis.txt"}


def test_status_says_what_to_do_where_nothing_is_published(demo_desk: Desk) -> None:
    done = demo_desk.run("status")
    assert done.code == 1
    assert "deskhouse sync" in done.stdout
    assert demo_desk.files() == set()


def test_the_notebook_answers_its_questions_from_the_demo(demo_desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    assert demo_desk.run("demo").code == 0
    monkeypatch.setenv("DESKHOUSE__WAREHOUSE_DIR", str(demo_desk.cwd / "demo-warehouse"))
    monkeypatch.syspath_prepend(str(NOTEBOOKS))
    import explore  # noqa: PLC0415 - lies beside the tests, not in a package

    _, shown = explore.app.run()
    answers = {name: found.fetchall() for name, found in shown.items() if isinstance(found, duckdb.DuckDBPyRelation)}
    assert len(answers) == 10
    assert all(answers.values()), {name for name, rows in answers.items() if not rows}
    shown["warehouse"].close()
    del sys.modules["explore"]

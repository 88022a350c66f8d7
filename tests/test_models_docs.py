"""The pages about models say what the models do, and their queries run."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

import duckdb
import pytest

from pipelines import ledger, model_docs
from pipelines.database import connect
from pipelines.declare import declare_tables
from pipelines.model_files import load_models
from pipelines.sync import ALL_TABLES
from pipelines.transform import run_models

if TYPE_CHECKING:
    from collections.abc import Iterator

METRICS = (model_docs.DOCS / "metrics.md").read_text(encoding="utf-8")
QUERIES = re.findall(r"```sql\n(.*?)```", METRICS, re.DOTALL)
RAW = """
INSERT INTO screendesk.recordings (uuid, user__email, customer__email, metadata__created_at, metadata__duration,
    metadata__impressions_count, metadata__helpdesk_info__platform, metadata__helpdesk_info__ticket_id,
    room_insights__started_at, room_insights__ended_at, _row_hash, _loaded_at, _dlt_load_id)
SELECT 'r' || i, 'ann@desk.example', 'cus@shop.example', began, 60 + i, 0, 'zendesk', '7',
    CASE WHEN i = 1 THEN began END, CASE WHEN i = 1 THEN began + INTERVAL 5 MINUTE END, '', now(), '1'
FROM (SELECT i, TIMESTAMPTZ '2026-03-02 10:00:00+00' + i * INTERVAL 1 DAY AS began FROM range(3) t(i));
INSERT INTO getscreen.connections (id, start, stop, agent__id, agent__name, _row_hash, _loaded_at, _dlt_load_id)
SELECT i, began, CASE WHEN i < 2 THEN began + INTERVAL 20 MINUTE END, 5, 'PC', '', now(), '1'
FROM (SELECT i, TIMESTAMPTZ '2026-03-02 10:30:00+00' + i * INTERVAL 1 DAY AS began FROM range(3) t(i));
INSERT INTO getscreen.connections__client (connection_id, _dlt_list_idx, login, _dlt_load_id)
SELECT i, 0, 'Ann@desk.example', '1' FROM range(3) t(i);
INSERT INTO posthog.desktop_recordings (id, started_at, meeting_title, _row_hash, _loaded_at, _dlt_load_id)
VALUES ('m', '2026-03-02 10:00:00+00', 'Weekly', '', now(), '1');
INSERT INTO posthog.desktop_recordings__participants (desktop_recording_id, _dlt_list_idx, "value", _dlt_load_id)
VALUES ('m', 0, 'Ann', '1'), ('m', 1, 'Bo', '1');
INSERT INTO posthog.desktop_recordings__transcript_segments
    (desktop_recording_id, _dlt_list_idx, "timestamp", speaker, "text", _dlt_load_id)
SELECT 'm', i, i * 4000, CASE WHEN i % 3 = 0 THEN 'Ann' ELSE 'Bo' END, 'Some words said', '1' FROM range(9) t(i);
"""


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[duckdb.DuckDBPyConnection]:
    path = tmp_path_factory.mktemp("docs") / "deskhouse.duckdb"
    ledger.prepare(path)
    declare_tables(path, ALL_TABLES)
    with connect(path) as connection:
        connection.execute(RAW)
        run_models(connection)
    with duckdb.connect() as reader:
        reader.execute(f"ATTACH '{path}' AS deskhouse (READ_ONLY)")
        reader.execute("USE deskhouse.main")
        yield reader


@pytest.mark.parametrize("query", QUERIES, ids=[q.strip().splitlines()[-1][:40] for q in QUERIES])
def test_every_query_in_metrics_md_runs_and_finds_rows(filled: duckdb.DuckDBPyConnection, query: str) -> None:
    """A query that finds nothing where there is something to find is as wrong as one that fails."""
    assert filled.execute(query).fetchall()


def test_the_queries_of_definitions_give_the_numbers_of_the_tables(filled: duckdb.DuckDBPyConnection) -> None:
    """Catches a definition that has moved on without its page, or the reverse."""
    by_start = {query.strip()[:40]: query for query in QUERIES}
    sessions = filled.execute(by_start["SELECT local_day, vendor, kind, count(*) AS "[:40]]).fetchall()
    assert (
        sessions
        == filled.execute(
            "SELECT local_day, vendor, kind, sessions FROM analytics.daily_activity ORDER BY ALL"
        ).fetchall()
    )
    tickets = filled.execute(by_start["SELECT ticket_key, count(*) AS sessions, "[:40]]).fetchall()
    assert tickets == filled.execute("SELECT ticket_key, sessions, total_minutes FROM analytics.tickets").fetchall()
    talk = next(query for query in QUERIES if "end_seconds - start_seconds" in query)
    assert (
        filled.execute(talk).fetchall()
        == filled.execute(
            "SELECT session_key, speaker, talk_seconds, words FROM analytics.meeting_talk ORDER BY 1, 3 DESC"
        ).fetchall()
    )


def test_the_pages_on_disk_are_what_the_models_say(capsys: pytest.CaptureFixture[str]) -> None:
    assert model_docs.main(["--check"]) == 0, capsys.readouterr().err


def test_a_page_that_is_out_of_date_is_named(
    capsys: pytest.CaptureFixture[str], tmp_path: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_docs, "PAGE", model_docs.DOCS / "tables.md")
    assert model_docs.main(["--check"]) == 1
    assert "run: make docs" in capsys.readouterr().err


def test_the_picture_shows_every_model_and_every_table_it_reads() -> None:
    drawn = ET.parse(model_docs.PICTURE)  # our own file
    titles = {element.text for element in drawn.iter("{http://www.w3.org/2000/svg}title")}
    models = load_models()
    assert {model.qualified_name for model in models} | {name for model in models for name in model.reads} <= titles
    assert len(list(drawn.iter("{http://www.w3.org/2000/svg}path"))) == sum(len(model.reads) for model in models)


@pytest.mark.parametrize("model", [model.name for model in load_models()])
def test_metrics_md_speaks_of_every_model(model: str) -> None:
    assert model in METRICS

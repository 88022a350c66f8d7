import marimo

__generated_with = "0.25.2"
app = marimo.App(width="medium", app_title="Explore the warehouse", sql_output="native")

with app.setup:
    import marimo as mo

    from pipelines.opening import open_published  # noqa: TID251 - how a notebook opens the file

    warehouse = open_published()
    connection = warehouse.connection


@app.cell
def _():
    mo.md(
        f"""
    # Ten questions to the warehouse

    Each cell below is one query and what it teaches. Change them: nothing here can write, and a sync never waits for you.
    `warehouse.refresh()` goes over to the newest published data.

    You read `{warehouse.generation.name}`. Tables and columns: `docs/models.md`, `docs/tables.md`, or query 1.
    """
    )
    return


@app.cell
def _():
    mo.md("""
    ## 1. What is here?

    Every table and column carries its description: `duckdb_tables()`, `duckdb_views()` and `duckdb_columns()`
    show them.
    """)
    return


@app.cell
def _():
    dictionary = mo.sql(
        f"""
        SELECT table_name, estimated_size AS "rows", comment
        FROM duckdb_tables()
        WHERE schema_name = 'analytics'
        ORDER BY table_name
        """,
        engine=connection,
    )
    return (dictionary,)


@app.cell
def _():
    mo.md("""
    ## 2. How fresh is it, and is it complete?

    `data_through`: everything the vendor had at this time is here. Look at it before you trust a number.
    """)
    return


@app.cell
def _():
    freshness = mo.sql(
        f"""
        SELECT raw_table, live_rows, data_through, verdict, reason
        FROM analytics.freshness
        ORDER BY raw_table
        """,
        engine=connection,
    )
    return (freshness,)


@app.cell
def _():
    mo.md("""
    ## 3. How many sessions a week, in which tool?

    `support_sessions` has one row per session of any tool. `local_day` is the day in your time zone; a week
    starts on Monday.
    """)
    return


@app.cell
def _():
    weeks = mo.sql(
        f"""
        PIVOT (
            SELECT CAST(date_trunc('week', local_day) AS DATE) AS week, kind
            FROM analytics.support_sessions
            WHERE local_day IS NOT NULL
        )
        ON kind IN ('recording', 'live_call', 'remote_session', 'meeting')
        USING count(*)
        GROUP BY week
        ORDER BY week DESC
        """,
        engine=connection,
    )
    return (weeks,)


@app.cell
def _():
    mo.md("""
    ## 4. Who worked how long?

    `agent_days` counts overlapping sessions once: `hands_on_minutes` is time, `session_minutes` is a sum. Where
    they differ, somebody did two things at once.
    """)
    return


@app.cell
def _():
    agents = mo.sql(
        f"""
        SELECT
            agent_email,
            sum(sessions) AS sessions,
            round(sum(hands_on_minutes) / 60, 1) AS hands_on_hours,
            round(sum(session_minutes) / 60, 1) AS summed_hours
        FROM analytics.agent_days
        GROUP BY agent_email
        ORDER BY hands_on_hours DESC
        LIMIT 10
        """,
        engine=connection,
    )
    return (agents,)


@app.cell
def _():
    mo.md("""
    ## 5. What is a typical length?

    Median and ninety per cent, never the mean: one forgotten window would outweigh a month. `duration_flag =
    'ok'` leaves such lengths out; count the rest beside it.
    """)
    return


@app.cell
def _():
    lengths = mo.sql(
        f"""
        SELECT
            kind,
            count(*) FILTER (WHERE duration_flag = 'ok') AS measured,
            count(*) FILTER (WHERE duration_flag <> 'ok') AS left_out,
            round(median(duration_seconds) FILTER (WHERE duration_flag = 'ok') / 60, 1) AS median_minutes,
            round(quantile_cont(duration_seconds, 0.9) FILTER (WHERE duration_flag = 'ok') / 60, 1) AS p90_minutes
        FROM analytics.support_sessions
        GROUP BY kind
        ORDER BY kind
        """,
        engine=connection,
    )
    return (lengths,)


@app.cell
def _():
    mo.md("""
    ## 6. Which tickets took the most?

    One row per ticket over all its sessions. Getscreen.me names no ticket, so `likely_remote_sessions` is an
    estimate and stands apart.
    """)
    return


@app.cell
def _():
    tickets = mo.sql(
        f"""
        SELECT ticket_platform, ticket_id, sessions, round(total_minutes, 1) AS minutes, live_calls, likely_remote_sessions, agents
        FROM analytics.tickets
        ORDER BY total_minutes DESC
        LIMIT 10
        """,
        engine=connection,
    )
    return (tickets,)


@app.cell
def _():
    mo.md("""
    ## 7. Who was in a meeting and hardly spoke?

    `session_participants` says who was there, `meeting_talk` who spoke. An anti-join finds names in the first
    that are not in the second; transcripts write names as they like, so look before you conclude.
    """)
    return


@app.cell
def _():
    silent = mo.sql(
        f"""
        SELECT sessions.title, sessions.local_day, participants.name
        FROM analytics.session_participants AS participants
        JOIN analytics.support_sessions AS sessions USING (session_key)
        ANTI JOIN analytics.meeting_talk AS talk
            ON talk.session_key = participants.session_key AND talk.speaker = participants.name
        WHERE sessions.kind = 'meeting' AND sessions.has_transcript AND participants.name IS NOT NULL
        ORDER BY sessions.started_at DESC, participants.name
        LIMIT 10
        """,
        engine=connection,
    )
    return (silent,)


@app.cell
def _():
    mo.md("""
    ## 8. How long was the longest silence?

    `transcript_segments` is in the order spoken. A window function looks at the segment before.
    """)
    return


@app.cell
def _():
    silences = mo.sql(
        f"""
        SELECT session_key, round(max(start_seconds - ended_before)) AS longest_silence_seconds, count(*) AS segments
        FROM (
            SELECT
                session_key,
                start_seconds,
                lag(end_seconds) OVER (PARTITION BY session_key ORDER BY position) AS ended_before
            FROM analytics.transcript_segments
        )
        GROUP BY session_key
        ORDER BY longest_silence_seconds DESC
        LIMIT 10
        """,
        engine=connection,
    )
    return (silences,)


@app.cell
def _():
    mo.md("""
    ## 9. What did a vendor delete?

    Rows stay when the vendor deletes them, with `deleted_at`. `WHERE deleted_at IS NULL` is what the vendor has
    now.
    """)
    return


@app.cell
def _():
    deleted = mo.sql(
        f"""
        SELECT vendor, kind, count(*) AS sessions, count(deleted_at) AS deleted, max(deleted_at) AS latest
        FROM analytics.support_sessions
        GROUP BY ALL
        ORDER BY ALL
        """,
        engine=connection,
    )
    return (deleted,)


@app.cell
def _():
    mo.md("""
    ## 10. Back to the vendor's own record

    The models leave most fields out. `session_key` is `vendor:id`, so any session leads back to its raw row,
    where every field of the vendor is.
    """)
    return


@app.cell
def _():
    raw_rows = mo.sql(
        f"""
        SELECT sessions.session_key, sessions.started_at, raw.*
        FROM analytics.support_sessions AS sessions
        JOIN screendesk.recordings AS raw ON sessions.session_key = 'screendesk:' || raw.uuid
        ORDER BY sessions.started_at DESC
        LIMIT 5
        """,
        engine=connection,
    )
    return (raw_rows,)


if __name__ == "__main__":
    app.run()

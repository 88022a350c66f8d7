import marimo

__generated_with = "0.25.2"
app = marimo.App(width="medium")


@app.cell
def _():
    import os
    from pathlib import Path

    import altair as alt
    import duckdb
    import marimo as mo

    folder = Path(os.environ.get("DESKHOUSE__WAREHOUSE_DIR", "warehouse"))
    # attached from memory, not opened: DuckDB caches an opened file per process and would keep showing an old generation
    warehouse = duckdb.connect()
    warehouse.execute(f"ATTACH '{folder / 'current' / 'deskhouse.duckdb'}' AS deskhouse (READ_ONLY)")
    warehouse.execute("USE deskhouse; SET TimeZone = 'UTC'")
    return alt, mo, warehouse


@app.cell
def _(mo, warehouse):
    freshness = (
        warehouse.sql(
            """
        SELECT table_name, live_rows, data_through, last_run_complete AS complete, last_run_reason AS reason
        FROM ops.freshness ORDER BY table_name
        """
        )
        .arrow()
        .read_all()
    )
    mo.vstack([mo.md("## What is in the warehouse, and how fresh is it?"), mo.ui.table(freshness.to_pylist())])
    return (freshness,)


@app.cell
def _(mo, warehouse):
    sessions = (
        warehouse.sql(
            """
        SELECT strftime(date_trunc('week', started_at), '%Y-%m-%d') AS week, tool, count(*) AS sessions
        FROM (
            SELECT metadata__created_at AS started_at, 'Screendesk' AS tool, _deleted_at FROM screendesk.recordings
            UNION ALL SELECT start, 'Getscreen.me', _deleted_at FROM getscreen.connections
            UNION ALL SELECT started_at, 'PostHog', _deleted_at FROM posthog.desktop_recordings
        )
        WHERE _deleted_at IS NULL AND started_at IS NOT NULL
        GROUP BY ALL ORDER BY ALL
        """
        )
        .arrow()
        .read_all()
    )
    mo.md("## How many sessions a week, in which tool?")
    return (sessions,)


@app.cell
def _(alt, sessions):
    colours = alt.Scale(domain=["Screendesk", "Getscreen.me", "PostHog"], range=["#5B5BD6", "#12A594", "#F76B15"])
    alt.Chart(alt.Data(values=sessions.to_pylist())).mark_bar().encode(
        x=alt.X("week:O", title="week starting"),
        y=alt.Y("sessions:Q", title="sessions"),
        color=alt.Color("tool:N", scale=colours, title=None),
        tooltip=["week:O", "tool:N", "sessions:Q"],
    ).properties(width="container", height=280)
    return


if __name__ == "__main__":
    app.run()

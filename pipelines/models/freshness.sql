-- one row per raw table, as the ledger knows it now
WITH raw_tables AS (
    SELECT unnest([
        'screendesk.recordings', 'screendesk.users', 'getscreen.connections', 'posthog.desktop_recordings'
    ]) AS raw_table
)
SELECT
    raw_tables.raw_table,
    split_part(raw_tables.raw_table, '.', 1) AS vendor,
    known.data_through,
    known.last_complete_run,
    known.last_complete_at,
    coalesce(known.live_rows, 0) AS live_rows,
    known.last_run,
    CASE
        WHEN known.last_run IS NULL THEN 'never read'
        WHEN known.last_run_complete THEN 'complete'
        ELSE 'incomplete'
    END AS verdict,
    nullif(known.last_run_reason, '') AS reason
FROM raw_tables
LEFT JOIN ops.freshness AS known ON known.table_name = raw_tables.raw_table

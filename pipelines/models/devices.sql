-- one row per Getscreen.me device that was ever connected to
WITH connections AS (
    SELECT
        *,
        -- what a device is called now is what its newest connection says
        (coalesce(start, TIMESTAMPTZ '1970-01-01 00:00:00+00'), id) AS recency
    FROM getscreen.connections
    WHERE agent__id IS NOT NULL
),
latest AS (
    SELECT
        agent__id AS device_id,
        arg_max(nullif(trim(agent__name), ''), recency) AS device_name,
        arg_max(nullif(trim(agent__group), ''), recency) AS device_group,
        arg_max(nullif(trim(agent__os), ''), recency) AS device_os,
        arg_max(nullif(trim(agent__geo__country), ''), recency) AS country,
        arg_max(nullif(lower(trim(agent__owner)), ''), recency) AS owner,
        arg_max(nullif(trim(agent__version), ''), recency) AS latest_version,
        nullif(array_to_string(list_sort(list_distinct(list(nullif(trim(agent__version), '')))), '; '), '') AS versions,
        count(DISTINCT nullif(trim(agent__version), '')) AS version_count
    FROM connections
    GROUP BY agent__id
),
totals AS (
    SELECT
        device_id,
        count(*) AS sessions,
        count(DISTINCT local_day) AS session_days,
        coalesce(sum(duration_seconds) FILTER (WHERE duration_flag = 'ok'), 0) / 60.0 AS total_minutes,
        min(started_at) AS first_seen_at,
        max(coalesce(ended_at, started_at)) AS last_seen_at,
        count(*) FILTER (WHERE is_open) AS open_sessions,
        count(*) FILTER (WHERE duration_flag NOT IN ('ok', 'zero', 'open')) AS flagged_sessions,
        count(*) FILTER (WHERE deleted_at IS NOT NULL) AS deleted_sessions
    FROM analytics.support_sessions
    WHERE device_id IS NOT NULL
    GROUP BY device_id
),
operators AS (
    SELECT
        sessions.device_id,
        count(DISTINCT coalesce(participants.email, lower(participants.name))) AS operator_count,
        nullif(
            array_to_string(list_sort(list_distinct(list(coalesce(participants.email, participants.name)))), '; '), ''
        ) AS operators
    FROM analytics.session_participants AS participants
    INNER JOIN analytics.support_sessions AS sessions USING (session_key)
    WHERE sessions.device_id IS NOT NULL
    GROUP BY sessions.device_id
)
SELECT
    device_id,
    latest.device_name,
    latest.device_group,
    latest.device_os,
    latest.country,
    latest.owner,
    latest.latest_version,
    latest.versions,
    latest.version_count,
    totals.sessions,
    totals.session_days,
    totals.total_minutes,
    totals.first_seen_at,
    totals.last_seen_at,
    coalesce(operators.operator_count, 0) AS operator_count,
    operators.operators,
    totals.open_sessions,
    totals.flagged_sessions,
    totals.deleted_sessions
FROM totals
INNER JOIN latest USING (device_id)
LEFT JOIN operators USING (device_id)

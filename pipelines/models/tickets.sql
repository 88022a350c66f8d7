-- one row per helpdesk ticket, conversation or issue that a session belongs to
WITH sessions AS (
    SELECT
        session_key,
        kind,
        started_at,
        duration_seconds,
        duration_flag,
        is_open,
        agent_email,
        customer_email,
        ticket_key,
        ticket_platform,
        ticket_kind,
        ticket_id,
        deleted_at
    FROM analytics.support_sessions
    WHERE ticket_key IS NOT NULL
),
totals AS (
    SELECT
        ticket_key,
        any_value(ticket_platform) AS ticket_platform,
        any_value(ticket_kind) AS ticket_kind,
        any_value(ticket_id) AS ticket_id,
        count(*) AS sessions,
        count(*) FILTER (WHERE kind = 'recording') AS recordings,
        count(*) FILTER (WHERE kind = 'live_call') AS live_calls,
        count(*) FILTER (WHERE kind = 'remote_session') AS remote_sessions,
        count(*) FILTER (WHERE kind = 'meeting') AS meetings,
        min(started_at) AS first_session_at,
        max(started_at) AS last_session_at,
        coalesce(sum(duration_seconds) FILTER (WHERE duration_flag = 'ok'), 0) / 60.0 AS total_minutes,
        coalesce(sum(duration_seconds) FILTER (WHERE duration_flag = 'ok' AND kind = 'live_call'), 0) / 60.0
            AS live_call_minutes,
        len(list_distinct(list(agent_email))) AS agent_count,
        nullif(array_to_string(list_sort(list_distinct(list(agent_email))), '; '), '') AS agents,
        len(list_distinct(list(customer_email))) AS customer_count,
        count(*) FILTER (WHERE is_open) AS open_sessions,
        count(*) FILTER (WHERE duration_flag NOT IN ('ok', 'zero', 'open')) AS flagged_sessions,
        count(*) FILTER (WHERE deleted_at IS NOT NULL) AS deleted_sessions
    FROM sessions
    GROUP BY ticket_key
),
participants AS (
    SELECT
        sessions.ticket_key,
        -- someone without any name counts each time
        count(DISTINCT coalesce(participants.email, lower(participants.name), session_key || participants.position))
            AS participant_count
    FROM analytics.session_participants AS participants
    INNER JOIN sessions USING (session_key)
    GROUP BY sessions.ticket_key
),
agents_work AS (
    -- two tickets at one instant: either would do, but always the same one
    SELECT agent_email, started_at, min(ticket_key) AS ticket_key, FALSE AS is_remote, CAST(NULL AS BIGINT) AS seconds
    FROM sessions
    WHERE agent_email IS NOT NULL AND started_at IS NOT NULL
    GROUP BY agent_email, started_at
    UNION ALL
    SELECT agent_email, started_at, NULL, TRUE, CASE WHEN duration_flag = 'ok' THEN duration_seconds END
    FROM analytics.support_sessions
    WHERE kind = 'remote_session' AND agent_email IS NOT NULL AND started_at IS NOT NULL
),
before_each AS (
    SELECT
        is_remote,
        started_at,
        seconds,
        last_value(ticket_key IGNORE NULLS) OVER so_far AS ticket_key,
        max(CASE WHEN NOT is_remote THEN started_at END) OVER so_far AS ticket_at
    FROM agents_work
    WINDOW so_far AS (
        PARTITION BY agent_email
        ORDER BY started_at, is_remote
        ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW
    )
),
likely AS (
    SELECT
        ticket_key,
        count(*) AS likely_remote_sessions,
        coalesce(sum(seconds), 0) / 60.0 AS likely_remote_minutes
    FROM before_each
    WHERE is_remote AND ticket_key IS NOT NULL AND started_at <= ticket_at + INTERVAL 2 HOUR
    GROUP BY ticket_key
)
SELECT
    ticket_key,
    totals.ticket_platform,
    totals.ticket_kind,
    totals.ticket_id,
    totals.sessions,
    totals.recordings,
    totals.live_calls,
    totals.remote_sessions,
    totals.meetings,
    totals.first_session_at,
    totals.last_session_at,
    totals.total_minutes,
    totals.live_call_minutes,
    totals.agent_count,
    totals.agents,
    totals.customer_count,
    coalesce(participants.participant_count, 0) AS participant_count,
    totals.open_sessions,
    totals.flagged_sessions,
    totals.deleted_sessions,
    coalesce(likely.likely_remote_sessions, 0) AS likely_remote_sessions,
    coalesce(likely.likely_remote_minutes, 0) AS likely_remote_minutes
FROM totals
LEFT JOIN participants USING (ticket_key)
LEFT JOIN likely USING (ticket_key)

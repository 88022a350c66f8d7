-- one row per helpdesk ticket, conversation or issue that a session belongs to
WITH agents AS MATERIALIZED (
    SELECT agent_email, CAST(row_number() OVER () AS INTEGER) AS agent, is_remote
    FROM (
        SELECT agent_email, bool_or(kind = 'remote_session') AS is_remote
        FROM analytics.support_sessions
        WHERE agent_email IS NOT NULL
        GROUP BY agent_email
    ) AS met
),
totals AS (
    SELECT
        ticket_key,
        -- numbers stand for texts: what keeps a text for each ticket stays in memory until all are done
        min(
            3 * length(ticket_platform)
            + CASE ticket_kind WHEN 'ticket' THEN 0 WHEN 'conversation' THEN 1 WHEN 'issue' THEN 2 END
        ) AS shape_of_key,
        min(agents.agent) AS one_agent,
        count(customer_email) > 0 AS has_customer,
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
        count(*) FILTER (WHERE is_open) AS open_sessions,
        count(*) FILTER (WHERE duration_flag NOT IN ('ok', 'zero', 'open')) AS flagged_sessions,
        count(*) FILTER (WHERE deleted_at IS NOT NULL) AS deleted_sessions
    FROM analytics.support_sessions AS sessions
    LEFT JOIN agents USING (agent_email)
    WHERE ticket_key IS NOT NULL
    GROUP BY ticket_key
),
-- a ticket's key is its platform, kind and number, with a colon between
named AS (
    SELECT
        *,
        left(ticket_key, shape_of_key // 3) AS ticket_platform,
        CASE shape_of_key % 3 WHEN 0 THEN 'ticket' WHEN 1 THEN 'conversation' ELSE 'issue' END AS ticket_kind
    FROM totals
),
-- lists stay in memory until all are done, so only the few tickets of several agents get one
shared AS (
    SELECT sessions.ticket_key
    FROM analytics.support_sessions AS sessions
    INNER JOIN agents USING (agent_email)
    WHERE sessions.ticket_key IS NOT NULL
    GROUP BY sessions.ticket_key
    HAVING min(agents.agent) <> max(agents.agent)
),
teams AS (
    SELECT ticket_key, count(*) AS agent_count, array_to_string(list_sort(list(agent_email)), '; ') AS agents
    FROM (
        SELECT DISTINCT sessions.ticket_key, sessions.agent_email
        FROM analytics.support_sessions AS sessions
        INNER JOIN shared USING (ticket_key)
        WHERE sessions.agent_email IS NOT NULL
    ) AS met
    GROUP BY ticket_key
),
customers AS (
    SELECT ticket_key, count(*) AS customer_count
    FROM (
        SELECT DISTINCT ticket_key, customer_email
        FROM analytics.support_sessions
        WHERE ticket_key IS NOT NULL AND customer_email IS NOT NULL
    ) AS met
    GROUP BY ticket_key
    HAVING count(*) > 1
),
participants AS (
    SELECT
        sessions.ticket_key,
        -- someone without any name counts each time
        count(DISTINCT coalesce(participants.email, lower(participants.name), session_key || participants.position))
            AS participant_count
    FROM analytics.session_participants AS participants
    INNER JOIN analytics.support_sessions AS sessions USING (session_key)
    WHERE sessions.ticket_key IS NOT NULL
    GROUP BY sessions.ticket_key
),
agents_work AS (
    SELECT agents.agent, sessions.started_at, FALSE AS is_remote, sessions.ticket_key, CAST(NULL AS BIGINT) AS seconds
    FROM analytics.support_sessions AS sessions
    INNER JOIN agents USING (agent_email)
    WHERE sessions.ticket_key IS NOT NULL AND sessions.started_at IS NOT NULL AND agents.is_remote
    UNION ALL
    SELECT agents.agent, sessions.started_at, TRUE, NULL, CASE WHEN sessions.duration_flag = 'ok' THEN sessions.duration_seconds END
    FROM analytics.support_sessions AS sessions
    INNER JOIN agents USING (agent_email)
    WHERE sessions.kind = 'remote_session' AND sessions.started_at IS NOT NULL
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
        PARTITION BY agent
        -- two tickets at one instant: either would do, but always the same one
        ORDER BY started_at, is_remote, ticket_key DESC
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
    totals.ticket_key,
    totals.ticket_platform,
    totals.ticket_kind,
    substr(totals.ticket_key, length(totals.ticket_platform) + length(totals.ticket_kind) + 3) AS ticket_id,
    totals.sessions,
    totals.recordings,
    totals.live_calls,
    totals.remote_sessions,
    totals.meetings,
    totals.first_session_at,
    totals.last_session_at,
    totals.total_minutes,
    totals.live_call_minutes,
    coalesce(teams.agent_count, CASE WHEN totals.one_agent IS NULL THEN 0 ELSE 1 END) AS agent_count,
    coalesce(teams.agents, agents.agent_email) AS agents,
    coalesce(customers.customer_count, CASE WHEN totals.has_customer THEN 1 ELSE 0 END) AS customer_count,
    coalesce(participants.participant_count, 0) AS participant_count,
    totals.open_sessions,
    totals.flagged_sessions,
    totals.deleted_sessions,
    coalesce(likely.likely_remote_sessions, 0) AS likely_remote_sessions,
    coalesce(likely.likely_remote_minutes, 0) AS likely_remote_minutes
FROM named AS totals
LEFT JOIN agents ON agents.agent = totals.one_agent
LEFT JOIN teams ON teams.ticket_key = totals.ticket_key
LEFT JOIN customers ON customers.ticket_key = totals.ticket_key
LEFT JOIN participants ON participants.ticket_key = totals.ticket_key
LEFT JOIN likely ON likely.ticket_key = totals.ticket_key

-- one row per agent and local day on which a session of theirs began or was under way
WITH agents AS (
    -- numbers stand for addresses until the end: they take a tenth of the memory
    SELECT agent_email, CAST(row_number() OVER () AS INTEGER) AS agent
    FROM (SELECT DISTINCT agent_email FROM analytics.support_sessions WHERE agent_email IS NOT NULL) AS met
),
begun AS (
    SELECT
        agents.agent,
        sessions.local_day,
        count(*) AS sessions,
        count(*) FILTER (WHERE sessions.kind = 'recording') AS recordings,
        count(*) FILTER (WHERE sessions.kind = 'live_call') AS live_calls,
        count(*) FILTER (WHERE sessions.kind = 'remote_session') AS remote_sessions,
        count(*) FILTER (WHERE sessions.kind = 'meeting') AS meetings,
        coalesce(sum(sessions.duration_seconds) FILTER (WHERE sessions.duration_flag = 'ok'), 0) / 60.0 AS session_minutes,
        median(sessions.duration_seconds) FILTER (WHERE sessions.duration_flag = 'ok') / 60.0 AS median_session_minutes,
        count(DISTINCT sessions.customer_email) AS customers,
        count(DISTINCT sessions.ticket_key) AS tickets,
        count(*) FILTER (WHERE sessions.is_open) AS open_sessions,
        count(*) FILTER (WHERE sessions.duration_flag NOT IN ('ok', 'zero', 'open')) AS flagged_sessions
    FROM analytics.support_sessions AS sessions
    INNER JOIN agents USING (agent_email)
    WHERE sessions.local_day IS NOT NULL
    GROUP BY agents.agent, sessions.local_day
),
midnights_wanted AS (
    -- a session shorter than a day touches three at most, where one of them is short of an hour
    SELECT DISTINCT days.local_day + ahead.days AS local_day
    FROM (SELECT DISTINCT local_day FROM analytics.support_sessions WHERE local_day IS NOT NULL) AS days
    CROSS JOIN (VALUES (0), (1), (2)) AS ahead (days)
),
midnights_once AS (
    SELECT
        local_day,
        timezone(getvariable('deskhouse_timezone'), CAST(local_day AS TIMESTAMP)) AS begins_at
    FROM midnights_wanted
),
midnights AS (
    -- where clocks go back at 1:00, midnight comes twice and the day begins with the first
    SELECT
        local_day,
        CASE
            WHEN CAST(timezone(getvariable('deskhouse_timezone'), begins_at - INTERVAL 1 HOUR) AS DATE) = local_day
                THEN begins_at - INTERVAL 1 HOUR
            ELSE begins_at
        END AS begins_at
    FROM midnights_once
),
intervals AS (
    SELECT
        agents.agent,
        sessions.kind <> 'recording' AS is_live,
        sessions.started_at,
        sessions.ended_at,
        sessions.local_day AS first_day,
        -- time zones are slow to ask, and most sessions end before midnight
        CASE
            WHEN sessions.ended_at <= tomorrow.begins_at THEN sessions.local_day
            ELSE CAST(timezone(getvariable('deskhouse_timezone'), sessions.ended_at - INTERVAL 1 MICROSECOND) AS DATE)
        END AS last_day
    FROM analytics.support_sessions AS sessions
    INNER JOIN agents USING (agent_email)
    INNER JOIN midnights AS tomorrow ON tomorrow.local_day = sessions.local_day + 1
    WHERE sessions.duration_flag = 'ok'
),
pieces_of_days AS (
    SELECT
        agent,
        is_live,
        started_at,
        ended_at,
        first_day,
        last_day,
        CAST(unnest(generate_series(first_day, last_day, INTERVAL 1 DAY)) AS DATE) AS local_day
    FROM intervals
),
pieces AS (
    SELECT
        pieces_of_days.agent,
        pieces_of_days.local_day,
        pieces_of_days.is_live,
        CASE
            WHEN pieces_of_days.local_day = pieces_of_days.first_day THEN pieces_of_days.started_at
            ELSE today.begins_at
        END AS begins_at,
        CASE
            WHEN pieces_of_days.local_day = pieces_of_days.last_day THEN pieces_of_days.ended_at
            ELSE tomorrow.begins_at
        END AS ends_at
    FROM pieces_of_days
    LEFT JOIN midnights AS today ON today.local_day = pieces_of_days.local_day
    LEFT JOIN midnights AS tomorrow ON tomorrow.local_day = pieces_of_days.local_day + 1
),
covered AS (
    SELECT
        agent,
        local_day,
        is_live,
        epoch_us(begins_at) AS begins_us,
        epoch_us(ends_at) AS ends_us,
        max(epoch_us(ends_at)) OVER earlier AS covered_us,
        max(CASE WHEN is_live THEN epoch_us(ends_at) END) OVER earlier AS live_covered_us
    FROM pieces
    WINDOW earlier AS (
        PARTITION BY agent, local_day
        ORDER BY begins_at, ends_at
        ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
    )
),
hands_on AS (
    SELECT
        agent,
        local_day,
        sum(greatest(0, ends_us - greatest(begins_us, coalesce(covered_us, begins_us)))) / 60e6 AS hands_on_minutes,
        coalesce(
            sum(greatest(0, ends_us - greatest(begins_us, coalesce(live_covered_us, begins_us))))
                FILTER (WHERE is_live),
            0
        ) / 60e6 AS live_minutes
    FROM covered
    GROUP BY agent, local_day
)
SELECT
    agents.agent_email,
    local_day,
    coalesce(begun.sessions, 0) AS sessions,
    coalesce(begun.recordings, 0) AS recordings,
    coalesce(begun.live_calls, 0) AS live_calls,
    coalesce(begun.remote_sessions, 0) AS remote_sessions,
    coalesce(begun.meetings, 0) AS meetings,
    coalesce(hands_on.hands_on_minutes, 0) AS hands_on_minutes,
    coalesce(hands_on.live_minutes, 0) AS live_minutes,
    coalesce(begun.session_minutes, 0) AS session_minutes,
    begun.median_session_minutes,
    coalesce(begun.customers, 0) AS customers,
    coalesce(begun.tickets, 0) AS tickets,
    coalesce(begun.open_sessions, 0) AS open_sessions,
    coalesce(begun.flagged_sessions, 0) AS flagged_sessions
FROM begun
FULL OUTER JOIN hands_on USING (agent, local_day)
INNER JOIN agents USING (agent)

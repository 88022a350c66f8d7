-- one row per agent and local day on which a session of theirs began or was under way
WITH sessions AS (
    SELECT * FROM analytics.support_sessions WHERE agent_email IS NOT NULL AND local_day IS NOT NULL
),
begun AS (
    SELECT
        agent_email,
        local_day,
        count(*) AS sessions,
        count(*) FILTER (WHERE kind = 'recording') AS recordings,
        count(*) FILTER (WHERE kind = 'live_call') AS live_calls,
        count(*) FILTER (WHERE kind = 'remote_session') AS remote_sessions,
        count(*) FILTER (WHERE kind = 'meeting') AS meetings,
        coalesce(sum(duration_seconds) FILTER (WHERE duration_flag = 'ok'), 0) / 60.0 AS session_minutes,
        median(duration_seconds) FILTER (WHERE duration_flag = 'ok') / 60.0 AS median_session_minutes,
        len(list_distinct(list(customer_email))) AS customers,
        len(list_distinct(list(ticket_key))) AS tickets,
        count(*) FILTER (WHERE is_open) AS open_sessions,
        count(*) FILTER (WHERE duration_flag NOT IN ('ok', 'zero', 'open')) AS flagged_sessions
    FROM sessions
    GROUP BY agent_email, local_day
),
intervals AS (
    SELECT
        agent_email,
        kind,
        started_at,
        ended_at,
        local_day AS first_day,
        CAST(timezone(getvariable('deskhouse_timezone'), ended_at - INTERVAL 1 MICROSECOND) AS DATE) AS last_day
    FROM sessions
    WHERE duration_flag = 'ok'
),
pieces_of_days AS (
    SELECT
        agent_email,
        kind,
        started_at,
        ended_at,
        first_day,
        last_day,
        CAST(unnest(generate_series(first_day, last_day, INTERVAL 1 DAY)) AS DATE) AS local_day
    FROM intervals
),
midnights_wanted AS (
    SELECT first_day AS local_day FROM intervals WHERE first_day < last_day
    UNION
    SELECT local_day FROM pieces_of_days WHERE first_day < last_day
    UNION
    SELECT CAST(local_day + INTERVAL 1 DAY AS DATE) FROM pieces_of_days WHERE first_day < last_day
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
pieces AS (
    SELECT
        pieces_of_days.agent_email,
        pieces_of_days.local_day,
        pieces_of_days.kind,
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
    LEFT JOIN midnights AS tomorrow ON tomorrow.local_day = pieces_of_days.local_day + INTERVAL 1 DAY
),
covered AS (
    SELECT
        agent_email,
        local_day,
        kind,
        epoch_us(begins_at) AS begins_us,
        epoch_us(ends_at) AS ends_us,
        max(epoch_us(ends_at)) OVER earlier AS covered_us,
        max(CASE WHEN kind <> 'recording' THEN epoch_us(ends_at) END) OVER earlier AS live_covered_us
    FROM pieces
    WINDOW earlier AS (
        PARTITION BY agent_email, local_day
        ORDER BY begins_at, ends_at
        ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
    )
),
hands_on AS (
    SELECT
        agent_email,
        local_day,
        sum(greatest(0, ends_us - greatest(begins_us, coalesce(covered_us, begins_us)))) / 60e6 AS hands_on_minutes,
        coalesce(
            sum(greatest(0, ends_us - greatest(begins_us, coalesce(live_covered_us, begins_us))))
                FILTER (WHERE kind <> 'recording'),
            0
        ) / 60e6 AS live_minutes
    FROM covered
    GROUP BY agent_email, local_day
)
SELECT
    agent_email,
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
FULL OUTER JOIN hands_on USING (agent_email, local_day)

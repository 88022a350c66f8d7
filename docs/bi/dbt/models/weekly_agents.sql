-- one row per agent and week: an example of a model on top of deskhouse's
SELECT
    agent_email,
    CAST(date_trunc('week', local_day) AS DATE) AS week,
    sum(sessions) AS sessions,
    round(sum(hands_on_minutes) / 60, 1) AS hands_on_hours
FROM {{ source('analytics', 'agent_days') }}
GROUP BY ALL

-- one row per vendor: how many of its people are known by e-mail, and how many only by name
WITH vendors AS (
    SELECT unnest(['screendesk', 'getscreen', 'posthog']) AS vendor
),
participants AS (
    SELECT
        vendor,
        count(*) AS participants,
        count(*) FILTER (WHERE email IS NOT NULL) AS with_email,
        count(*) FILTER (WHERE email IS NULL AND name IS NOT NULL) AS name_only,
        count(*) FILTER (WHERE email IS NULL AND name IS NULL) AS anonymous,
        count(DISTINCT lower(name)) FILTER (WHERE email IS NULL) AS unmatched_names
    FROM analytics.session_participants
    GROUP BY vendor
),
sessions AS (
    SELECT
        vendor,
        count(*) AS sessions,
        count(*) FILTER (WHERE agent_email IS NULL) AS sessions_without_agent,
        count(*) FILTER (WHERE customer_email IS NULL) AS sessions_without_customer
    FROM analytics.support_sessions
    GROUP BY vendor
)
SELECT
    vendor,
    coalesce(participants.participants, 0) AS participants,
    coalesce(participants.with_email, 0) AS with_email,
    coalesce(participants.name_only, 0) AS name_only,
    coalesce(participants.anonymous, 0) AS anonymous,
    coalesce(participants.unmatched_names, 0) AS unmatched_names,
    coalesce(sessions.sessions, 0) AS sessions,
    coalesce(sessions.sessions_without_agent, 0) AS sessions_without_agent,
    coalesce(sessions.sessions_without_customer, 0) AS sessions_without_customer
FROM vendors
LEFT JOIN participants USING (vendor)
LEFT JOIN sessions USING (vendor)

-- one row per person: an e-mail address, whatever its case, met in any of the three tools
WITH met AS (
    SELECT agent_email AS email, 'agent' AS role, rowid AS session, vendor, started_at, local_day
    FROM analytics.support_sessions
    WHERE agent_email IS NOT NULL
    UNION ALL
    SELECT customer_email, 'customer', rowid, vendor, started_at, local_day
    FROM analytics.support_sessions
    WHERE customer_email IS NOT NULL
    UNION ALL
    SELECT participants.email, participants.role, sessions.rowid, sessions.vendor, sessions.started_at, sessions.local_day
    FROM analytics.session_participants AS participants
    INNER JOIN analytics.support_sessions AS sessions USING (session_key)
    WHERE participants.email IS NOT NULL
),
met_once AS (
    -- whoever has two roles in a session is met in it once
    SELECT
        email,
        any_value(vendor) AS vendor,
        any_value(started_at) AS started_at,
        any_value(local_day) AS local_day,
        bool_or(role IN ('agent', 'operator')) AS is_agent,
        bool_or(role = 'customer') AS is_customer,
        bool_or(role = 'operator') AS is_operator,
        bool_or(role = 'participant') AS is_participant,
        bool_or(role = 'agent' AND vendor = 'screendesk') AS is_recording_owner
    FROM met
    GROUP BY email, session
),
accounts AS (
    SELECT
        nullif(lower(trim(email)), '') AS email,
        arg_max(nullif(trim(name), ''), (_deleted_at IS NULL, coalesce(updated_at, _loaded_at))) AS name,
        arg_max(nullif(trim(role), ''), (_deleted_at IS NULL, coalesce(updated_at, _loaded_at))) AS account_role,
        min(created_at) AS account_created_at,
        -- the same address under another case is a second row: the person left only when every row is gone
        CASE WHEN bool_and(_deleted_at IS NOT NULL) THEN max(_deleted_at) END AS left_at
    FROM screendesk.users
    -- the key of somebody who was erased is no address
    WHERE NOT starts_with(lower(trim(email)), 'erased-')
    GROUP BY 1
),
owners AS (
    SELECT DISTINCT lower(trim(agent__owner)) AS email FROM getscreen.connections WHERE contains(agent__owner, '@')
),
named AS (
    SELECT agent_email AS email, agent_name AS name
    FROM analytics.support_sessions
    WHERE agent_email IS NOT NULL AND agent_name IS NOT NULL
    UNION
    SELECT nullif(lower(trim(email)), ''), nullif(trim(name), '')
    FROM screendesk.users
    WHERE NOT starts_with(lower(trim(email)), 'erased-')
),
names AS (
    SELECT email, nullif(array_to_string(list_sort(list_distinct(list(name))), '; '), '') AS names FROM named GROUP BY email
),
latest_names AS (
    SELECT agent_email AS email, arg_max(agent_name, started_at) AS name
    FROM analytics.support_sessions
    WHERE agent_email IS NOT NULL
    GROUP BY agent_email
),
sessions AS (
    SELECT
        email,
        bool_or(is_agent) AS is_agent,
        bool_or(is_customer) AS is_customer,
        bool_or(is_operator) AS is_operator,
        bool_or(is_participant) AS is_participant,
        bool_or(is_recording_owner) AS is_recording_owner,
        min(started_at) AS first_started_at,
        max(started_at) AS last_started_at,
        count(*) AS sessions,
        count(*) FILTER (WHERE vendor = 'screendesk') AS sessions_screendesk,
        count(*) FILTER (WHERE vendor = 'getscreen') AS sessions_getscreen,
        count(*) FILTER (WHERE vendor = 'posthog') AS sessions_posthog,
        count(*) FILTER (WHERE is_customer) AS customer_sessions,
        count(DISTINCT local_day) FILTER (WHERE is_customer) AS customer_days
    FROM met_once
    GROUP BY email
),
emails AS (
    SELECT email FROM sessions
    UNION
    SELECT email FROM accounts WHERE email IS NOT NULL
    UNION
    SELECT email FROM owners
)
SELECT
    email,
    coalesce(accounts.name, latest_names.name) AS name,
    names.names,
    concat_ws(
        '; ',
        CASE WHEN accounts.email IS NOT NULL THEN 'screendesk user' END,
        CASE WHEN sessions.is_recording_owner THEN 'recording owner' END,
        CASE WHEN sessions.is_operator THEN 'operator' END,
        CASE WHEN owners.email IS NOT NULL THEN 'device owner' END,
        CASE WHEN sessions.is_participant THEN 'participant' END,
        CASE WHEN sessions.is_customer THEN 'customer' END
    ) AS roles,
    coalesce(sessions.is_agent, FALSE) OR accounts.email IS NOT NULL AS is_agent,
    coalesce(sessions.is_customer, FALSE) AS is_customer,
    accounts.account_role,
    accounts.account_created_at,
    accounts.left_at,
    least(sessions.first_started_at, accounts.account_created_at) AS first_seen_at,
    greatest(sessions.last_started_at, accounts.account_created_at) AS last_seen_at,
    coalesce(sessions.sessions, 0) AS sessions,
    coalesce(sessions.sessions_screendesk, 0) AS sessions_screendesk,
    coalesce(sessions.sessions_getscreen, 0) AS sessions_getscreen,
    coalesce(sessions.sessions_posthog, 0) AS sessions_posthog,
    coalesce(sessions.customer_sessions, 0) AS customer_sessions,
    coalesce(sessions.customer_days, 0) AS customer_days
FROM emails
LEFT JOIN sessions USING (email)
LEFT JOIN accounts USING (email)
LEFT JOIN owners USING (email)
LEFT JOIN names USING (email)
LEFT JOIN latest_names USING (email)

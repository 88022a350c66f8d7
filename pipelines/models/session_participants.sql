-- one row per participant of a session
WITH callers AS (
    SELECT
        'screendesk:' || recording_uuid AS session_key,
        _dlt_list_idx AS position,
        display_name AS name,
        NULL AS email,
        role,
        joined_at,
        left_at,
        os,
        browser,
        device,
        device_type,
        NULL AS country
    FROM screendesk.recordings__room_insights__participants_insights
),
operators AS (
    SELECT
        'getscreen:' || connection_id AS session_key,
        _dlt_list_idx AS position,
        CASE WHEN contains(login, '@') THEN NULL ELSE login END AS name,
        CASE WHEN contains(login, '@') THEN login END AS email,
        'operator' AS role,
        CAST(NULL AS TIMESTAMPTZ) AS joined_at,
        CAST(NULL AS TIMESTAMPTZ) AS left_at,
        -- the order matters: iPads and Android name other systems as well, Edge and Opera call themselves Chrome
        CASE
            WHEN user_agent LIKE '%iPhone%' OR user_agent LIKE '%iPad%' THEN 'iOS'
            WHEN user_agent LIKE '%Android%' THEN 'Android'
            WHEN user_agent LIKE '%Windows%' THEN 'Windows'
            WHEN user_agent LIKE '%Mac OS X%' THEN 'macOS'
            WHEN user_agent LIKE '%CrOS%' THEN 'ChromeOS'
            WHEN user_agent LIKE '%Linux%' THEN 'Linux'
        END AS os,
        CASE
            WHEN user_agent LIKE '%Edg/%' OR user_agent LIKE '%EdgA/%' OR user_agent LIKE '%EdgiOS/%' THEN 'Edge'
            WHEN user_agent LIKE '%OPR/%' THEN 'Opera'
            WHEN user_agent LIKE '%SamsungBrowser/%' THEN 'Samsung Internet'
            WHEN user_agent LIKE '%Firefox/%' OR user_agent LIKE '%FxiOS/%' THEN 'Firefox'
            WHEN user_agent LIKE '%Chrome/%' OR user_agent LIKE '%CriOS/%' THEN 'Chrome'
            WHEN user_agent LIKE '%Safari/%' THEN 'Safari'
        END AS browser,
        NULL AS device,
        NULL AS device_type,
        geo__country AS country
    FROM getscreen.connections__client
),
attendees AS (
    SELECT
        'posthog:' || desktop_recording_id AS session_key,
        _dlt_list_idx AS position,
        CASE WHEN contains(value, '@') THEN NULL ELSE value END AS name,
        CASE WHEN contains(value, '@') THEN value END AS email,
        'participant' AS role,
        CAST(NULL AS TIMESTAMPTZ) AS joined_at,
        CAST(NULL AS TIMESTAMPTZ) AS left_at,
        NULL AS os,
        NULL AS browser,
        NULL AS device,
        NULL AS device_type,
        NULL AS country
    FROM posthog.desktop_recordings__participants
),
participants AS (
    SELECT * FROM callers
    UNION ALL
    SELECT * FROM operators
    UNION ALL
    SELECT * FROM attendees
)
SELECT
    participants.session_key,
    sessions.vendor,
    sessions.kind,
    participants.position,
    nullif(trim(participants.name), '') AS name,
    nullif(lower(trim(participants.email)), '') AS email,
    nullif(trim(participants.role), '') AS role,
    participants.joined_at,
    participants.left_at,
    nullif(trim(participants.os), '') AS os,
    nullif(trim(participants.browser), '') AS browser,
    nullif(trim(participants.device), '') AS device,
    nullif(trim(participants.device_type), '') AS device_type,
    nullif(trim(participants.country), '') AS country,
    sessions.deleted_at
FROM participants
INNER JOIN analytics.support_sessions AS sessions ON sessions.session_key = participants.session_key

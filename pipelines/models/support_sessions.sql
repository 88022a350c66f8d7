-- one row per support session: Screendesk recording or live call, Getscreen.me connection, or PostHog meeting
WITH call_participants AS (
    SELECT
        recording_uuid,
        count(*) AS listed,
        arg_min(device, _dlt_list_idx) FILTER (WHERE role = 'guest') AS guest_device,
        arg_min(os, _dlt_list_idx) FILTER (WHERE role = 'guest') AS guest_os
    FROM screendesk.recordings__room_insights__participants_insights
    GROUP BY recording_uuid
),
cleaned_recordings AS (
    -- texts are cleaned before any join: the same value many times over is then cleaned once
    SELECT
        uuid,
        nullif(trim(title), '') AS title,
        coalesce(lower(metadata__recording_type) = 'live', FALSE) OR room_insights__started_at IS NOT NULL AS is_call,
        room_insights__started_at,
        room_insights__ended_at,
        room_insights__duration,
        room_insights__total_unique_participants,
        nullif(lower(trim(user__email)), '') AS agent_email,
        nullif(lower(trim(customer__email)), '') AS customer_email,
        nullif(lower(trim(metadata__helpdesk_info__platform)), '') AS ticket_platform,
        nullif(trim(metadata__helpdesk_info__ticket_id), '') AS helpdesk_ticket,
        nullif(trim(metadata__helpdesk_info__conversation_id), '') AS helpdesk_conversation,
        nullif(trim(metadata__helpdesk_info__issue_id), '') AS helpdesk_issue,
        metadata__duration,
        metadata__impressions_count,
        nullif(metadata__url, '') AS url,
        metadata__created_at,
        metadata__updated_at,
        _deleted_at,
        nullif(trim(metadata__recording_source), '') AS origin,
        nullif(trim(technical_details__vendor), '') AS browser,
        nullif(trim(user__name), '') AS agent_name
    FROM screendesk.recordings
),
recordings AS (
    SELECT
        'screendesk:' || uuid AS session_key,
        'screendesk' AS vendor,
        CASE WHEN is_call THEN 'live_call' ELSE 'recording' END AS kind,
        title,
        coalesce(room_insights__started_at, metadata__created_at) AS started_at,
        room_insights__ended_at AS reported_end,
        CASE
            WHEN is_call THEN coalesce(nullif(room_insights__duration, 0), nullif(metadata__duration, 0))
            ELSE nullif(metadata__duration, 0)
        END AS reported_seconds,
        room_insights__started_at IS NOT NULL
        AND room_insights__ended_at IS NULL
        AND coalesce(room_insights__duration, 0) = 0 AS is_open,
        agent_email,
        customer_email,
        ticket_platform,
        CASE
            WHEN helpdesk_ticket IS NOT NULL THEN 'ticket'
            WHEN helpdesk_conversation IS NOT NULL THEN 'conversation'
            WHEN helpdesk_issue IS NOT NULL THEN 'issue'
        END AS ticket_kind,
        coalesce(helpdesk_ticket, helpdesk_conversation, helpdesk_issue) AS ticket_id,
        nullif(trim(guest_device), '') AS device_name,
        nullif(trim(guest_os), '') AS device_os,
        NULL AS country,
        CASE WHEN is_call THEN coalesce(room_insights__total_unique_participants, listed, 0) END AS participant_count,
        metadata__impressions_count AS view_count,
        coalesce(metadata__duration > 0, FALSE) AS has_video,
        FALSE AS has_transcript,
        url,
        metadata__created_at AS created_at,
        metadata__updated_at AS updated_at,
        _deleted_at AS deleted_at,
        origin,
        browser,
        CAST(NULL AS BIGINT) AS device_id,
        agent_name
    FROM cleaned_recordings
    LEFT JOIN call_participants ON recording_uuid = uuid
),
operators AS (
    SELECT
        connection_id,
        count(*) AS listed,
        arg_min(login, _dlt_list_idx) FILTER (WHERE contains(login, '@')) AS first_email
    FROM getscreen.connections__client
    GROUP BY connection_id
),
connections AS (
    SELECT
        'getscreen:' || id AS session_key,
        'getscreen' AS vendor,
        'remote_session' AS kind,
        NULL AS title,
        start AS started_at,
        stop AS reported_end,
        CAST(NULL AS BIGINT) AS reported_seconds,
        stop IS NULL AS is_open,
        nullif(lower(trim(first_email)), '') AS agent_email,
        NULL AS customer_email,
        NULL AS ticket_platform,
        NULL AS ticket_kind,
        NULL AS ticket_id,
        nullif(trim(agent__name), '') AS device_name,
        nullif(trim(agent__os), '') AS device_os,
        nullif(trim(agent__geo__country), '') AS country,
        coalesce(listed, 0) AS participant_count,
        CAST(NULL AS BIGINT) AS view_count,
        coalesce(video__url, '') <> '' AS has_video,
        FALSE AS has_transcript,
        nullif(video__url, '') AS url,
        start AS created_at,
        CAST(NULL AS TIMESTAMPTZ) AS updated_at,
        _deleted_at AS deleted_at,
        CASE WHEN support_id IS NULL THEN 'permanent access' ELSE 'invitation' END AS origin,
        NULL AS browser,
        agent__id AS device_id,
        NULL AS agent_name
    FROM getscreen.connections
    LEFT JOIN operators ON connection_id = id
),
meeting_participants AS (
    SELECT desktop_recording_id, count(*) AS listed
    FROM posthog.desktop_recordings__participants
    GROUP BY desktop_recording_id
),
transcripts AS (
    SELECT DISTINCT desktop_recording_id FROM posthog.desktop_recordings__transcript_segments
),
meetings AS (
    SELECT
        'posthog:' || id AS session_key,
        'posthog' AS vendor,
        'meeting' AS kind,
        nullif(trim(meeting_title), '') AS title,
        started_at,
        CASE WHEN duration_seconds > 0 THEN NULL ELSE completed_at END AS reported_end,
        nullif(duration_seconds, 0) AS reported_seconds,
        coalesce(status = 'recording', FALSE) AND completed_at IS NULL AS is_open,
        NULL AS agent_email,
        NULL AS customer_email,
        NULL AS ticket_platform,
        NULL AS ticket_kind,
        NULL AS ticket_id,
        NULL AS device_name,
        NULL AS device_os,
        NULL AS country,
        coalesce(listed, 0) AS participant_count,
        CAST(NULL AS BIGINT) AS view_count,
        coalesce(video_url, '') <> '' AS has_video,
        transcripts.desktop_recording_id IS NOT NULL OR coalesce(transcript_text, '') <> '' AS has_transcript,
        nullif(video_url, '') AS url,
        created_at,
        updated_at,
        _deleted_at AS deleted_at,
        nullif(trim(platform), '') AS origin,
        NULL AS browser,
        CAST(NULL AS BIGINT) AS device_id,
        NULL AS agent_name
    FROM posthog.desktop_recordings
    LEFT JOIN meeting_participants ON meeting_participants.desktop_recording_id = id
    LEFT JOIN transcripts ON transcripts.desktop_recording_id = id
),
sessions AS (
    SELECT * FROM recordings
    UNION ALL
    SELECT * FROM connections
    UNION ALL
    SELECT * FROM meetings
),
measured AS (
    SELECT
        *,
        CASE
            WHEN is_open THEN NULL
            WHEN started_at IS NOT NULL AND reported_end IS NOT NULL
                THEN CAST(round(epoch(reported_end) - epoch(started_at)) AS BIGINT)
            ELSE reported_seconds
        END AS seconds
    FROM sessions
),
flagged AS (
    SELECT
        *,
        CASE
            WHEN is_open THEN 'open'
            WHEN seconds IS NULL THEN 'missing'
            WHEN seconds < 0 THEN 'negative'
            WHEN seconds = 0 THEN 'zero'
            WHEN seconds >= 86400 THEN 'day_long'
            ELSE 'ok'
        END AS duration_flag
    FROM measured
)
SELECT
    session_key,
    vendor,
    kind,
    title,
    started_at,
    CASE
        WHEN is_open THEN NULL
        WHEN reported_end IS NOT NULL THEN reported_end
        -- a length beyond any session is no reason to leave the calendar
        WHEN seconds BETWEEN 1 AND 3000000000 THEN started_at + to_seconds(seconds)
    END AS ended_at,
    CASE WHEN seconds >= 0 THEN seconds END AS duration_seconds,
    is_open,
    agent_email,
    customer_email,
    coalesce(ticket_platform, CASE WHEN ticket_id IS NOT NULL THEN 'unknown' END) AS ticket_platform,
    ticket_id,
    device_name,
    device_os,
    country,
    CASE WHEN participant_count >= 0 THEN participant_count END AS participant_count,
    CASE WHEN view_count >= 0 THEN view_count END AS view_count,
    has_video,
    has_transcript,
    url,
    created_at,
    updated_at,
    deleted_at,
    CAST(timezone(getvariable('deskhouse_timezone'), started_at) AS DATE) AS local_day,
    duration_flag,
    coalesce(view_count = 0 AND NOT is_open AND deleted_at IS NULL, FALSE) AS never_viewed,
    origin,
    ticket_kind,
    coalesce(ticket_platform, 'unknown') || ':' || ticket_kind || ':' || ticket_id AS ticket_key,
    browser,
    device_id,
    agent_name
FROM flagged

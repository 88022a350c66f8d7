-- one row per meeting and speaker
WITH speakers AS (
    SELECT
        session_key,
        speaker,
        count(*) AS segments,
        CAST(sum(words) AS BIGINT) AS words,
        sum(end_seconds - start_seconds) AS talk_seconds,
        count(*) FILTER (WHERE begins_turn) AS turns,
        max(end_seconds - turn_start_seconds) AS longest_turn_seconds,
        max(end_seconds) AS end_seconds
    FROM analytics.transcript_segments
    GROUP BY session_key, speaker
),
meetings AS (
    SELECT
        session_key,
        deleted_at,
        started_at,
        local_day,
        CASE WHEN duration_flag IN ('ok', 'day_long') THEN CAST(duration_seconds AS DOUBLE) END AS reported_seconds
    FROM analytics.support_sessions
    WHERE kind = 'meeting'
),
lengths AS (
    SELECT
        speakers.session_key,
        sum(speakers.talk_seconds) AS speech_seconds,
        -- a transcript that runs on past the reported end shows that the meeting did, too
        greatest(any_value(meetings.reported_seconds), max(speakers.end_seconds)) AS meeting_seconds,
        CASE WHEN any_value(meetings.reported_seconds) >= max(speakers.end_seconds) THEN 'reported' ELSE 'transcript' END
            AS meeting_seconds_from
    FROM speakers
    INNER JOIN meetings USING (session_key)
    GROUP BY speakers.session_key
)
SELECT
    session_key,
    coalesce(speakers.speaker, '(unknown)') AS speaker,
    speakers.speaker IS NOT NULL AS is_named,
    speakers.segments,
    speakers.words,
    speakers.talk_seconds,
    CASE WHEN lengths.speech_seconds > 0 THEN speakers.talk_seconds / lengths.speech_seconds END AS share_of_speech,
    CASE WHEN lengths.meeting_seconds > 0 THEN speakers.talk_seconds / lengths.meeting_seconds END AS share_of_meeting,
    speakers.turns,
    speakers.longest_turn_seconds,
    lengths.meeting_seconds,
    lengths.meeting_seconds_from,
    meetings.started_at,
    meetings.local_day,
    meetings.deleted_at
FROM speakers
INNER JOIN lengths USING (session_key)
INNER JOIN meetings USING (session_key)

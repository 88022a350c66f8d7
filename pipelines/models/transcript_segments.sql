-- one row per transcript segment of a meeting, in the order spoken
WITH meetings AS (
    SELECT
        id AS desktop_recording_id,
        _deleted_at AS deleted_at,
        CASE WHEN duration_seconds > 0 THEN CAST(duration_seconds AS DOUBLE) END AS meeting_seconds,
        -- windows over a million rows are for numbers: texts are fetched when all is in place
        CAST(row_number() OVER () AS INTEGER) AS meeting
    FROM posthog.desktop_recordings
),
segments AS (
    SELECT
        meetings.meeting,
        raw._dlt_list_idx AS arrival,
        nullif(nullif(trim(raw.speaker), ''), '(unknown)') AS speaker,
        CAST(length(raw.text) AS INTEGER) AS characters,
        -- the recorder writes 0 for an unknown start; beyond 115 days into a meeting a number is no time
        CASE WHEN raw."timestamp" > 0 AND raw."timestamp" < 1e10 THEN raw."timestamp" / 1000 END AS known_start,
        meetings.meeting_seconds,
        raw.rowid AS raw_row
    FROM posthog.desktop_recordings__transcript_segments AS raw
    INNER JOIN meetings USING (desktop_recording_id)
),
started AS (
    SELECT
        *,
        coalesce(
            last_value(known_start IGNORE NULLS) OVER (
                PARTITION BY meeting ORDER BY arrival ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW
            ),
            0
        ) AS start_seconds
    FROM segments
),
spoken AS (
    SELECT
        meeting,
        raw_row,
        known_start IS NOT NULL AS is_start_known,
        start_seconds,
        characters,
        meeting_seconds,
        CAST(row_number() OVER speaking AS INTEGER) AS position,
        lead(start_seconds) OVER speaking AS next_start,
        row_number() OVER speaking = 1 OR speaker IS DISTINCT FROM lag(speaker) OVER speaking AS begins_turn
    FROM started
    WINDOW speaking AS (PARTITION BY meeting ORDER BY start_seconds, arrival)
),
turns AS (
    SELECT
        *,
        last_value(CASE WHEN begins_turn THEN start_seconds END IGNORE NULLS) OVER (
            PARTITION BY meeting ORDER BY position ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW
        ) AS turn_start_seconds
    FROM spoken
),
timed AS (
    SELECT
        turns.raw_row,
        turns.position,
        turns.start_seconds,
        -- until the next segment or the meeting's end, but no longer than five characters a second would take
        turns.start_seconds + greatest(
            0,
            least(
                coalesce(turns.next_start, turns.meeting_seconds, 1e10) - turns.start_seconds,
                greatest(1, coalesce(turns.characters, 0) / 5.0)
            )
        ) AS end_seconds,
        turns.is_start_known,
        turns.begins_turn,
        turns.turn_start_seconds
    FROM turns
)
SELECT
    'posthog:' || raw.desktop_recording_id AS session_key,
    timed.position,
    nullif(nullif(trim(raw.speaker), ''), '(unknown)') AS speaker,
    raw.text,
    timed.start_seconds,
    timed.end_seconds,
    timed.is_start_known,
    timed.begins_turn,
    timed.turn_start_seconds,
    CASE
        WHEN coalesce(raw.text, '') = '' THEN 0
        WHEN contains(raw.text, '  ') OR starts_with(raw.text, ' ') OR ends_with(raw.text, ' ')
            THEN len(list_filter(string_split(raw.text, ' '), lambda word: word <> ''))
        ELSE len(string_split(raw.text, ' '))
    END AS words,
    raw.confidence,
    raw.is_final,
    raw._dlt_list_idx AS arrival,
    meetings._deleted_at AS deleted_at
FROM timed
INNER JOIN posthog.desktop_recordings__transcript_segments AS raw ON raw.rowid = timed.raw_row
INNER JOIN posthog.desktop_recordings AS meetings ON meetings.id = raw.desktop_recording_id

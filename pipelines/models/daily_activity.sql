-- one row per local day, vendor and kind of session that began on it
SELECT
    local_day,
    vendor,
    kind,
    count(*) AS sessions,
    coalesce(sum(duration_seconds) FILTER (WHERE duration_flag = 'ok'), 0) / 60.0 AS minutes,
    median(duration_seconds) FILTER (WHERE duration_flag = 'ok') / 60.0 AS median_minutes,
    quantile_cont(duration_seconds, 0.9) FILTER (WHERE duration_flag = 'ok') / 60.0 AS p90_minutes,
    count(*) FILTER (WHERE never_viewed) AS never_viewed,
    count(*) FILTER (WHERE view_count = 0 AND deleted_at IS NOT NULL) AS deleted_unviewed,
    count(*) FILTER (WHERE is_open) AS open_sessions,
    count(*) FILTER (WHERE duration_flag NOT IN ('ok', 'zero', 'open')) AS flagged_sessions,
    count(*) FILTER (WHERE deleted_at IS NOT NULL) AS deleted_sessions
FROM analytics.support_sessions
WHERE local_day IS NOT NULL
GROUP BY local_day, vendor, kind

-- raw tables of 100,000 sessions: 70,000 Screendesk recordings (30,000 live calls with 3 participants), 10,000 Getscreen.me
-- connections, 20,000 PostHog meetings with 50 transcript segments; spread over 540 days, with gaps, nulls and deleted rows
CREATE TEMP MACRO rnd(a, b) AS (hash(a, b) % 1000003) / 1000003.0;
INSERT INTO screendesk.users (email,name,role,created_at,_row_hash,_loaded_at,_dlt_load_id)
SELECT 'agent'||i||'@support.example','Agent '||i,'member',TIMESTAMPTZ '2025-01-01 00:00:00+00','h'||i,now(),'1' FROM range(150) t(i);
INSERT INTO screendesk.recordings BY NAME
SELECT md5(i||'u') uuid, 'Title of recording '||i title, 'Some summary text of '||i summary,
 TIMESTAMPTZ '2025-06-01 00:00:00+00' + (rnd(i,1)*540*86400)::BIGINT * INTERVAL 1 second AS metadata__created_at,
 metadata__created_at + INTERVAL 1 hour AS metadata__updated_at,
 CASE WHEN i%30=0 THEN NULL ELSE (20+rnd(i,2)*600)::BIGINT END metadata__duration, (rnd(i,3)*4)::BIGINT metadata__impressions_count,
 CASE WHEN i<30000 THEN 'Live' WHEN i%5=0 THEN 'Sent' ELSE 'Received' END metadata__recording_type, 'Zendesk Ticket' metadata__recording_source,
 'https://app.screendesk.example/recordings/'||uuid metadata__url, CASE WHEN i%10<8 THEN 'zendesk' ELSE 'intercom' END metadata__helpdesk_info__platform,
 CASE WHEN i%10<8 THEN (rnd(i,4)*50000)::BIGINT::VARCHAR END metadata__helpdesk_info__ticket_id,
 CASE WHEN i%10>=8 THEN (rnd(i,5)*50000)::BIGINT::VARCHAR END metadata__helpdesk_info__conversation_id,
 'Chrome' technical_details__vendor, 'Europe/Warsaw' technical_details__timezone,
 repeat('log line '||i||' ', 60) console_logs,
 'Cust'||((rnd(i,6)*20000)::BIGINT)||'@Example.com' customer__email,
 'agent'||((rnd(i,7)*149)::BIGINT)||'@support.example' user__email, 'Agent' user__name,
 CASE WHEN i<30000 THEN metadata__created_at + INTERVAL 10 second END room_insights__started_at,
 CASE WHEN i<29900 THEN room_insights__started_at + (rnd(i,8)*3600)::BIGINT * INTERVAL 1 second END room_insights__ended_at,
 CASE WHEN i<29900 THEN 3 END room_insights__total_unique_participants,
 md5(i::VARCHAR) _row_hash, now() _loaded_at, CASE WHEN i%40=0 THEN now() END _deleted_at, '1' _dlt_load_id
FROM range(70000) AS numbers (i);
INSERT INTO screendesk.recordings__room_insights__participants_insights BY NAME
SELECT uuid recording_uuid, k _dlt_list_idx, 'p'||k participant_id, 'Name '||(rnd(uuid,9)*5000)::BIGINT display_name, CASE k WHEN 0 THEN 'host' WHEN 1 THEN 'guest' ELSE 'participant' END "role", 'Chrome' browser, 'Windows 11' os, 'PC' device, 'desktop' device_type, room_insights__started_at joined_at, room_insights__ended_at left_at, '1' _dlt_load_id
FROM screendesk.recordings, range(3) r(k) WHERE room_insights__started_at IS NOT NULL;
INSERT INTO getscreen.connections BY NAME
SELECT 10500000+i id, TIMESTAMPTZ '2025-06-01 00:00:00+00' + (rnd(i,10)*540*86400)::BIGINT * INTERVAL 1 second AS start,
 CASE WHEN i%200<>0 THEN start + (rnd(i,11)*5000)::BIGINT * INTERVAL 1 second END AS stop, 1405000+(rnd(i,12)*2000)::BIGINT agent__id, 'DESKTOP-'||agent__id agent__name, 'Front' agent__group, 'Japan' agent__geo__country,
 'win' agent__os, '2.2'||(i%3)||'.1' agent__version, 'agent'||(i%150)||'@support.example' agent__owner, 'https://v/'||i video__url, md5(i::VARCHAR) _row_hash, now() _loaded_at, '1' _dlt_load_id
FROM range(10000) AS numbers (i);
INSERT INTO getscreen.connections__client BY NAME
SELECT id connection_id, k _dlt_list_idx, 'Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/143.0 Safari/537.36' user_agent, 'Agent'||((rnd(id*10+k,13)*149)::BIGINT)||'@support.example' login, 'Spain' geo__country, '1' _dlt_load_id
FROM getscreen.connections, range(2) r(k) WHERE k=0 OR id%5=0;
INSERT INTO posthog.desktop_recordings BY NAME
SELECT md5(i||'u') id, 4242 team, 100 created_by, md5(i||'u') sdk_upload_id, 'zoom' platform, 'Weekly' meeting_title, CASE WHEN i%5=0 THEN 500 END duration_seconds, CASE WHEN i%100=0 THEN 'recording' ELSE 'ready' END status,
 TIMESTAMPTZ '2025-06-01 00:00:00+00' + (rnd(i,14)*540*86400)::BIGINT * INTERVAL 1 second AS started_at, started_at created_at, started_at + INTERVAL 1 hour updated_at, repeat('spoken words here ', 100) transcript_text,
 md5(i::VARCHAR) _row_hash, now() _loaded_at, '1' _dlt_load_id
FROM range(20000) AS numbers (i);
INSERT INTO posthog.desktop_recordings__participants BY NAME
SELECT id desktop_recording_id, k _dlt_list_idx, 'Name '||(rnd(id||k,15)*400)::BIGINT "value", '1' _dlt_load_id FROM posthog.desktop_recordings, range(4) r(k);
INSERT INTO posthog.desktop_recordings__transcript_segments BY NAME
SELECT id desktop_recording_id, k _dlt_list_idx, CASE WHEN rnd(id||k,16)>0.99 THEN NULL WHEN rnd(id||k,17)>0.98 THEN 0 ELSE k*5000.0+rnd(id||k,18)*4000 END "timestamp", CASE WHEN rnd(id||k,19)<0.04 THEN '' ELSE 'Name '||(rnd(id||k,20)*4)::BIGINT END speaker,
 'We should write this down for the help centre '||k AS "text", true is_final, '1' _dlt_load_id FROM posthog.desktop_recordings, range(50) r(k);
INSERT INTO ops.receipts BY NAME
SELECT 'run1' run_id, split_part(t, '.', 1) vendor, t table_name, 1 distinct_read, 1 live_rows, 0 inserted, 0 updated, 0 deleted, 0 unchanged, 0 quarantined, 1 passes, 1 requests,
    0 retries, 0 throttled_seconds, 0 bytes_read, TRUE complete, '' reason, 'full' sweep_kind, '' sweep_reason, TRUE order_held, 0 suppressed, now() started_at, now() finished_at
FROM (VALUES ('screendesk.recordings'), ('screendesk.users'), ('getscreen.connections'), ('posthog.desktop_recordings')) AS tables (t);

-- Postgres's own.

-- name: take
UPDATE batch SET steward = :owner, steward_until_s = :until_s
WHERE key = (
    SELECT key FROM batch WHERE status IN (SELECT jsonb_array_elements_text(:statuses::jsonb))
    AND steward_until_s <= :now_s ORDER BY key LIMIT 1 FOR UPDATE SKIP LOCKED
) RETURNING key;

-- name: take_untidy
UPDATE batch SET steward = :owner, steward_until_s = :until_s
WHERE key = (
    SELECT key FROM batch WHERE status IN (SELECT jsonb_array_elements_text(:statuses::jsonb))
    AND steward_until_s <= :now_s AND is_tidy = 0 ORDER BY key LIMIT 1 FOR UPDATE SKIP LOCKED
) RETURNING key;

-- name: change_batch
UPDATE batch SET status = :target, marks = :marks, model = coalesce(:model::text, model),
    total = coalesce(:total::bigint, total), errors = coalesce(:errors::text, errors)
WHERE key = :key AND status = :source AND (:steward = '' OR steward = :steward)
RETURNING key;

-- name: add_lines
INSERT INTO item (batch, idx, rank, start, num_bytes)
SELECT :batch, (v ->> 0)::int, (v ->> 1)::int, (v ->> 2)::bigint, (v ->> 3)::int FROM jsonb_array_elements(:rows::jsonb) AS v
ON CONFLICT DO NOTHING;

-- name: pick_pending
SELECT coalesce(jsonb_agg(jsonb_build_array(idx, start, num_bytes, attempt, deaths) ORDER BY rank), '[]')::text FROM (
    SELECT idx, start, num_bytes, attempt, deaths, rank FROM item
    WHERE batch = :batch AND state = 1 ORDER BY rank LIMIT :limit FOR UPDATE SKIP LOCKED
) AS picked;

-- name: pick_suspects
SELECT coalesce(jsonb_agg(jsonb_build_array(idx, start, num_bytes, attempt, deaths) ORDER BY rank), '[]')::text
FROM (
    SELECT idx, start, num_bytes, attempt, deaths, rank FROM item
    WHERE batch = :batch AND state = 0
    AND deaths = (SELECT min(deaths) FROM item WHERE batch = :batch AND state = 0) ORDER BY rank LIMIT :limit FOR UPDATE SKIP LOCKED
) AS picked;

-- name: lease_lines
UPDATE item SET state = 2, fence = :fence, attempt = attempt + 1
WHERE batch = :batch AND idx IN (SELECT v::int FROM jsonb_array_elements_text(:indexes::jsonb) AS v);

-- name: held
SELECT coalesce(jsonb_agg(place), '[]')::text FROM (
    SELECT j.place - 1 AS place FROM jsonb_array_elements(:keys::jsonb) WITH ORDINALITY AS j (v, place)
    JOIN item ON item.batch = (j.v ->> 0)::bigint AND item.idx = (j.v ->> 1)::int
    WHERE item.state = 2 AND item.fence = (j.v ->> 2)::bigint
    ORDER BY item.batch, item.idx FOR UPDATE OF item
) AS held;

-- name: end_lines
UPDATE item SET state = (v ->> 2)::smallint FROM jsonb_array_elements(:rows::jsonb) AS v
WHERE item.batch = (v ->> 0)::bigint AND item.idx = (v ->> 1)::int;

-- name: add_results
INSERT INTO result (batch, idx, is_success, line, provenance)
SELECT (v ->> 0)::bigint, (v ->> 1)::int, (v ->> 2)::int, v ->> 3, v ->> 4 FROM json_array_elements(:rows::json) AS v
ON CONFLICT DO NOTHING;

-- name: give_back
UPDATE item SET state = CASE WHEN deaths > 0 THEN 0 ELSE 1 END, attempt = attempt - :refund
FROM jsonb_array_elements(:keys::jsonb) AS v
WHERE item.batch = (v ->> 0)::bigint AND item.idx = (v ->> 1)::int AND item.state = 2 AND item.fence = (v ->> 2)::bigint;

-- name: open_batches
SELECT key FROM batch WHERE status IN ('in_progress', 'cancelling') ORDER BY key FOR UPDATE SKIP LOCKED;

-- name: reap
UPDATE item SET state = CASE WHEN deaths + 1 >= :max_deaths THEN 7 ELSE 0 END, deaths = deaths + 1
WHERE batch = :batch AND state = 2 AND fence >> 32 IN (SELECT id FROM lease WHERE until_s <= :now_s);

-- name: output_page
SELECT coalesce(string_agg(line, chr(10) ORDER BY idx), ''), count(*), coalesce(max(idx), 0) FROM (
    SELECT idx, line FROM result
    WHERE batch = :batch AND idx >= :start AND idx < :stop AND is_success = 1 ORDER BY idx LIMIT :limit
) AS page;

-- name: provenance_page
SELECT coalesce(string_agg(provenance, chr(10) ORDER BY idx), ''), count(*), coalesce(max(idx), 0) FROM (
    SELECT idx, provenance FROM result
    WHERE batch = :batch AND idx >= :start AND idx < :stop ORDER BY idx LIMIT :limit
) AS page;

-- name: closed_page
SELECT coalesce(json_agg(json_build_array(idx, state, start, num_bytes, attempt, deaths, line) ORDER BY idx), '[]')::text
FROM (
    SELECT item.idx, state, start, num_bytes, attempt, deaths, line FROM item
    LEFT JOIN result ON result.batch = item.batch AND result.idx = item.idx
    WHERE item.batch = :batch AND item.idx >= :start AND item.idx < :stop AND state >= :min_state
    ORDER BY item.idx LIMIT :limit
) AS page;

-- name: tidy_results
DELETE FROM result WHERE batch = :batch AND idx IN (SELECT idx FROM result WHERE batch = :batch LIMIT :limit);

-- name: tidy_lines
DELETE FROM item WHERE batch = :batch AND idx IN (SELECT idx FROM item WHERE batch = :batch LIMIT :limit);

-- name: notify
SELECT pg_notify('speciate_batch', '');

-- name: now
SELECT extract(epoch FROM clock_timestamp())::double precision;

-- name: has_results
SELECT 1 FROM result WHERE batch = :batch LIMIT 1;

-- SQLite's own. Many rows travel as one JSON value: each step of a statement releases the interpreter's lock, and taking
-- it again beside a busy event loop can take milliseconds.

-- name: take
UPDATE batch SET steward = :owner, steward_until_s = :until_s
WHERE key = (
    SELECT key FROM batch WHERE status IN (SELECT value FROM json_each(:statuses)) AND steward_until_s <= :now_s
    ORDER BY key LIMIT 1
) RETURNING key;

-- name: take_untidy
UPDATE batch SET steward = :owner, steward_until_s = :until_s
WHERE key = (
    SELECT key FROM batch WHERE status IN (SELECT value FROM json_each(:statuses)) AND steward_until_s <= :now_s
    AND is_tidy = 0 ORDER BY key LIMIT 1
) RETURNING key;

-- name: add_lines
INSERT INTO item (batch, idx, rank, start, num_bytes)
SELECT :batch, value ->> 0, value ->> 1, value ->> 2, value ->> 3 FROM json_each(:rows) WHERE true
ON CONFLICT DO NOTHING;

-- name: pick_pending
SELECT json_group_array(json_array(idx, start, num_bytes, attempt, deaths)) FROM (
    SELECT idx, start, num_bytes, attempt, deaths FROM item INDEXED BY item_pending
    WHERE batch = :batch AND state = 1 ORDER BY rank LIMIT :limit
);

-- name: pick_suspects
SELECT json_group_array(json_array(idx, start, num_bytes, attempt, deaths)) FROM (
    SELECT idx, start, num_bytes, attempt, deaths FROM item INDEXED BY item_suspect
    WHERE batch = :batch AND state = 0
    AND deaths = (SELECT min(deaths) FROM item INDEXED BY item_suspect WHERE batch = :batch AND state = 0) ORDER BY rank LIMIT :limit
);

-- name: lease_lines
UPDATE item SET state = 2, fence = :fence, attempt = attempt + 1
WHERE batch = :batch AND idx IN (SELECT value FROM json_each(:indexes));

-- name: held
SELECT json_group_array(j.key) FROM json_each(:keys) AS j
JOIN item ON item.batch = j.value ->> 0 AND item.idx = j.value ->> 1
WHERE item.state = 2 AND item.fence = j.value ->> 2;

-- name: end_lines
UPDATE item SET state = j.value ->> 2 FROM json_each(:rows) AS j
WHERE item.batch = j.value ->> 0 AND item.idx = j.value ->> 1;

-- name: add_results
INSERT INTO result (key, is_success, line, provenance)
SELECT (value ->> 0) << 32 | (value ->> 1), value ->> 2, value ->> 3, value ->> 4 FROM json_each(:rows) WHERE true
ON CONFLICT DO NOTHING;

-- name: give_back
UPDATE item SET state = CASE WHEN deaths > 0 THEN 0 ELSE 1 END, attempt = attempt - :refund
FROM json_each(:keys) AS j
WHERE item.batch = j.value ->> 0 AND item.idx = j.value ->> 1 AND item.state = 2 AND item.fence = j.value ->> 2;

-- name: open_batches
SELECT key FROM batch WHERE status IN ('in_progress', 'cancelling');

-- name: reap
UPDATE item INDEXED BY item_leased SET state = CASE WHEN deaths + 1 >= :max_deaths THEN 7 ELSE 0 END, deaths = deaths + 1
WHERE batch = :batch AND state = 2 AND fence >> 32 IN (SELECT id FROM lease WHERE until_s <= :now_s);

-- name: output_page
SELECT coalesce(group_concat(line, char(10)), ''), count(*), coalesce(max(key), 0) & 4294967295 FROM (
    SELECT key, line FROM result
    WHERE key >= :batch << 32 | :start AND key < :batch << 32 | :stop AND is_success = 1 ORDER BY key LIMIT :limit
);

-- name: provenance_page
SELECT coalesce(group_concat(provenance, char(10)), ''), count(*), coalesce(max(key), 0) & 4294967295 FROM (
    SELECT key, provenance FROM result
    WHERE key >= :batch << 32 | :start AND key < :batch << 32 | :stop ORDER BY key LIMIT :limit
);

-- name: closed_page
SELECT json_group_array(json_array(idx, state, start, num_bytes, attempt, deaths, line)) FROM (
    SELECT idx, state, start, num_bytes, attempt, deaths, line FROM item
    LEFT JOIN result ON result.key = item.batch << 32 | item.idx
    WHERE batch = :batch AND idx >= :start AND idx < :stop AND state >= :min_state ORDER BY idx LIMIT :limit
);

-- name: tidy_results
DELETE FROM result WHERE key IN (
    SELECT key FROM result WHERE key >= :batch << 32 AND key < (:batch + 1) << 32 LIMIT :limit
);

-- name: tidy_lines
DELETE FROM item WHERE batch = :batch AND idx IN (SELECT idx FROM item WHERE batch = :batch LIMIT :limit);

-- name: notify
SELECT 1;

-- name: has_results
SELECT 1 FROM result WHERE key >= :batch << 32 AND key < (:batch + 1) << 32 LIMIT 1;

-- The shared ones again with their index by name: without statistics the planner would walk a whole batch.

-- name: jobs
SELECT key, id, tenant, coalesce(model, ''), spec, created_s, deadline_s,
    total - completed - failed - cancelled - expired,
    coalesce((SELECT min(deaths) FROM item INDEXED BY item_suspect WHERE item.batch = batch.key AND state = 0), 0)
FROM batch WHERE status = 'in_progress' ORDER BY key;

-- name: first_open
SELECT min(rank) FROM (
    SELECT min(rank) AS rank FROM item INDEXED BY item_suspect WHERE batch = :batch AND state = 0
    UNION ALL SELECT min(rank) FROM item INDEXED BY item_pending WHERE batch = :batch AND state = 1
    UNION ALL SELECT min(rank) FROM item INDEXED BY item_leased WHERE batch = :batch AND state = 2
) AS ranks;

-- name: num_leased
SELECT count(*) FROM item INDEXED BY item_leased WHERE batch = :batch AND state = 2;

-- name: dead_lines
SELECT count(*), coalesce(sum(CASE WHEN deaths + 1 >= :max_deaths THEN 1 ELSE 0 END), 0) FROM item INDEXED BY item_leased
WHERE batch = :batch AND state = 2 AND fence >> 32 IN (SELECT id FROM lease WHERE until_s <= :now_s);

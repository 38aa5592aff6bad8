-- Statements that SQLite and Postgres both understand. `:name` is a parameter. `state = 1`
-- and the like stand for the partial indexes: SQLite uses one only where its very condition is in the statement.

-- name: add_file
INSERT INTO file (id, tenant, purpose, filename, num_bytes, created_s, expires_s)
VALUES (:id, :tenant, :purpose, :filename, :num_bytes, :created_s, :expires_s)
ON CONFLICT (id) DO UPDATE SET num_bytes = excluded.num_bytes;

-- name: find_file
SELECT id, tenant, purpose, filename, num_bytes, created_s, expires_s FROM file WHERE id = :id;

-- name: file_key
SELECT key FROM file WHERE id = :id AND tenant = :tenant;

-- name: list_files_down
SELECT id, tenant, purpose, filename, num_bytes, created_s, expires_s FROM file
WHERE tenant = :tenant AND key < :after AND (:purpose = '' OR purpose = :purpose)
ORDER BY key DESC LIMIT :limit;

-- name: list_files_up
SELECT id, tenant, purpose, filename, num_bytes, created_s, expires_s FROM file
WHERE tenant = :tenant AND key > :after AND (:purpose = '' OR purpose = :purpose)
ORDER BY key LIMIT :limit;

-- name: delete_file
DELETE FROM file WHERE id = :id RETURNING id;

-- name: used_bytes
SELECT CAST(coalesce(sum(num_bytes), 0) AS BIGINT) FROM file WHERE tenant = :tenant;

-- name: expired_files
SELECT id, tenant, purpose, filename, num_bytes, created_s, expires_s FROM file
WHERE expires_s IS NOT NULL AND expires_s <= :now_s ORDER BY key LIMIT 1000;

-- name: add_batch
INSERT INTO batch (id, tenant, dialect, idempotency_key, spec, status, created_s, deadline_s, marks)
VALUES (:id, :tenant, :dialect, :idempotency_key, :spec, 'validating', :now_s, :deadline_s, '{}')
ON CONFLICT DO NOTHING RETURNING key;

-- name: find_batch
SELECT key, id, tenant, spec, status, model, created_s, deadline_s, marks, errors, total, completed, failed, cancelled,
    expired, input_tokens, cached_tokens, output_tokens, reasoning_tokens, idempotency_key, is_tidy
FROM batch WHERE id = :id;

-- name: find_batch_by_key
SELECT key, id, tenant, spec, status, model, created_s, deadline_s, marks, errors, total, completed, failed, cancelled,
    expired, input_tokens, cached_tokens, output_tokens, reasoning_tokens, idempotency_key, is_tidy
FROM batch WHERE key = :key;

-- name: find_batch_by_idempotency
SELECT key, id, tenant, spec, status, model, created_s, deadline_s, marks, errors, total, completed, failed, cancelled,
    expired, input_tokens, cached_tokens, output_tokens, reasoning_tokens, idempotency_key, is_tidy
FROM batch WHERE tenant = :tenant AND idempotency_key = :idempotency_key;

-- name: list_batches_down
SELECT key, id, tenant, spec, status, model, created_s, deadline_s, marks, errors, total, completed, failed, cancelled,
    expired, input_tokens, cached_tokens, output_tokens, reasoning_tokens, idempotency_key, is_tidy
FROM batch WHERE tenant = :tenant AND dialect = :dialect AND key < :after ORDER BY key DESC LIMIT :limit;

-- name: list_batches_up
SELECT key, id, tenant, spec, status, model, created_s, deadline_s, marks, errors, total, completed, failed, cancelled,
    expired, input_tokens, cached_tokens, output_tokens, reasoning_tokens, idempotency_key, is_tidy
FROM batch WHERE tenant = :tenant AND dialect = :dialect AND key > :before ORDER BY key LIMIT :limit;

-- name: change_batch
UPDATE batch SET status = :target, marks = :marks, model = coalesce(:model, model), total = coalesce(:total, total),
    errors = coalesce(:errors, errors)
WHERE key = :key AND status = :source AND (:steward = '' OR steward = :steward)
RETURNING key;

-- name: tend
UPDATE batch SET steward_until_s = :until_s WHERE key = :key AND steward = :owner RETURNING key;

-- name: steward_of
SELECT steward FROM batch WHERE key = :key;

-- name: delete_batch
DELETE FROM batch WHERE key = :key;

-- name: jobs
SELECT key, id, tenant, coalesce(model, ''), spec, created_s, deadline_s,
    total - completed - failed - cancelled - expired,
    coalesce((SELECT min(deaths) FROM item WHERE item.batch = batch.key AND state = 0), 0)
FROM batch WHERE status = 'in_progress' ORDER BY key;

-- name: is_in_progress
SELECT key FROM batch WHERE key = :key AND status = 'in_progress';

-- name: next_fence
INSERT INTO lease (owner, until_s, num_claims) VALUES (:owner, :until_s, 1)
ON CONFLICT (owner) DO UPDATE SET num_claims = lease.num_claims + 1, until_s = excluded.until_s
RETURNING id, num_claims;

-- name: extend
UPDATE lease SET until_s = :until_s WHERE owner = :owner;

-- name: add_counts
UPDATE batch SET completed = completed + :completed, failed = failed + :failed, cancelled = cancelled + :cancelled,
    expired = expired + :expired, input_tokens = input_tokens + :input_tokens,
    cached_tokens = cached_tokens + :cached_tokens, output_tokens = output_tokens + :output_tokens,
    reasoning_tokens = reasoning_tokens + :reasoning_tokens
WHERE key = :key
RETURNING status, total - completed - failed - cancelled - expired, marks;

-- name: first_open
SELECT min(rank) FROM (
    SELECT min(rank) AS rank FROM item WHERE batch = :batch AND state = 0
    UNION ALL SELECT min(rank) FROM item WHERE batch = :batch AND state = 1
    UNION ALL SELECT min(rank) FROM item WHERE batch = :batch AND state = 2
) AS ranks;

-- name: first_open_from
SELECT min(idx) FROM item WHERE batch = :batch AND idx >= :start AND idx < :stop AND state < 3;

-- name: close_lines
UPDATE item SET state = :state WHERE batch = :batch AND state < 3;

-- name: dead_lines
SELECT count(*), coalesce(sum(CASE WHEN deaths + 1 >= :max_deaths THEN 1 ELSE 0 END), 0) FROM item
WHERE batch = :batch AND state = 2 AND fence >> 32 IN (SELECT id FROM lease WHERE until_s <= :now_s);

-- name: num_open
SELECT total - completed - failed - cancelled - expired FROM batch WHERE key = :key;

-- name: mark_tidy
UPDATE batch SET is_tidy = 1 WHERE key = :key;

-- name: drop_leases
DELETE FROM lease WHERE until_s <= :now_s - 86400;

-- name: has_lines
SELECT 1 FROM item WHERE batch = :batch LIMIT 1;

-- name: reader_of_file
SELECT id FROM batch WHERE status IN ('validating', 'in_progress', 'finalizing', 'cancelling') AND spec LIKE :pattern
LIMIT 1;

-- name: num_leased
SELECT count(*) FROM item WHERE batch = :batch AND state = 2;

-- name: dismiss_stewards
UPDATE batch SET steward = '', steward_until_s = 0 WHERE steward <> '';

-- name: end_leases
UPDATE lease SET until_s = 0;

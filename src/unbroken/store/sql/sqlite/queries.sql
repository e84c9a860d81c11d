-- Every statement of the SQLite store, by name. Parameters only.

-- fragment: stream_columns
id, epoch, tenant, owner, name, kind, content_type, session, metadata, state, reason, first, head, size_bytes, hash,
genesis, created_ms, updated_ms, ended_ms, ttl_seconds, expires_ms, lease_producer, lease_epoch, lease_until_ms,
cancel_requested_ms, cancel_requested_by, writer_seq, forked_from, fork_seq, deleted, base_seq, base_hash, run, lease_ms,
salts, erased

-- fragment: stream_filter
deleted = 0 AND (?4 IS NULL OR kind = ?4) AND (?5 IS NULL OR state = ?5)
AND (?6 IS NULL OR ?6 = (state IN ('open', 'running', 'paused'))) AND (?7 IS NULL OR ?7 = (run IS NOT NULL))

-- fragment: session_columns
id, tenant, owner, name, state, metadata, created_ms, updated_ms

-- name: stream_by_id
SELECT /*stream_columns*/ FROM stream WHERE id = ?1;

-- name: stream_by_name
SELECT /*stream_columns*/ FROM stream WHERE tenant = ?1 AND owner = ?2 AND name = ?3;

-- name: streams_all
SELECT /*stream_columns*/ FROM stream WHERE id > ?1 ORDER BY id LIMIT ?2;

-- name: streams_shown
SELECT /*stream_columns*/ FROM stream WHERE id > ?1 AND deleted = 0 ORDER BY id LIMIT ?2;

-- name: stream_insert
INSERT INTO stream (/*stream_columns*/, compacted_seq)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21, ?22, ?23, ?24,
    ?25, ?26, ?27, ?28, ?29, ?30, ?31, ?32, ?33, ?34, ?35, ?36, ?31);

-- name: stream_advance
UPDATE stream SET head = ?2, size_bytes = ?3, hash = ?4, updated_ms = ?5, writer_seq = ?6 WHERE id = ?1;

-- name: stream_slide
UPDATE stream SET head = ?2, size_bytes = ?3, hash = ?4, updated_ms = ?5, writer_seq = ?6, expires_ms = ?7 WHERE id = ?1;

-- name: stream_change
UPDATE stream SET head = ?2, size_bytes = ?3, hash = ?4, updated_ms = ?5, writer_seq = ?6, expires_ms = ?7, metadata = ?8,
    state = ?9, reason = ?10, first = ?11, ended_ms = ?12, lease_producer = ?13, lease_epoch = ?14, lease_until_ms = ?15,
    cancel_requested_ms = ?16, cancel_requested_by = ?17, lease_ms = ?18
WHERE id = ?1;

-- name: stream_hide
UPDATE stream SET deleted = 1, session = NULL WHERE id = ?1;

-- name: stream_delete
DELETE FROM stream WHERE id = ?1;

-- name: stream_rebase
UPDATE stream SET base_seq = ?2, base_hash = ?3 WHERE id = ?1;

-- name: stream_compacted
SELECT max(compacted_seq, base_seq, coalesce((SELECT last_seq FROM garbage WHERE stream_id = ?1), 0)),
    state NOT IN ('open', 'running', 'paused')
FROM stream WHERE id = ?1;

-- name: stream_settle
UPDATE stream SET compacted_seq = ?2 WHERE id = ?1;

-- name: stream_forks
SELECT id FROM stream WHERE forked_from = ?1 ORDER BY id;

-- name: stream_leased
SELECT /*stream_columns*/ FROM stream WHERE lease_until_ms < ?1 ORDER BY lease_until_ms, id LIMIT ?2;

-- name: stream_expired
SELECT /*stream_columns*/ FROM stream WHERE expires_ms <= ?1 ORDER BY expires_ms, id LIMIT ?2;

-- name: stream_active_runs
SELECT /*stream_columns*/ FROM stream INDEXED BY stream_of_active_run
WHERE run IS NOT NULL AND ended_ms IS NULL AND id > ?1 AND deleted = 0 ORDER BY id LIMIT ?2;

-- name: stream_renew_leases
UPDATE stream SET lease_until_ms = ?1 + max(coalesce(lease_ms, 0), ?2) WHERE lease_until_ms IS NOT NULL;

-- Listings, newest first: ?3 is the id to continue below, ?8 how many.

-- name: streams_by_owner
SELECT /*stream_columns*/ FROM stream INDEXED BY stream_by_owner
WHERE tenant = ?1 AND owner = ?2 AND id < ?3 AND /*stream_filter*/
ORDER BY id DESC LIMIT ?8;

-- name: streams_of_runs
SELECT /*stream_columns*/ FROM stream INDEXED BY stream_of_run
WHERE tenant = ?1 AND owner = ?2 AND id < ?3 AND run IS NOT NULL AND /*stream_filter*/
ORDER BY id DESC LIMIT ?8;

-- name: streams_by_session
SELECT /*stream_columns*/ FROM stream INDEXED BY stream_by_session
WHERE tenant = ?1 AND owner = ?2 AND session = ?9 AND id < ?3 AND /*stream_filter*/
    AND (?10 IS NULL OR name >= ?10) AND (?11 IS NULL OR name < ?11)
ORDER BY id DESC LIMIT ?8;

-- Every name is below a blob; a bound that is only sometimes there would let the index run to its end.
-- name: streams_by_prefix
SELECT /*stream_columns*/ FROM stream INDEXED BY sqlite_autoindex_stream_1
WHERE tenant = ?1 AND owner = ?2 AND name >= ?9 AND name < ifnull(?10, x'ff') AND id < ?3 AND /*stream_filter*/
ORDER BY id DESC LIMIT ?8;

-- name: streams_among
SELECT /*stream_columns*/ FROM stream
WHERE id IN (
    SELECT covered.id FROM json_each(?10) AS names CROSS JOIN stream AS covered INDEXED BY sqlite_autoindex_stream_1
    WHERE covered.tenant = ?1 AND covered.owner = ?2
        AND covered.name >= names.value ->> 0 AND covered.name < names.value ->> 1
        AND (names.value ->> 2 IS NULL OR covered.epoch = names.value ->> 2)
) AND id < ?3 AND (?9 IS NULL OR session = ?9) AND /*stream_filter*/
ORDER BY id DESC LIMIT ?8;

-- No text is read: its length stands at the beginning of its row.
-- name: usage_of_owner
SELECT
    coalesce(sum(?2 + size_bytes + octet_length(metadata) + octet_length(reason) + coalesce(octet_length(run), 0)), 0) + (
        SELECT coalesce(sum(?2 + octet_length(metadata)), 0) FROM session INDEXED BY session_by_owner
        WHERE tenant = ?1 AND owner = ?3
    ),
    count(*) FILTER (WHERE ended_ms IS NULL AND deleted = 0)
FROM stream INDEXED BY stream_by_owner
WHERE tenant = ?1 AND owner = ?3;

-- name: usage_of_tenant
SELECT
    coalesce(sum(?2 + size_bytes + octet_length(metadata) + octet_length(reason) + coalesce(octet_length(run), 0)), 0) + (
        SELECT coalesce(sum(?2 + octet_length(metadata)), 0) FROM session INDEXED BY session_by_owner
        WHERE tenant = ?1
    ),
    count(*) FILTER (WHERE ended_ms IS NULL AND deleted = 0)
FROM stream INDEXED BY stream_by_owner
WHERE tenant = ?1;

-- name: streams_of_session
SELECT /*stream_columns*/ FROM stream
WHERE tenant = ?1 AND owner = ?2 AND session = ?3 AND id >= ?4
ORDER BY id;

-- name: session_by_name
SELECT /*session_columns*/ FROM session WHERE tenant = ?1 AND owner = ?2 AND name = ?3;

-- name: session_put
INSERT INTO session (tenant, owner, name, state, metadata, created_ms, updated_ms) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
ON CONFLICT (tenant, owner, name) DO UPDATE SET state = ?4, metadata = ?5, updated_ms = ?7;

-- name: session_delete
DELETE FROM session WHERE tenant = ?1 AND owner = ?2 AND name = ?3;

-- name: session_used
SELECT 1 FROM stream WHERE tenant = ?1 AND owner = ?2 AND session = ?3 LIMIT 1;

-- name: sessions_by_owner
SELECT /*session_columns*/ FROM session WHERE tenant = ?1 AND owner = ?2 AND id < ?3 ORDER BY id DESC LIMIT ?4;

-- name: sessions_among
SELECT /*session_columns*/ FROM session
WHERE id IN (
    SELECT covered.id FROM json_each(?5) AS names CROSS JOIN session AS covered INDEXED BY sqlite_autoindex_session_1
    WHERE covered.tenant = ?1 AND covered.owner = ?2
        AND covered.name >= names.value ->> 0 AND covered.name < names.value ->> 1
) AND id < ?3
ORDER BY id DESC LIMIT ?4;

-- name: producer_get
SELECT epoch, seq, first, last FROM producer WHERE stream_id = ?1 AND producer_id = ?2;

-- name: producer_put
INSERT INTO producer (stream_id, producer_id, epoch, seq, first, last) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
ON CONFLICT (stream_id, producer_id) DO UPDATE SET epoch = ?3, seq = ?4, first = ?5, last = ?6;

-- name: chunk_insert
INSERT INTO chunk (id, n, flags, crc, hash, body, marks) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7);

-- name: chunk_range
SELECT id, n, flags, crc, hash, body, marks FROM chunk WHERE id > ?1 AND id <= ?2 ORDER BY id;

-- name: chunk_delete
DELETE FROM chunk WHERE id > ?1 AND id <= ?2;

-- name: chunk_keys
SELECT id, hash FROM chunk WHERE id > ?1 AND id <= ?2 ORDER BY id LIMIT ?3;

-- name: garbage_put
INSERT INTO garbage (stream_id, last_seq) VALUES (?1, ?2)
ON CONFLICT (stream_id) DO UPDATE SET last_seq = max(last_seq, ?2);

-- name: garbage_next
SELECT stream_id, last_seq FROM garbage ORDER BY stream_id LIMIT 1;

-- name: garbage_drop
DELETE FROM garbage WHERE stream_id = ?1;

-- fragment: token_columns
number, id, hash, kind, tenant, owner, actor, grants, created_ms, expires_ms, parent

-- name: token_drop_expired
DELETE FROM token WHERE tenant = ?1 AND owner = ?2 AND expires_ms <= ?3;

-- name: token_count
SELECT count(*) FROM token WHERE tenant = ?1 AND owner = ?2;

-- name: token_known
SELECT 1 FROM token WHERE id = ?1;

-- name: token_put
INSERT INTO token (id, hash, kind, tenant, owner, actor, grants, created_ms, expires_ms, parent)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10);

-- name: token_by_hash
SELECT /*token_columns*/ FROM token WHERE hash = ?1;

-- name: tokens_by_owner
SELECT /*token_columns*/ FROM token INDEXED BY token_by_owner
WHERE tenant = ?1 AND owner = ?2 AND number < ?3 AND (?5 IS NULL OR parent = ?5)
ORDER BY number DESC LIMIT ?4;

-- name: token_delete
DELETE FROM token WHERE id = ?3 AND tenant = ?1 AND owner = ?2 AND (?4 IS NULL OR parent = ?4);

-- name: tokens_of_session_delete
DELETE FROM token INDEXED BY token_by_owner WHERE tenant = ?1 AND substr(id, -17) = ?2;

-- name: tokens_of_sessions_delete
DELETE FROM token INDEXED BY token_by_owner WHERE tenant = ?1 AND owner = ?2 AND created_ms < ?3 AND instr(id, '-') > 0;

-- name: revocations_forget
DELETE FROM revocation WHERE until_ms <= ?1;

-- name: revocation_put
INSERT INTO revocation (tenant, kind, value, before_ms, until_ms) VALUES (?1, ?2, ?3, ?4, ?5)
ON CONFLICT (tenant, kind, value) DO UPDATE SET before_ms = max(before_ms, ?4),
    until_ms = CASE WHEN until_ms IS NULL OR ?5 IS NULL THEN NULL ELSE max(until_ms, ?5) END;

-- name: revoked
SELECT asked.key FROM json_each(?1) AS asked
WHERE (asked.value ->> 2 IS NOT NULL AND NOT EXISTS (SELECT 1 FROM token WHERE id = asked.value ->> 2))
    OR (asked.value ->> 3 IS NOT NULL AND EXISTS (
        SELECT 1 FROM revocation WHERE tenant = asked.value ->> 0 AND kind = 'jti' AND value = asked.value ->> 3))
    OR (asked.value ->> 3 IS NOT NULL AND EXISTS (
        SELECT 1 FROM revocation WHERE tenant = asked.value ->> 0 AND kind = 'subject' AND value = asked.value ->> 1
            AND before_ms > coalesce(asked.value ->> 4, -1)));

-- name: counter_next
UPDATE counter SET value = value + 1 WHERE name = ?1 RETURNING value;

-- name: counter_set
UPDATE counter SET value = ?2 WHERE name = ?1;

-- name: counter_probe
INSERT INTO counter (name, value) VALUES (?1, 1) ON CONFLICT (name) DO UPDATE SET value = value + 1;

-- name: stream_erase
UPDATE stream SET run = NULL, erased = ?2 WHERE id = ?1;

-- name: stream_salts
UPDATE stream SET salts = ?2 WHERE id = ?1;

-- name: producers_delete
DELETE FROM producer WHERE stream_id = ?1;

-- name: chunk_step
SELECT id, n, flags, crc, hash, body, marks FROM chunk WHERE id > ?1 AND id <= ?2 ORDER BY id LIMIT ?3;

-- name: chunk_change
UPDATE chunk SET n = ?2, flags = ?3, crc = ?4, hash = ?5, body = ?6, marks = ?7 WHERE id = ?1;

-- Streams first, what is left to be overwritten last.

-- name: erasure_next
SELECT stream_id, after_seq FROM erasure ORDER BY stream_id DESC LIMIT 1;

-- name: erasure_put
INSERT INTO erasure (stream_id, after_seq) VALUES (?1, ?2) ON CONFLICT (stream_id) DO UPDATE SET after_seq = ?2;

-- name: erasure_drop
DELETE FROM erasure WHERE stream_id = ?1;

-- name: stream_epoch
SELECT epoch FROM stream WHERE id = ?1;

-- name: stream_key_table
SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'stream_key';

-- name: stream_key_get
SELECT epoch, wrapped FROM stream_key WHERE stream_id = ?1;

-- name: stream_key_put
INSERT INTO stream_key (stream_id, epoch, wrapped) VALUES (?1, ?2, ?3)
ON CONFLICT (stream_id) DO UPDATE SET epoch = ?2, wrapped = ?3;

-- name: stream_key_delete
DELETE FROM stream_key WHERE stream_id = ?1;

-- name: stream_key_any
SELECT 1 FROM stream_key LIMIT 1;

-- name: stream_keys_after
SELECT stream_id, epoch, wrapped FROM stream_key WHERE stream_id > ?1 ORDER BY stream_id LIMIT ?2;

-- name: migrations_exist
SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'migration';

-- name: migrations_create
CREATE TABLE migration (
    number INTEGER PRIMARY KEY, name TEXT NOT NULL, checksum TEXT NOT NULL, applied_ms INTEGER NOT NULL
) STRICT;

-- name: migrations_applied
SELECT number, name, checksum FROM migration ORDER BY number;

-- name: migration_record
INSERT INTO migration (number, name, checksum, applied_ms) VALUES (?1, ?2, ?3, ?4);

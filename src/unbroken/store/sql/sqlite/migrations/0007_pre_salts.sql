-- What makes the leaves of a stream's hash chain unguessable, NULL for a stream from before; and by message of a chunk
-- the first bytes of its leaf.

ALTER TABLE stream ADD COLUMN salts BLOB;

ALTER TABLE chunk ADD COLUMN marks BLOB;

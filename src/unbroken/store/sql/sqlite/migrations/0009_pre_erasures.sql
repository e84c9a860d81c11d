-- Who erased a stream's contents, when and why, NULL where nobody did; and how far the bytes are destroyed: up to which
-- message of a stream, and under stream 0 that what was deleted is still to be overwritten in the file.

ALTER TABLE stream ADD COLUMN erased TEXT;

CREATE TABLE erasure (
    stream_id INTEGER PRIMARY KEY,
    after_seq INTEGER NOT NULL
) STRICT;

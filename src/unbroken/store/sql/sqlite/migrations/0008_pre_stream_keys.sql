-- The key with which what a stream holds is encrypted, wrapped by a master key; that of stream 0 is for what is of no stream.

CREATE TABLE stream_key (
    stream_id INTEGER PRIMARY KEY,
    epoch INTEGER NOT NULL,
    wrapped BLOB NOT NULL
) STRICT;

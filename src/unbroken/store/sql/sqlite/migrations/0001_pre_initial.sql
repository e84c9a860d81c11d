-- Sessions, streams, their producers, their messages, and what is to be given back.

CREATE TABLE counter (
    name TEXT PRIMARY KEY,
    value INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Ids and epochs are never used twice, not even after a delete.
INSERT INTO counter (name, value) VALUES ('stream', 0), ('epoch', 0);

CREATE TABLE session (
    id INTEGER PRIMARY KEY,
    tenant TEXT NOT NULL,
    owner TEXT NOT NULL,
    name TEXT NOT NULL,
    state TEXT NOT NULL,
    created_ms INTEGER NOT NULL,
    updated_ms INTEGER NOT NULL,
    metadata TEXT NOT NULL,
    UNIQUE (tenant, owner, name)
) STRICT;

CREATE INDEX session_by_owner ON session (tenant, owner, id);

-- What every append changes stands first, what can be long stands last.
CREATE TABLE stream (
    id INTEGER PRIMARY KEY,
    head INTEGER NOT NULL,
    size_bytes INTEGER NOT NULL,
    hash BLOB NOT NULL,
    updated_ms INTEGER NOT NULL,
    writer_seq TEXT,
    epoch INTEGER NOT NULL,
    first INTEGER NOT NULL,
    state TEXT NOT NULL,
    deleted INTEGER NOT NULL,
    created_ms INTEGER NOT NULL,
    ended_ms INTEGER,
    ttl_seconds INTEGER,
    expires_ms INTEGER,
    lease_producer TEXT,
    lease_epoch INTEGER NOT NULL,
    lease_until_ms INTEGER,
    cancel_requested_ms INTEGER,
    cancel_requested_by TEXT,
    -- a fork shares messages 1 to fork_seq of its source
    forked_from INTEGER REFERENCES stream (id),
    fork_seq INTEGER NOT NULL,
    genesis BLOB NOT NULL,
    -- messages up to base_seq are physically gone, the chain's value there is base_hash
    base_seq INTEGER NOT NULL,
    base_hash BLOB NOT NULL,
    -- chunks up to here are large enough for good
    compacted_seq INTEGER NOT NULL,
    tenant TEXT NOT NULL,
    owner TEXT NOT NULL,
    name TEXT NOT NULL,
    kind TEXT NOT NULL,
    content_type TEXT NOT NULL,
    session TEXT,
    reason TEXT NOT NULL,
    metadata TEXT NOT NULL,
    UNIQUE (tenant, name),
    FOREIGN KEY (tenant, owner, session) REFERENCES session (tenant, owner, name)
) STRICT;

CREATE INDEX stream_by_owner ON stream (tenant, owner, id);
CREATE INDEX stream_by_session ON stream (tenant, owner, session, id);
CREATE INDEX stream_by_expiry ON stream (expires_ms) WHERE expires_ms IS NOT NULL;
CREATE INDEX stream_by_lease ON stream (lease_until_ms) WHERE lease_until_ms IS NOT NULL;
CREATE INDEX stream_by_source ON stream (forked_from) WHERE forked_from IS NOT NULL;

CREATE TABLE producer (
    stream_id INTEGER NOT NULL REFERENCES stream (id) ON DELETE CASCADE,
    producer_id TEXT NOT NULL,
    epoch INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    first INTEGER NOT NULL,
    last INTEGER NOT NULL,
    PRIMARY KEY (stream_id, producer_id)
) STRICT, WITHOUT ROWID;

-- id = stream id * 2^32 + last seq: "behind this cursor" is one seek, and a stream's chunks lie together.
CREATE TABLE chunk (
    id INTEGER PRIMARY KEY,
    n INTEGER NOT NULL,
    flags INTEGER NOT NULL,
    crc INTEGER NOT NULL,
    hash BLOB NOT NULL,
    body BLOB NOT NULL
) STRICT;

-- Chunks of a stream up to last_seq that nobody needs; deleted in small steps. The stream itself may be gone already.
CREATE TABLE garbage (
    stream_id INTEGER PRIMARY KEY,
    last_seq INTEGER NOT NULL
) STRICT;

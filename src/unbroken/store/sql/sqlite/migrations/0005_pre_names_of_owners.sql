-- A name belongs to an owner: two owners may use one name and never meet. A constraint of a table cannot be changed, so the
-- table is made anew (foreign keys are off meanwhile, or the producers would go with the old one).

CREATE TABLE stream_anew (
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
    run TEXT,
    lease_ms INTEGER,
    UNIQUE (tenant, owner, name),
    FOREIGN KEY (tenant, owner, session) REFERENCES session (tenant, owner, name)
) STRICT;

INSERT INTO stream_anew SELECT * FROM stream;

DROP TABLE stream;

ALTER TABLE stream_anew RENAME TO stream;

CREATE INDEX stream_by_owner ON stream (tenant, owner, id);
CREATE INDEX stream_by_session ON stream (tenant, owner, session, id);
CREATE INDEX stream_by_expiry ON stream (expires_ms) WHERE expires_ms IS NOT NULL;
CREATE INDEX stream_by_lease ON stream (lease_until_ms) WHERE lease_until_ms IS NOT NULL;
CREATE INDEX stream_by_source ON stream (forked_from) WHERE forked_from IS NOT NULL;
CREATE INDEX stream_of_active_run ON stream (id) WHERE run IS NOT NULL AND ended_ms IS NULL;
CREATE INDEX stream_of_run ON stream (tenant, owner, id) WHERE run IS NOT NULL;

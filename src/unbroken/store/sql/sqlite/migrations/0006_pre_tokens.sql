-- Who may come in: tokens by the SHA-256 of their secrets, and what of other credentials was revoked before its time.

CREATE TABLE token (
    number INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    hash BLOB NOT NULL UNIQUE,
    kind TEXT NOT NULL,
    tenant TEXT NOT NULL,
    owner TEXT NOT NULL,
    actor TEXT NOT NULL,
    -- NULL: everything that the owner has
    grants TEXT,
    created_ms INTEGER NOT NULL,
    expires_ms INTEGER,
    -- what was handed on ends with the token that it was handed on with
    parent TEXT REFERENCES token (id) ON DELETE CASCADE
) STRICT;

CREATE INDEX token_by_owner ON token (tenant, owner, number);
CREATE INDEX token_by_parent ON token (parent) WHERE parent IS NOT NULL;

-- kind: jti (the token with this id) or subject (those that were issued to it before a time)
CREATE TABLE revocation (
    number INTEGER PRIMARY KEY,
    tenant TEXT NOT NULL,
    kind TEXT NOT NULL,
    value TEXT NOT NULL,
    before_ms INTEGER NOT NULL,
    until_ms INTEGER,
    UNIQUE (tenant, kind, value)
) STRICT;

CREATE INDEX revocation_by_end ON revocation (until_ms) WHERE until_ms IS NOT NULL;

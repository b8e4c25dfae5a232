-- API tokens that were given out: of their secrets there is only a hash. Times are milliseconds since 1970-01-01T00:00:00Z.
CREATE TABLE api_tokens (
    -- 16 hexadecimal digits, as they stand in the token
    id TEXT NOT NULL PRIMARY KEY CHECK (length(id) = 16),
    name TEXT NOT NULL CHECK (length(name) BETWEEN 1 AND 63),
    -- SHA-256 of the secret
    hash BLOB NOT NULL CHECK (length(hash) = 32),
    role TEXT NOT NULL,
    force INTEGER NOT NULL CHECK (force IN (0, 1)),
    -- NULL: all clusters, also those that come later.
    clusters_json TEXT,
    -- NULL: all nodes.
    nodes TEXT,
    created_at_unix_ms INTEGER NOT NULL,
    created_by TEXT NOT NULL,
    expires_at_unix_ms INTEGER NOT NULL,
    revoked_at_unix_ms INTEGER,
    revoked_by TEXT,
    last_used_at_unix_ms INTEGER,
    CHECK ((revoked_at_unix_ms IS NULL) = (revoked_by IS NULL))
) STRICT, WITHOUT ROWID;

-- The name of one that is revoked may be used again.
CREATE UNIQUE INDEX api_tokens_of_name ON api_tokens (name) WHERE revoked_at_unix_ms IS NULL;

-- By what whoever asked for an operation may have it done. NULL: it was accepted when nobody signed in.
ALTER TABLE operations ADD COLUMN authority_json TEXT;

-- Requests under keys that their callers chose, and what was answered. Times are milliseconds since 1970-01-01T00:00:00Z.
CREATE TABLE idempotency_keys (
    caller TEXT NOT NULL,
    key TEXT NOT NULL,
    -- SHA-256 of what was asked
    fingerprint BLOB NOT NULL CHECK (length(fingerprint) = 32),
    claimed_at_unix_ms INTEGER NOT NULL,
    -- null while it is being worked on
    status INTEGER,
    content_type TEXT,
    etag TEXT,
    body BLOB,
    PRIMARY KEY (caller, key)
) STRICT, WITHOUT ROWID;

CREATE INDEX idempotency_keys_claimed_at ON idempotency_keys (claimed_at_unix_ms);

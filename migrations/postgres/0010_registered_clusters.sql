-- Clusters that were registered while the service ran. Times are milliseconds since 1970-01-01T00:00:00Z.
-- Their credentials are sealed: the keys are in the file of secrets.key_file and never here.
-- Names sort by their bytes, whatever the database's locale is.
CREATE TABLE registered_clusters (
    name TEXT COLLATE "C" NOT NULL PRIMARY KEY CHECK (length(name) BETWEEN 1 AND 63),
    -- Another one with each registration and replacement.
    revision TEXT NOT NULL,
    key_id TEXT NOT NULL,
    nonce_bytes BYTEA NOT NULL,
    ciphertext_bytes BYTEA NOT NULL,
    server TEXT NOT NULL,
    user_name TEXT NOT NULL,
    -- NULL: the credentials do not tell.
    expires_at_unix_ms BIGINT,
    registered_at_unix_ms BIGINT NOT NULL,
    changed_at_unix_ms BIGINT NOT NULL
);

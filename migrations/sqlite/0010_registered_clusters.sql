-- Clusters that were registered while the service ran. Times are milliseconds since 1970-01-01T00:00:00Z.
-- Their credentials are sealed: the keys are in the file of secrets.key_file and never here.
CREATE TABLE registered_clusters (
    name TEXT NOT NULL PRIMARY KEY CHECK (length(name) BETWEEN 1 AND 63),
    -- Another one with each registration and replacement.
    revision TEXT NOT NULL,
    key_id TEXT NOT NULL,
    nonce_bytes BLOB NOT NULL,
    ciphertext_bytes BLOB NOT NULL,
    server TEXT NOT NULL,
    user_name TEXT NOT NULL,
    -- NULL: the credentials do not tell.
    expires_at_unix_ms INTEGER,
    registered_at_unix_ms INTEGER NOT NULL,
    changed_at_unix_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Clusters that were registered with the service. Times are milliseconds since 1970-01-01T00:00:00Z.
-- Names sort by their bytes, whatever the database's locale is.
CREATE TABLE cluster_registrations (
    name TEXT COLLATE "C" NOT NULL PRIMARY KEY CHECK (length(name) BETWEEN 1 AND 63),
    source TEXT NOT NULL,
    registered_at_unix_ms BIGINT NOT NULL,
    changed_at_unix_ms BIGINT NOT NULL
);

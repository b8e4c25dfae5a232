-- Templates and bindings, version by version. Rows are added and never changed. Times are milliseconds since 1970-01-01T00:00:00Z.
CREATE TABLE definition_versions (
    kind TEXT NOT NULL,
    name TEXT NOT NULL,
    -- Counted from 1.
    version INTEGER NOT NULL,
    -- NULL: with this version it was deleted.
    content_json TEXT,
    changed_at_unix_ms INTEGER NOT NULL,
    changed_by TEXT NOT NULL,
    PRIMARY KEY (kind, name, version)
) STRICT, WITHOUT ROWID;

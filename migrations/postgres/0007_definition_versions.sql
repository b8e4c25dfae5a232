-- Templates and bindings, version by version. Rows are added and never changed. Times are milliseconds since 1970-01-01T00:00:00Z.
CREATE TABLE definition_versions (
    kind TEXT COLLATE "C" NOT NULL,
    name TEXT COLLATE "C" NOT NULL,
    -- Counted from 1.
    version BIGINT NOT NULL,
    -- NULL: with this version it was deleted.
    content_json TEXT,
    changed_at_unix_ms BIGINT NOT NULL,
    changed_by TEXT NOT NULL,
    PRIMARY KEY (kind, name, version)
);

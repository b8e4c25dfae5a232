-- Who keeps which node cordoned. Times are milliseconds since 1970-01-01T00:00:00Z; ids are the 16 bytes of a UUID v7.
-- Ended holds stay as the history of their node.
CREATE TABLE cordon_holds (
    id BYTEA NOT NULL PRIMARY KEY CHECK (length(id) = 16),
    cluster TEXT COLLATE "C" NOT NULL,
    node TEXT COLLATE "C" NOT NULL,
    holder TEXT NOT NULL,
    reason TEXT NOT NULL,
    ticket TEXT,
    since_unix_ms BIGINT NOT NULL,
    until_unix_ms BIGINT,
    over_foreign BOOLEAN NOT NULL,
    -- 0 pending, 1 active, 2 ended
    state SMALLINT NOT NULL CHECK (state BETWEEN 0 AND 2),
    changed_at_unix_ms BIGINT NOT NULL
);

CREATE INDEX cordon_holds_unended ON cordon_holds (cluster, node, id) WHERE state < 2;

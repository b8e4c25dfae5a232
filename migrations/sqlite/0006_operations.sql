-- What is done to nodes step by step, on one node or on many. Times are milliseconds since 1970-01-01T00:00:00Z. Ids are UUIDs of version 7,
-- as bytes: they sort by the time at which operations were accepted.
CREATE TABLE operations (
    id BLOB NOT NULL PRIMARY KEY CHECK (length(id) = 16),
    kind TEXT NOT NULL,
    actor_name TEXT,
    actor_kind TEXT NOT NULL,
    actor_address TEXT,
    request_id TEXT,
    reason TEXT,
    ticket TEXT,
    options_json TEXT NOT NULL,
    strategy_json TEXT NOT NULL,
    dry_run INTEGER NOT NULL CHECK (dry_run IN (0, 1)),
    retry_of BLOB CHECK (retry_of IS NULL OR length(retry_of) = 16),
    created_at_unix_ms INTEGER NOT NULL,
    started_at_unix_ms INTEGER,
    ended_at_unix_ms INTEGER,
    state TEXT NOT NULL,
    message TEXT,
    total INTEGER NOT NULL,
    done INTEGER NOT NULL,
    failed INTEGER NOT NULL,
    skipped INTEGER NOT NULL,
    excused INTEGER NOT NULL,
    -- The number of the last event.
    last_event INTEGER NOT NULL,
    lease_owner TEXT,
    -- How often the operation changed hands; it only ever grows.
    lease_epoch INTEGER NOT NULL,
    -- By the clock of the database.
    lease_expires_at_unix_ms INTEGER
) STRICT;

-- Few operations want work, and of those that ended there may be millions.
CREATE INDEX operations_unended ON operations (id) WHERE state IN ('queued', 'running', 'paused', 'cancelling');
CREATE INDEX operations_leased ON operations (lease_owner) WHERE lease_owner IS NOT NULL;
CREATE INDEX operations_of_kind ON operations (kind, id);
CREATE INDEX operations_of_state ON operations (state, id);
CREATE INDEX operations_of_actor ON operations (coalesce(actor_name, actor_kind), id);

CREATE TABLE operation_targets (
    operation BLOB NOT NULL REFERENCES operations (id) ON DELETE CASCADE,
    place INTEGER NOT NULL,
    cluster TEXT NOT NULL,
    node TEXT NOT NULL,
    state TEXT NOT NULL,
    message TEXT,
    started_at_unix_ms INTEGER,
    ended_at_unix_ms INTEGER,
    audit BLOB CHECK (audit IS NULL OR length(audit) = 16),
    hold BLOB CHECK (hold IS NULL OR length(hold) = 16),
    detail_json TEXT NOT NULL,
    PRIMARY KEY (operation, place)
) STRICT, WITHOUT ROWID;

CREATE INDEX operation_targets_of_cluster_and_node ON operation_targets (cluster, node, operation);
CREATE INDEX operation_targets_of_node ON operation_targets (node, operation);

CREATE TABLE operation_events (
    operation BLOB NOT NULL REFERENCES operations (id) ON DELETE CASCADE,
    -- Counted from 1 in each operation, without a gap.
    number INTEGER NOT NULL,
    at_unix_ms INTEGER NOT NULL,
    kind TEXT NOT NULL,
    data_json TEXT NOT NULL,
    PRIMARY KEY (operation, number)
) STRICT, WITHOUT ROWID;

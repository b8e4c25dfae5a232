-- What is done to nodes step by step, on one node or on many. Times are milliseconds since 1970-01-01T00:00:00Z. Ids are UUIDs of version 7,
-- which sort by the time at which operations were accepted.
CREATE TABLE operations (
    id UUID NOT NULL PRIMARY KEY,
    kind TEXT NOT NULL,
    actor_name TEXT,
    actor_kind TEXT NOT NULL,
    actor_address TEXT,
    request_id TEXT,
    reason TEXT,
    ticket TEXT,
    options_json TEXT NOT NULL,
    strategy_json TEXT NOT NULL,
    dry_run BOOLEAN NOT NULL,
    retry_of UUID,
    created_at_unix_ms BIGINT NOT NULL,
    started_at_unix_ms BIGINT,
    ended_at_unix_ms BIGINT,
    state TEXT NOT NULL,
    message TEXT,
    total BIGINT NOT NULL,
    done BIGINT NOT NULL,
    failed BIGINT NOT NULL,
    skipped BIGINT NOT NULL,
    excused BIGINT NOT NULL,
    -- The number of the last event.
    last_event BIGINT NOT NULL,
    lease_owner TEXT,
    -- How often the operation changed hands; it only ever grows.
    lease_epoch BIGINT NOT NULL,
    -- By the clock of the database.
    lease_expires_at_unix_ms BIGINT
);

-- Few operations want work, and of those that ended there may be millions.
CREATE INDEX operations_unended ON operations (id) WHERE state IN ('queued', 'running', 'paused', 'cancelling');
CREATE INDEX operations_leased ON operations (lease_owner) WHERE lease_owner IS NOT NULL;
CREATE INDEX operations_of_kind ON operations (kind, id);
CREATE INDEX operations_of_state ON operations (state, id);
CREATE INDEX operations_of_actor ON operations (coalesce(actor_name, actor_kind), id);

CREATE TABLE operation_targets (
    operation UUID NOT NULL REFERENCES operations (id) ON DELETE CASCADE,
    place BIGINT NOT NULL,
    cluster TEXT COLLATE "C" NOT NULL,
    node TEXT COLLATE "C" NOT NULL,
    state TEXT NOT NULL,
    message TEXT,
    started_at_unix_ms BIGINT,
    ended_at_unix_ms BIGINT,
    audit UUID,
    hold UUID,
    detail_json TEXT NOT NULL,
    PRIMARY KEY (operation, place)
);

CREATE INDEX operation_targets_of_cluster_and_node ON operation_targets (cluster, node, operation);
CREATE INDEX operation_targets_of_node ON operation_targets (node, operation);

CREATE TABLE operation_events (
    operation UUID NOT NULL REFERENCES operations (id) ON DELETE CASCADE,
    -- Counted from 1 in each operation, without a gap.
    number BIGINT NOT NULL,
    at_unix_ms BIGINT NOT NULL,
    kind TEXT NOT NULL,
    data_json TEXT NOT NULL,
    PRIMARY KEY (operation, number)
);

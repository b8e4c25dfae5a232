-- What was tried, by whom, and what came of it. Times are milliseconds since 1970-01-01T00:00:00Z. Ids are UUIDs of version 7, which
-- sort by the time of the intent, and each filter has an index in which its records lie in this order.
CREATE TABLE audit_records (
    id UUID NOT NULL PRIMARY KEY,
    at_unix_ms BIGINT NOT NULL,
    actor_name TEXT,
    actor_kind TEXT NOT NULL,
    actor_address TEXT,
    action TEXT NOT NULL,
    cluster TEXT NOT NULL,
    node TEXT,
    operation UUID,
    request_id TEXT,
    reason TEXT,
    ticket TEXT,
    options_json TEXT NOT NULL,
    -- 'pending' until it is known.
    outcome TEXT NOT NULL,
    completed_at_unix_ms BIGINT,
    error TEXT,
    before_json TEXT,
    after_json TEXT,
    CHECK ((outcome = 'pending') = (completed_at_unix_ms IS NULL))
);

CREATE INDEX audit_records_of_cluster ON audit_records (cluster, id);
CREATE INDEX audit_records_of_node ON audit_records (node, id);
CREATE INDEX audit_records_of_cluster_and_node ON audit_records (cluster, node, id);
CREATE INDEX audit_records_of_actor ON audit_records (coalesce(actor_name, actor_kind), id);
CREATE INDEX audit_records_of_action ON audit_records (action, id);
CREATE INDEX audit_records_of_outcome ON audit_records (outcome, id);
CREATE INDEX audit_records_of_operation ON audit_records (operation, id) WHERE operation IS NOT NULL;

-- What was tried, by whom, and what came of it. Times are milliseconds since 1970-01-01T00:00:00Z. Ids are UUIDs of version 7, as bytes:
-- they sort by the time of the intent, and each filter has an index in which its records lie in this order.
CREATE TABLE audit_records (
    id BLOB NOT NULL PRIMARY KEY CHECK (length(id) = 16),
    at_unix_ms INTEGER NOT NULL,
    actor_name TEXT,
    actor_kind TEXT NOT NULL,
    actor_address TEXT,
    action TEXT NOT NULL,
    cluster TEXT NOT NULL,
    node TEXT,
    operation BLOB CHECK (operation IS NULL OR length(operation) = 16),
    request_id TEXT,
    reason TEXT,
    ticket TEXT,
    options_json TEXT NOT NULL,
    -- 'pending' until it is known.
    outcome TEXT NOT NULL,
    completed_at_unix_ms INTEGER,
    error TEXT,
    before_json TEXT,
    after_json TEXT,
    CHECK ((outcome = 'pending') = (completed_at_unix_ms IS NULL))
) STRICT;

CREATE INDEX audit_records_of_cluster ON audit_records (cluster, id);
CREATE INDEX audit_records_of_node ON audit_records (node, id);
CREATE INDEX audit_records_of_cluster_and_node ON audit_records (cluster, node, id);
CREATE INDEX audit_records_of_actor ON audit_records (coalesce(actor_name, actor_kind), id);
CREATE INDEX audit_records_of_action ON audit_records (action, id);
CREATE INDEX audit_records_of_outcome ON audit_records (outcome, id);
CREATE INDEX audit_records_of_operation ON audit_records (operation, id) WHERE operation IS NOT NULL;

-- What ANALYZE would find with many records. An empty table tells the planner nothing, and of several filters it must know which one
-- leaves the fewest records. The first number is that of all records, the next ones are those of a single value of each column.
ANALYZE sqlite_schema;
INSERT INTO sqlite_stat1 (tbl, idx, stat) VALUES
    ('audit_records', 'sqlite_autoindex_audit_records_1', '1000000 1'),
    ('audit_records', 'audit_records_of_operation', '1000000 100 1'),
    ('audit_records', 'audit_records_of_cluster_and_node', '1000000 100000 100 1'),
    ('audit_records', 'audit_records_of_node', '1000000 500 1'),
    ('audit_records', 'audit_records_of_actor', '1000000 5000 1'),
    ('audit_records', 'audit_records_of_outcome', '1000000 30000 1'),
    ('audit_records', 'audit_records_of_cluster', '1000000 100000 1'),
    ('audit_records', 'audit_records_of_action', '1000000 200000 1');
ANALYZE sqlite_schema;

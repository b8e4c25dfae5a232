//! All that a store holds, table by table: what moves when the store is moved.
//!
//! Tests of both adapters hold this list against the schema that the migrations make: a column that is missing here would be lost.

use knm_ports::{Column, ColumnKind, Table};

/// All tables, those that others refer to before these.
pub static TABLES: [Table; 11] = [
    Table {
        name: "cluster_registrations",
        columns: &[
            text("name"),
            text("source"),
            integer("registered_at_unix_ms"),
            integer("changed_at_unix_ms"),
        ],
        key: 1,
        page: MANY,
    },
    Table {
        name: "registered_clusters",
        columns: &[
            text("name"),
            text("revision"),
            text("key_id"),
            bytes("nonce_bytes"),
            bytes("ciphertext_bytes"),
            text("server"),
            text("user_name"),
            integer("expires_at_unix_ms"),
            integer("registered_at_unix_ms"),
            integer("changed_at_unix_ms"),
        ],
        key: 1,
        page: FEW,
    },
    Table {
        name: "api_tokens",
        columns: &[
            text("id"),
            text("name"),
            bytes("hash"),
            text("role"),
            flag("force"),
            text("clusters_json"),
            text("nodes"),
            integer("created_at_unix_ms"),
            text("created_by"),
            integer("expires_at_unix_ms"),
            integer("revoked_at_unix_ms"),
            text("revoked_by"),
            integer("last_used_at_unix_ms"),
        ],
        key: 1,
        page: MANY,
    },
    Table {
        name: "definition_versions",
        columns: &[
            text("kind"),
            text("name"),
            integer("version"),
            text("content_json"),
            integer("changed_at_unix_ms"),
            text("changed_by"),
        ],
        key: 3,
        page: FEW,
    },
    Table {
        name: "cordon_holds",
        columns: &[
            bytes("id"),
            text("cluster"),
            text("node"),
            text("holder"),
            text("reason"),
            text("ticket"),
            integer("since_unix_ms"),
            integer("until_unix_ms"),
            flag("over_foreign"),
            small("state"),
            integer("changed_at_unix_ms"),
        ],
        key: 1,
        page: MANY,
    },
    Table {
        name: "operations",
        columns: &[
            id("id"),
            text("kind"),
            text("actor_name"),
            text("actor_kind"),
            text("actor_address"),
            text("request_id"),
            text("reason"),
            text("ticket"),
            text("options_json"),
            text("strategy_json"),
            flag("dry_run"),
            id("retry_of"),
            integer("created_at_unix_ms"),
            integer("started_at_unix_ms"),
            integer("ended_at_unix_ms"),
            text("state"),
            text("message"),
            integer("total"),
            integer("done"),
            integer("failed"),
            integer("skipped"),
            integer("excused"),
            integer("last_event"),
            text("lease_owner"),
            integer("lease_epoch"),
            integer("lease_expires_at_unix_ms"),
            bytes("idempotency"),
            flag("taken_over"),
            text("authority_json"),
        ],
        key: 1,
        page: SOME,
    },
    Table {
        name: "operation_targets",
        columns: &[
            id("operation"),
            integer("place"),
            text("cluster"),
            text("node"),
            text("state"),
            text("message"),
            integer("started_at_unix_ms"),
            integer("ended_at_unix_ms"),
            id("audit"),
            id("hold"),
            text("detail_json"),
            text("zone"),
        ],
        key: 2,
        page: SOME,
    },
    Table {
        name: "operation_events",
        columns: &[
            id("operation"),
            integer("number"),
            integer("at_unix_ms"),
            text("kind"),
            text("data_json"),
        ],
        key: 2,
        page: SOME,
    },
    Table {
        name: "audit_records",
        columns: &[
            id("id"),
            integer("at_unix_ms"),
            text("actor_name"),
            text("actor_kind"),
            text("actor_address"),
            text("action"),
            text("cluster"),
            text("node"),
            id("operation"),
            text("request_id"),
            text("reason"),
            text("ticket"),
            text("options_json"),
            text("outcome"),
            integer("completed_at_unix_ms"),
            text("error"),
            text("before_json"),
            text("after_json"),
        ],
        key: 1,
        page: MANY,
    },
    Table {
        name: "idempotency_keys",
        columns: &[
            text("caller"),
            text("key"),
            bytes("fingerprint"),
            integer("claimed_at_unix_ms"),
            small("status"),
            text("content_type"),
            text("etag"),
            bytes("body"),
        ],
        key: 2,
        page: FEW,
    },
    Table {
        name: "leases",
        columns: &[text("name"), text("owner"), integer("expires_at_unix_ms")],
        key: 1,
        page: MANY,
    },
];

/// Rows of a few hundred bytes.
const MANY: usize = 1_000;
/// Rows of some kilobytes at times.
const SOME: usize = 500;
/// Rows of up to a megabyte.
const FEW: usize = 16;

const fn text(name: &'static str) -> Column {
    column(name, ColumnKind::Text)
}

const fn integer(name: &'static str) -> Column {
    column(name, ColumnKind::Integer)
}

const fn small(name: &'static str) -> Column {
    column(name, ColumnKind::Small)
}

const fn flag(name: &'static str) -> Column {
    column(name, ColumnKind::Flag)
}

const fn bytes(name: &'static str) -> Column {
    column(name, ColumnKind::Bytes)
}

const fn id(name: &'static str) -> Column {
    column(name, ColumnKind::Id)
}

const fn column(name: &'static str, kind: ColumnKind) -> Column {
    Column { name, kind }
}

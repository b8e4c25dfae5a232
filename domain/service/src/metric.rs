//! The names of the metrics that the use cases keep.

use knm_model::{AuditAction, AuditOutcome, OperationKind, OperationState, TargetState};
use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram};

/// One gauge or counter: its name, its unit if it has one, and its help.
type Description = (&'static str, Option<Unit>, &'static str);

pub(crate) const UP: &str = "kube_node_manager_up";
pub(crate) const START_TIME: &str = "kube_node_manager_start_time_seconds";
pub(crate) const DATABASE_UP: &str = "kube_node_manager_database_up";
pub(crate) const MEMORY_USAGE: &str = "kube_node_manager_memory_usage_bytes";
/// Promised to the dashboards of the first version, and a gauge despite its name.
pub(crate) const GOROUTINES: &str = "kube_node_manager_goroutines_total";
pub(crate) const BUILD_INFO: &str = "kube_node_manager_build_info";
pub(crate) const DATABASE_CONNECTIONS: &str = "kube_node_manager_database_connections";
pub(crate) const DATABASE_CONNECTIONS_MAX: &str = "kube_node_manager_database_connections_max";
pub(crate) const CLUSTER_UP: &str = "kube_node_manager_cluster_up";
pub(crate) const CLUSTER_NODES: &str = "kube_node_manager_cluster_nodes";
pub(crate) const CLUSTER_NODES_UNSCHEDULABLE: &str = "kube_node_manager_cluster_nodes_unschedulable";
pub(crate) const CLUSTER_PODS: &str = "kube_node_manager_cluster_pods";
pub(crate) const CLUSTER_PODS_UP: &str = "kube_node_manager_cluster_pods_up";
pub(crate) const CLUSTER_PERMISSIONS_MISSING: &str = "kube_node_manager_cluster_permissions_missing";
pub(crate) const CLUSTER_LAST_EVENT_AGE: &str = "kube_node_manager_cluster_last_event_age_seconds";
pub(crate) const CLUSTER_CREDENTIALS_EXPIRE: &str = "kube_node_manager_cluster_credentials_expire_timestamp_seconds";
pub(crate) const NODE_CHANGES: &str = "kube_node_manager_node_changes_total";
pub(crate) const AUDIT_FAILURES: &str = "kube_node_manager_audit_failures_total";
pub(crate) const CORDON_HOLDS: &str = "kube_node_manager_cordon_holds";
pub(crate) const OPERATIONS: &str = "kube_node_manager_operations";
pub(crate) const OPERATIONS_ENDED: &str = "kube_node_manager_operations_ended_total";
pub(crate) const OPERATION_DURATION: &str = "kube_node_manager_operation_duration_seconds";
pub(crate) const OPERATION_NODES: &str = "kube_node_manager_operation_nodes_total";
pub(crate) const OPERATION_QUEUE_AGE: &str = "kube_node_manager_operation_queue_age_seconds";
pub(crate) const OPERATION_TAKEOVERS: &str = "kube_node_manager_operation_takeovers_total";
pub(crate) const OPERATION_LEASES_LOST: &str = "kube_node_manager_operation_leases_lost_total";
pub(crate) const OPERATION_EVENT_LAG: &str = "kube_node_manager_operation_event_lag_duration_seconds";
pub(crate) const EVICTIONS: &str = "kube_node_manager_evictions_total";
pub(crate) const PODS_BLOCKED: &str = "kube_node_manager_drain_pods_blocked";
pub(crate) const OLDEST_BLOCK: &str = "kube_node_manager_drain_oldest_block_age_seconds";
pub(crate) const TEMPLATE_DRIFT: &str = "kube_node_manager_template_drifted_nodes";
pub(crate) const SIGN_INS: &str = "kube_node_manager_sign_ins_total";
pub(crate) const PROCESS_CPU: &str = "process_cpu_seconds_total";
pub(crate) const PROCESS_RESIDENT: &str = "process_resident_memory_bytes";
pub(crate) const PROCESS_VIRTUAL: &str = "process_virtual_memory_bytes";
pub(crate) const PROCESS_OPEN_FDS: &str = "process_open_fds";
pub(crate) const PROCESS_MAX_FDS: &str = "process_max_fds";
pub(crate) const PROCESS_THREADS: &str = "process_threads";
pub(crate) const PROCESS_START_TIME: &str = "process_start_time_seconds";

const GAUGES: [Description; 28] = [
    (UP, None, "1 while the service is ready, else 0."),
    (
        START_TIME,
        Some(Unit::Seconds),
        "When the service started, in seconds since 1970.",
    ),
    (
        DATABASE_UP,
        None,
        "1 while the last ping of the database succeeded, else 0.",
    ),
    (MEMORY_USAGE, Some(Unit::Bytes), "Resident memory of the process."),
    (
        GOROUTINES,
        None,
        "Live asynchronous tasks; the name is that of the first version.",
    ),
    (BUILD_INFO, None, "Always 1; the labels tell what was built with what."),
    (
        DATABASE_CONNECTIONS,
        None,
        "Connections to the database: open, and of these in use and idle.",
    ),
    (
        DATABASE_CONNECTIONS_MAX,
        None,
        "Most connections to the database that may be open.",
    ),
    (CLUSTER_UP, None, "1 while the cluster can be seen, else 0."),
    (CLUSTER_NODES, None, "Known nodes of the cluster by status."),
    (
        CLUSTER_NODES_UNSCHEDULABLE,
        None,
        "Known nodes of the cluster that the scheduler may not use.",
    ),
    (
        CLUSTER_PODS,
        None,
        "Known pods of the cluster that are on nodes; not there if pods are not watched.",
    ),
    (
        CLUSTER_PODS_UP,
        None,
        "1 while what is known of the cluster's pods is up to date, else 0; not there if pods are not watched.",
    ),
    (
        CLUSTER_PERMISSIONS_MISSING,
        None,
        "1 while the cluster does not let the service do what a feature needs, else 0; not there while that is not known or the feature is not used.",
    ),
    (
        CLUSTER_LAST_EVENT_AGE,
        Some(Unit::Seconds),
        "How long ago the cluster last told anything.",
    ),
    (
        CLUSTER_CREDENTIALS_EXPIRE,
        Some(Unit::Seconds),
        "Until when the credentials of the cluster are good, in seconds since 1970; +Inf if they do not tell.",
    ),
    (
        CORDON_HOLDS,
        None,
        "Holds on nodes that are not ended, by state, as the replica sees it that looks after them.",
    ),
    (
        OPERATIONS,
        None,
        "Operations that are not over, by state, of all replicas together.",
    ),
    (
        OPERATION_QUEUE_AGE,
        Some(Unit::Seconds),
        "How long the oldest queued operation waits for a replica, 0 if there is none.",
    ),
    (
        PODS_BLOCKED,
        None,
        "Pods that disruption budgets block now, in drains that this replica works on.",
    ),
    (
        OLDEST_BLOCK,
        Some(Unit::Seconds),
        "How long the pod is blocked that is blocked for longest, in drains that this replica works on; 0 if none is.",
    ),
    (
        TEMPLATE_DRIFT,
        None,
        "Nodes that lack something of what a binding's template says, all bindings together, as the replica sees it that compares them; 0 on others.",
    ),
    (PROCESS_RESIDENT, Some(Unit::Bytes), "Resident memory of the process."),
    (PROCESS_VIRTUAL, Some(Unit::Bytes), "Virtual memory of the process."),
    (PROCESS_OPEN_FDS, None, "Open file descriptors."),
    (PROCESS_MAX_FDS, None, "Most file descriptors that may be open."),
    (PROCESS_THREADS, None, "Threads of the operating system."),
    (
        PROCESS_START_TIME,
        Some(Unit::Seconds),
        "When the process started, in seconds since 1970.",
    ),
];

/// What may come of asking a pod to go.
const EVICTION_RESULTS: [&str; 5] = ["accepted", "gone", "blocked", "later", "refused"];
/// What may be done to a node at once, without an operation.
const SINGLE_CHANGES: [AuditAction; 4] = [
    AuditAction::NodeLabel,
    AuditAction::NodeTaint,
    AuditAction::NodeCordon,
    AuditAction::NodeUncordon,
];

/// Shows what changes of nodes count before there is anything to count: a rate needs a value before the first one.
pub(crate) fn begin_changes() {
    counter!(AUDIT_FAILURES).increment(0);
    for action in SINGLE_CHANGES {
        for outcome in AuditOutcome::ALL {
            counter!(NODE_CHANGES, "action" => action.as_str(), "outcome" => outcome.as_str()).increment(0);
        }
    }
}

/// The same for what comes of signing in.
pub(crate) fn begin_sign_in() {
    for outcome in ["accepted", "refused", "unavailable"] {
        counter!(SIGN_INS, "outcome" => outcome).increment(0);
    }
}

/// The same for what operations count.
pub(crate) fn begin_operations() {
    for name in [OPERATION_TAKEOVERS, OPERATION_LEASES_LOST] {
        counter!(name).increment(0);
    }
    for kind in OperationKind::ALL {
        for state in OperationState::ALL.into_iter().filter(|state| state.is_ended()) {
            counter!(OPERATIONS_ENDED, "kind" => kind.as_str(), "result" => state.as_str()).increment(0);
        }
        for state in TargetState::ALL.into_iter().filter(|state| state.is_ended()) {
            counter!(OPERATION_NODES, "kind" => kind.as_str(), "result" => state.as_str()).increment(0);
        }
    }
    for result in EVICTION_RESULTS {
        counter!(EVICTIONS, "result" => result).increment(0);
    }
}

/// Gives every metric of this crate its help.
pub fn describe_metrics() {
    for (name, unit, help) in GAUGES {
        match unit {
            Some(unit) => describe_gauge!(name, unit, help),
            None => describe_gauge!(name, help),
        }
    }
    describe_counter!(
        NODE_CHANGES,
        "Changes of single nodes at once, by action and outcome; what operations do is counted as theirs."
    );
    describe_counter!(
        AUDIT_FAILURES,
        "Writes into the audit log that failed; a change whose intent cannot be written is not made."
    );
    describe_counter!(
        SIGN_INS,
        "Requests that needed a caller, by outcome: accepted, refused, or unavailable because what knows callers cannot be asked."
    );
    describe_counter!(
        OPERATIONS_ENDED,
        "Operations that ended on this replica, by kind and result."
    );
    describe_histogram!(
        OPERATION_DURATION,
        Unit::Seconds,
        "From the first node of an operation to its end, by kind."
    );
    describe_counter!(
        OPERATION_NODES,
        "Nodes of operations that ended on this replica, by kind and result."
    );
    describe_counter!(
        OPERATION_TAKEOVERS,
        "Operations that this replica took over after another one, or itself before a restart."
    );
    describe_counter!(
        OPERATION_LEASES_LOST,
        "Operations that this replica lost because it could not extend their lease in time."
    );
    describe_histogram!(
        OPERATION_EVENT_LAG,
        Unit::Seconds,
        "From an event of an operation to its delivery to a reader who follows it."
    );
    describe_counter!(EVICTIONS, "Pods that drains asked to go, by result.");
    describe_counter!(
        PROCESS_CPU,
        Unit::Seconds,
        "CPU time that the process used, user and system, in whole seconds."
    );
}

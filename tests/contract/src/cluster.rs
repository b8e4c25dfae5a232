//! What every cluster adapter must do.
//!
//! A case is a sentence of [`ClusterGateway`] with MUST. An adapter runs them all with [`cluster_contract!`](crate::cluster_contract), each
//! against a cluster of its own.

mod allowing;
mod asking;
mod changing;
mod deleting;
mod evicting;
mod samples;
mod watching;
mod watching_pods;

use std::any::Any;
use std::sync::Arc;

use async_trait::async_trait;
use knm_model::{ClusterFeature, DisruptionBudget, Node, NodeName, ObjectName, Pod};
use knm_ports::ClusterGateway;

pub use allowing::*;
pub use asking::*;
pub use changing::*;
pub use deleting::*;
pub use evicting::*;
pub use samples::{node, pod};
pub use watching::*;
pub use watching_pods::*;

/// A cluster of one test, without nodes, pods and budgets.
pub struct ClusterFixture {
    /// The gateway that is tested.
    pub gateway: Arc<dyn ClusterGateway>,
    /// The cluster behind the gateway.
    pub driver: Arc<dyn ClusterDriver>,
    /// What must live as long as the cluster.
    pub keep: Box<dyn Any + Send + Sync>,
}

/// Does to a cluster what others do: kubelets, controllers, administrators and broken networks. It works while the gateway is cut off.
#[async_trait]
pub trait ClusterDriver: Send + Sync {
    /// Adds a node, or makes the one under this name like it: labels, taints, schedulability, conditions and capacity. What the cluster itself
    /// chooses (id, version, creation time) is not taken over.
    async fn put_node(&self, node: Node);

    /// Removes a node.
    async fn delete_node(&self, name: &NodeName);

    /// Adds a pod to its node with what is its own: all but its id, its times and its deletion. The one under its name gets its labels, its
    /// phase and whether it is ready.
    async fn put_pod(&self, pod: Pod);

    /// Adds a pod that is on no node yet, also not on its own.
    async fn put_unscheduled_pod(&self, pod: Pod);

    /// Puts a pod that is on no node onto its own.
    async fn bind_pod(&self, pod: Pod);

    /// Removes a pod at once.
    async fn remove_pod(&self, namespace: &str, name: &str);

    /// Adds a disruption budget with its selector and what it counts.
    async fn put_budget(&self, budget: DisruptionBudget);

    /// Adds a DaemonSet.
    async fn put_daemon_set(&self, name: ObjectName);

    /// Attaches a volume to a node.
    async fn attach_volume(&self, node: &NodeName, volume: &str);

    /// Lets the gateway do nothing any more of what a feature takes.
    async fn withhold(&self, feature: ClusterFeature);

    /// Cuts the gateway off from the cluster.
    async fn lose(&self);

    /// Lets the gateway see the cluster again.
    async fn recover(&self);
}

/// Runs every case of the cluster contract as a test of its own. `$fixture` is the path of an
/// `async fn() -> Option<ClusterFixture>`; it returns `None`, loudly, where the machine lacks what the cluster needs.
#[macro_export]
macro_rules! cluster_contract {
    (@cases $fixture:path: $($case:ident),+ $(,)?) => {
        $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $case() {
            let Some(fixture) = $fixture().await else {
                return;
            };
            $crate::cluster::$case(&fixture).await;
        })+
    };
    ($fixture:path) => {
        $crate::cluster_contract!(@cases $fixture:
            watching_starts_with_all_nodes,
            watching_an_empty_cluster_starts_with_no_nodes,
            watching_a_lost_cluster_starts_with_lost,
            a_new_node_is_told,
            a_changed_node_is_told_with_all_that_changed,
            a_deleted_node_is_told,
            changes_of_one_node_are_told_in_order,
            each_watcher_is_told_everything,
            a_lost_cluster_is_told_and_found_again,
            what_changed_while_the_cluster_was_lost_is_told,
            a_lost_cluster_never_looks_empty,
            a_quiet_cluster_tells_that_it_is_alive,
            watching_pods_starts_with_all_of_them,
            watching_pods_where_there_are_none_starts_with_an_empty_list,
            watching_pods_of_a_lost_cluster_starts_with_lost,
            a_pod_is_told_when_it_comes_to_a_node,
            changes_of_one_pod_are_told_in_order,
            a_removed_pod_is_told,
            pods_are_told_again_when_a_lost_cluster_is_found,
            quiet_pods_tell_that_they_are_there,
            pods_are_sorted_by_namespace_and_name,
            a_pod_is_told_with_what_it_asks_for_and_who_controls_it,
            a_node_without_pods_and_an_unknown_node_have_none,
            recent_pods_are_those_of_a_moment_ago,
            budgets_are_sorted_and_match_as_their_selector_says,
            the_version_of_the_server_is_told,
            asking_a_lost_cluster_is_a_transient_error,
            a_node_is_asked_for_by_its_name,
            a_patch_changes_what_it_names_and_nothing_else,
            a_cordon_is_shown_with_the_holds_that_are_noted,
            a_patch_of_an_absent_node_is_not_found,
            a_patch_of_another_version_is_a_conflict_and_changes_nothing,
            a_dry_run_tells_what_would_come_and_changes_nothing,
            a_patched_node_is_told_to_watchers,
            a_pod_is_told_with_what_a_drain_decides_by,
            all_daemon_sets_are_told,
            an_eviction_of_another_uid_evicts_nobody,
            an_eviction_of_an_absent_pod_finds_it_gone,
            an_evicted_pod_gets_the_grace_period_that_was_asked_for,
            a_budget_without_room_blocks_and_is_named,
            a_pod_that_several_budgets_match_is_never_evicted,
            each_eviction_uses_up_room_of_its_budget,
            a_dry_run_of_an_eviction_changes_nothing,
            a_deletion_of_another_uid_deletes_nobody,
            a_deletion_of_an_absent_pod_finds_it_gone,
            a_deleted_pod_gets_the_grace_period_that_was_asked_for_whatever_budgets_say,
            a_dry_run_of_a_deletion_changes_nothing,
            the_volumes_attached_to_a_node_are_told,
            a_node_without_volumes_and_an_unknown_node_have_none_attached,
            what_the_cluster_allows_may_be_done,
            what_the_cluster_withholds_is_told_and_named_when_it_is_tried,
        );
    };
}

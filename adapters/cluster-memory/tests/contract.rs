//! The simulated fleet keeps the contract of cluster gateways.

#![expect(clippy::unwrap_used, reason = "what a test builds is right, or the test is wrong")]

use std::sync::Arc;

use async_trait::async_trait;
use knm_cluster_memory::{Fleet, FleetOptions};
use knm_contract::cluster::{ClusterDriver, ClusterFixture};
use knm_model::{ClusterFeature, DisruptionBudget, Node, NodeName, ObjectName, Pod, Timestamp};

knm_contract::cluster_contract!(empty_fleet);

struct FleetDriver(Arc<Fleet>);

#[async_trait]
impl ClusterDriver for FleetDriver {
    async fn put_node(&self, node: Node) {
        self.0.put_node(node);
    }

    async fn delete_node(&self, name: &NodeName) {
        self.0.delete_node(name);
    }

    async fn put_pod(&self, pod: Pod) {
        self.0.put_pod(pod);
    }

    async fn put_unscheduled_pod(&self, _: Pod) {
        // The fleet knows no such pods.
    }

    async fn bind_pod(&self, pod: Pod) {
        self.0.put_pod(pod);
    }

    async fn remove_pod(&self, namespace: &str, name: &str) {
        self.0.remove_pod(namespace, name);
    }

    async fn put_budget(&self, budget: DisruptionBudget) {
        self.0.put_budget(budget);
    }

    async fn put_daemon_set(&self, name: ObjectName) {
        self.0.put_daemon_set(name);
    }

    async fn attach_volume(&self, node: &NodeName, volume: &str) {
        self.0.attach_volume(node.clone(), volume);
    }

    async fn withhold(&self, feature: ClusterFeature) {
        self.0.withhold(feature);
    }

    async fn lose(&self) {
        self.0.lose();
    }

    async fn recover(&self) {
        self.0.recover();
    }
}

async fn empty_fleet() -> Option<ClusterFixture> {
    let fleet = Fleet::new(FleetOptions {
        nodes: 0,
        seed: 1,
        change_every: None,
        started_at: Timestamp::parse("2030-01-01T00:00:00Z").unwrap(),
    });
    Some(ClusterFixture {
        gateway: fleet.gateway(),
        driver: Arc::new(FleetDriver(fleet)),
        keep: Box::new(()),
    })
}

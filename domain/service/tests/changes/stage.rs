//! What the tests work on.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use knm_cluster_memory::{Fleet, FleetOptions};
use knm_domain::{Asked, ChangeError, ClusterHandle, Inventory, NodeChanges, Uncordon};
use knm_model::{
    Actor, ActorKind, AuditFilter, AuditRecord, ClusterName, ClusterSource, Hold, HoldRequest, Node, NodeName,
    NodePatch,
};
use knm_ports::{Clock, CordonHolds, CountedIds, ManualClock, Storage};
use tokio_util::sync::CancellationToken;

use crate::meddler::{Meddler, Meddling};
use crate::nodes::{node, settle};
use crate::through::through;

pub(crate) const LOOK: Duration = Duration::from_secs(5);
/// How long the lease of an operation lasts here.
pub(crate) const LEASE: Duration = Duration::from_secs(10);

/// A fleet with the node `a`, and what changes it.
pub(crate) struct Stage {
    pub(crate) fleet: Arc<Fleet>,
    /// What the changes see of the fleet.
    pub(crate) meddler: Arc<Meddler>,
    pub(crate) storage: Storage,
    pub(crate) inventory: Arc<Inventory>,
    pub(crate) changes: Arc<NodeChanges>,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) ids: Arc<CountedIds>,
    pub(crate) shutdown: CancellationToken,
}

impl Stage {
    pub(crate) async fn new() -> Self {
        Self::with(node("a", "1")).await
    }

    pub(crate) async fn with(first: Node) -> Self {
        let clock = ManualClock::at("2030-01-01T00:00:00Z");
        let fleet = Fleet::new(FleetOptions {
            nodes: 0,
            seed: 1,
            change_every: None,
            started_at: clock.now(),
        });
        fleet.put_node(first);
        let meddler = Meddler::new(fleet.gateway());
        let shutdown = CancellationToken::new();
        let handle = ClusterHandle {
            name: ClusterName::from_any("test"),
            source: ClusterSource::Demo,
            gateway: through(Arc::clone(&meddler)),
            reviews: None,
            watch_pods: false,
        };
        let inventory = Inventory::start(clock.clone(), vec![handle], shutdown.clone());
        settle().await;
        let storage = knm_storage_memory::open();
        let ids = Arc::new(CountedIds::default());
        let changes = NodeChanges::new(
            Arc::clone(&inventory),
            Arc::clone(&storage.audit),
            Arc::clone(&storage.holds),
            clock.clone(),
            ids.clone(),
        );
        Self {
            fleet,
            meddler,
            storage,
            inventory,
            changes,
            clock,
            ids,
            shutdown,
        }
    }

    pub(crate) async fn node(&self) -> Node {
        let found = self.fleet.gateway().node(&name()).await.unwrap();
        found.unwrap()
    }

    /// All records, the latest first.
    pub(crate) async fn audit(&self) -> Vec<AuditRecord> {
        let all = AuditFilter::default();
        self.storage.audit.page(&all, None, 100).await.unwrap()
    }

    pub(crate) async fn holds(&self) -> Vec<Hold> {
        self.storage.holds.unended().await.unwrap()
    }

    pub(crate) async fn cordon(&self, who: &str, reason: &str) -> Node {
        let changed = self
            .changes
            .cordon("test", "a", because(reason), by(who))
            .await
            .unwrap();
        settle().await;
        changed.node
    }

    pub(crate) async fn uncordon(&self, who: &str, request: Uncordon) -> Result<Node, ChangeError> {
        let changed = self.changes.uncordon("test", "a", request, by(who)).await;
        settle().await;
        changed.map(|changed| changed.node)
    }

    /// What somebody with kubectl does.
    pub(crate) async fn set_schedulable(&self, schedulable: bool) {
        let patch = NodePatch {
            schedulable: Some(schedulable),
            ..NodePatch::default()
        };
        self.fleet.gateway().patch_node(&name(), &patch, false).await.unwrap();
        settle().await;
    }

    /// Lets somebody with kubectl do the same, one after the other, just before the next patch of the changes arrives.
    pub(crate) fn set_schedulable_before_patch(&self, steps: &'static [bool]) {
        let gateway = self.fleet.gateway();
        let work = async move {
            for schedulable in steps {
                let patch = NodePatch {
                    schedulable: Some(*schedulable),
                    ..NodePatch::default()
                };
                gateway.patch_node(&name(), &patch, false).await.unwrap();
            }
        };
        self.meddler.with(Meddling::Before(work.boxed()));
    }

    /// The same changes with another store of holds.
    pub(crate) fn changes_with(&self, holds: Arc<dyn CordonHolds>) -> Arc<NodeChanges> {
        NodeChanges::new(
            Arc::clone(&self.inventory),
            Arc::clone(&self.storage.audit),
            holds,
            self.clock.clone(),
            self.ids.clone(),
        )
    }

    /// Lets the keeper look `times`.
    pub(crate) async fn keep(&self, times: u32) {
        self.keep_with(&self.changes, times).await;
    }

    /// Lets the keeper of other changes look `times`.
    pub(crate) async fn keep_with(&self, changes: &Arc<NodeChanges>, times: u32) {
        let leases = Arc::clone(&self.storage.leases);
        let shutdown = self.shutdown.child_token();
        let keeper = Arc::clone(changes).keep_holds(leases, "keeper".to_owned(), LEASE, shutdown);
        // In the middle between two looks.
        let _ = tokio::time::timeout(LOOK * times + LOOK / 2, keeper).await;
    }
}

pub(crate) fn name() -> NodeName {
    NodeName::parse("a").unwrap()
}

/// Why `reason`, without an end.
pub(crate) fn because(reason: &str) -> HoldRequest {
    HoldRequest {
        reason: reason.to_owned(),
        ticket: None,
        until: None,
    }
}

pub(crate) fn by(who: &str) -> Asked {
    Asked {
        actor: Actor {
            name: Some(who.to_owned()),
            kind: ActorKind::Anonymous,
            address: Some("192.0.2.1".to_owned()),
        },
        request_id: Some("r-1".to_owned()),
        known: None,
        dry_run: false,
    }
}

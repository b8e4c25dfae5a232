//! Two replicas that hold and release the same node at the same moment.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use knm_domain::{NodeChanges, Uncordon};
use knm_model::{ClusterName, Hold, HoldChange, HoldRequest, HoldState, NodeName, Timestamp};
use knm_ports::{CordonHolds, StorageError};
use tokio::time::sleep;
use uuid::Uuid;

use crate::stage::{Stage, by};

/// How long the store takes for some calls.
const SLOW: Duration = Duration::from_millis(100);

/// A store of holds that is slow: with its first answer to which holds there are, or when a hold ends.
struct Slow {
    inner: Arc<dyn CordonHolds>,
    answers_late: AtomicBool,
    ends_late: bool,
}

#[async_trait]
impl CordonHolds for Slow {
    async fn add(&self, hold: &Hold) -> Result<(), StorageError> {
        self.inner.add(hold).await
    }

    async fn of_node(&self, cluster: &ClusterName, node: &NodeName) -> Result<Vec<Hold>, StorageError> {
        let found = self.inner.of_node(cluster, node).await;
        if self.answers_late.swap(false, Ordering::Relaxed) {
            sleep(SLOW).await;
        }
        found
    }

    async fn unended(&self) -> Result<Vec<Hold>, StorageError> {
        self.inner.unended().await
    }

    async fn advance(&self, id: Uuid, state: HoldState, at: Timestamp) -> Result<bool, StorageError> {
        if self.ends_late && state == HoldState::Ended {
            sleep(SLOW).await;
        }
        self.inner.advance(id, state, at).await
    }

    async fn change(&self, id: Uuid, change: &HoldChange) -> Result<bool, StorageError> {
        self.inner.change(id, change).await
    }
}

/// Another replica whose store is slow.
fn rival(stage: &Stage, answers_late: bool, ends_late: bool) -> Arc<NodeChanges> {
    let holds = Slow {
        inner: Arc::clone(&stage.storage.holds),
        answers_late: AtomicBool::new(answers_late),
        ends_late,
    };
    NodeChanges::new(
        Arc::clone(&stage.inventory),
        Arc::clone(&stage.storage.audit),
        Arc::new(holds),
        stage.clock.clone(),
        stage.ids.clone(),
    )
}

#[tokio::test(start_paused = true)]
async fn a_hold_of_a_rival_in_the_same_moment_is_not_taken_for_a_foreign_cordon() {
    let stage = Stage::new().await;
    let rival = rival(&stage, true, false);
    let request = HoldRequest {
        reason: "kernel".to_owned(),
        ticket: None,
        until: None,
    };

    let (theirs, _) = tokio::join!(rival.cordon("test", "a", request, by("bob")), async {
        sleep(SLOW / 2).await;
        stage.cordon("ann", "disk").await
    });

    assert_eq!(theirs.unwrap().node.cordon.unwrap().holds.len(), 2);
    stage.uncordon("ann", Uncordon::default()).await.unwrap();
    let free = stage.uncordon("bob", Uncordon::default()).await.unwrap();
    assert_eq!((free.schedulable, free.cordon), (true, None));
}

#[tokio::test(start_paused = true)]
async fn the_last_two_holds_released_by_two_replicas_at_once_leave_nothing_on_the_node() {
    let stage = Stage::new().await;
    stage.cordon("ann", "disk").await;
    stage.cordon("bob", "kernel").await;
    let rival = rival(&stage, false, true);

    let (theirs, ours) = tokio::join!(rival.uncordon("test", "a", Uncordon::default(), by("ann")), async {
        sleep(SLOW / 2).await;
        stage.uncordon("bob", Uncordon::default()).await
    });

    assert!(!theirs.unwrap().node.schedulable);
    assert!(ours.unwrap().schedulable);
    let node = stage.node().await;
    assert_eq!((node.schedulable, node.cordon), (true, None));
    assert_eq!(stage.holds().await, []);
}

#[tokio::test(start_paused = true)]
async fn an_annotation_that_somebody_edited_takes_no_hold_away() {
    let stage = Stage::new().await;
    stage.cordon("ann", "disk").await;
    stage.cordon("bob", "kernel").await;
    let patch = knm_model::NodePatch {
        annotations: [(knm_model::HOLDS_ANNOTATION.to_owned(), None)].into(),
        ..knm_model::NodePatch::default()
    };
    let gateway = stage.fleet.gateway();
    gateway.patch_node(&crate::stage::name(), &patch, false).await.unwrap();

    let held = stage.uncordon("ann", Uncordon::default()).await.unwrap();

    assert!(!held.schedulable);
    assert_eq!(held.cordon.unwrap().by.as_deref(), Some("bob"));
}

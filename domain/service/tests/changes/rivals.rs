//! Two replicas that hold and release the same node at the same moment.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use futures::FutureExt;
use futures::future::BoxFuture;
use knm_domain::{NodeChanges, Uncordon};
use knm_model::{ActorKind, ClusterName, Hold, HoldChange, HoldState, NodeName, Timestamp};
use knm_ports::{Clock, CordonHolds, StorageError};
use tokio::time::sleep;
use uuid::Uuid;

use crate::meddler::Meddling;
use crate::stage::{Stage, because, by};

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

    async fn is_known(&self, id: Uuid) -> Result<bool, StorageError> {
        self.inner.is_known(id).await
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

/// A call to a store of holds.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Call {
    /// The list of all holds, after it was read.
    Unended,
    /// A hold that becomes active, before that is written.
    Activate,
    /// The holds of a node, after they were read.
    OfNode,
}

/// A store of holds in which something else happens at the first of such calls.
pub(crate) struct Meddled {
    inner: Arc<dyn CordonHolds>,
    call: Call,
    something: Mutex<Option<BoxFuture<'static, ()>>>,
}

impl Meddled {
    pub(crate) fn at(stage: &Stage, call: Call, something: BoxFuture<'static, ()>) -> Arc<Self> {
        Arc::new(Self {
            inner: Arc::clone(&stage.storage.holds),
            call,
            something: Mutex::new(Some(something)),
        })
    }

    async fn happen(&self, call: Call) {
        let something = match self.call == call {
            true => self.something.lock().unwrap().take(),
            false => None,
        };
        if let Some(something) = something {
            something.await;
        }
    }
}

#[async_trait]
impl CordonHolds for Meddled {
    async fn add(&self, hold: &Hold) -> Result<(), StorageError> {
        self.inner.add(hold).await
    }

    async fn of_node(&self, cluster: &ClusterName, node: &NodeName) -> Result<Vec<Hold>, StorageError> {
        let found = self.inner.of_node(cluster, node).await;
        self.happen(Call::OfNode).await;
        found
    }

    async fn unended(&self) -> Result<Vec<Hold>, StorageError> {
        let found = self.inner.unended().await;
        self.happen(Call::Unended).await;
        found
    }

    async fn is_known(&self, id: Uuid) -> Result<bool, StorageError> {
        self.inner.is_known(id).await
    }

    async fn advance(&self, id: Uuid, state: HoldState, at: Timestamp) -> Result<bool, StorageError> {
        if state == HoldState::Active {
            self.happen(Call::Activate).await;
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
    stage.changes_with(Arc::new(holds))
}

#[tokio::test(start_paused = true)]
async fn a_hold_of_a_rival_in_the_same_moment_is_not_taken_for_a_foreign_cordon() {
    let stage = Stage::new().await;
    let rival = rival(&stage, true, false);

    let (theirs, _) = tokio::join!(rival.cordon("test", "a", because("kernel"), by("bob")), async {
        sleep(SLOW / 2).await;
        stage.cordon("ann", "disk").await
    });

    assert_eq!(theirs.unwrap().node.cordon.unwrap().holds.len(), 2);
    stage.uncordon("ann", Uncordon::default()).await.unwrap();
    let free = stage.uncordon("bob", Uncordon::default()).await.unwrap();
    assert_eq!((free.schedulable, free.cordon), (true, None));
}

#[tokio::test(start_paused = true)]
async fn a_hold_that_comes_in_between_is_at_no_time_stored_as_a_foreign_cordon() {
    let stage = Stage::new().await;
    let ann = stage.changes_with(Arc::clone(&stage.storage.holds));
    let hold = async move {
        ann.cordon("test", "a", because("disk"), by("ann")).await.unwrap();
    };
    let bob = stage.changes_with(Meddled::at(&stage, Call::OfNode, hold.boxed()));
    let (holds, seen) = (Arc::clone(&stage.storage.holds), Arc::new(Mutex::new(Vec::new())));
    let look = {
        let seen = Arc::clone(&seen);
        async move { *seen.lock().unwrap() = holds.unended().await.unwrap() }
    };
    // The first patch is Ann's, and with the second one the hold of Bob is stored.
    stage.meddler.with(Meddling::Before(std::future::ready(()).boxed()));
    stage.meddler.with(Meddling::Before(look.boxed()));

    bob.cordon("test", "a", because("kernel"), by("bob")).await.unwrap();

    let seen = std::mem::take(&mut *seen.lock().unwrap());
    let told: Vec<_> = seen
        .iter()
        .map(|hold| (hold.holder.as_str(), hold.over_foreign))
        .collect();
    assert_eq!(told, [("ann", false), ("bob", false)]);
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

#[tokio::test(start_paused = true)]
async fn a_release_that_is_not_written_down_yet_is_no_uncordoning_by_others() {
    let stage = Stage::new().await;
    stage.cordon("ann", "disk").await;
    let rival = rival(&stage, false, true);

    let (theirs, ours) = tokio::join!(rival.uncordon("test", "a", Uncordon::default(), by("ann")), async {
        sleep(SLOW / 2).await;
        stage.cordon("bob", "kernel").await
    });

    assert!(theirs.unwrap().node.schedulable);
    assert_eq!(ours.cordon.unwrap().holds.len(), 1);
    let actors: Vec<_> = stage
        .audit()
        .await
        .into_iter()
        .map(|record| record.actor.kind)
        .collect();
    assert_eq!(actors, [ActorKind::Anonymous; 3], "nobody else did anything");
}

#[tokio::test(start_paused = true)]
async fn a_hold_that_is_just_being_made_is_not_released_without_being_named() {
    let stage = Stage::new().await;
    let pending = Hold {
        id: Uuid::from_u128(1),
        cluster: ClusterName::from_any("test"),
        node: crate::stage::name(),
        holder: "bob".to_owned(),
        reason: "kernel".to_owned(),
        ticket: None,
        since: stage.clock.now(),
        until: None,
        over_foreign: false,
        state: HoldState::Pending,
    };
    stage.storage.holds.add(&pending).await.unwrap();

    stage.uncordon("eve", Uncordon::default()).await.unwrap();
    assert_eq!(stage.holds().await, [pending]);

    let named = Uncordon {
        hold: Some(Uuid::from_u128(1)),
        ..Uncordon::default()
    };
    stage.uncordon("eve", named).await.unwrap();
    assert_eq!(stage.holds().await, []);
}

#[tokio::test(start_paused = true)]
async fn a_hold_that_somebody_ended_while_it_was_made_is_made_anew() {
    let stage = Stage::new().await;
    let holds = Arc::clone(&stage.storage.holds);
    let now = stage.clock.now();
    let end = async move {
        let id = holds.unended().await.unwrap()[0].id;
        assert!(holds.advance(id, HoldState::Ended, now).await.unwrap());
    };
    let changes = stage.changes_with(Meddled::at(&stage, Call::Activate, end.boxed()));

    let held = changes.cordon("test", "a", because("disk"), by("ann")).await.unwrap();

    let stored = stage.holds().await;
    assert_eq!(
        (stored.len(), stored[0].state, stored[0].over_foreign),
        (1, HoldState::Active, false)
    );
    let noted: Vec<_> = held.node.cordon.unwrap().holds.iter().map(|hold| hold.id).collect();
    assert_eq!(noted, [Some(stored[0].id)]);
    let free = stage.uncordon("ann", Uncordon::default()).await.unwrap();
    assert_eq!((free.schedulable, free.cordon), (true, None));
}

//! Changes of nodes, on a simulated fleet and a store in memory.

#![expect(clippy::unwrap_used, reason = "what a test builds is right, or the test is wrong")]

#[path = "support/nodes.rs"]
mod nodes;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use knm_cluster_memory::{Fleet, FleetOptions};
use knm_domain::{Asked, ChangeError, ClusterHandle, Inventory, InventoryError, NodeChanges, Uncordon};
use knm_model::{
    Actor, ActorKind, AuditAction, AuditFilter, AuditOutcome, AuditRecord, ClusterName, ClusterSource, CordonSource,
    Hold, HoldRequest, HoldState, LabelChange, Node, NodeName, NodePatch, Pod, PodPhase, PodRequests, RawTaint,
    TaintChange, Timestamp,
};
use knm_ports::{Clock, StorageError};
use knm_ports::{
    ClusterError, CountedIds, IdSource, ManualClock, MockAuditLog, MockClusterGateway, NodeEvent, Storage,
};
use nodes::{node, settle};
use serde_json::json;
use tokio_util::sync::CancellationToken;

const LOOK: Duration = Duration::from_secs(5);

/// A fleet with the node `a`, and what changes it.
struct Stage {
    fleet: Arc<Fleet>,
    storage: Storage,
    inventory: Arc<Inventory>,
    changes: Arc<NodeChanges>,
    clock: Arc<ManualClock>,
    ids: Arc<CountedIds>,
    shutdown: CancellationToken,
}

impl Stage {
    async fn new() -> Self {
        Self::with(node("a", "1")).await
    }

    async fn with(first: Node) -> Self {
        let clock = ManualClock::at("2030-01-01T00:00:00Z");
        let fleet = Fleet::new(FleetOptions {
            nodes: 0,
            seed: 1,
            change_every: None,
            started_at: clock.now(),
        });
        fleet.put_node(first);
        let shutdown = CancellationToken::new();
        let handle = ClusterHandle {
            name: ClusterName::from_any("test"),
            source: ClusterSource::Demo,
            gateway: fleet.gateway(),
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
            storage,
            inventory,
            changes,
            clock,
            ids,
            shutdown,
        }
    }

    async fn node(&self) -> Node {
        let found = self.fleet.gateway().node(&name()).await.unwrap();
        found.unwrap()
    }

    /// All records, the latest first.
    async fn audit(&self) -> Vec<AuditRecord> {
        let all = AuditFilter::default();
        self.storage.audit.page(&all, None, 100).await.unwrap()
    }

    async fn holds(&self) -> Vec<Hold> {
        self.storage.holds.unended().await.unwrap()
    }

    async fn cordon(&self, who: &str, reason: &str) -> Node {
        let request = HoldRequest {
            reason: reason.to_owned(),
            ticket: None,
            until: None,
        };
        let changed = self.changes.cordon("test", "a", request, by(who)).await.unwrap();
        settle().await;
        changed.node
    }

    async fn uncordon(&self, who: &str, request: Uncordon) -> Result<Node, ChangeError> {
        let changed = self.changes.uncordon("test", "a", request, by(who)).await;
        settle().await;
        changed.map(|changed| changed.node)
    }

    /// What somebody with kubectl does.
    async fn set_schedulable(&self, schedulable: bool) {
        let patch = NodePatch {
            schedulable: Some(schedulable),
            ..NodePatch::default()
        };
        self.fleet.gateway().patch_node(&name(), &patch, false).await.unwrap();
        settle().await;
    }

    /// Lets the keeper look `times`.
    async fn keep(&self, times: u32) {
        let leases = Arc::clone(&self.storage.leases);
        let keeper = Arc::clone(&self.changes).keep_holds(leases, "keeper".to_owned(), self.shutdown.child_token());
        // In the middle between two looks.
        let _ = tokio::time::timeout(LOOK * times + LOOK / 2, keeper).await;
    }
}

fn name() -> NodeName {
    NodeName::parse("a").unwrap()
}

fn by(who: &str) -> Asked {
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

fn team(value: &str) -> LabelChange {
    LabelChange::parse(&[("team".to_owned(), value.to_owned())].into(), &[]).unwrap()
}

fn no_execute() -> TaintChange {
    let taint = RawTaint {
        key: "broken".to_owned(),
        value: String::new(),
        effect: Some("NoExecute".to_owned()),
    };
    TaintChange::parse(&[taint], &[]).unwrap()
}

fn pod(phase: PodPhase) -> Pod {
    Pod {
        namespace: "team".to_owned(),
        name: "web".to_owned(),
        uid: "u".to_owned(),
        node: name(),
        labels: [].into(),
        phase,
        ready: true,
        controller: None,
        requests: PodRequests::default(),
        created_at: None,
        deletion_at: None,
        deletion_grace: None,
        is_mirror: false,
        has_empty_dir: false,
        priority: 0,
        priority_class: None,
        node_selector: BTreeMap::new(),
        node_terms: None,
        tolerations: Vec::new(),
    }
}

#[tokio::test(start_paused = true)]
async fn a_change_is_recorded_with_its_difference() {
    let stage = Stage::new().await;

    let changed = stage
        .changes
        .label("test", "a", team("storage"), by("ann"))
        .await
        .unwrap();

    assert_eq!(changed.node, stage.node().await);
    assert_eq!(json!(changed.before), json!({"labels": {"team": null}}));
    assert_eq!(json!(changed.after), json!({"labels": {"team": "storage"}}));
    let [record] = &stage.audit().await[..] else {
        unreachable!("one change is one record");
    };
    assert_eq!(record.actor, by("ann").actor);
    assert_eq!(
        (record.action, record.request_id.as_deref()),
        (AuditAction::NodeLabel, Some("r-1"))
    );
    assert_eq!(json!(record.options), json!({"set": {"team": "storage"}, "remove": []}));
    let completion = record.completion.as_ref().unwrap();
    assert_eq!(completion.outcome, AuditOutcome::Succeeded);
    assert_eq!(
        (&completion.before, &completion.after),
        (&changed.before, &changed.after)
    );
}

#[tokio::test(start_paused = true)]
async fn what_the_node_has_already_changes_nothing() {
    let stage = Stage::new().await;
    stage
        .changes
        .label("test", "a", team("storage"), by("ann"))
        .await
        .unwrap();
    let before = stage.node().await;

    let changed = stage
        .changes
        .label("test", "a", team("storage"), by("ann"))
        .await
        .unwrap();

    assert!(changed.after.is_empty());
    assert_eq!(stage.node().await, before);
}

#[tokio::test(start_paused = true)]
async fn a_change_whose_intent_cannot_be_written_is_not_made() {
    let stage = Stage::new().await;
    let before = stage.node().await;
    stage.storage.admin.close().await;

    let outcome = stage.changes.label("test", "a", team("storage"), by("ann")).await;

    assert!(matches!(outcome, Err(ChangeError::NotRecorded { .. })), "{outcome:?}");
    assert_eq!(stage.node().await, before);
}

#[tokio::test(start_paused = true)]
async fn a_completion_that_cannot_be_written_is_tried_again() {
    let stage = Stage::new().await;
    let mut audit = MockAuditLog::new();
    audit.expect_open().returning(|_| Ok(()));
    let mut tries = 0;
    audit.expect_complete().times(3).returning(move |_, _| {
        tries += 1;
        match tries {
            3 => Ok(()),
            _ => Err(StorageError::Unavailable { source: "away".into() }),
        }
    });
    let changes = NodeChanges::new(
        Arc::clone(&stage.inventory),
        Arc::new(audit),
        Arc::clone(&stage.storage.holds),
        stage.clock.clone(),
        stage.ids.clone(),
    );

    changes.label("test", "a", team("storage"), by("ann")).await.unwrap();

    tokio::time::sleep(Duration::from_secs(60)).await;
}

#[tokio::test(start_paused = true)]
async fn a_change_that_nobody_saw_end_is_recorded_as_unknown() {
    let stage = Stage::new().await;
    stage.fleet.lose();

    let outcome = stage.changes.label("test", "a", team("storage"), by("ann")).await;

    let uncertain = outcome.unwrap_err();
    assert!(uncertain.is_uncertain(), "{uncertain:?}");
    let record = &stage.audit().await[0];
    let completion = record.completion.as_ref().unwrap();
    assert_eq!(completion.outcome, AuditOutcome::Unknown);
    assert!(
        completion.error.as_ref().unwrap().contains("unreachable"),
        "{completion:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn an_unknown_node_is_told_and_recorded_as_failed() {
    let stage = Stage::new().await;
    let outcome = stage.changes.label("test", "b", team("x"), by("ann")).await;
    let unknown =
        matches!(&outcome, Err(ChangeError::Inventory(InventoryError::UnknownNode { node, .. })) if node == "b");
    assert!(unknown, "{outcome:?}");
    let completion = stage.audit().await[0].completion.clone().unwrap();
    assert_eq!(completion.outcome, AuditOutcome::Failed);
    let outcome = stage.changes.label("elsewhere", "a", team("x"), by("ann")).await;
    assert!(
        matches!(
            outcome,
            Err(ChangeError::Inventory(InventoryError::UnknownCluster { .. }))
        ),
        "{outcome:?}"
    );
}

/// A cluster with the node `a` at version 1 for watchers, at `now` for those who ask, which answers patches by `patches`.
fn scripted(
    now: &'static str,
    mut patches: impl FnMut(&NodePatch) -> Result<Node, ClusterError> + Send + 'static,
) -> MockClusterGateway {
    use futures::StreamExt;
    let mut gateway = MockClusterGateway::new();
    gateway.expect_watch_nodes().returning(|| {
        let all = NodeEvent::Replaced(vec![node("a", "1")]);
        futures::stream::iter([all]).chain(futures::stream::pending()).boxed()
    });
    gateway.expect_server_version().returning(|| Ok("v1.36.0".to_owned()));
    gateway.expect_node().returning(move |_| Ok(Some(node("a", now))));
    gateway.expect_patch_node().returning(move |_, patch, _| patches(patch));
    gateway
}

async fn changes_of(gateway: MockClusterGateway) -> Arc<NodeChanges> {
    let clock = ManualClock::at("2030-01-01T00:00:00Z");
    let handle = ClusterHandle {
        name: ClusterName::from_any("test"),
        source: ClusterSource::Demo,
        gateway: Arc::new(gateway),
    };
    let inventory = Inventory::start(clock.clone(), vec![handle], CancellationToken::new());
    settle().await;
    let storage = knm_storage_memory::open();
    NodeChanges::new(
        inventory,
        storage.audit,
        storage.holds,
        clock,
        Arc::new(CountedIds::default()),
    )
}

fn conflict() -> Result<Node, ClusterError> {
    Err(ClusterError::Conflict {
        what: "patch of nodes".to_owned(),
    })
}

#[tokio::test(start_paused = true)]
async fn conflicts_are_tried_again_with_the_version_that_is_there_now() {
    let (told, versions) = std::sync::mpsc::channel();
    let gateway = scripted("2", move |patch| {
        let version = patch.resource_version.clone().unwrap();
        told.send(version.clone()).unwrap();
        if version == "1" { conflict() } else { Ok(node("a", "3")) }
    });

    let changed = changes_of(gateway)
        .await
        .label("test", "a", team("x"), by("ann"))
        .await
        .unwrap();

    assert_eq!(changed.node.resource_version, "3");
    assert_eq!(versions.try_iter().collect::<Vec<_>>(), ["1", "2"]);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_never_holds_still_is_given_up() {
    let changes = changes_of(scripted("2", |_| conflict())).await;
    let outcome = changes.label("test", "a", team("x"), by("ann")).await;
    assert!(
        matches!(outcome, Err(ChangeError::Contended { attempts: 10, .. })),
        "{outcome:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_knows_another_state_changes_nothing() {
    let known = |version: &str| Asked {
        known: Some(vec![format!("uid-a-{version}")]),
        ..by("ann")
    };
    let changes = changes_of(scripted("2", |_| unreachable!("nothing is to be changed"))).await;
    let outcome = changes.label("test", "a", team("x"), known("7")).await;
    assert!(matches!(outcome, Err(ChangeError::Stale { .. })), "{outcome:?}");
    // Known from watching, but the cluster is further.
    let changes = changes_of(scripted("2", |_| conflict())).await;
    let outcome = changes.label("test", "a", team("x"), known("1")).await;
    assert!(matches!(outcome, Err(ChangeError::Stale { .. })), "{outcome:?}");
    // Further than what is known from watching.
    let changes = changes_of(scripted("2", |_| Ok(node("a", "3")))).await;
    assert!(changes.label("test", "a", team("x"), known("2")).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_dry_run_changes_and_records_nothing() {
    let stage = Stage::new().await;
    let before = stage.node().await;
    let dry = Asked {
        dry_run: true,
        ..by("ann")
    };
    let request = HoldRequest {
        reason: "disk".to_owned(),
        ticket: None,
        until: None,
    };

    let labelled = stage.changes.label("test", "a", team("x"), dry.clone()).await.unwrap();
    let cordoned = stage.changes.cordon("test", "a", request, dry).await.unwrap();

    assert_eq!(json!(labelled.after), json!({"labels": {"team": "x"}}));
    assert!(!cordoned.node.schedulable);
    assert_eq!(stage.node().await, before);
    assert_eq!((stage.audit().await, stage.holds().await), (vec![], vec![]));
}

#[tokio::test(start_paused = true)]
async fn a_change_that_has_begun_ends_though_its_caller_leaves() {
    let stage = Stage::new().await;
    {
        let change = stage.changes.label("test", "a", team("x"), by("ann"));
        let mut change = std::pin::pin!(change);
        assert!(futures::poll!(change.as_mut()).is_pending());
    }
    settle().await;
    assert_eq!(stage.node().await.labels["team"], "x");
    assert!(stage.audit().await[0].completion.is_some());
}

#[tokio::test(start_paused = true)]
async fn no_execute_on_a_node_with_running_pods_needs_a_confirmation() {
    let stage = Stage::new().await;
    stage.fleet.put_pod(pod(PodPhase::Running));

    let refused = stage.changes.taint("test", "a", no_execute(), false, by("ann")).await;
    assert!(
        matches!(refused, Err(ChangeError::NeedsConfirmation { pods: 1, .. })),
        "{refused:?}"
    );
    assert!(stage.node().await.taints.is_empty());

    let confirmed = stage.changes.taint("test", "a", no_execute(), true, by("ann")).await;
    assert_eq!(confirmed.unwrap().node.taints.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn no_execute_on_a_node_whose_pods_are_finished_needs_none() {
    let stage = Stage::new().await;
    stage.fleet.put_pod(pod(PodPhase::Succeeded));
    let changed = stage.changes.taint("test", "a", no_execute(), false, by("ann")).await;
    assert_eq!(changed.unwrap().node.taints.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_node_is_schedulable_again_when_its_last_hold_is_released() {
    let stage = Stage::new().await;
    stage.cordon("ann", "disk").await;
    let held = stage.cordon("bob", "kernel").await;
    let cordon = held.cordon.unwrap();
    assert_eq!(cordon.source, CordonSource::KubeNodeManager);
    let noted: Vec<_> = cordon.holds.iter().map(|hold| hold.by.as_deref().unwrap()).collect();
    assert_eq!(noted, ["ann", "bob"]);

    let after_ann = stage.uncordon("ann", Uncordon::default()).await.unwrap();
    assert!(!after_ann.schedulable);
    assert_eq!(after_ann.cordon.unwrap().by.as_deref(), Some("bob"));

    let after_bob = stage.uncordon("bob", Uncordon::default()).await.unwrap();
    assert_eq!((after_bob.schedulable, after_bob.cordon), (true, None));
    assert_eq!(stage.holds().await, []);
}

#[tokio::test(start_paused = true)]
async fn holds_of_others_are_released_by_name_or_force_only() {
    let stage = Stage::new().await;
    stage.cordon("ann", "disk").await;
    stage.cordon("bob", "kernel").await;

    let refused = stage.uncordon("eve", Uncordon::default()).await;
    let Err(ChangeError::HeldByOthers { holders, .. }) = refused else {
        unreachable!("{refused:?}");
    };
    assert_eq!(holders, ["ann (disk)", "bob (kernel)"]);

    let ann = stage.holds().await[0].id;
    let named = Uncordon {
        hold: Some(ann),
        ..Uncordon::default()
    };
    assert!(!stage.uncordon("eve", named.clone()).await.unwrap().schedulable);
    let gone = stage.uncordon("eve", named).await;
    assert!(matches!(gone, Err(ChangeError::UnknownHold { .. })), "{gone:?}");

    let force = Uncordon {
        force: true,
        ..Uncordon::default()
    };
    assert!(stage.uncordon("eve", force).await.unwrap().schedulable);
    assert_eq!(stage.holds().await, []);
}

#[tokio::test(start_paused = true)]
async fn the_same_hold_again_only_gets_another_end() {
    let stage = Stage::new().await;
    stage.cordon("ann", "disk").await;
    let until = Timestamp::parse("2030-02-01T00:00:00Z").ok();
    let request = HoldRequest {
        reason: "disk".to_owned(),
        ticket: None,
        until,
    };

    let changed = stage.changes.cordon("test", "a", request, by("ann")).await.unwrap();

    let holds = stage.holds().await;
    assert_eq!((holds.len(), holds[0].until), (1, until));
    let noted = changed.node.cordon.unwrap().holds;
    assert_eq!((noted.len(), noted[0].until), (1, until));
}

#[tokio::test(start_paused = true)]
async fn what_was_cordoned_before_us_stays_cordoned_after_us() {
    let stage = Stage::new().await;
    stage.set_schedulable(false).await;

    let refused = stage.uncordon("ann", Uncordon::default()).await;
    assert!(matches!(refused, Err(ChangeError::Foreign { .. })), "{refused:?}");

    stage.cordon("ann", "disk").await;
    stage.cordon("bob", "kernel").await;
    stage.uncordon("ann", Uncordon::default()).await.unwrap();
    let left = stage.uncordon("bob", Uncordon::default()).await.unwrap();
    assert!(!left.schedulable);
    assert_eq!(left.cordon.unwrap().source, CordonSource::Foreign);

    let force = Uncordon {
        force: true,
        ..Uncordon::default()
    };
    assert!(stage.uncordon("ann", force).await.unwrap().schedulable);
}

#[tokio::test(start_paused = true)]
async fn a_hold_that_could_not_be_brought_onto_the_node_is_gone() {
    let stage = Stage::new().await;
    stage.fleet.delete_node(&name());
    let request = HoldRequest {
        reason: "disk".to_owned(),
        ticket: None,
        until: None,
    };
    let outcome = stage.changes.cordon("test", "a", request, by("ann")).await;
    assert!(outcome.is_err());
    assert_eq!(stage.holds().await, []);
}

#[tokio::test(start_paused = true)]
async fn holds_that_ran_out_are_released() {
    let stage = Stage::new().await;
    let request = HoldRequest {
        reason: "disk".to_owned(),
        ticket: Some("OPS-1".to_owned()),
        until: Some(stage.clock.now().plus(Duration::from_secs(60))),
    };
    stage.changes.cordon("test", "a", request, by("ann")).await.unwrap();
    settle().await;

    stage.keep(2).await;
    assert!(!stage.node().await.schedulable);
    stage.clock.advance(Duration::from_secs(60));
    stage.keep(1).await;

    assert!(stage.node().await.schedulable);
    assert_eq!(stage.holds().await, []);
    let record = &stage.audit().await[0];
    assert_eq!(
        (record.action, record.actor.kind),
        (AuditAction::NodeUncordon, ActorKind::Service)
    );
    assert!(record.reason.as_ref().unwrap().contains("ann"), "{record:?}");
    assert_eq!(record.completion.as_ref().unwrap().outcome, AuditOutcome::Succeeded);
}

#[tokio::test(start_paused = true)]
async fn a_hold_that_cannot_be_released_is_not_tried_at_every_look() {
    let stage = Stage::new().await;
    let request = HoldRequest {
        reason: "disk".to_owned(),
        ticket: None,
        until: Some(stage.clock.now().plus(Duration::from_secs(1))),
    };
    stage.changes.cordon("test", "a", request, by("ann")).await.unwrap();
    settle().await;
    stage.clock.advance(Duration::from_secs(60));
    // Unreachable clusters are left alone altogether.
    stage.fleet.lose();
    settle().await;
    stage.keep(5).await;
    assert_eq!(stage.audit().await.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn somebody_who_uncordons_by_kubectl_ends_the_holds() {
    let stage = Stage::new().await;
    stage.cordon("ann", "disk").await;
    stage.set_schedulable(true).await;

    stage.keep(3).await;

    assert!(stage.node().await.schedulable, "nobody fights");
    assert_eq!(stage.holds().await, []);
    let record = &stage.audit().await[0];
    assert_eq!(
        (record.action, record.actor.kind),
        (AuditAction::NodeUncordon, ActorKind::Outside)
    );
    // Whoever cordons it next without us has nothing to do with the old hold.
    stage.set_schedulable(false).await;
    assert_eq!(stage.node().await.cordon.unwrap().source, CordonSource::Foreign);
}

#[tokio::test(start_paused = true)]
async fn a_new_hold_does_not_bring_back_those_that_kubectl_ended() {
    let stage = Stage::new().await;
    stage.cordon("ann", "disk").await;
    stage.set_schedulable(true).await;

    let held = stage.cordon("bob", "kernel").await;

    let noted = held.cordon.unwrap().holds;
    assert_eq!((noted.len(), noted[0].by.as_deref()), (1, Some("bob")));
    assert_eq!(stage.holds().await.len(), 1);
    assert!(stage.uncordon("bob", Uncordon::default()).await.unwrap().schedulable);
}

#[tokio::test(start_paused = true)]
async fn the_holds_of_a_node_that_is_gone_end() {
    let stage = Stage::new().await;
    stage.cordon("ann", "disk").await;
    stage.fleet.delete_node(&name());
    settle().await;

    stage.keep(3).await;

    assert_eq!(stage.holds().await, []);
    assert_eq!(stage.audit().await[0].actor.kind, ActorKind::Outside);
}

#[tokio::test(start_paused = true)]
async fn an_interrupted_cordon_is_settled_by_what_stands_on_the_node() {
    let stage = Stage::new().await;
    stage.cordon("ann", "disk").await;
    let noted = stage.holds().await[0].clone();
    let pending = |id| Hold {
        id,
        state: HoldState::Pending,
        ..noted.clone()
    };
    let storage = knm_storage_memory::open();
    storage.holds.add(&pending(noted.id)).await.unwrap();
    let other = stage.ids.next(stage.clock.now());
    storage.holds.add(&pending(other)).await.unwrap();
    let changes = NodeChanges::new(
        Arc::clone(&stage.inventory),
        Arc::clone(&storage.audit),
        Arc::clone(&storage.holds),
        stage.clock.clone(),
        stage.ids.clone(),
    );

    let keep = || {
        let leases = Arc::clone(&storage.leases);
        Arc::clone(&changes).keep_holds(leases, "keeper".to_owned(), CancellationToken::new())
    };
    let _ = tokio::time::timeout(LOOK * 2, keep()).await;
    assert_eq!(
        storage.holds.unended().await.unwrap().len(),
        2,
        "its maker may still be at it"
    );
    stage.clock.advance(Duration::from_secs(61));
    let _ = tokio::time::timeout(LOOK * 2, keep()).await;

    let left = storage.holds.unended().await.unwrap();
    assert_eq!(left.len(), 1);
    assert_eq!((left[0].id, left[0].state), (noted.id, HoldState::Active));
}

#[tokio::test(start_paused = true)]
async fn only_the_keeper_looks_after_holds() {
    let stage = Stage::new().await;
    stage.cordon("ann", "disk").await;
    stage.set_schedulable(true).await;
    let leases = Arc::clone(&stage.storage.leases);
    let day = Duration::from_secs(24 * 3600);
    assert!(leases.hold("cordon-holds", "another replica", day).await.unwrap());
    let other = Arc::clone(&stage.changes).keep_holds(leases, "keeper".to_owned(), CancellationToken::new());
    let _ = tokio::time::timeout(LOOK * 10, other).await;
    assert_eq!(stage.holds().await.len(), 1);
}

//! Labels and taints, and what holds for every change.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use knm_domain::{Asked, ChangeError, ClusterHandle, Inventory, InventoryError, NodeChanges, Uncordon};
use knm_model::{
    Access, AuditAction, AuditOutcome, ClusterName, ClusterSource, Grant, HoldRequest, LabelChange, Node, NodePatch,
    Permission, Permissions, Pod, PodPhase, PodRequests, RawTaint, Selector, TaintChange,
};
use knm_ports::{ClusterError, CountedIds, ManualClock, MockAuditLog, MockClusterGateway, NodeEvent, StorageError};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::nodes::{node, settle};
use crate::stage::{Stage, because, by, name};

fn team(value: &str) -> LabelChange {
    LabelChange::parse(&[("team".to_owned(), value.to_owned())].into(), &[]).unwrap()
}

fn everything() -> Access {
    Access::unlimited()
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
async fn nobody_changes_a_label_that_decides_what_they_may_do() {
    let stage = Stage::new().await;
    let limited = |selector: &str| {
        Access::new(vec![Grant {
            permissions: Permissions::of(&Permission::ALL),
            clusters: None,
            nodes: Some(Selector::parse(selector).unwrap()),
        }])
    };
    let label = async |access: Access| stage.changes.label("test", "a", team("x"), &access, by("ann")).await;
    let refused = label(limited("team=storage")).await.unwrap_err();
    assert!(
        matches!(&refused, ChangeError::GuardedLabel { key } if key == "team"),
        "{refused}"
    );
    assert!(label(limited("pool")).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_change_is_recorded_with_its_difference() {
    let stage = Stage::new().await;

    let changed = stage
        .changes
        .label("test", "a", team("storage"), &everything(), by("ann"))
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
        .label("test", "a", team("storage"), &everything(), by("ann"))
        .await
        .unwrap();
    let before = stage.node().await;

    let changed = stage
        .changes
        .label("test", "a", team("storage"), &everything(), by("ann"))
        .await
        .unwrap();

    assert!(changed.after.is_empty());
    assert_eq!(stage.node().await, before);
}

#[tokio::test(start_paused = true)]
async fn a_change_whose_intent_cannot_be_written_is_not_made() {
    let stage = Stage::new().await;
    stage.cordon("bob", "kernel").await;
    let before = stage.node().await;
    stage.storage.admin.close().await;

    let changes = &stage.changes;
    for outcome in [
        changes
            .label("test", "a", team("storage"), &everything(), by("ann"))
            .await,
        changes.taint("test", "a", no_execute(), true, by("ann")).await,
        changes.cordon("test", "a", because("disk"), by("ann")).await,
        changes.uncordon("test", "a", Uncordon::default(), by("ann")).await,
    ] {
        assert!(matches!(outcome, Err(ChangeError::NotRecorded { .. })), "{outcome:?}");
        assert_eq!(stage.node().await, before);
    }
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

    changes
        .label("test", "a", team("storage"), &everything(), by("ann"))
        .await
        .unwrap();

    tokio::time::sleep(Duration::from_secs(60)).await;
}

#[tokio::test(start_paused = true)]
async fn a_change_that_nobody_saw_end_is_recorded_as_unknown() {
    let stage = Stage::new().await;
    stage.fleet.lose();

    let outcome = stage
        .changes
        .label("test", "a", team("storage"), &everything(), by("ann"))
        .await;

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
    let outcome = stage
        .changes
        .label("test", "b", team("x"), &everything(), by("ann"))
        .await;
    let unknown =
        matches!(&outcome, Err(ChangeError::Inventory(InventoryError::UnknownNode { node, .. })) if node == "b");
    assert!(unknown, "{outcome:?}");
    let completion = stage.audit().await[0].completion.clone().unwrap();
    assert_eq!(completion.outcome, AuditOutcome::Failed);
    let outcome = stage
        .changes
        .label("elsewhere", "a", team("x"), &everything(), by("ann"))
        .await;
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
        reviews: None,
        watch_pods: false,
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
        .label("test", "a", team("x"), &everything(), by("ann"))
        .await
        .unwrap();

    assert_eq!(changed.node.resource_version, "3");
    assert_eq!(versions.try_iter().collect::<Vec<_>>(), ["1", "2"]);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_never_holds_still_is_given_up() {
    let changes = changes_of(scripted("2", |_| conflict())).await;
    let outcome = changes.label("test", "a", team("x"), &everything(), by("ann")).await;
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
    let outcome = changes.label("test", "a", team("x"), &everything(), known("7")).await;
    assert!(matches!(outcome, Err(ChangeError::Stale { .. })), "{outcome:?}");
    // Known from watching, but the cluster is further.
    let changes = changes_of(scripted("2", |_| conflict())).await;
    let outcome = changes.label("test", "a", team("x"), &everything(), known("1")).await;
    assert!(matches!(outcome, Err(ChangeError::Stale { .. })), "{outcome:?}");
    // Further than what is known from watching.
    let changes = changes_of(scripted("2", |_| Ok(node("a", "3")))).await;
    assert!(
        changes
            .label("test", "a", team("x"), &everything(), known("2"))
            .await
            .is_ok()
    );
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

    let labelled = stage
        .changes
        .label("test", "a", team("x"), &everything(), dry.clone())
        .await
        .unwrap();
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
        let everything = everything();
        let change = stage.changes.label("test", "a", team("x"), &everything, by("ann"));
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

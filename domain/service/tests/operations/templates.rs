//! Templates: versions that nobody overwrites, nodes that are compared, and bindings that repair.

use std::sync::Arc;
use std::time::Duration;

use knm_cluster_memory::{Fleet, FleetOptions};
use knm_domain::{ClusterHandle, Inventory, Operations, SelfCheck, TemplateError, TemplateReconciler, Templates};
use knm_model::{
    Access, Actor, ClusterFeature, ClusterName, ClusterSource, OperationFilter, OperationKind, OperationState,
    RawBinding, RawTemplate, Selector, TaintEffect, TargetState,
};
use knm_ports::{CountedIds, EvictOptions, PodRef};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::nodes::{node, settle};
use crate::stage::{Stage, pod, request};

fn template(value: Value) -> RawTemplate {
    serde_json::from_value(value).unwrap()
}

fn gpu() -> RawTemplate {
    template(json!({
        "labels": {"pool": "gpu"},
        "taints": [{"key": "gpu", "value": "yes", "effect": "NoSchedule"}],
    }))
}

fn binding(reconcile: bool) -> RawBinding {
    RawBinding {
        template: "gpu".to_owned(),
        label_selector: "card".to_owned(),
        reconcile,
        ..RawBinding::default()
    }
}

fn ann() -> Actor {
    crate::stage::asker().caller.actor
}

/// A cluster whose nodes `a` and `b` have a card and `c` has none, with the template `gpu`.
async fn stage() -> (Stage, Arc<Templates>) {
    let stage = Stage::with(&[]).await;
    for (name, has_card) in [("a", true), ("b", true), ("c", false)] {
        let mut node = node(name, "1");
        if has_card {
            node.labels.insert("card".to_owned(), "h100".to_owned());
        }
        stage.fleet.put_node(node);
    }
    settle().await;
    let templates = stage.templates();
    templates.create("gpu", gpu(), &ann()).await.unwrap();
    (stage, templates)
}

async fn repairs(stage: &Stage) -> Vec<OperationState> {
    let page = stage
        .operations
        .page(&OperationFilter::default(), None, None, &Access::unlimited())
        .await;
    page.unwrap()
        .operations
        .iter()
        .map(|(operation, _)| operation.state)
        .collect()
}

#[tokio::test(start_paused = true)]
async fn versions_go_on_and_stay_readable() {
    let (_stage, templates) = stage().await;
    let second = templates
        .update("gpu", None, template(json!({"labels": {"pool": "gpu2"}})), &ann())
        .await
        .unwrap();
    assert_eq!((second.version, second.changed_by.as_str()), (2, "ann"));
    assert_eq!(templates.find::<RawTemplate>("gpu", None).await.unwrap(), second);
    assert_eq!(
        templates.find::<RawTemplate>("gpu", Some(1)).await.unwrap().content,
        gpu()
    );
    templates.delete::<RawTemplate>("gpu", None, &ann()).await.unwrap();
    assert!(matches!(
        templates.find::<RawTemplate>("gpu", None).await,
        Err(TemplateError::Unknown { .. })
    ));
    assert_eq!(templates.list::<RawTemplate>().await.unwrap(), []);
    // A deleted name begins where it ended: no version ever means two things.
    let again = templates.create("gpu", gpu(), &ann()).await.unwrap();
    assert_eq!(again.version, 4);
    let versions = templates.versions::<RawTemplate>("gpu").await.unwrap();
    let told: Vec<_> = versions
        .iter()
        .map(|one| (one.version, one.content.is_some()))
        .collect();
    assert_eq!(told, [(4, true), (3, false), (2, true), (1, true)]);
    let refused = templates.find::<RawTemplate>("gpu", Some(3)).await.unwrap_err();
    assert_eq!(refused.to_string(), "template \"gpu\" has no version 3");
}

#[tokio::test(start_paused = true)]
async fn who_knows_an_old_version_changes_nothing() {
    let (_stage, templates) = stage().await;
    let known = ["1".to_owned()];
    templates.update("gpu", Some(&known), gpu(), &ann()).await.unwrap();
    let refused = templates.update("gpu", Some(&known), gpu(), &ann()).await.unwrap_err();
    assert_eq!(refused.to_string(), "template \"gpu\" is at version 2");
    let refused = templates.delete::<RawTemplate>("gpu", Some(&known), &ann()).await;
    assert!(
        matches!(refused, Err(TemplateError::Stale { version: 2, .. })),
        "{refused:?}"
    );
    assert_eq!(templates.find::<RawTemplate>("gpu", None).await.unwrap().version, 2);
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_written_is_refused_and_nothing_is_stored() {
    let (_stage, templates) = stage().await;
    let taken = templates.create("gpu", gpu(), &ann()).await.unwrap_err();
    assert_eq!(taken.to_string(), "there is a template \"gpu\" already");
    let wrong = templates.create("Gpu", template(json!({})), &ann()).await.unwrap_err();
    let TemplateError::Invalid { errors } = wrong else {
        panic!("{wrong:?}");
    };
    assert_eq!(errors.len(), 2, "{errors:?}");
    let unknown = templates.update("cpu", None, gpu(), &ann()).await;
    assert!(matches!(unknown, Err(TemplateError::Unknown { .. })), "{unknown:?}");
    templates.create("cards", binding(false), &ann()).await.unwrap();
    let used = templates.delete::<RawTemplate>("gpu", None, &ann()).await.unwrap_err();
    assert_eq!(used.to_string(), "template \"gpu\" is used by binding \"cards\"");
    assert_eq!(templates.versions::<RawTemplate>("gpu").await.unwrap().len(), 1);
    templates.delete::<RawBinding>("cards", None, &ann()).await.unwrap();
    templates.delete::<RawTemplate>("gpu", None, &ann()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn of_many_who_write_at_once_each_gets_a_version_of_its_own() {
    let (_stage, templates) = stage().await;
    let mut writers = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let templates = Arc::clone(&templates);
        writers.spawn(async move { templates.update("gpu", None, gpu(), &ann()).await.unwrap().version });
    }
    let mut versions = writers.join_all().await;
    versions.sort_unstable();
    assert_eq!(versions, [2, 3, 4, 5]);
}

#[tokio::test(start_paused = true)]
async fn a_preview_tells_which_nodes_would_change_and_how() {
    let (_stage, templates) = stage().await;
    let selector = Selector::parse("card").unwrap();
    let preview = templates
        .preview("gpu", None, Some("test"), &selector, &Access::unlimited())
        .await
        .unwrap();
    assert_eq!((preview.version, preview.compared), (1, 2));
    let names: Vec<_> = preview.drifted.iter().map(|one| one.node.as_str()).collect();
    assert_eq!(names, ["a", "b"]);
    let after = Value::Object(preview.drifted[0].drift.after.clone());
    assert_eq!(
        after,
        json!({"labels": {"pool": "gpu"}, "taints": ["gpu=yes:NoSchedule"]})
    );
    let nowhere = templates
        .preview("gpu", None, Some("moon"), &selector, &Access::unlimited())
        .await;
    assert!(matches!(nowhere, Err(TemplateError::Inventory(_))), "{nowhere:?}");
}

#[tokio::test(start_paused = true)]
async fn an_operation_applies_the_template_as_it_was_when_it_was_accepted() {
    let (stage, templates) = stage().await;
    let options = json!({"template": "gpu"});
    let options = templates.applied(options.as_object().unwrap()).await.unwrap();
    let wanted = request(OperationKind::ApplyTemplate, &["a"], Value::Object(options));
    let id = stage.accept(wanted).await.unwrap().operation.id;
    templates
        .update("gpu", None, template(json!({"labels": {"pool": "other"}})), &ann())
        .await
        .unwrap();
    let _replica = stage.replica("one");
    let shown = stage.end(id).await;
    assert_eq!(shown.operation.state, OperationState::Succeeded, "{shown:?}");
    let node = stage.node("a").await;
    assert_eq!(node.labels["pool"], "gpu");
    assert_eq!(
        (node.taints[0].key.as_str(), node.taints[0].effect),
        ("gpu", TaintEffect::NoSchedule)
    );
    assert_eq!(node.labels["card"], "h100");
}

#[tokio::test(start_paused = true)]
async fn what_is_wrong_with_an_application_is_told() {
    let (_stage, templates) = stage().await;
    for (options, expected) in [
        (json!({}), "missing field `template`"),
        (json!({"template": "cpu"}), "there is no template \"cpu\""),
        (json!({"template": "gpu", "version": 7}), "no version 7"),
        (json!({"template": "gpu", "content": {}}), "unknown field `content`"),
    ] {
        let error = templates.applied(options.as_object().unwrap()).await.unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
        assert!(matches!(error, TemplateError::Invalid { .. }), "{error:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_no_execute_taint_needs_a_confirmation_where_pods_run() {
    let (stage, templates) = stage().await;
    stage.fleet.put_pod(pod("web-1", "a"));
    settle().await;
    let out = template(json!({"taints": [{"key": "out", "effect": "NoExecute"}]}));
    templates.create("out", out, &ann()).await.unwrap();
    let _replica = stage.replica("one");
    for (confirm, state) in [(false, TargetState::Failed), (true, TargetState::Succeeded)] {
        let options = json!({"template": "out", "confirm_no_execute": confirm});
        let options = templates.applied(options.as_object().unwrap()).await.unwrap();
        let wanted = request(OperationKind::ApplyTemplate, &["a"], Value::Object(options));
        let id = stage.accept(wanted).await.unwrap().operation.id;
        let shown = stage.until(id, |shown| shown.targets[0].state.is_ended()).await;
        assert_eq!(shown.targets[0].state, state, "{shown:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_binding_reports_and_changes_nothing_unless_it_is_asked_to() {
    let (stage, templates) = stage().await;
    let stored = templates.create("cards", binding(false), &ann()).await.unwrap();
    let drift = templates.drift(&stored.content, &Access::unlimited()).await.unwrap();
    assert_eq!((drift.compared, drift.drifted.len()), (2, 2));
    tokio::spawn(stage.reconciler("one").keep(CancellationToken::new()));
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(repairs(&stage).await, []);
}

#[tokio::test(start_paused = true)]
async fn a_binding_that_reconciles_repairs_once_and_by_one_replica() {
    let (stage, templates) = stage().await;
    templates.create("cards", binding(true), &ann()).await.unwrap();
    let shutdown = CancellationToken::new();
    for owner in ["one", "two"] {
        tokio::spawn(stage.reconciler(owner).keep(shutdown.clone()));
    }
    // While nobody works on it there is still one repair only.
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(repairs(&stage).await, [OperationState::Queued]);
    let _replica = stage.replica("one");
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(repairs(&stage).await, [OperationState::Succeeded]);
    assert_eq!(stage.node("b").await.labels["pool"], "gpu");
    assert!(!stage.node("c").await.labels.contains_key("pool"));
    let audit = stage.audit().await;
    assert_eq!(audit.len(), 2, "{audit:?}");
    assert_eq!(audit[0].actor.label(), "binding/cards");
    // Somebody takes a label away: it comes back.
    let mut changed = stage.node("b").await;
    changed.labels.remove("pool");
    stage.fleet.put_node(changed);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(repairs(&stage).await, [OperationState::Succeeded; 2]);
    assert_eq!(stage.node("b").await.labels["pool"], "gpu");
}

#[tokio::test(start_paused = true)]
async fn a_repair_that_failed_is_not_tried_all_the_time() {
    let (stage, templates) = stage().await;
    stage.fleet.put_pod(pod("web-1", "a"));
    stage.fleet.put_pod(pod("web-2", "b"));
    settle().await;
    let out = template(json!({"taints": [{"key": "out", "effect": "NoExecute"}]}));
    templates.update("gpu", None, out, &ann()).await.unwrap();
    templates.create("cards", binding(true), &ann()).await.unwrap();
    let _replica = stage.replica("one");
    let shutdown = CancellationToken::new();
    tokio::spawn(stage.reconciler("one").keep(shutdown));
    tokio::time::sleep(Duration::from_secs(300)).await;
    let after_a_while = repairs(&stage).await;
    assert_eq!(after_a_while.len(), 1, "{after_a_while:?}");
    assert!(stage.node("a").await.taints.is_empty());
    tokio::time::sleep(Duration::from_secs(600)).await;
    let later = repairs(&stage).await;
    assert!(later.len() <= 2, "{later:?}");
}

#[tokio::test(start_paused = true)]
async fn a_node_that_fails_keeps_no_other_from_being_repaired() {
    let (stage, templates) = stage().await;
    for number in 0..40 {
        let mut node = node(&format!("n-{number:02}"), "1");
        node.labels.insert("card".to_owned(), "h100".to_owned());
        stage.fleet.put_node(node);
    }
    stage.fleet.put_pod(pod("web-1", "n-00"));
    settle().await;
    let out = template(json!({"taints": [{"key": "out", "effect": "NoExecute"}]}));
    templates.update("gpu", None, out, &ann()).await.unwrap();
    templates.create("cards", binding(true), &ann()).await.unwrap();
    let _replica = stage.replica("one");
    tokio::spawn(stage.reconciler("one").keep(CancellationToken::new()));
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(repairs(&stage).await, [OperationState::PartlyFailed]);
    assert_eq!(stage.node("n-39").await.taints.len(), 1);
    assert!(stage.node("n-00").await.taints.is_empty());
    // What keeps it back goes away: it comes to be as it should.
    let pod = PodRef {
        namespace: "team".to_owned(),
        name: "web-1".to_owned(),
        uid: "uid-web-1".to_owned(),
    };
    let gateway = stage.fleet.gateway();
    gateway.evict(&pod, &EvictOptions::default()).await.unwrap();
    tokio::time::sleep(Duration::from_secs(900)).await;
    assert_eq!(stage.node("n-00").await.taints.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_cluster_that_is_out_of_sight_keeps_no_other_from_being_repaired() {
    let (stale, repaired) = repaired_besides(Fleet::lose).await;
    assert_eq!((stale, repaired), (vec!["east".to_owned()], vec!["west".to_owned()]));
}

#[tokio::test(start_paused = true)]
async fn a_cluster_that_does_not_let_nodes_be_changed_keeps_no_other_from_being_repaired() {
    let (stale, repaired) = repaired_besides(|east| east.withhold(ClusterFeature::ChangeNodes)).await;
    assert_eq!((stale, repaired), (vec![], vec!["west".to_owned()]));
}

/// Two clusters, `east` and `west`, whose only nodes lack something: which of them are stale, and in which nodes are repaired, after something
/// was done to `east`.
async fn repaired_besides(hinder: impl FnOnce(&Fleet)) -> (Vec<String>, Vec<String>) {
    let stage = Stage::with(&[]).await;
    let mut fleets = Vec::new();
    let mut clusters = Vec::new();
    for name in ["east", "west"] {
        let fleet = Fleet::new(FleetOptions {
            nodes: 0,
            seed: 1,
            change_every: None,
            started_at: stage.clock.now(),
        });
        let mut node = node("a", "1");
        node.labels.insert("card".to_owned(), "h100".to_owned());
        fleet.put_node(node);
        clusters.push(ClusterHandle {
            name: ClusterName::from_any(name),
            source: ClusterSource::Demo,
            gateway: fleet.gateway(),
            reviews: None,
            watch_pods: false,
        });
        fleets.push(fleet);
    }
    let inventory = Inventory::start(Arc::clone(&stage.clock), clusters, CancellationToken::new());
    settle().await;
    hinder(&fleets[0]);
    let check = SelfCheck {
        inventory: Arc::clone(&inventory),
        home: None,
    };
    tokio::spawn(check.keep(CancellationToken::new()));
    settle().await;
    let storage = &stage.storage;
    let templates = Templates::new(
        Arc::clone(&inventory),
        Arc::clone(&storage.definitions),
        Arc::clone(&stage.clock),
    );
    templates.create("gpu", gpu(), &ann()).await.unwrap();
    let stored = templates.create("cards", binding(true), &ann()).await.unwrap();
    let drift = templates.drift(&stored.content, &Access::unlimited()).await.unwrap();
    let stale = drift.stale.iter().map(|stale| stale.cluster.to_string()).collect();
    assert_eq!(drift.drifted.len(), 2);
    let operations = Operations::new(
        inventory,
        Arc::clone(&storage.operations),
        &*storage.wakes,
        Arc::clone(&stage.clock),
        Arc::new(CountedIds::default()),
        Duration::from_secs(36_000),
    );
    let reconciler = TemplateReconciler {
        templates,
        operations: Arc::clone(&operations),
        ..stage.reconciler("one")
    };
    tokio::spawn(reconciler.keep(CancellationToken::new()));
    tokio::time::sleep(Duration::from_secs(60)).await;
    let page = operations
        .page(&OperationFilter::default(), None, None, &Access::unlimited())
        .await
        .unwrap();
    assert_eq!(page.operations.len(), 1, "{page:?}");
    let shown = operations.find(page.operations[0].0.id).await.unwrap();
    let targets = shown.targets.iter();
    (stale, targets.map(|target| target.cluster.to_string()).collect())
}

#[tokio::test(start_paused = true)]
async fn two_bindings_that_disagree_do_not_fight_without_end() {
    let (stage, templates) = stage().await;
    let other = template(json!({"labels": {"pool": "other"}}));
    templates.create("other", other, &ann()).await.unwrap();
    templates.create("cards", binding(true), &ann()).await.unwrap();
    let other = RawBinding {
        template: "other".to_owned(),
        ..binding(true)
    };
    templates.create("others", other, &ann()).await.unwrap();
    let _replica = stage.replica("one");
    tokio::spawn(stage.reconciler("one").keep(CancellationToken::new()));
    tokio::time::sleep(Duration::from_secs(3_600)).await;
    let repairs = repairs(&stage).await.len();
    // Once a round would be 360 of them.
    assert!((4..=20).contains(&repairs), "{repairs}");
}

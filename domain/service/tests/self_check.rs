//! What clusters let the service do, as it is found out and shown.

#![expect(clippy::unwrap_used, reason = "what a test builds is right, or the test is wrong")]

#[path = "support/through.rs"]
mod through;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use knm_cluster_memory::{Fleet, FleetOptions};
use knm_domain::{ClusterHandle, Inventory, PermissionsStatus, SelfCheck, describe_metrics};
use knm_model::{
    ClusterFeature, ClusterName, ClusterSource, DrainOptions, FeatureState, KubernetesAction, NodeName, Timestamp,
};
use knm_ports::{ClusterError, ClusterGateway, ManualClock, MockAccessReviews};
use metrics_exporter_prometheus::PrometheusBuilder;
use tokio_util::sync::CancellationToken;

use through::{Different, through};

const NOW: &str = "2030-01-01T00:00:00Z";

fn fleet() -> Arc<Fleet> {
    Fleet::new(FleetOptions {
        nodes: 2,
        seed: 1,
        change_every: None,
        started_at: Timestamp::parse(NOW).unwrap(),
    })
}

fn handle(name: &str, gateway: Arc<dyn ClusterGateway>) -> ClusterHandle {
    ClusterHandle {
        name: ClusterName::from_any(name),
        source: ClusterSource::Demo,
        gateway,
        reviews: None,
        watch_pods: false,
    }
}

/// The clusters, and what checks them.
async fn checked(handles: Vec<ClusterHandle>, home: Option<&str>) -> Arc<Inventory> {
    let inventory = Inventory::start(ManualClock::at(NOW), handles, CancellationToken::new());
    settle().await;
    let check = SelfCheck {
        inventory: Arc::clone(&inventory),
        home: home.map(ClusterName::from_any),
    };
    tokio::spawn(check.keep(CancellationToken::new()));
    settle().await;
    inventory
}

async fn one(fleet: &Arc<Fleet>) -> Arc<Inventory> {
    checked(vec![handle("test", fleet.gateway())], None).await
}

/// A cluster that notes what it is asked about this service.
struct Noting {
    inner: Arc<dyn ClusterGateway>,
    asked: Mutex<Vec<String>>,
    /// What it cannot tell.
    untold: Option<KubernetesAction>,
    /// Of what the next answer takes this long to arrive.
    late: Mutex<Option<(KubernetesAction, Duration)>>,
}

impl Noting {
    fn of(fleet: &Arc<Fleet>, untold: Option<KubernetesAction>) -> Arc<Self> {
        Arc::new(Self {
            inner: fleet.gateway(),
            asked: Mutex::default(),
            untold,
            late: Mutex::default(),
        })
    }

    /// What it was asked since this was last called.
    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut *self.asked.lock().unwrap())
    }
}

#[async_trait]
impl Different for Noting {
    fn inner(&self) -> &dyn ClusterGateway {
        &*self.inner
    }

    async fn may(&self, action: &KubernetesAction) -> Result<bool, ClusterError> {
        self.asked.lock().unwrap().push(action.to_string());
        if self.untold == Some(*action) {
            let message = "a webhook did not answer".to_owned();
            return Err(ClusterError::Unreadable { message });
        }
        let answer = self.inner.may(action).await;
        let late = self.late.lock().unwrap().take_if(|(late, _)| late == action);
        if let Some((_, time)) = late {
            tokio::time::sleep(time).await;
        }
        answer
    }
}

fn permissions(inventory: &Inventory, cluster: &str) -> PermissionsStatus {
    inventory.cluster(cluster).unwrap().permissions
}

fn state(inventory: &Inventory, feature: ClusterFeature) -> FeatureState {
    let all = permissions(inventory, "test").features;
    all.iter().find(|status| status.feature == feature).unwrap().state
}

/// The features of a cluster that are in this state.
fn in_state(inventory: &Inventory, cluster: &str, state: FeatureState) -> Vec<&'static str> {
    let all = permissions(inventory, cluster).features;
    let found = all.iter().filter(|status| status.state == state);
    found.map(|status| status.feature.as_str()).collect()
}

/// Lets every task run until all of them wait.
async fn settle() {
    tokio::time::sleep(Duration::from_millis(1)).await;
}

async fn seconds(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    settle().await;
}

#[tokio::test(start_paused = true)]
async fn at_start_everything_is_asked_that_the_configuration_uses() {
    let inventory = one(&fleet()).await;
    let unused = ["watch_pods", "review_tokens", "review_access"];
    assert_eq!(in_state(&inventory, "test", FeatureState::NotUsed), unused);
    assert_eq!(in_state(&inventory, "test", FeatureState::Available).len(), 7);
    let permissions = permissions(&inventory, "test");
    assert_eq!(permissions.checked_at, Timestamp::parse(NOW).ok());
    assert_eq!(permissions.reason, None);

    // Two clusters that know people, one of which is asked whose tokens are.
    let with_people = |name: &str| ClusterHandle {
        reviews: Some(Arc::new(MockAccessReviews::new())),
        watch_pods: true,
        ..handle(name, fleet().gateway())
    };
    let clusters = vec![
        with_people("east"),
        with_people("west"),
        handle("demo", fleet().gateway()),
    ];
    let inventory = checked(clusters, Some("west")).await;
    assert_eq!(in_state(&inventory, "west", FeatureState::NotUsed), Vec::<&str>::new());
    assert_eq!(in_state(&inventory, "east", FeatureState::NotUsed), ["review_tokens"]);
    assert_eq!(in_state(&inventory, "demo", FeatureState::NotUsed), unused);
}

#[tokio::test(start_paused = true)]
async fn what_is_missing_is_told_with_the_rules_that_lack_and_is_there_within_a_minute_of_being_granted() {
    let fleet = fleet();
    fleet.withhold(ClusterFeature::EvictPods);
    fleet.withhold(ClusterFeature::DeletePods);
    let inventory = one(&fleet).await;
    assert_eq!(
        in_state(&inventory, "test", FeatureState::Missing),
        ["evict_pods", "delete_pods"]
    );
    let all = permissions(&inventory, "test").features;
    let missing: Vec<KubernetesAction> = all.into_iter().flat_map(|status| status.missing).collect();
    let words: Vec<String> = missing.iter().map(ToString::to_string).collect();
    assert_eq!(words, ["create pods/eviction", "delete pods"]);

    fleet.grant(ClusterFeature::EvictPods);
    seconds(61).await;
    assert_eq!(in_state(&inventory, "test", FeatureState::Missing), ["delete_pods"]);
}

#[tokio::test(start_paused = true)]
async fn what_is_missing_is_asked_alone_each_minute_for_ten_minutes_and_everything_every_five() {
    let fleet = fleet();
    fleet.withhold(ClusterFeature::DeletePods);
    let cluster = Noting::of(&fleet, None);
    let _inventory = checked(vec![handle("test", through(Arc::clone(&cluster)))], None).await;
    let everything = cluster.asked();
    assert_eq!(everything.len(), 9, "{everything:?}");
    for _ in 0..2 {
        seconds(298).await;
        assert_eq!(cluster.asked(), ["delete pods"; 4]);
        seconds(2).await;
        assert_eq!(cluster.asked(), everything);
    }
    for _ in 0..2 {
        seconds(298).await;
        assert_eq!(cluster.asked(), Vec::<String>::new());
        seconds(2).await;
        assert_eq!(cluster.asked(), everything);
    }
    // What was left out for long does not hide what somebody takes away.
    fleet.withhold(ClusterFeature::EvictPods);
    seconds(300).await;
    assert_eq!(cluster.asked(), everything);
    seconds(70).await;
    assert_eq!(cluster.asked(), ["create pods/eviction"]);
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_was_overtaken_by_a_newer_one_does_not_count() {
    let fleet = fleet();
    fleet.withhold(ClusterFeature::EvictPods);
    let cluster = Noting::of(&fleet, None);
    let inventory = checked(vec![handle("test", through(Arc::clone(&cluster)))], None).await;
    let late = (ClusterFeature::EvictPods.needs()[0], Duration::from_secs(3));
    *cluster.late.lock().unwrap() = Some(late);
    seconds(61).await;
    assert_eq!(cluster.late.lock().unwrap().take(), None, "it is asked");

    fleet.grant(ClusterFeature::EvictPods);
    let options = DrainOptions::default();
    drop(inventory.plan_drain("test", "worker-00001", &options).await.unwrap());
    assert_eq!(state(&inventory, ClusterFeature::EvictPods), FeatureState::Available);
    seconds(3).await;
    assert_eq!(state(&inventory, ClusterFeature::EvictPods), FeatureState::Available);
}

#[tokio::test(start_paused = true)]
async fn what_a_cluster_cannot_tell_is_not_known_and_the_rest_is_told() {
    let fleet = fleet();
    fleet.withhold(ClusterFeature::DeletePods);
    let cluster = Noting::of(&fleet, Some(ClusterFeature::ChangeNodes.needs()[0]));
    let inventory = checked(vec![handle("test", through(Arc::clone(&cluster)))], None).await;
    assert_eq!(in_state(&inventory, "test", FeatureState::NotKnown), ["change_nodes"]);
    assert_eq!(in_state(&inventory, "test", FeatureState::Missing), ["delete_pods"]);
    let told = permissions(&inventory, "test");
    assert!(told.checked_at.is_none() && told.reason.is_some(), "{told:?}");
    assert_eq!(cluster.asked().len(), 9);
    seconds(58).await;
    assert_eq!(cluster.asked(), Vec::<String>::new());
    seconds(2).await;
    assert_eq!(cluster.asked().len(), 9);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_forbidden_has_the_cluster_asked_soon() {
    let fleet = fleet();
    let inventory = one(&fleet).await;
    fleet.withhold(ClusterFeature::ViewBudgets);
    seconds(30).await;
    assert_eq!(state(&inventory, ClusterFeature::ViewBudgets), FeatureState::Available);
    let refused = inventory.handle("test").unwrap().gateway.disruption_budgets().await;
    assert!(matches!(refused, Err(ClusterError::Forbidden { .. })));
    seconds(1).await;
    assert_eq!(state(&inventory, ClusterFeature::ViewBudgets), FeatureState::Missing);
}

#[tokio::test(start_paused = true)]
async fn without_an_answer_nothing_is_known_and_what_was_known_stays() {
    let fleet = fleet();
    fleet.withhold(ClusterFeature::EvictPods);
    fleet.lose();
    let inventory = one(&fleet).await;
    assert_eq!(in_state(&inventory, "test", FeatureState::NotKnown).len(), 7);
    let told = permissions(&inventory, "test");
    assert!(told.checked_at.is_none() && told.reason.is_some(), "{told:?}");

    fleet.recover();
    seconds(16).await;
    assert_eq!(in_state(&inventory, "test", FeatureState::Missing), ["evict_pods"]);
    let told = permissions(&inventory, "test");
    assert!(told.checked_at.is_some() && told.reason.is_none(), "{told:?}");

    fleet.lose();
    seconds(61).await;
    assert_eq!(in_state(&inventory, "test", FeatureState::Missing), ["evict_pods"]);
    assert!(permissions(&inventory, "test").reason.is_some());
}

#[tokio::test(start_paused = true)]
async fn clusters_that_come_later_are_asked_too_and_those_under_a_new_access_again() {
    let inventory = one(&fleet()).await;
    let later = fleet();
    later.withhold(ClusterFeature::ChangeNodes);
    inventory.put(handle("later", later.gateway()));
    settle().await;
    assert_eq!(in_state(&inventory, "later", FeatureState::Missing), ["change_nodes"]);
    inventory.put(handle("later", fleet().gateway()));
    settle().await;
    assert_eq!(in_state(&inventory, "later", FeatureState::Missing), Vec::<&str>::new());
}

#[tokio::test(start_paused = true)]
async fn what_is_missing_is_a_metric_and_what_is_not_known_is_not_there() {
    let fleet = fleet();
    fleet.withhold(ClusterFeature::EvictPods);
    let inventory = one(&fleet).await;
    let recorder = PrometheusBuilder::new().build_recorder();
    metrics::with_local_recorder(&recorder, || {
        describe_metrics();
        inventory.observe();
    });
    let text = recorder.handle().render();
    let value = |feature: &str| {
        let start = format!("kube_node_manager_cluster_permissions_missing{{cluster=\"test\",feature=\"{feature}\"}} ");
        let line = text.lines().find(|line| line.starts_with(&start));
        line.map(|line| line[start.len()..].to_owned())
    };
    assert_eq!(value("evict_pods").as_deref(), Some("1"));
    assert_eq!(value("change_nodes").as_deref(), Some("0"));
    assert_eq!(value("review_tokens"), None);
}

#[tokio::test(start_paused = true)]
async fn a_plan_says_what_it_cannot_tell_and_what_the_drain_would_lack() {
    let fleet = fleet();
    for feature in [
        ClusterFeature::ViewBudgets,
        ClusterFeature::ViewDaemonSets,
        ClusterFeature::EvictPods,
    ] {
        fleet.withhold(feature);
    }
    let inventory = one(&fleet).await;
    let node = NodeName::parse("worker-00001").unwrap();
    let options = DrainOptions {
        ignore_daemonsets: true,
        ..DrainOptions::default()
    };
    let preview = inventory.plan_drain("test", node.as_str(), &options).await.unwrap();
    let about = |part: &str| -> Vec<&String> {
        let warnings = preview.warnings.iter();
        warnings.filter(|warning| warning.contains(part)).collect()
    };
    for (permission, so) in [
        ("list poddisruptionbudgets.policy", "as if there were none"),
        ("list daemonsets.apps", "as if all that pods name existed"),
        ("create pods/eviction", "so it cannot drain nodes there"),
    ] {
        let told = about(permission);
        assert!(told.len() == 1 && told[0].contains(so), "{:?}", preview.warnings);
    }
    // Pods of DaemonSets are taken for what they say to be, and stay.
    let kinds: Vec<&str> = preview
        .plan
        .evictions()
        .into_iter()
        .filter_map(|planned| planned.pod.controller.as_ref())
        .map(|owner| owner.kind.as_str())
        .collect();
    assert!(!kinds.contains(&"DaemonSet"), "{kinds:?}");
    let is_daemon = |pod: &knm_model::Pod| pod.controller.as_ref().is_some_and(|owner| owner.kind == "DaemonSet");
    assert!(preview.plan.pods().iter().any(|planned| is_daemon(&planned.pod)));
}

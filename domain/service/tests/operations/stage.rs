//! What the tests work on: a simulated cluster, a store in memory, and replicas that work.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::StreamExt;
use knm_cluster_memory::{Fleet, FleetOptions};
use knm_domain::{
    Asker, ClusterHandle, Inventory, NodeChanges, OperationError, OperationRequest, OperationRunner, OperationShown,
    Operations, OwnPod, RunnerSettings, SelfCheck, SignIn, TargetRequest, TemplateReconciler, Templates, Ways,
};
use knm_model::{
    Access, Actor, ActorKind, AuditFilter, AuditRecord, Authority, Caller, ClusterName, ClusterSource, Controller,
    DisruptionBudget, DrainProgress, Hold, Node, NodeName, NodePatch, ObjectName, OperationEvent, OperationKind,
    OperationState, OperationTarget, Pod, PodPhase, PodRequests, RawStrategy, Selector, Timestamp, UnhealthyPods, Wish,
};
use knm_ports::{Clock, ClusterGateway, CountedIds, OperationWork, Storage};
use serde_json::{Map, Value};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::nodes::{node, settle};

/// How long a lease lasts here.
pub(crate) const LEASE: Duration = Duration::from_secs(10);
/// How often followers look without being told: so seldom that they notice only what they are told.
const LOOK_EVERY: Duration = Duration::from_secs(36_000);

/// The time of the runtime, which is paused in these tests: it passes when nothing else is to be done.
struct RuntimeClock {
    start: Timestamp,
    began: Instant,
    /// When it was last read, how often at that moment, and how often at any moment at most.
    read: Mutex<(Instant, u32, u32)>,
}

impl Clock for RuntimeClock {
    fn now(&self) -> Timestamp {
        let mut read = self.read.lock().unwrap();
        let again = if read.0 == Instant::now() { read.1 + 1 } else { 1 };
        *read = (Instant::now(), again, again.max(read.2));
        drop(read);
        // Whoever never waits would keep the time from passing, and the test from ending.
        assert!(again < 100_000, "somebody goes round and round");
        self.start.plus(self.began.elapsed())
    }
}

pub(crate) struct Stage {
    pub(crate) fleet: Arc<Fleet>,
    pub(crate) storage: Storage,
    pub(crate) operations: Arc<Operations>,
    pub(crate) clock: Arc<dyn Clock>,
    runtime_clock: Arc<RuntimeClock>,
    inventory: Arc<Inventory>,
    changes: Arc<NodeChanges>,
    ids: Arc<CountedIds>,
}

/// A replica that works on operations.
pub(crate) struct Replica {
    task: JoinHandle<()>,
    shutdown: CancellationToken,
}

impl Replica {
    /// Ends it as `kill -9` would.
    pub(crate) fn kill(&self) {
        self.task.abort();
    }

    /// Ends it as SIGTERM would.
    pub(crate) async fn stop(self) {
        self.shutdown.cancel();
        self.task.await.unwrap();
    }
}

impl Stage {
    /// A cluster with these nodes.
    pub(crate) async fn with(names: &[&str]) -> Self {
        Self::seen_through(names, false, |gateway| gateway).await
    }

    /// The same, seen through what `around` makes of its gateway, and perhaps with its pods watched.
    pub(crate) async fn seen_through(
        names: &[&str],
        watch_pods: bool,
        around: impl FnOnce(Arc<dyn ClusterGateway>) -> Arc<dyn ClusterGateway>,
    ) -> Self {
        let fleet = fleet(names);
        let handle = handle("test", around(fleet.gateway()), watch_pods);
        Self::over(fleet, vec![handle]).await
    }

    /// Two clusters, the second of which is called `other`.
    pub(crate) async fn with_two(names: &[&str], others: &[&str]) -> Self {
        let (one, other) = (fleet(names), fleet(others));
        let handles = vec![
            handle("test", one.gateway(), false),
            handle("other", other.gateway(), false),
        ];
        Self::over(one, handles).await
    }

    async fn over(fleet: Arc<Fleet>, handles: Vec<ClusterHandle>) -> Self {
        let start = start();
        let runtime_clock = Arc::new(RuntimeClock {
            start,
            began: Instant::now(),
            read: Mutex::new((Instant::now(), 0, 0)),
        });
        let clock: Arc<dyn Clock> = runtime_clock.clone();
        let inventory = Inventory::start(Arc::clone(&clock), handles, CancellationToken::new());
        settle().await;
        let storage = knm_storage_memory::open();
        let ids = Arc::new(CountedIds::default());
        let changes = NodeChanges::new(
            Arc::clone(&inventory),
            Arc::clone(&storage.audit),
            Arc::clone(&storage.holds),
            Arc::clone(&clock),
            ids.clone(),
        );
        let operations = Operations::new(
            Arc::clone(&inventory),
            Arc::clone(&storage.operations),
            &*storage.wakes,
            Arc::clone(&clock),
            ids.clone(),
            LOOK_EVERY,
        );
        Self {
            fleet,
            storage,
            operations,
            clock,
            runtime_clock,
            inventory,
            changes,
            ids,
        }
    }

    /// Replicas that start from now on have never seen the cluster `other`, which does not answer.
    pub(crate) async fn restart_while_other_is_away(&mut self) {
        let away = fleet(&[]);
        away.lose();
        let handles = vec![
            handle("test", self.fleet.gateway(), false),
            handle("other", away.gateway(), false),
        ];
        self.inventory = Inventory::start(Arc::clone(&self.clock), handles, CancellationToken::new());
        self.changes = NodeChanges::new(
            Arc::clone(&self.inventory),
            Arc::clone(&self.storage.audit),
            Arc::clone(&self.storage.holds),
            Arc::clone(&self.clock),
            self.ids.clone(),
        );
        settle().await;
    }

    /// Has the cluster asked what it lets the service do, once.
    pub(crate) async fn check_permissions(&self) {
        let check = SelfCheck {
            inventory: Arc::clone(&self.inventory),
            home: None,
        };
        let checking = tokio::spawn(check.keep(CancellationToken::new()));
        settle().await;
        checking.abort();
    }

    /// Starts a replica.
    pub(crate) fn replica(&self, name: &str) -> Replica {
        self.replica_with(name, |_| {})
    }

    pub(crate) fn replica_with(&self, name: &str, change: impl FnOnce(&mut RunnerSettings)) -> Replica {
        self.replica_over(Arc::clone(&self.storage.work), name, change)
    }

    /// One that sees the store through something else.
    pub(crate) fn replica_over(
        &self,
        work: Arc<dyn OperationWork>,
        name: &str,
        change: impl FnOnce(&mut RunnerSettings),
    ) -> Replica {
        let mut settings = RunnerSettings {
            owner: name.to_owned(),
            lease: LEASE,
            max_concurrent_evictions: None,
            own_pod: None,
            sign_in: SignIn::new(Ways::Open, Arc::clone(&self.inventory), Arc::clone(&self.clock)),
        };
        change(&mut settings);
        // Each replica has its own view of the operations, as processes do.
        let operations = Operations::new(
            Arc::clone(&self.inventory),
            Arc::clone(&self.storage.operations),
            &*self.storage.wakes,
            Arc::clone(&self.clock),
            self.ids.clone(),
            LOOK_EVERY,
        );
        let runner = OperationRunner::new(operations, Arc::clone(&self.changes), work, settings);
        let shutdown = CancellationToken::new();
        Replica {
            task: tokio::spawn(runner.run(shutdown.clone())),
            shutdown,
        }
    }

    /// Templates, as each replica has them.
    pub(crate) fn templates(&self) -> Arc<Templates> {
        Templates::new(
            Arc::clone(&self.inventory),
            Arc::clone(&self.storage.definitions),
            Arc::clone(&self.clock),
        )
    }

    /// What compares nodes with them.
    pub(crate) fn reconciler(&self, owner: &str) -> TemplateReconciler {
        TemplateReconciler {
            templates: self.templates(),
            operations: Arc::clone(&self.operations),
            leases: Arc::clone(&self.storage.leases),
            clock: Arc::clone(&self.clock),
            owner: owner.to_owned(),
        }
    }

    /// How often the clock was read at one and the same moment, at most.
    pub(crate) fn clock_was_read(&self) -> u32 {
        self.runtime_clock.read.lock().unwrap().2
    }

    pub(crate) async fn accept(&self, request: OperationRequest) -> Result<OperationShown, OperationError> {
        self.operations.accept(request, asker()).await
    }

    /// Accepts the drain of node `a`.
    pub(crate) async fn drain(&self, options: Value) -> Uuid {
        let request = request(OperationKind::Drain, &["a"], options);
        self.accept(request).await.unwrap().operation.id
    }

    pub(crate) async fn shown(&self, id: Uuid) -> OperationShown {
        self.operations.find(id).await.unwrap()
    }

    pub(crate) async fn state(&self, id: Uuid) -> OperationState {
        self.shown(id).await.operation.state
    }

    /// Waits until the operation is over, for an hour at most.
    pub(crate) async fn end(&self, id: Uuid) -> OperationShown {
        self.until(id, |shown| shown.operation.state.is_ended()).await
    }

    /// Waits until it is so, for an hour at most.
    pub(crate) async fn until(&self, id: Uuid, is_so: impl Fn(&OperationShown) -> bool) -> OperationShown {
        for _ in 0..36_000 {
            let shown = self.shown(id).await;
            if is_so(&shown) {
                return shown;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("it never came to that: {:?}", self.shown(id).await);
    }

    pub(crate) async fn wish(&self, id: Uuid, wish: Wish) {
        self.operations.wish(id, wish, &asker()).await.unwrap();
    }

    pub(crate) async fn node(&self, name: &str) -> Node {
        let found = self.fleet.gateway().node(&node_name(name)).await.unwrap();
        found.unwrap()
    }

    /// The names of the pods on a node.
    pub(crate) async fn pods(&self, name: &str) -> Vec<String> {
        let pods = self.fleet.gateway().pods_on_node(&node_name(name)).await.unwrap();
        pods.into_iter().map(|pod| pod.name).collect()
    }

    /// What somebody with kubectl does.
    pub(crate) async fn set_schedulable(&self, name: &str, schedulable: bool) {
        let patch = NodePatch {
            schedulable: Some(schedulable),
            ..NodePatch::default()
        };
        self.fleet
            .gateway()
            .patch_node(&node_name(name), &patch, false)
            .await
            .unwrap();
        settle().await;
    }

    pub(crate) async fn audit(&self) -> Vec<AuditRecord> {
        self.storage
            .audit
            .page(&AuditFilter::default(), None, 1_000)
            .await
            .unwrap()
    }

    pub(crate) async fn holds(&self) -> Vec<Hold> {
        self.storage.holds.unended().await.unwrap()
    }

    pub(crate) async fn events(&self, id: Uuid) -> Vec<OperationEvent> {
        let all: Vec<_> = self.operations.follow(id, 0).collect().await;
        all.into_iter().flat_map(|events| events.unwrap()).collect()
    }
}

fn start() -> Timestamp {
    Timestamp::parse("2030-01-01T00:00:00Z").unwrap()
}

/// A cluster with these nodes, in which nothing happens by itself.
fn fleet(names: &[&str]) -> Arc<Fleet> {
    let fleet = Fleet::new(FleetOptions {
        nodes: 0,
        seed: 1,
        change_every: None,
        started_at: start(),
    });
    for name in names {
        fleet.put_node(node(name, "1"));
    }
    fleet
}

fn handle(name: &str, gateway: Arc<dyn ClusterGateway>, watch_pods: bool) -> ClusterHandle {
    ClusterHandle {
        name: ClusterName::from_any(name),
        source: ClusterSource::Demo,
        gateway,
        reviews: None,
        watch_pods,
    }
}

pub(crate) fn asker() -> Asker {
    Asker {
        caller: Caller {
            actor: Actor::signed_in(ActorKind::Token, "ann".to_owned(), None),
            authority: Authority::Open,
            access: Arc::new(Access::unlimited()),
        },
        request_id: Some("r-1".to_owned()),
    }
}

pub(crate) fn request(kind: OperationKind, nodes: &[&str], options: Value) -> OperationRequest {
    OperationRequest {
        kind,
        targets: vec![TargetRequest {
            cluster: "test".to_owned(),
            nodes: nodes.iter().map(|name| (*name).to_owned()).collect(),
            label_selector: None,
        }],
        reason: None,
        ticket: None,
        options: match options {
            Value::Object(options) => options,
            _ => Map::new(),
        },
        strategy: RawStrategy::default(),
        dry_run: false,
        retry_of: None,
    }
}

pub(crate) fn node_name(name: &str) -> NodeName {
    NodeName::parse(name).unwrap()
}

/// A pod of a replica set that runs on `node`.
pub(crate) fn pod(name: &str, node: &str) -> Pod {
    Pod {
        namespace: "team".to_owned(),
        name: name.to_owned(),
        uid: format!("uid-{name}"),
        node: node_name(node),
        labels: [("app".to_owned(), name.split('-').next().unwrap_or_default().to_owned())].into(),
        phase: PodPhase::Running,
        ready: true,
        controller: Some(Controller {
            api_version: "apps/v1".to_owned(),
            kind: "ReplicaSet".to_owned(),
            name: "web".to_owned(),
        }),
        requests: PodRequests::default(),
        created_at: None,
        deletion_at: None,
        deletion_grace: None,
        is_mirror: false,
        has_empty_dir: false,
        priority: 0,
        priority_class: None,
        node_selector: Default::default(),
        node_terms: None,
        tolerations: Vec::new(),
    }
}

/// A budget over the pods `web-…` with room for so many.
pub(crate) fn budget(allowed: u32) -> DisruptionBudget {
    DisruptionBudget {
        namespace: "team".to_owned(),
        name: "web".to_owned(),
        selector: Selector::parse("app=web").ok(),
        disruptions_allowed: allowed,
        current_healthy: 5,
        desired_healthy: 4,
        expected_pods: 9,
        unhealthy_pods: UnhealthyPods::default(),
    }
}

pub(crate) fn own_pod(cluster: &str, name: &str) -> OwnPod {
    OwnPod {
        cluster: ClusterName::from_any(cluster),
        name: ObjectName {
            namespace: "team".to_owned(),
            name: name.to_owned(),
        },
    }
}

/// The pods of a drained node and how far they are.
pub(crate) fn pods_of(target: &OperationTarget) -> Vec<(String, &'static str)> {
    let progress: DrainProgress = target.detail.read().unwrap();
    let pods = progress.pods.iter();
    pods.map(|pod| (pod.name.clone(), pod.state.as_str())).collect()
}

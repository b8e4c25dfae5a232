//! Steps of drains: hold the node, ask its pods to go, and look until they are gone.

use std::future::ready;
use std::time::Duration;

use futures::StreamExt;
use knm_model::{
    AfterDeadline, DrainOptions, DrainPhase, DrainPlan, DrainProgress, EventKind, Farewell, HoldRequest, HoldState,
    NewEvent, Node, NodeStatus, ObjectName, Operation, OperationTarget, Pod, PodProgress, Removal, Standing,
    TargetDetail, TargetState, Timestamp, UncordonAfter,
};
use knm_ports::{ClusterError, ClusterGateway, EvictOptions, Eviction, PodRef, chain};
use metrics::counter;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::changing::{bring_hold, plan_hold};
use super::room::Limits;
use super::step::{Bench, TargetStep, asked, node_of, target_event};
use crate::changes::{ChangeError, Target, Uncordon};
use crate::inventory::InventoryError;
use crate::metric;

/// How many pods of a node are asked to go at the same moment.
const AT_ONCE: usize = 8;
/// How often it is looked whether a drained node is ready, or its volumes are detached.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// How long the pods of a node may take to be told.
const DEADLINE: Duration = Duration::from_secs(10);

/// What is stored of a node that is drained.
#[derive(Default, Serialize)]
struct Detail {
    #[serde(flatten)]
    progress: DrainProgress,
    #[serde(flatten)]
    node: NodeDetail,
}

/// What is stored of the node itself.
#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct NodeDetail {
    /// What changed on the node, as it was before and is now.
    before: Map<String, Value>,
    after: Map<String, Value>,
    /// Whether the hold was made for this drain.
    made_hold: bool,
}

impl Detail {
    /// Both are read by themselves: to read what is flattened, everything is copied first.
    fn of(target: &OperationTarget) -> Self {
        Self {
            progress: target.detail.read().unwrap_or_default(),
            node: target.detail.read().unwrap_or_default(),
        }
    }
}

/// A step of a drain.
struct Drain<'a> {
    bench: &'a Bench,
    operation: &'a Operation,
    options: &'a DrainOptions,
    step: TargetStep,
    detail: Detail,
    now: Timestamp,
}

/// Does the next step of a drain.
pub(super) async fn drain(
    bench: &Bench,
    operation: &Operation,
    options: &DrainOptions,
    hold: &HoldRequest,
    target: OperationTarget,
) -> TargetStep {
    let detail = Detail::of(&target);
    let drain = Drain {
        bench,
        operation,
        options,
        step: TargetStep::of(target),
        detail,
        now: bench.clock.now(),
    };
    match drain.detail.progress.phase {
        DrainPhase::Planning => drain.plan(hold).await,
        DrainPhase::Cordoning => drain.cordon().await,
        DrainPhase::Removing => drain.remove().await,
        DrainPhase::Detaching => drain.detach().await,
        DrainPhase::Returning => drain.give_back().await,
    }
}

/// Stops the drain of a node because its operation was cancelled.
pub(super) async fn cancel(bench: &Bench, operation: &Operation, restore: bool, target: OperationTarget) -> TargetStep {
    let detail = Detail::of(&target);
    let mut step = TargetStep::of(target);
    let mut message = "the operation was cancelled; the node stays cordoned".to_owned();
    let mut changed = (detail.node.before, detail.node.after);
    if step.target.hold.is_none() {
        message = "the operation was cancelled before anything was changed".to_owned();
    } else if restore && detail.node.made_hold {
        if let Err(error) = release(bench, operation, &mut step).await {
            return step.again(error, bench.clock.now());
        }
        message = "the operation was cancelled; the node is as schedulable as before".to_owned();
        changed = (Map::new(), Map::new());
    }
    step.end(TargetState::Cancelled, Some(message), changed, bench.clock.now())
}

/// Takes the hold of a drain off its node; `Err` says why that did not work.
async fn release(bench: &Bench, operation: &Operation, step: &mut TargetStep) -> Result<(), String> {
    let request = Uncordon {
        reason: operation.reason.clone(),
        hold: step.target.hold,
        force: false,
    };
    let node = node_of(bench, &step.target).map_err(|error| chain(&error))?;
    match bench.changes.free(&node, &request, &asked(operation)).await {
        Ok((_, released)) => {
            step.hold_states
                .extend(released.iter().map(|hold| (hold.id, HoldState::Ended)));
            Ok(())
        }
        // Somebody released it, or the node is gone: there is nothing to take off.
        Err(ChangeError::UnknownHold { .. } | ChangeError::Inventory(InventoryError::UnknownNode { .. })) => {
            step.hold_states
                .extend(step.target.hold.map(|id| (id, HoldState::Ended)));
            Ok(())
        }
        Err(error) => Err(chain(&error)),
    }
}

impl Drain<'_> {
    /// Looks whether all pods may be removed before anything is changed.
    async fn plan(mut self, hold: &HoldRequest) -> TargetStep {
        // Before any pod is asked to go it is looked again; after a dry run it is not.
        let looked = match self.operation.dry_run {
            true => self.look_now().await,
            false => self.look().await,
        };
        let (_, plan) = match looked {
            Ok(Some(seen)) => seen,
            Ok(None) => return self.vanished(),
            Err(error) => return self.later(&error),
        };
        if plan.is_refused() {
            let message = refusals(&plan);
            return self.end(TargetState::Failed, message);
        }
        if self.operation.dry_run {
            let totals = plan.totals();
            let message = format!(
                "{} pods would be removed: {} at once, {} later, {} wait for something else, {} can never be; {} would stay",
                totals.evict, totals.at_once, totals.later, totals.blocked, totals.never, totals.skip
            );
            let state = match totals.never {
                0 => TargetState::Succeeded,
                _ => TargetState::Failed,
            };
            return self.end(state, message);
        }
        self.step = plan_hold(self.bench, self.operation, hold, self.step).await;
        if self.step.target.hold.is_none() || self.step.target.state.is_ended() {
            return self.step;
        }
        self.detail.node.made_hold = !self.step.holds.is_empty();
        self.detail.progress.phase = DrainPhase::Cordoning;
        self.detail.progress.deadline = self.options.timeout.map(|timeout| self.now.plus(timeout));
        self.rest(Duration::ZERO)
    }

    /// Holds the node. While that does not work no pod is asked to go.
    async fn cordon(mut self) -> TargetStep {
        match bring_hold(self.bench, self.operation, self.step).await {
            Ok((step, changed)) => {
                self.step = step;
                self.detail.node.before = changed.before;
                self.detail.node.after = changed.after;
                self.detail.progress.phase = DrainPhase::Removing;
                self.step.target.message = None;
                self.rest(Duration::ZERO)
            }
            Err(step) if step.target.hold.is_none() => {
                self.step = step;
                self.detail.progress.phase = DrainPhase::Planning;
                self.rest(Duration::ZERO)
            }
            Err(step) => step,
        }
    }

    /// Asks pods to go, and looks whether they are gone.
    async fn remove(mut self) -> TargetStep {
        let (node, plan) = match self.look().await {
            Ok(Some(seen)) => seen,
            Ok(None) => return self.vanished(),
            Err(error) => return self.later(&error),
        };
        if node.schedulable {
            return self.end(
                TargetState::Failed,
                "somebody uncordoned the node, which stopped its drain".to_owned(),
            );
        }
        if plan.is_refused() {
            let message = refusals(&plan);
            return self.end(TargetState::Failed, message);
        }
        let before = self.detail.progress.notice.clone();
        let looked = self.detail.progress.look(&plan, self.now);
        self.tell(&looked);
        let is_late = self
            .detail
            .progress
            .deadline
            .is_some_and(|deadline| deadline <= self.now);
        if is_late && !self.detail.progress.forced {
            match self.options.after_deadline {
                AfterDeadline::Fail => {
                    let left = self.detail.progress.left();
                    if !left.is_empty() {
                        return self.end(
                            TargetState::Failed,
                            format!("the time is up, and pods are left: {}", listed(&left)),
                        );
                    }
                }
                AfterDeadline::Force => {
                    let left = self.detail.progress.left();
                    self.detail
                        .node
                        .before
                        .insert("deleted_after_deadline".to_owned(), json!([]));
                    self.detail
                        .node
                        .after
                        .insert("deleted_after_deadline".to_owned(), json!(left));
                    self.detail.progress.force(self.now);
                }
            }
        }
        self.ask_to_go(&plan).await;
        self.detail.progress.notice = self.notice(&node);
        let place = (self.operation.id, self.step.target.place);
        self.bench.blocks.note(place, self.blocked());
        match self.detail.progress.standing() {
            Standing::Under => {
                let rest = self.detail.progress.rest(self.now);
                self.step.target.message = self.summary();
                if self.detail.progress.notice != before {
                    let event = target_event(&self.step.target, self.now);
                    self.step.events.push(event);
                }
                self.rest(rest)
            }
            Standing::Stuck(left) => {
                let message = format!("pods cannot be removed: {}", listed(&left));
                self.end(TargetState::Failed, message)
            }
            Standing::Drained => self.make_sure().await,
        }
    }

    /// No pod that was to go was there a moment ago: the node is drained if that is so now.
    async fn make_sure(mut self) -> TargetStep {
        let plan = match self.look_now().await {
            Ok(Some((_, plan))) => plan,
            Ok(None) => return self.vanished(),
            Err(error) => return self.later(&error),
        };
        self.now = self.bench.clock.now();
        let looked = self.detail.progress.look(&plan, self.now);
        self.tell(&looked);
        match self.detail.progress.standing() {
            Standing::Under | Standing::Stuck(_) => {
                let rest = self.detail.progress.rest(self.now);
                self.step.target.message = self.summary();
                self.rest(rest)
            }
            Standing::Drained => {
                self.step.target.message = None;
                self.detail.progress.phase = DrainPhase::Detaching;
                self.detach().await
            }
        }
    }

    /// Waits for the node's volumes if that is asked for.
    async fn detach(mut self) -> TargetStep {
        if self.options.wait_for_volume_detach {
            let attached = match node_of(self.bench, &self.step.target) {
                Ok(target) => target.cluster.gateway.attached_volumes(&target.name).await,
                Err(error) => return self.failed(&error),
            };
            let attached = match attached {
                Ok(attached) => attached,
                Err(error) => return self.later(&error),
            };
            if !attached.is_empty() {
                let message = format!("the pods are gone; volumes are still attached: {}", listed(&attached));
                if self
                    .detail
                    .progress
                    .deadline
                    .is_some_and(|deadline| deadline <= self.now)
                {
                    return self.end(TargetState::Failed, format!("the time is up: {message}"));
                }
                self.wait(message);
                return self.rest(LOOK_EVERY);
            }
        }
        if self.operation.strategy.uncordon_after == UncordonAfter::OnReady {
            self.detail.progress.phase = DrainPhase::Returning;
            return self.give_back().await;
        }
        let message = format!("drained: {} pods are gone", self.gone());
        self.end(TargetState::Succeeded, message)
    }

    /// Makes the node schedulable again as soon as it is ready.
    async fn give_back(mut self) -> TargetStep {
        let target = match node_of(self.bench, &self.step.target) {
            Ok(target) => target,
            Err(error) => return self.failed(&error),
        };
        match target.cluster.gateway.node(&target.name).await {
            Ok(None) => return self.vanished(),
            Ok(Some(node)) if node.status == NodeStatus::Ready => {}
            Ok(Some(_)) => {
                self.wait("drained; it is uncordoned when it is ready".to_owned());
                return self.rest(LOOK_EVERY);
            }
            Err(error) => return self.later(&error),
        }
        if let Err(error) = release(self.bench, self.operation, &mut self.step).await {
            let now = self.now;
            return self.stored().again(error, now);
        }
        let message = format!("drained and given back: {} pods are gone", self.gone());
        self.end(TargetState::Succeeded, message)
    }

    /// What the cluster tells of the node and its pods, as they were a moment ago; `None` if the node is gone.
    async fn look(&self) -> Result<Option<(Node, DrainPlan)>, ClusterError> {
        let Ok(target) = node_of(self.bench, &self.step.target) else {
            return Ok(None);
        };
        let watched = self
            .bench
            .inventory
            .watched_pods(target.cluster.name.as_str(), &target.name);
        match watched {
            Some(pods) => self.see(&target, ready(Ok(pods))).await,
            None => {
                let pods = target.cluster.gateway.recent_pods_on_node(&target.name);
                self.see(&target, pods).await
            }
        }
    }

    /// The same at this moment.
    async fn look_now(&self) -> Result<Option<(Node, DrainPlan)>, ClusterError> {
        let Ok(target) = node_of(self.bench, &self.step.target) else {
            return Ok(None);
        };
        let look = self.see(&target, target.cluster.gateway.pods_on_node(&target.name));
        self.bench.facts.in_turn(&self.step.target.cluster, look).await
    }

    async fn see(
        &self,
        target: &Target,
        pods: impl Future<Output = Result<Vec<Pod>, ClusterError>>,
    ) -> Result<Option<(Node, DrainPlan)>, ClusterError> {
        let (gateway, cluster) = (&*target.cluster.gateway, &self.step.target.cluster);
        let facts = &self.bench.facts;
        let all = async {
            tokio::try_join!(
                known_node(target, gateway),
                pods,
                facts.budgets(cluster, gateway),
                facts.daemon_sets(cluster, gateway)
            )
        };
        let timed_out = |_| Err(ClusterError::TimedOut { limit: DEADLINE });
        let told = tokio::time::timeout(DEADLINE, all).await.unwrap_or_else(timed_out)?;
        let (node, pods, budgets, daemon_sets): (Option<Node>, Vec<Pod>, _, _) = told;
        let plan = |node| {
            let plan = DrainPlan::new(pods, &budgets, &daemon_sets, self.options, self.now);
            (node, plan)
        };
        Ok(node.map(plan))
    }

    /// Asks the pods to go whose turn it is.
    async fn ask_to_go(&mut self, plan: &DrainPlan) {
        let (bench, target) = (self.bench, &self.step.target);
        let progress = &self.detail.progress;
        let own = bench.own_pod.as_ref();
        let due = progress.due(plan, self.options, own, usize::MAX, self.now);
        let is_leaving = |state: &PodProgress| matches!(state, PodProgress::Terminating { .. });
        let leaving = progress.pods.iter().filter(|pod| is_leaving(&pod.state)).count();
        let limits = Limits {
            of_operation: self
                .options
                .max_concurrent_evictions
                .and_then(|most| usize::try_from(most).ok()),
            of_cluster: bench.most_leaving,
        };
        let id = self.operation.id;
        let granted = bench
            .leaving
            .reserve((id, target.place), &target.cluster, leaving, due.len(), limits);
        if granted == 0 {
            return;
        }
        let Ok(node) = node_of(bench, target) else {
            return;
        };
        let options = EvictOptions {
            grace_period_seconds: self.options.grace_period_seconds,
            dry_run: false,
        };
        let is_deletion = self.options.removal == Removal::Delete || progress.forced;
        let gateway = &node.cluster.gateway;
        let asking = due.into_iter().take(granted).map(|planned| {
            let pod = PodRef {
                namespace: planned.pod.namespace.clone(),
                name: planned.pod.name.clone(),
                uid: planned.pod.uid.clone(),
            };
            async move {
                let is_own = own.is_some_and(|own| is_named(own, &pod));
                if is_own {
                    // From then on others do what this replica did.
                    bench.handover.begin(id).await;
                }
                let told = match is_deletion {
                    true => gateway.delete_pod(&pod, &options).await,
                    false => gateway.evict(&pod, &options).await,
                };
                let farewell = farewell(told);
                if is_own && farewell != Farewell::Accepted {
                    bench.handover.take_back().await;
                }
                (pod.uid, farewell)
            }
        });
        // Collected first: an iterator of futures that borrow what they are made from is not general enough for a buffer.
        let asking: Vec<_> = asking.collect();
        let told: Vec<_> = futures::stream::iter(asking).buffer_unordered(AT_ONCE).collect().await;
        self.now = bench.clock.now();
        let mut changed = Vec::new();
        for (uid, farewell) in told {
            counter!(metric::EVICTIONS, "result" => result(&farewell)).increment(1);
            changed.extend(self.detail.progress.answered(&uid, farewell, self.now));
        }
        self.tell(&changed);
    }

    /// What whoever waits should know, if the node's kubelet seems to be gone.
    fn notice(&self, node: &Node) -> Option<String> {
        let is_overdue = |state: &PodProgress| match state {
            PodProgress::Terminating { until } => until.is_some_and(|until| until < self.now),
            PodProgress::Waiting { .. }
            | PodProgress::Blocked { .. }
            | PodProgress::Gone
            | PodProgress::Passed { .. }
            | PodProgress::Failed { .. } => false,
        };
        let overdue = self
            .detail
            .progress
            .pods
            .iter()
            .filter(|pod| is_overdue(&pod.state))
            .count();
        (node.status == NodeStatus::Unknown && 0 < overdue).then(|| {
            format!(
                "the node's kubelet was not heard of for a while: without it {overdue} pods never finish terminating; \
                 skip_wait_for_delete_timeout_seconds passes them"
            )
        })
    }

    /// How many pods are how far, as a sentence.
    fn summary(&self) -> Option<String> {
        let count = |word: &str| {
            let pods = self.detail.progress.pods.iter();
            pods.filter(|pod| pod.state.as_str() == word).count()
        };
        let words = ["waiting", "blocked", "terminating", "gone", "failed"];
        let told: Vec<_> = words
            .into_iter()
            .map(|word| (count(word), word))
            .filter(|(count, _)| 0 < *count)
            .map(|(count, word)| format!("{count} {word}"))
            .collect();
        let pods = (!told.is_empty()).then(|| format!("pods: {}", told.join(", ")));
        let notice = self.detail.progress.notice.clone();
        let both: Vec<_> = pods.into_iter().chain(notice).collect();
        (!both.is_empty()).then(|| both.join("; "))
    }

    /// How many pods budgets block, and since when the first of them is.
    fn blocked(&self) -> Option<(usize, Timestamp)> {
        let pods = self.detail.progress.pods.iter();
        let is_blocked = |state: &PodProgress| matches!(state, PodProgress::Blocked { .. });
        let since = pods.filter(|pod| is_blocked(&pod.state)).map(|pod| pod.since).min()?;
        Some((self.detail.progress.blocked(), since))
    }

    fn gone(&self) -> usize {
        let is_gone = |state: &PodProgress| *state == PodProgress::Gone;
        self.detail
            .progress
            .pods
            .iter()
            .filter(|pod| is_gone(&pod.state))
            .count()
    }

    /// Notes what happened to these pods.
    fn tell(&mut self, places: &[usize]) {
        let target = &self.step.target;
        for place in places {
            let Some(pod) = self.detail.progress.pods.get(*place) else {
                continue;
            };
            self.step.events.push(NewEvent::new(
                self.now,
                EventKind::Pod,
                [
                    ("cluster", json!(target.cluster.as_str())),
                    ("node", json!(target.node.as_str())),
                    ("namespace", json!(pod.namespace)),
                    ("pod", json!(pod.name)),
                    ("uid", json!(pod.uid)),
                    ("state", json!(pod.state.as_str())),
                    ("budget", json!(pod.state.budget())),
                    ("message", json!(pod.state.explanation())),
                ],
            ));
        }
    }

    /// Says what is waited for.
    fn wait(&mut self, message: String) {
        if self.step.target.message.as_ref() != Some(&message) {
            self.step.target.message = Some(message);
            let event = target_event(&self.step.target, self.now);
            self.step.events.push(event);
        }
    }

    fn failed(self, error: &ChangeError) -> TargetStep {
        let now = self.now;
        self.stored().failed(error, now)
    }

    fn vanished(self) -> TargetStep {
        self.end(TargetState::Skipped, "the node is gone".to_owned())
    }

    fn later(self, error: &ClusterError) -> TargetStep {
        let now = self.now;
        let message = format!("the cluster could not be asked and is asked again: {}", chain(error));
        self.stored().again(message, now)
    }

    fn rest(self, rest: Duration) -> TargetStep {
        let mut step = self.stored();
        step.rest = rest;
        step
    }

    fn end(self, state: TargetState, message: String) -> TargetStep {
        let now = self.now;
        let changed = (self.detail.node.before.clone(), self.detail.node.after.clone());
        let place = (self.operation.id, self.step.target.place);
        self.bench.leaving.forget(place);
        self.bench.blocks.note(place, None);
        self.stored().end(state, Some(message), changed, now)
    }

    /// The step with what is to be stored of the drain.
    fn stored(mut self) -> TargetStep {
        if let Ok(detail) = TargetDetail::of(&self.detail) {
            self.step.target.detail = detail;
        }
        self.step
    }
}

/// The node as it is watched, unless that tells of an uncordoning: then the cluster is asked, because what is watched may be a little old.
async fn known_node(target: &Target, gateway: &dyn ClusterGateway) -> Result<Option<Node>, ClusterError> {
    match &target.known {
        Some(node) if !node.schedulable => Ok(Some(node.clone())),
        Some(_) | None => gateway.node(&target.name).await,
    }
}

fn is_named(name: &ObjectName, pod: &PodRef) -> bool {
    name.namespace == pod.namespace && name.name == pod.name
}

/// What an answer to an eviction comes to.
fn farewell(told: Result<Eviction, ClusterError>) -> Farewell {
    let later = |message: String, retry_after| Farewell::Later { message, retry_after };
    match told {
        Ok(Eviction::Accepted) => Farewell::Accepted,
        Ok(Eviction::Gone | Eviction::Replaced) | Err(ClusterError::NotFound { .. }) => Farewell::Gone,
        Ok(Eviction::Blocked {
            budget,
            message,
            retry_after,
        }) => Farewell::Blocked {
            budget,
            message,
            retry_after,
        },
        Ok(Eviction::Busy { retry_after }) => later("the cluster is busy".to_owned(), retry_after),
        Ok(Eviction::NamespaceTerminating) => later("its namespace is going away".to_owned(), None),
        Ok(Eviction::Passing { message }) => later(message, None),
        Ok(Eviction::SeveralBudgets { message } | Eviction::Refused { message }) => Farewell::Never { message },
        Err(ClusterError::TooManyRequests { retry_after }) => later("the cluster is busy".to_owned(), retry_after),
        Err(error) if error.is_transient() => later(chain(&error), None),
        Err(
            error @ (ClusterError::Conflict { .. }
            | ClusterError::Invalid { .. }
            | ClusterError::Unauthenticated { .. }
            | ClusterError::Forbidden { .. }
            | ClusterError::Unavailable { .. }
            | ClusterError::TimedOut { .. }
            | ClusterError::Unreadable { .. }),
        ) => Farewell::Never { message: chain(&error) },
    }
}

fn result(farewell: &Farewell) -> &'static str {
    match farewell {
        Farewell::Accepted => "accepted",
        Farewell::Gone => "gone",
        Farewell::Blocked { .. } => "blocked",
        Farewell::Later { .. } => "later",
        Farewell::Never { .. } => "refused",
    }
}

/// All reasons at once, each with its pod.
fn refusals(plan: &DrainPlan) -> String {
    let told: Vec<_> = plan
        .refusals()
        .map(|planned| {
            let pod = &planned.pod;
            format!("{}/{}: {}", pod.namespace, pod.name, planned.verdict.rule.explanation())
        })
        .collect();
    format!("pods may not be removed, so none was: {}", listed(&told))
}

/// As much of a list as is read.
fn listed(texts: &[String]) -> String {
    const MOST: usize = 20;
    let shown = texts.iter().take(MOST).cloned().collect::<Vec<_>>().join("; ");
    match texts.len().saturating_sub(MOST) {
        0 => shown,
        more => format!("{shown}; and {more} more"),
    }
}

//! Works on operations: takes leases, keeps them, and gives each operation a task of its own.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use knm_model::{ClusterName, ObjectName, OperationClaim, OperationLease, OperationState};
use knm_ports::{OperationWork, StorageError};
use metrics::{counter, gauge};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::Operations;
use super::room::{Blocks, Facts, Leaving};
use super::step::Bench;
use super::task::{Task, TaskEnd};
use super::waiting::{GATHER, Waiting};
use crate::changes::NodeChanges;
use crate::metric;
use crate::sign_in::SignIn;

/// How many operations a replica takes at once; with the next look it takes more.
const CLAIMED_AT_ONCE: u32 = 200;
/// How often leases are extended and new operations looked for, as a part of the time of a lease.
const LOOKS_PER_LEASE: u32 = 5;
/// How often it is counted what there is to do.
const COUNT_EVERY: Duration = Duration::from_secs(15);
/// How long handing over may take at the end.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// How operations are worked on.
#[derive(Clone, Debug)]
pub struct RunnerSettings {
    /// This process, under a name that no other one has.
    pub owner: String,
    /// How long an operation waits for its replica before another one takes over.
    pub lease: Duration,
    /// How many pods of a cluster may be on their way out at once, as far as this replica asked them; `None`: any number.
    pub max_concurrent_evictions: Option<u32>,
    /// The pod that this process runs in; `None` if it runs in none.
    pub own_pod: Option<OwnPod>,
    /// Tells what those may do who asked for operations.
    pub sign_in: Arc<SignIn>,
}

/// The pod that this process runs in. Pods of other clusters may have the same name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnPod {
    /// Its cluster.
    pub cluster: ClusterName,
    /// Its namespace and name.
    pub name: ObjectName,
}

/// Works on operations.
pub struct OperationRunner {
    operations: Arc<Operations>,
    work: Arc<dyn OperationWork>,
    settings: RunnerSettings,
    bench: Arc<Bench>,
    handovers: mpsc::UnboundedReceiver<HandoverNews>,
}

/// What a task hears of its operation.
#[derive(Clone, Copy, Debug)]
pub(super) struct Heard {
    /// The state that it is in.
    pub(super) state: OperationState,
    /// Until when the lease is certainly ours.
    pub(super) valid_until: Instant,
}

/// Work is handed over before this process ends its own pod.
#[derive(Clone)]
pub(super) struct Handover(mpsc::UnboundedSender<HandoverNews>);

enum HandoverNews {
    /// All operations but this one go to others; then it is told.
    Begin(Uuid, oneshot::Sender<()>),
    /// The pod stays: work goes on here.
    TakeBack,
}

impl Handover {
    /// Gives all operations but `operation` to others, and waits until that is done. This process takes new ones again when what is returned is
    /// dropped without having been kept.
    pub(super) async fn begin(&self, operation: Uuid) -> HandedOver {
        let handed_over = HandedOver(Some(self.0.clone()));
        let (done, told) = oneshot::channel();
        if self.0.send(HandoverNews::Begin(operation, done)).is_ok() {
            // Without an answer the runner is gone, which hands over, too.
            let _ = told.await;
        }
        handed_over
    }
}

/// Others do what this process did, because its own pod is about to end.
pub(super) struct HandedOver(Option<mpsc::UnboundedSender<HandoverNews>>);

impl HandedOver {
    /// The pod ends: it stays so.
    pub(super) fn keep(mut self) {
        self.0 = None;
    }
}

impl Drop for HandedOver {
    fn drop(&mut self) {
        if let Some(news) = &self.0 {
            let _ = news.send(HandoverNews::TakeBack);
        }
    }
}

/// The operations that this replica works on, and who does the work.
#[derive(Default)]
struct Crew {
    running: HashMap<Uuid, Running>,
    tasks: JoinSet<(OperationLease, TaskEnd)>,
    /// What each task works on until it is joined: one that was stopped does not say so.
    works_on: HashMap<tokio::task::Id, Uuid>,
}

/// An operation that this replica works on.
struct Running {
    lease: OperationLease,
    heard: watch::Sender<Heard>,
    abort: tokio::task::AbortHandle,
    /// Since when the store does not tell of its lease any more.
    missed_since: Option<Instant>,
}

impl OperationRunner {
    /// Works on `operations`, whose leases `work` gives.
    #[must_use]
    pub fn new(
        operations: Arc<Operations>,
        changes: Arc<NodeChanges>,
        work: Arc<dyn OperationWork>,
        settings: RunnerSettings,
    ) -> Self {
        metric::begin_operations();
        let (news, handovers) = mpsc::unbounded_channel();
        let bench = Bench {
            inventory: Arc::clone(&operations.inventory),
            changes,
            clock: Arc::clone(&operations.clock),
            facts: Facts::default(),
            leaving: Leaving::default(),
            own_pod: settings.own_pod.clone(),
            sign_in: Arc::clone(&settings.sign_in),
            most_leaving: settings
                .max_concurrent_evictions
                .and_then(|most| usize::try_from(most).ok()),
            blocks: Blocks::default(),
            handover: Handover(news),
        };
        Self {
            operations,
            work,
            settings,
            bench: Arc::new(bench),
            handovers,
        }
    }

    /// Works until `shutdown`, then gives all operations to others at once.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let waiting = Arc::clone(&self.operations.waiting);
        let mut crew = Crew::default();
        let mut takes_more = true;
        let mut look = tokio::time::interval(self.settings.lease / LOOKS_PER_LEASE);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut not_before = Instant::now();
        let mut count = tokio::time::interval(COUNT_EVERY);
        count.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = shutdown.cancelled() => break,
                _ = count.tick() => self.count().await,
                _ = look.tick() => {
                    self.renew(&mut crew).await;
                    if takes_more {
                        self.claim(&mut crew).await;
                    }
                }
                () = woken(&waiting, not_before) => {
                    // Whoever has nothing to do asks for nothing but work.
                    if !crew.running.is_empty() {
                        self.renew(&mut crew).await;
                    }
                    if takes_more {
                        self.claim(&mut crew).await;
                    }
                    not_before = Instant::now() + GATHER;
                }
                Some(ended) = crew.tasks.join_next_with_id() => self.ended(ended, &mut crew).await,
                Some(news) = self.handovers.recv() => match news {
                    HandoverNews::Begin(keep, done) => {
                        takes_more = false;
                        self.hand_over(&mut crew, Some(keep)).await;
                        let _ = done.send(());
                    }
                    HandoverNews::TakeBack => takes_more = true,
                },
            }
        }
        let last = self.hand_over(&mut crew, None);
        if tokio::time::timeout(LAST_WORDS, last).await.is_err() {
            tracing::warn!("operations could not be handed over in time: others wait until their leases run out");
        }
    }

    /// Extends the leases of this replica. Whoever lost one is stopped, and one that nobody works on is given back.
    async fn renew(&self, crew: &mut Crew) {
        self.bench.blocks.observe(self.bench.clock.now());
        self.give_up_broken(crew).await;
        let valid_until = Instant::now() + self.settings.lease;
        let kept = match self.work.renew(&self.settings.owner, self.settings.lease).await {
            Ok(kept) => kept,
            Err(error) => {
                // Each task stops by itself when its lease is over.
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "the leases of operations could not be extended"
                );
                return;
            }
        };
        let kept: HashMap<Uuid, (OperationLease, OperationState)> = kept
            .into_iter()
            .map(|(lease, state)| (lease.operation, (lease, state)))
            .collect();
        let between_looks = self.settings.lease / LOOKS_PER_LEASE;
        let is_worked_on = |lease: &OperationLease| {
            crew.running
                .get(&lease.operation)
                .is_some_and(|one| one.lease == *lease)
        };
        let leases = kept.values().map(|(lease, _)| lease);
        let left: Vec<OperationLease> = leases.filter(|lease| !is_worked_on(lease)).cloned().collect();
        crew.running.retain(|id, one| match kept.get(id) {
            Some((lease, state)) if *lease == one.lease => {
                one.missed_since = None;
                one.heard.send_replace(Heard {
                    state: *state,
                    valid_until,
                });
                true
            }
            // A moment ago the task itself may have written that there is nothing more to do: then it is just about to end.
            None if one.missed_since.get_or_insert_with(Instant::now).elapsed() < between_looks => true,
            Some(_) | None => {
                if !one.abort.is_finished() {
                    one.abort.abort();
                    lost(&one.lease);
                }
                self.bench.forget(*id);
                false
            }
        });
        // An answer of the store was lost, or a lease could not be given back: it would be extended for ever, and nobody would work on it.
        self.release(&left).await;
    }

    /// Gives back what was worked on by tasks that broke: nobody would go on with it while this process extends its lease.
    async fn give_up_broken(&self, crew: &mut Crew) {
        // Tasks that ended as they should are taken out when they are joined; to give their leases back again changes nothing.
        let broken: Vec<OperationLease> = crew
            .running
            .extract_if(|_, one| one.abort.is_finished())
            .map(|(_, one)| one.lease)
            .collect();
        for lease in &broken {
            self.bench.forget(lease.operation);
        }
        self.release(&broken).await;
    }

    /// Gives back leases, if there are any. What fails is done with the next look.
    async fn release(&self, leases: &[OperationLease]) {
        if leases.is_empty() {
            return;
        }
        if let Err(error) = self.work.release(leases).await {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "operations could not be given back"
            );
        }
    }

    /// Takes what nobody works on.
    async fn claim(&self, crew: &mut Crew) {
        let valid_until = Instant::now() + self.settings.lease;
        let claimed = self
            .work
            .claim(&self.settings.owner, self.settings.lease, CLAIMED_AT_ONCE)
            .await;
        let claimed = claimed.unwrap_or_else(|error| {
            // The database is away or not migrated, which its own checks tell.
            tracing::debug!(error = &error as &dyn std::error::Error, "no operations could be taken");
            Vec::new()
        });
        for OperationClaim { lease, is_takeover } in claimed {
            if is_takeover {
                counter!(metric::OPERATION_TAKEOVERS).increment(1);
                tracing::info!(operation = %lease.operation, epoch = lease.epoch, "operation taken over");
            }
            // What it says of the state is only a beginning: the task reads the operation.
            let heard = Heard {
                state: OperationState::Queued,
                valid_until,
            };
            let (heard, hears) = watch::channel(heard);
            let task = Task::new(
                Arc::clone(&self.bench),
                Arc::clone(&self.operations),
                Arc::clone(&self.work),
                lease.clone(),
                hears,
            );
            let ours = lease.clone();
            let abort = crew.tasks.spawn(async move { (ours, task.run().await) });
            crew.works_on.insert(abort.id(), lease.operation);
            let one = Running {
                lease,
                heard,
                abort,
                missed_since: None,
            };
            if let Some(before) = crew.running.insert(one.lease.operation, one) {
                before.abort.abort();
            }
        }
    }

    /// A task is over: what it leaves is given back.
    async fn ended(
        &self,
        ended: Result<(tokio::task::Id, (OperationLease, TaskEnd)), tokio::task::JoinError>,
        crew: &mut Crew,
    ) {
        let (task, ended) = match ended {
            Ok((task, ended)) => (task, Some(ended)),
            Err(error) => {
                if error.is_panic() {
                    tracing::error!("the work on an operation ended in a panic; it is taken up again");
                }
                (error.id(), None)
            }
        };
        let operation = crew.works_on.remove(&task).unwrap_or_default();
        // One that broke stays here: what it leaves is given back with the next look, and not at once again and again.
        if let Some((lease, _)) = &ended
            && crew.running.get(&operation).is_some_and(|one| one.lease == *lease)
        {
            crew.running.remove(&operation);
        }
        // Also what a task noted after it was stopped, unless there is another one by now.
        if crew.running.get(&operation).is_none_or(|one| one.abort.id() == task) {
            self.bench.forget(operation);
        }
        match ended {
            None | Some((_, TaskEnd::Over)) => {}
            Some((lease, TaskEnd::LeaseLost)) => lost(&lease),
            Some((lease, TaskEnd::GiveBack)) => self.release(&[lease]).await,
        }
    }

    /// Stops the work on all operations but `keep`, and gives them to others.
    async fn hand_over(&self, crew: &mut Crew, keep: Option<Uuid>) {
        let mut leases = Vec::new();
        crew.running.retain(|id, one| {
            if Some(*id) == keep {
                return true;
            }
            one.abort.abort();
            self.bench.forget(*id);
            leases.push(one.lease.clone());
            false
        });
        if leases.is_empty() {
            return;
        }
        match self.work.hand_over(&leases).await {
            Ok(()) => tracing::info!(operations = leases.len(), "operations handed over"),
            Err(error) => tracing::warn!(
                error = &error as &dyn std::error::Error,
                "operations could not be handed over: others wait until their leases run out"
            ),
        }
    }

    /// Shows how much there is to do, and forgets the clusters in which nothing can be done any more.
    async fn count(&self) {
        self.bench.facts.keep(&self.bench.inventory.names());
        let backlog = match self.work.backlog().await {
            Ok(backlog) => backlog,
            Err(error) => return log_uncounted(&error),
        };
        for state in OperationState::ALL.into_iter().filter(|state| !state.is_ended()) {
            let count = backlog.by_state.get(&state).copied().unwrap_or_default();
            gauge!(metric::OPERATIONS, "state" => state.as_str()).set(count as f64);
        }
        let now = self.operations.clock.now();
        let age = backlog.oldest_queued.map_or(0.0, |at| now.since(at).as_secs_f64());
        gauge!(metric::OPERATION_QUEUE_AGE).set(age);
    }
}

fn lost(lease: &OperationLease) {
    counter!(metric::OPERATION_LEASES_LOST).increment(1);
    tracing::warn!(operation = %lease.operation, "the lease of an operation was lost: others go on with it");
}

fn log_uncounted(error: &StorageError) {
    tracing::debug!(
        error = error as &dyn std::error::Error,
        "operations could not be counted"
    );
}

/// Waits until there may be work, and until `not_before` at least: each look extends all leases.
async fn woken(waiting: &Waiting, not_before: Instant) {
    tokio::time::sleep_until(not_before).await;
    waiting.work().await;
}

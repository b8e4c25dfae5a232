//! The work on one operation, as long as its lease is ours.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use knm_model::{
    EventKind, NewEvent, OnCancel, Operation, OperationLease, OperationProgress, OperationState, OperationStep,
    OperationTarget, StepOutcome, TargetState, Timestamp, Work,
};
use knm_ports::{OperationWork, StorageError};
use metrics::{counter, histogram};
use serde_json::json;
use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};
use tokio::time::Instant;
use tracing::Instrument;

use super::Operations;
use super::room::Limits;
use super::runner::Heard;
use super::step::{Bench, Permit, TargetStep, cancelled, count_end};
use super::{changing, draining, traced};
use crate::metric;

/// How long a cluster may be unknown that another replica knows: it was registered a moment ago.
const ARRIVAL: Duration = Duration::from_secs(6);
/// How long the store is left alone after it failed.
const AFTER_FAILURE: Duration = Duration::from_secs(1);
/// How many nodes are worked on at the same moment.
const MOST_AT_ONCE: usize = 64;

/// How the work on an operation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TaskEnd {
    /// There is nothing more to do, and the lease is given back.
    Over,
    /// The lease is somebody else's, or ran out.
    LeaseLost,
    /// There is nothing to do now; the lease is still ours.
    GiveBack,
}

/// The work on one operation.
pub(super) struct Task {
    pub(super) bench: Arc<Bench>,
    pub(super) operations: Arc<Operations>,
    work: Arc<dyn OperationWork>,
    lease: OperationLease,
    heard: watch::Receiver<Heard>,
}

/// An operation that was read.
pub(super) struct Job {
    pub(super) operation: Arc<Operation>,
    pub(super) targets: Vec<OperationTarget>,
    pub(super) work: Arc<Work>,
    /// When the nodes that run are to be looked at again, by their places; those that are not here are looked at now.
    rests: HashMap<usize, Instant>,
    /// Nodes that are being worked on at the moment.
    pub(super) busy: HashSet<usize>,
    /// When nodes may be begun again.
    pub(super) begin_at: Option<Instant>,
    /// Until when it is believed that the nodes which are not begun may be.
    pub(super) permitted_until: Option<Instant>,
    /// When it may be asked again whether they may, after that could not be told.
    pub(super) ask_permission_at: Option<Instant>,
    /// Whether it pauses as soon as nothing is worked on any more: until then no step begins.
    pub(super) is_held_back: bool,
}

/// Steps under way, each a task of its own: one that has just got the only connection of a store must go on while this task waits for the
/// same. They are stopped when this is dropped.
type Steps = JoinSet<TargetStep>;

/// Why the work is interrupted.
enum Interrupted {
    /// For good.
    End(TaskEnd),
    /// The operation is read anew: what was known of it is not what is stored.
    Again,
    /// The store failed.
    Store(StorageError),
}

impl From<StorageError> for Interrupted {
    fn from(error: StorageError) -> Self {
        Self::Store(error)
    }
}

impl Task {
    pub(super) fn new(
        bench: Arc<Bench>,
        operations: Arc<Operations>,
        work: Arc<dyn OperationWork>,
        lease: OperationLease,
        heard: watch::Receiver<Heard>,
    ) -> Self {
        Self {
            bench,
            operations,
            work,
            lease,
            heard,
        }
    }

    /// Works on the operation until nothing is left to do, or the lease is lost. While the store is away nothing is begun, and the work goes
    /// on from what is stored.
    pub(super) async fn run(mut self) -> TaskEnd {
        loop {
            match self.attempt().await {
                Interrupted::End(end) => return end,
                Interrupted::Again => {}
                Interrupted::Store(error) if error.is_transient() => {
                    tracing::warn!(
                        operation = %self.lease.operation, error = &error as &dyn std::error::Error,
                        "the work on an operation waits for the database"
                    );
                    tokio::time::sleep(AFTER_FAILURE).await;
                }
                Interrupted::Store(error) => {
                    tracing::error!(
                        operation = %self.lease.operation, error = &error as &dyn std::error::Error,
                        "the work on an operation could not be stored"
                    );
                    tokio::time::sleep(AFTER_FAILURE).await;
                }
            }
            if self.is_lost() {
                return TaskEnd::LeaseLost;
            }
        }
    }

    fn is_lost(&self) -> bool {
        self.heard.borrow().valid_until <= Instant::now()
    }

    /// Works on the operation as it is stored.
    async fn attempt(&mut self) -> Interrupted {
        match self.work_on_it().await {
            Ok(end) => Interrupted::End(end),
            Err(interrupted) => interrupted,
        }
    }

    async fn work_on_it(&mut self) -> Result<TaskEnd, Interrupted> {
        let Some(mut job) = self.read().await? else {
            return Ok(TaskEnd::GiveBack);
        };
        let mut steps = Steps::new();
        let mut finished: Vec<TargetStep> = Vec::new();
        loop {
            if self.is_lost() {
                return Ok(TaskEnd::LeaseLost);
            }
            let now = self.bench.clock.now();
            let mut step = OperationStep::at(now, job.operation.progress);
            let mut changed = job.take(&mut finished, &mut step);
            let state = job.operation.state;
            match state {
                OperationState::Queued => {
                    step.transition = Some((state, OperationState::Running, None));
                }
                OperationState::Running => {
                    if self.permit(&mut job, &mut changed, &mut step).await {
                        self.begin(&mut job, &mut changed, &mut step);
                    }
                }
                OperationState::Cancelling if steps.is_empty() => {
                    if !self.cancel(&mut job, &mut changed, &mut step).await {
                        tokio::time::sleep(AFTER_FAILURE).await;
                    }
                }
                OperationState::Paused if steps.is_empty() && changed.is_empty() => return Ok(TaskEnd::GiveBack),
                OperationState::Cancelling | OperationState::Paused => {}
                OperationState::Cancelled
                | OperationState::Succeeded
                | OperationState::Failed
                | OperationState::PartlyFailed => return Ok(TaskEnd::Over),
            }
            if !changed.is_empty() || step.transition.is_some() {
                self.write(&mut job, changed, step).await?;
                continue;
            }
            if state == OperationState::Running {
                self.start_steps(&mut job, &mut steps);
            }
            self.wait(&mut job, &mut steps, &mut finished).await;
        }
    }

    /// The operation as it is stored; `None` if it cannot be worked on.
    async fn read(&self) -> Result<Option<Job>, StorageError> {
        let store = &self.operations.store;
        let Some(operation) = store.find(self.lease.operation).await? else {
            return Ok(None);
        };
        let targets = store.targets(self.lease.operation).await?;
        let open = targets.iter().filter(|target| !target.state.is_ended());
        let clusters = open.map(|target| target.cluster.clone()).collect();
        self.bench.inventory.known(&clusters, ARRIVAL).await;
        for target in targets.iter().filter(|target| target.state == TargetState::Running) {
            // Before the first of them asks for more.
            let place = (operation.id, target.place);
            let leaving = draining::leaving(target);
            let nothing_more = Limits::default();
            self.bench
                .leaving
                .reserve(place, &target.cluster, leaving, 0, nothing_more);
        }
        let (reason, ticket) = (operation.reason.as_deref(), operation.ticket.as_deref());
        let work = Work::parse(
            operation.kind,
            reason,
            ticket,
            &operation.options,
            // What was right when it was accepted still is.
            operation.created_at,
        );
        match work {
            Ok(work) => Ok(Some(Job {
                operation: Arc::new(operation),
                targets,
                work: Arc::new(work),
                rests: HashMap::new(),
                busy: HashSet::new(),
                begin_at: None,
                permitted_until: None,
                ask_permission_at: None,
                is_held_back: false,
            })),
            Err(errors) => {
                tracing::error!(operation = %operation.id, ?errors, "what is stored of an operation cannot be read");
                Ok(None)
            }
        }
    }

    /// Stops what is not over; whether all of it was.
    async fn cancel(&self, job: &mut Job, changed: &mut BTreeSet<usize>, step: &mut OperationStep) -> bool {
        let restore = matches!(&*job.work, Work::Drain { options, .. } if options.on_cancel == OnCancel::Restore);
        for place in 0..job.targets.len() {
            if job.targets[place].state.is_ended() {
                continue;
            }
            let target = job.targets[place].clone();
            let stopped = match &*job.work {
                Work::Drain { .. } => draining::cancel(&self.bench, &job.operation, restore, target).await,
                Work::Cordon(_)
                | Work::Uncordon { .. }
                | Work::Label(_)
                | Work::Taint { .. }
                | Work::ApplyTemplate { .. } => cancelled(&job.operation, target, step.at),
            };
            job.note(place, stopped, step);
            changed.insert(place);
        }
        let all = job.targets.iter().all(|target| target.state.is_ended());
        if all {
            step.transition = Some((OperationState::Cancelling, OperationState::Cancelled, None));
        }
        all
    }

    /// Writes a step down.
    async fn write(
        &mut self,
        job: &mut Job,
        changed: BTreeSet<usize>,
        mut step: OperationStep,
    ) -> Result<(), Interrupted> {
        step.progress = OperationProgress::of(&job.targets);
        step.targets = changed.into_iter().map(|place| job.targets[place].clone()).collect();
        // That there is nothing to say any more is no news: what happens instead is.
        if let Some((from, to, message)) = &step.transition
            && (from != to || message.is_some())
        {
            let progress = step.progress;
            step.events.push(NewEvent::new(
                step.at,
                EventKind::Operation,
                [
                    ("state", json!(to.as_str())),
                    ("message", json!(message)),
                    ("done", json!(progress.done)),
                    ("failed", json!(progress.failed)),
                    ("skipped", json!(progress.skipped)),
                    ("total", json!(progress.total)),
                ],
            ));
        }
        let mut outcome = self.work.advance(&self.lease, &step).await?;
        if let StepOutcome::OtherState(_) = outcome
            && let Some((_, _, message)) = step.transition.take_if(|(from, to, _)| from == to)
        {
            // Somebody asked for something meanwhile, and what there was to say has no more meaning; all else has.
            if message.is_some() {
                step.events.pop();
            }
            outcome = self.work.advance(&self.lease, &step).await?;
        }
        match outcome {
            StepOutcome::Written(state) => {
                for target in step.targets.iter().filter(|target| target.state.is_ended()) {
                    count_end(&job.operation, target);
                }
                let operation = Arc::make_mut(&mut job.operation);
                operation.progress = step.progress;
                if let Some((_, to, message)) = step.transition {
                    operation.started_at = operation.started_at.or(Some(step.at));
                    operation.message = message;
                    if to.is_ended() {
                        over(operation, to, step.at);
                    }
                }
                if state == OperationState::Running && operation.state == OperationState::Paused {
                    // Somebody resumed it: what is excused is in the store. Steps that are under way go on.
                    let stored = self.operations.store.find(operation.id).await?;
                    operation.excused = stored.ok_or(Interrupted::Again)?.excused;
                }
                operation.state = state;
                Ok(())
            }
            StepOutcome::LeaseLost => Err(Interrupted::End(TaskEnd::LeaseLost)),
            StepOutcome::OtherState(_) => Err(Interrupted::Again),
        }
    }

    /// Works on the nodes whose time has come.
    fn start_steps(&self, job: &mut Job, steps: &mut Steps) {
        let now = Instant::now();
        for (place, target) in job.targets.iter().enumerate() {
            if !job.may_start() {
                break;
            }
            let is_due = target.state == TargetState::Running
                && !job.busy.contains(&place)
                && job.rests.get(&place).is_none_or(|at| *at <= now);
            if !is_due {
                continue;
            }
            job.busy.insert(place);
            let (bench, operation, work) = (
                Arc::clone(&self.bench),
                Arc::clone(&job.operation),
                Arc::clone(&job.work),
            );
            let target = target.clone();
            let permit = Permit::new(self.heard.clone(), !job.rests.contains_key(&place));
            steps.spawn(async move { take_step(&bench, &operation, &work, target, permit).await });
        }
    }

    /// Waits until there is something to do.
    async fn wait(&mut self, job: &mut Job, steps: &mut Steps, finished: &mut Vec<TargetStep>) {
        let mut next = self.heard.borrow().valid_until;
        if job.operation.state == OperationState::Running {
            let idle = job
                .targets
                .iter()
                .enumerate()
                .filter(|(place, target)| target.state == TargetState::Running && !job.busy.contains(place));
            // While none can be worked on it makes no difference whose time has come.
            let idle = idle.filter(|_| job.may_start());
            let rests = idle.filter_map(|(place, _)| job.rests.get(&place).copied());
            next = rests.chain(job.begin_at).chain([next]).min().unwrap_or(next);
        }
        tokio::select! {
            Some(done) = steps.join_next() => {
                finished.push(taken(done));
                // Those that are ready, too, are written in one go.
                while let Some(done) = steps.try_join_next() {
                    finished.push(taken(done));
                }
            }
            () = tokio::time::sleep_until(next) => {}
            changed = self.heard.changed() => {
                let heard = *self.heard.borrow();
                if changed.is_ok() {
                    job.hear(heard.state);
                }
            }
        }
    }
}

impl Job {
    /// Takes what came of steps into `step`, and returns the places of the nodes that are to be written.
    fn take(&mut self, finished: &mut Vec<TargetStep>, step: &mut OperationStep) -> BTreeSet<usize> {
        let mut changed = BTreeSet::new();
        for done in finished.drain(..) {
            let place = usize::try_from(done.target.place).unwrap_or(usize::MAX);
            self.busy.remove(&place);
            self.rests.insert(place, Instant::now() + done.rest);
            let has_news = !done.events.is_empty() || !done.hold_states.is_empty() || !done.hold_changes.is_empty();
            if has_news || done.target != self.targets[place] {
                changed.insert(place);
            }
            self.note(place, done, step);
        }
        changed
    }

    /// Takes what came of a step into `step`.
    pub(super) fn note(&mut self, place: usize, done: TargetStep, step: &mut OperationStep) {
        step.events.extend(done.events);
        step.holds.extend(done.holds);
        step.hold_states.extend(done.hold_states);
        step.hold_changes.extend(done.hold_changes);
        if let (Some(id), Some(completion)) = (done.target.audit, done.completion) {
            step.completions.push((id, completion));
        }
        self.targets[place] = done.target;
    }

    /// Whether one more node may be worked on now.
    fn may_start(&self) -> bool {
        self.busy.len() < MOST_AT_ONCE && !self.is_held_back
    }

    /// What was heard of the state; what is known from writing is newer than what was heard before.
    fn hear(&mut self, state: OperationState) {
        let known = self.operation.state;
        if known.may_become(state) && state != OperationState::Running {
            Arc::make_mut(&mut self.operation).state = state;
        }
    }
}

/// What came of a step. One that panicked ends the work on its operation: whoever takes it up again begins with what is stored.
fn taken(done: Result<TargetStep, JoinError>) -> TargetStep {
    match done.map_err(JoinError::try_into_panic) {
        Ok(step) => step,
        Err(Ok(panic)) => std::panic::resume_unwind(panic),
        // Nobody stops a single step.
        Err(Err(error)) => std::panic::resume_unwind(Box::new(error)),
    }
}

async fn take_step(
    bench: &Bench,
    operation: &Operation,
    work: &Work,
    target: OperationTarget,
    permit: Permit,
) -> TargetStep {
    let (span, before) = (traced::step(operation, &target), target.state);
    let working = work_on(bench, operation, work, target, permit);
    let step = working.instrument(span.clone()).await;
    traced::stepped(&span, before, &step);
    step
}

async fn work_on(
    bench: &Bench,
    operation: &Operation,
    work: &Work,
    target: OperationTarget,
    permit: Permit,
) -> TargetStep {
    match work {
        Work::Cordon(request) => changing::cordon(bench, operation, request, target).await,
        Work::Uncordon { force } => changing::uncordon(bench, operation, *force, target).await,
        Work::Label(change) => changing::label(bench, operation, change, target).await,
        Work::Taint {
            change,
            confirm_no_execute,
        } => changing::taint(bench, operation, change, *confirm_no_execute, target).await,
        Work::ApplyTemplate {
            template,
            confirm_no_execute,
        } => changing::apply(bench, operation, template, *confirm_no_execute, target).await,
        Work::Drain { options, hold } => draining::drain(bench, operation, (options, hold), target, permit).await,
    }
}

/// Tells that an operation is over.
fn over(operation: &Operation, state: OperationState, now: Timestamp) {
    let labels = [("kind", operation.kind.as_str()), ("result", state.as_str())];
    counter!(metric::OPERATIONS_ENDED, &labels).increment(1);
    let took = operation
        .started_at
        .map(|started| now.since(started))
        .unwrap_or_default();
    histogram!(metric::OPERATION_DURATION, "kind" => operation.kind.as_str()).record(took.as_secs_f64());
    let progress = operation.progress;
    traced::over(operation, state).in_scope(|| {
        tracing::info!(
            operation = %operation.id, kind = operation.kind.as_str(), state = state.as_str(),
            done = progress.done, failed = progress.failed, skipped = progress.skipped, "operation over"
        );
    });
}

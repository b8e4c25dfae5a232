//! Keeps the stored holds and the nodes in step: holds that ran out, that somebody ended without us, or whose maker is gone.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use knm_model::{
    Actor, AuditAction, AuditCompletion, AuditOutcome, AuditRecord, ClusterName, Hold, HoldChange, HoldState, Timestamp,
};
use knm_ports::Leases;
use metrics::{counter, gauge};
use serde_json::{Map, json};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::attempt::Attempts;
use super::bringing::noted;
use super::releasing::Frees;
use super::{Asked, ChangeError, Intent, NodeChanged, NodeChanges, Target};
use crate::duty::{Duty, Terms, Turn};
use crate::inventory::InventoryError;
use crate::metric;

const DUTY: Terms = Terms {
    lease: "cordon-holds",
    every: Duration::from_secs(5),
    outlives: Duration::from_secs(15),
};
/// How long a hold that could not be released is left alone: each try is a record in the audit log.
const AFTER_FAILURE: Duration = Duration::from_secs(300);

/// How long the maker of a pending hold has to bring it onto its node.
const PENDING_LIMIT: Duration = Duration::from_secs(60);
/// How long whoever takes an operation over may need to write down that a hold was released.
const TAKEOVER: Duration = Duration::from_secs(10);

/// What the keeper remembers from one look to the next.
struct Memory {
    /// Active holds whose nodes were schedulable, and since when. A hold is over when that stays so: who releases one frees the node first.
    open: HashMap<Uuid, Instant>,
    /// How long it has to stay so.
    patience: Duration,
    /// Holds that ran out and could not be released, and until when they are left alone.
    failed: HashMap<Uuid, Timestamp>,
}

/// What is to be done about a hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Due {
    /// Its maker is gone.
    Settle,
    /// Its time is up.
    Expire,
    /// Somebody ended it without this service.
    EndOutside,
}

impl NodeChanges {
    /// Looks after the holds until `shutdown`, whenever this replica, under the name `owner`, has the lease for it. Who released a hold and
    /// died is an operation that others take over after `takeover_after`.
    pub async fn keep_holds(
        self: Arc<Self>,
        leases: Arc<dyn Leases>,
        owner: String,
        takeover_after: Duration,
        shutdown: CancellationToken,
    ) {
        let mut memory = Memory {
            open: HashMap::new(),
            patience: takeover_after + TAKEOVER,
            failed: HashMap::new(),
        };
        let mut duty = Duty::new(DUTY, leases, owner, shutdown);
        while let Some(turn) = duty.turn().await {
            if turn == Turn::Others {
                memory.forget();
                // They count them.
                show(&[]);
                continue;
            }
            if let Err(error) = self.keep(&duty, &mut memory).await {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "the holds on nodes could not be looked after"
                );
            }
        }
    }

    /// Looks after the holds once.
    async fn keep(self: &Arc<Self>, duty: &Duty, memory: &mut Memory) -> Result<(), ChangeError> {
        let holds = self.holds.unended().await?;
        show(&holds);
        memory.keep_only(&holds);
        for hold in &holds {
            // A cluster that is not configured here is somebody else's.
            let Ok(target) = self.target(hold.cluster.as_str(), hold.node.as_str()) else {
                continue;
            };
            let outcome = match self.due(&target, hold, memory).await {
                Ok(None) => continue,
                // A round may take longer than the lease.
                Ok(Some(_)) if !duty.is_still_ours().await => return Ok(()),
                Ok(Some(due)) => self.look_after(&target, hold, due, memory).await,
                Err(error) => Err(error),
            };
            if let Err(error) = outcome {
                tracing::warn!(
                    cluster = %hold.cluster, node = %hold.node, hold = %hold.id,
                    error = &error as &dyn std::error::Error,
                    "a hold could not be looked after and is looked at again"
                );
            }
        }
        Ok(())
    }

    /// What is to be done about a hold now.
    async fn due(&self, target: &Target, hold: &Hold, memory: &mut Memory) -> Result<Option<Due>, ChangeError> {
        let now = self.clock.now();
        if hold.state == HoldState::Pending {
            let is_given_up = PENDING_LIMIT < now.since(hold.since);
            return Ok(is_given_up.then_some(Due::Settle));
        }
        if self.is_out_of_sight(&hold.cluster) {
            return Ok(None);
        }
        let is_closed = target.known.as_ref().is_some_and(|node| !node.schedulable);
        if is_closed {
            memory.open.remove(&hold.id);
            let is_left_alone = memory.failed.get(&hold.id).is_some_and(|until| now < *until);
            return Ok((hold.is_over(now) && !is_left_alone).then_some(Due::Expire));
        }
        // What is watched may be a little old.
        let node = target.cluster.gateway.node(&target.name).await;
        let node = node.map_err(|error| target.failed(error))?;
        if node.is_some_and(|node| !node.schedulable) {
            memory.open.remove(&hold.id);
            return Ok(None);
        }
        let since = *memory.open.entry(hold.id).or_insert_with(Instant::now);
        Ok((memory.patience <= since.elapsed()).then_some(Due::EndOutside))
    }

    async fn look_after(
        self: &Arc<Self>,
        target: &Target,
        hold: &Hold,
        due: Due,
        memory: &mut Memory,
    ) -> Result<(), ChangeError> {
        match due {
            Due::Settle => self.settle(target, hold).await,
            Due::Expire => {
                let released = self.expire(target, hold.id).await;
                if released.is_err() {
                    memory.failed.insert(hold.id, self.clock.now().plus(AFTER_FAILURE));
                }
                released
            }
            Due::EndOutside => {
                // First the note on the node: whoever cordons it next without us has nothing to do with this hold. That may be done already.
                match self.release_as_service(target, hold, Frees::Never).await {
                    Ok(_) | Err(ChangeError::Inventory(InventoryError::UnknownNode { .. })) => {}
                    Err(error) => return Err(error),
                }
                self.end_outside(target, hold).await
            }
        }
    }

    /// Finds out whether a hold whose maker is gone got onto its node.
    async fn settle(&self, target: &Target, hold: &Hold) -> Result<(), ChangeError> {
        let node = target.cluster.gateway.node(&target.name).await;
        let node = node.map_err(|error| target.failed(error))?;
        let note = node.as_ref().and_then(|node| noted(node, hold.id));
        let state = match note {
            Some(note) => {
                if note.over_foreign != hold.over_foreign {
                    let change = HoldChange::OverForeign(note.over_foreign);
                    self.holds.change(hold.id, &change).await?;
                }
                HoldState::Active
            }
            None => HoldState::Ended,
        };
        self.holds.advance(hold.id, state, self.clock.now()).await?;
        tracing::info!(hold = %hold.id, node = %hold.node, state = state.as_str(), "an interrupted cordon was settled");
        Ok(())
    }

    /// Releases a hold whose time is up.
    async fn expire(self: &Arc<Self>, target: &Target, id: Uuid) -> Result<(), ChangeError> {
        // Since the round began somebody may have released it, or given it another end.
        let stored = self.find_hold(target, id).await?;
        let Some(hold) = stored.filter(|hold| hold.is_over(self.clock.now())) else {
            return Ok(());
        };
        let intent = Intent {
            action: AuditAction::NodeUncordon,
            reason: Some(format!("the hold of {} ran out: {}", hold.holder, hold.reason)),
            ticket: hold.ticket.clone(),
            options: Map::from_iter([("hold".to_owned(), json!(hold.id))]),
        };
        let work = async {
            let done = self.release_as_service(target, &hold, Frees::WithLastHold).await?;
            self.end(&hold).await;
            Ok(done)
        };
        self.audited(target, intent, &as_service(), work).await.map(drop)
    }

    /// Takes a hold off its node.
    async fn release_as_service(&self, target: &Target, hold: &Hold, frees: Frees) -> Result<NodeChanged, ChangeError> {
        let asked = as_service();
        let mut attempts = Attempts::begin_fresh(target, &asked).await?;
        let released = std::slice::from_ref(hold);
        self.release(target, &mut attempts, released, frees).await
    }

    /// Notes that somebody else than this service uncordoned the node, or removed it, and so ended a hold. Nobody fights that.
    pub(super) async fn end_outside(&self, target: &Target, hold: &Hold) -> Result<(), ChangeError> {
        let change = HoldChange::EndedOutside(Box::new(self.record_outside(hold)));
        match self.holds.change(hold.id, &change).await {
            Ok(true) => {
                tracing::info!(cluster = %hold.cluster, node = %target.name, hold = %hold.id, "a hold was ended without this service");
                Ok(())
            }
            // Only who ends it tells of it.
            Ok(false) => Ok(()),
            Err(error) => {
                counter!(metric::AUDIT_FAILURES).increment(1);
                Err(error.into())
            }
        }
    }

    /// What the audit log is told of a hold that somebody ended without this service.
    pub(crate) fn record_outside(&self, hold: &Hold) -> AuditRecord {
        let now = self.clock.now();
        AuditRecord {
            id: self.ids.next(now),
            at: now,
            actor: Actor::outside(),
            action: AuditAction::NodeUncordon,
            cluster: hold.cluster.clone(),
            node: Some(hold.node.clone()),
            operation: None,
            request_id: None,
            reason: Some(format!(
                "the node was uncordoned or removed without this service, which ended the hold of {}: {}",
                hold.holder, hold.reason
            )),
            ticket: hold.ticket.clone(),
            options: Map::from_iter([("hold".to_owned(), json!(hold.id))]),
            completion: Some(AuditCompletion {
                outcome: AuditOutcome::Succeeded,
                at: now,
                error: None,
                before: Map::from_iter([("schedulable".to_owned(), json!(false))]),
                after: Map::from_iter([("schedulable".to_owned(), json!(true))]),
            }),
        }
    }

    /// Whether nothing certain is known of the cluster's nodes.
    fn is_out_of_sight(&self, cluster: &ClusterName) -> bool {
        self.inventory
            .snapshot(cluster.as_str())
            .map_or(true, |snapshot| snapshot.stale())
    }
}

impl Memory {
    fn forget(&mut self) {
        self.open.clear();
        self.failed.clear();
    }

    /// Forgets what it knows of other holds than these.
    fn keep_only(&mut self, holds: &[Hold]) {
        let known: HashSet<Uuid> = holds.iter().map(|hold| hold.id).collect();
        self.open.retain(|id, _| known.contains(id));
        self.failed.retain(|id, _| known.contains(id));
    }
}

/// Shows how many holds there are.
fn show(holds: &[Hold]) {
    for state in [HoldState::Pending, HoldState::Active] {
        let count = holds.iter().filter(|hold| hold.state == state).count();
        gauge!(metric::CORDON_HOLDS, "state" => state.as_str()).set(count as f64);
    }
}

fn as_service() -> Asked {
    Asked {
        actor: Actor::service(),
        request_id: None,
        known: None,
        dry_run: false,
    }
}

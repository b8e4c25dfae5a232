//! Keeps the stored holds and the nodes in step: holds that ran out, that somebody ended without us, or whose maker is gone.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use knm_model::{
    Actor, AuditAction, AuditCompletion, AuditOutcome, AuditRecord, ClusterName, Hold, HoldState, Timestamp,
};
use knm_ports::Leases;
use metrics::gauge;
use serde_json::{Map, json};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::attempt::Attempts;
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

/// What the keeper remembers from one look to the next.
#[derive(Default)]
struct Memory {
    /// Active holds whose nodes were schedulable. A hold is over when that is so twice in a row: who releases one frees the node first.
    open: HashSet<Uuid>,
    /// Holds that ran out and could not be released, and until when they are left alone.
    failed: HashMap<Uuid, Timestamp>,
}

/// How long the maker of a pending hold has to bring it onto its node.
const PENDING_LIMIT: Duration = Duration::from_secs(60);

impl NodeChanges {
    /// Looks after the holds until `shutdown`, whenever this replica, under the name `owner`, has the lease for it.
    pub async fn keep_holds(self: Arc<Self>, leases: Arc<dyn Leases>, owner: String, shutdown: CancellationToken) {
        let mut memory = Memory::default();
        let mut duty = Duty::new(DUTY, leases, owner, shutdown);
        while let Some(turn) = duty.turn().await {
            if turn == Turn::Others {
                memory = Memory::default();
                continue;
            }
            if let Err(error) = self.keep(&mut memory).await {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "the holds on nodes could not be looked after"
                );
            }
        }
    }

    /// Looks after the holds once.
    async fn keep(self: &Arc<Self>, memory: &mut Memory) -> Result<(), ChangeError> {
        let holds = self.holds.unended().await?;
        for state in [HoldState::Pending, HoldState::Active] {
            let count = holds.iter().filter(|hold| hold.state == state).count();
            gauge!(metric::CORDON_HOLDS, "state" => state.as_str()).set(count as f64);
        }
        let known: HashSet<Uuid> = holds.iter().map(|hold| hold.id).collect();
        memory.open.retain(|id| known.contains(id));
        memory.failed.retain(|id, _| known.contains(id));
        for hold in &holds {
            // A cluster that is not configured here is somebody else's.
            let Ok(target) = self.target(hold.cluster.as_str(), hold.node.as_str()) else {
                continue;
            };
            if let Err(error) = self.look_after(&target, hold, memory).await {
                tracing::warn!(
                    cluster = %hold.cluster, node = %hold.node, hold = %hold.id,
                    error = &error as &dyn std::error::Error,
                    "a hold could not be looked after and is looked at again"
                );
            }
        }
        Ok(())
    }

    async fn look_after(
        self: &Arc<Self>,
        target: &Target,
        hold: &Hold,
        memory: &mut Memory,
    ) -> Result<(), ChangeError> {
        let now = self.clock.now();
        if hold.state == HoldState::Pending {
            if PENDING_LIMIT < now.since(hold.since) {
                self.settle(target, hold).await?;
            }
            return Ok(());
        }
        if self.is_out_of_sight(&hold.cluster) {
            return Ok(());
        }
        let is_closed = target.known.as_ref().is_some_and(|node| !node.schedulable);
        if is_closed && hold.is_over(now) {
            if memory.failed.get(&hold.id).is_some_and(|until| now < *until) {
                return Ok(());
            }
            let released = self.expire(target, hold).await;
            if released.is_err() {
                memory.failed.insert(hold.id, now.plus(AFTER_FAILURE));
            }
            return released;
        }
        if is_closed {
            memory.open.remove(&hold.id);
            return Ok(());
        }
        // What is watched may be a little old.
        let node = target.cluster.gateway.node(&target.name).await;
        let node = node.map_err(|error| target.failed(error))?;
        if node.is_some_and(|node| !node.schedulable) {
            memory.open.remove(&hold.id);
            return Ok(());
        }
        if memory.open.insert(hold.id) {
            return Ok(());
        }
        // First the note on the node: whoever cordons it next without us has nothing to do with this hold.
        match self.release_as_service(target, hold).await {
            Ok(_) | Err(ChangeError::Inventory(InventoryError::UnknownNode { .. })) => {}
            Err(error) => return Err(error),
        }
        self.end_outside(target, hold).await
    }

    /// Finds out whether a hold whose maker is gone got onto its node.
    async fn settle(&self, target: &Target, hold: &Hold) -> Result<(), ChangeError> {
        let node = target.cluster.gateway.node(&target.name).await;
        let node = node.map_err(|error| target.failed(error))?;
        let is_noted = node
            .and_then(|node| node.cordon)
            .is_some_and(|cordon| cordon.holds.iter().any(|noted| noted.id == Some(hold.id)));
        let state = if is_noted { HoldState::Active } else { HoldState::Ended };
        self.holds.advance(hold.id, state, self.clock.now()).await?;
        tracing::info!(hold = %hold.id, node = %hold.node, state = state.as_str(), "an interrupted cordon was settled");
        Ok(())
    }

    /// Releases a hold whose time is up.
    async fn expire(self: &Arc<Self>, target: &Target, hold: &Hold) -> Result<(), ChangeError> {
        let intent = Intent {
            action: AuditAction::NodeUncordon,
            reason: Some(format!("the hold of {} ran out: {}", hold.holder, hold.reason)),
            ticket: hold.ticket.clone(),
            options: Map::from_iter([("hold".to_owned(), json!(hold.id))]),
        };
        let work = async {
            let done = self.release_as_service(target, hold).await?;
            self.end(hold).await;
            Ok(done)
        };
        self.audited(target, intent, &as_service(), work).await.map(drop)
    }

    /// Takes a hold off its node.
    async fn release_as_service(&self, target: &Target, hold: &Hold) -> Result<NodeChanged, ChangeError> {
        let asked = as_service();
        let mut attempts = Attempts::begin_fresh(target, &asked).await?;
        let released = std::slice::from_ref(hold);
        self.release(target, &mut attempts, released, false).await
    }

    /// Notes that somebody else than this service uncordoned the node, or removed it, and so ended a hold. Nobody fights that.
    pub(super) async fn end_outside(&self, target: &Target, hold: &Hold) -> Result<(), ChangeError> {
        let now = self.clock.now();
        let record = AuditRecord {
            id: self.ids.next(now),
            at: now,
            actor: Actor::outside(),
            action: AuditAction::NodeUncordon,
            cluster: hold.cluster.clone(),
            node: Some(target.name.clone()),
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
        };
        // Only who ends it tells of it.
        if self.holds.advance(hold.id, HoldState::Ended, now).await? {
            self.audit.open(&record).await?;
            tracing::info!(cluster = %hold.cluster, node = %hold.node, hold = %hold.id, "a hold was ended without this service");
        }
        Ok(())
    }

    /// Whether nothing certain is known of the cluster's nodes.
    fn is_out_of_sight(&self, cluster: &ClusterName) -> bool {
        self.inventory
            .snapshot(cluster.as_str())
            .map_or(true, |snapshot| snapshot.stale())
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

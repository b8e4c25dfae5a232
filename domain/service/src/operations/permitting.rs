//! Whether what somebody asked for may still be begun: permissions may have been withdrawn since.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use knm_model::{Access, ClusterName, Object, OperationState, OperationStep, Ruling, TargetState};
use knm_ports::chain;
use serde_json::Map;
use tokio::time::Instant;

use super::step::TargetStep;
use super::task::{Job, Task};
use crate::inventory::InventoryError;
use crate::sign_in::Standing;

/// How long an answer is believed.
const BELIEVED: Duration = Duration::from_secs(10);
/// After how long it is asked again what could not be told.
const ASK_AGAIN: Duration = Duration::from_secs(2);

impl Task {
    /// Fails the nodes that were not begun and that whoever asked for them may not have changed any more. Returns whether others may be begun.
    pub(super) async fn permit(&self, job: &mut Job, changed: &mut BTreeSet<usize>, step: &mut OperationStep) -> bool {
        let now = Instant::now();
        let waiting = |job: &Job| {
            let places = job.targets.iter().enumerate();
            let waiting = places.filter(|(_, target)| target.state == TargetState::Waiting);
            waiting.map(|(place, _)| place).collect::<Vec<_>>()
        };
        if job.permitted_until.is_some_and(|until| now < until) || waiting(job).is_empty() {
            return true;
        }
        if job.ask_permission_at.is_some_and(|at| now < at) {
            return false;
        }
        let why = match self.standing(job).await {
            Ok(Standing::Access(access)) => match self.refused(job, &waiting(job), &access) {
                Ok(refused) => {
                    for (place, why) in refused {
                        self.fail(job, place, why, step);
                        changed.insert(place);
                    }
                    job.permitted_until = Some(now + BELIEVED);
                    return true;
                }
                Err(error) => chain(&error),
            },
            Ok(Standing::Withdrawn(why)) => {
                for place in waiting(job) {
                    let why = format!("not begun: {why}");
                    self.fail(job, place, why, step);
                    changed.insert(place);
                }
                return true;
            }
            Err(error) => chain(&error),
        };
        job.ask_permission_at = Some(now + ASK_AGAIN);
        job.begin_at = Some(now + ASK_AGAIN);
        let message = format!(
            "waits: it is not known whether {} may still do this: {why}",
            job.operation.actor.label()
        );
        if job.operation.message.as_deref() != Some(message.as_str()) {
            step.transition = Some((OperationState::Running, OperationState::Running, Some(message)));
        }
        false
    }

    async fn standing(&self, job: &Job) -> Result<Standing, crate::sign_in::UnknowableError> {
        let clusters: BTreeSet<&ClusterName> = job.targets.iter().map(|target| &target.cluster).collect();
        let clusters: Vec<ClusterName> = clusters.into_iter().cloned().collect();
        let sign_in = &self.bench.sign_in;
        sign_in
            .standing(&job.operation.authority, job.work.needs(), &clusters)
            .await
    }

    /// The places of the nodes that may not be begun, and why; an error if that cannot be told of one of them.
    fn refused(
        &self,
        job: &Job,
        places: &[usize],
        access: &Arc<Access>,
    ) -> Result<Vec<(usize, String)>, InventoryError> {
        let (inventory, needed) = (&self.bench.inventory, job.work.needs());
        let visible = inventory.visible_to(access);
        let mut refused = Vec::new();
        for place in places {
            let target = &job.targets[*place];
            let (cluster, node) = (target.cluster.as_str(), target.node.as_str());
            // Labels need not be known where they decide nothing.
            if access.decide(needed, Object::Cluster(cluster)) == Ruling::Allowed {
                continue;
            }
            if access.decide(needed, Object::SomeOf(cluster)) == Ruling::Allowed
                && let Err(error @ InventoryError::NotSeenYet { .. }) = inventory.snapshot(cluster)
            {
                return Err(error);
            }
            let permission = match visible.decide(needed, cluster, Some(node)) {
                Ruling::Allowed => continue,
                Ruling::Hidden => "view".to_owned(),
                Ruling::Refused(permission) => permission.as_str().to_owned(),
            };
            let who = job.operation.actor.label();
            refused.push((
                *place,
                format!("not begun: {who} has the permission {permission} for it no more"),
            ));
        }
        Ok(refused)
    }

    fn fail(&self, job: &mut Job, place: usize, why: String, step: &mut OperationStep) {
        let target = job.targets[place].clone();
        let nothing = (Map::new(), Map::new());
        let failed = TargetStep::of(target).end(TargetState::Failed, Some(why), nothing, step.at);
        job.note(place, failed, step);
    }
}

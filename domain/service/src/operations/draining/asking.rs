//! Asks the pods of a node to go.

use futures::StreamExt;
use knm_model::{ClusterFeature, ClusterName, DrainPlan, Farewell, ObjectName, PlannedPod, Removal};
use knm_ports::{ClusterError, EvictOptions, Eviction, PodRef, chain};
use metrics::counter;
use serde_json::{Value, json};
use tracing::Instrument;

use super::Drain;
use crate::metric;
use crate::operations::room::Limits;
use crate::operations::step::node_of;
use crate::operations::traced;

/// How many pods of a node are asked to go at the same moment.
const AT_ONCE: usize = 8;
/// Under what the audit log tells which pods were deleted without asking their budgets.
const DELETED: &str = "deleted";
const DELETED_AFTER_DEADLINE: &str = "deleted_after_deadline";

/// What came of asking pods to go.
pub(super) enum Asked {
    /// Those whose turn it was were asked.
    Done,
    /// Pods are to be deleted, which is to be stored before it is done.
    ToBeStored,
}

impl Drain<'_> {
    /// Asks the pods to go whose turn it is, until the operation is paused, cancelled or lost, or somebody uncordons the node.
    pub(super) async fn ask_to_go(&mut self, plan: &DrainPlan) -> Asked {
        let (bench, target) = (self.bench, &self.step.target);
        let own = bench.own_pod.as_ref().filter(|own| own.cluster == target.cluster);
        let own = own.map(|own| &own.name);
        let options = self.options_now();
        let due = self.detail.progress.due(plan, &options, own, usize::MAX, self.now);
        let limits = Limits {
            of_operation: options
                .max_concurrent_evictions
                .and_then(|most| usize::try_from(most).ok()),
            of_cluster: bench.most_leaving,
        };
        let (id, leaving) = (self.operation.id, self.detail.progress.leaving());
        let place = (id, target.place);
        let granted = bench
            .leaving
            .reserve(place, &target.cluster, leaving, due.len(), limits);
        let due: Vec<_> = due.into_iter().take(granted).collect();
        let is_deletion = options.removal == Removal::Delete;
        if is_deletion && self.note_deletions(&due) {
            return Asked::ToBeStored;
        }
        let Ok(node) = node_of(bench, &self.step.target) else {
            return Asked::Done;
        };
        let how = EvictOptions {
            grace_period_seconds: options.grace_period_seconds,
            dry_run: false,
        };
        // A watch that lags may not tell of our own cordon yet.
        let was_open = node.known.as_ref().is_some_and(|node| node.schedulable);
        let (gateway, this, node) = (&node.cluster.gateway, &*self, &node);
        let asking = due.into_iter().map(|planned| {
            let pod = PodRef {
                namespace: planned.pod.namespace.clone(),
                name: planned.pod.name.clone(),
                uid: planned.pod.uid.clone(),
            };
            async move {
                if !this.goes_on(was_open) {
                    return None;
                }
                let is_own = own.is_some_and(|own| is_named(own, &pod));
                // From then on others do what this replica did.
                let handover = match is_own {
                    true => Some(bench.handover.begin(id).await),
                    false => None,
                };
                let span = traced::asking(&pod, if is_deletion { "delete" } else { "evict" });
                let asked = async {
                    match is_deletion {
                        true => gateway.delete_pod(&pod, &how).await,
                        false => gateway.evict(&pod, &how).await,
                    }
                };
                let farewell = farewell(&node.cluster.name, asked.instrument(span.clone()).await);
                traced::answered(&span, result(&farewell));
                if let Some(handover) = handover.filter(|_| farewell == Farewell::Accepted) {
                    handover.keep();
                }
                Some((pod.uid, farewell))
            }
        });
        // Collected first: an iterator of futures that borrow what they are made from is not general enough for a buffer.
        let asking: Vec<_> = asking.collect();
        let told: Vec<_> = futures::stream::iter(asking).buffer_unordered(AT_ONCE).collect().await;
        self.now = bench.clock.now();
        let mut changed = Vec::new();
        for (uid, farewell) in told.into_iter().flatten() {
            counter!(metric::EVICTIONS, "result" => result(&farewell)).increment(1);
            changed.extend(self.detail.progress.answered(&uid, farewell, self.now));
        }
        self.tell(&changed);
        // Those that stay after all take no room.
        let (cluster, leaving) = (&self.step.target.cluster, self.detail.progress.leaving());
        bench.leaving.reserve(place, cluster, leaving, 0, limits);
        Asked::Done
    }

    /// Whether pods may still be asked: that takes a while where there are many. `was_open` is whether the node was told to be schedulable before.
    fn goes_on(&self, was_open: bool) -> bool {
        let node = node_of(self.bench, &self.step.target)
            .ok()
            .and_then(|target| target.known);
        self.permit.holds() && (was_open || node.is_none_or(|node| !node.schedulable))
    }

    /// Notes for the audit log which pods are deleted without asking their budgets; whether there are new ones.
    fn note_deletions(&mut self, due: &[&PlannedPod]) -> bool {
        let names = due
            .iter()
            .map(|planned| format!("{}/{}", planned.pod.namespace, planned.pod.name));
        self.note_deleted(names.collect())
    }

    /// The same with what is known of them besides, after a colon.
    pub(super) fn note_deleted(&mut self, pods: Vec<String>) -> bool {
        let key = match self.detail.progress.forced {
            true => DELETED_AFTER_DEADLINE,
            false => DELETED,
        };
        let noted = self.detail.node.after.get(key).and_then(Value::as_array);
        let mut noted = noted.cloned().unwrap_or_default();
        let before = noted.len();
        for pod in pods {
            let is_it = |one: &Value| one.as_str().and_then(|text| text.split(": ").next()) == pod.split(": ").next();
            if !noted.iter().any(is_it) {
                noted.push(Value::from(pod));
            }
        }
        let is_new = before < noted.len();
        if is_new {
            self.detail.node.before.insert(key.to_owned(), json!([]));
            self.detail.node.after.insert(key.to_owned(), Value::from(noted));
        }
        is_new
    }
}

/// Whether this key tells of pods that were deleted, which no uncordoning takes back.
pub(super) fn is_deletion(key: &str) -> bool {
    [DELETED, DELETED_AFTER_DEADLINE].contains(&key)
}

fn is_named(name: &ObjectName, pod: &PodRef) -> bool {
    name.namespace == pod.namespace && name.name == pod.name
}

/// What an answer to an eviction comes to.
fn farewell(cluster: &ClusterName, told: Result<Eviction, ClusterError>) -> Farewell {
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
        // That says nothing about the pod.
        Err(
            error @ (ClusterError::Conflict { .. }
            | ClusterError::Unavailable { .. }
            | ClusterError::TimedOut { .. }
            | ClusterError::Unauthenticated { .. }
            | ClusterError::Locked { .. }
            | ClusterError::Disallowed { .. }
            | ClusterError::Unreadable { .. }),
        ) => later(chain(&error), None),
        Err(ClusterError::Forbidden {
            action: Some(action), ..
        }) if let Some(feature) = ClusterFeature::that_needs(action) => Farewell::Never {
            message: feature.refusal(cluster, &[action]),
        },
        Err(error @ (ClusterError::Invalid { .. } | ClusterError::Forbidden { .. })) => {
            Farewell::Never { message: chain(&error) }
        }
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

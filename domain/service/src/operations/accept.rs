//! What is accepted: an operation that can be done, with its nodes in their order.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use knm_model::{
    ClusterFeature, ClusterName, NodeName, Operation, OperationProgress, OperationState, OperationTarget, Permission,
    QueryError, Ruling, Selector, Strategy, TargetDetail, TargetOrder, TargetState, Timestamp, Work, excerpt,
};
use uuid::Uuid;

use super::{Asker, OperationError, OperationRequest, OperationShown, TargetRequest};
use crate::inventory::{Inventory, NodeEntry, Snapshot};

/// The most nodes that an operation may have.
const MOST_NODES: usize = 5_000;
/// How many times a request names a cluster at most.
const MOST_TARGETS: usize = 100;
/// How many unknown names an error tells.
const MOST_NAMED: usize = 10;

/// What can be done as far as that can be told without asking anybody.
pub(super) struct Accepted {
    shown: OperationShown,
    /// What the service does with clusters for it.
    features: &'static [ClusterFeature],
}

impl Accepted {
    /// The operation, if the clusters of its nodes let the service do it: else it would fail on each of them, and drains in the middle.
    pub(super) async fn allowed_by_clusters(self, inventory: &Inventory) -> Result<OperationShown, OperationError> {
        let targets = self.shown.targets.iter();
        let clusters: BTreeSet<&ClusterName> = targets.map(|target| &target.cluster).collect();
        let each = clusters
            .into_iter()
            .map(|name| inventory.check_features(name.as_str(), self.features));
        let each: Vec<_> = each.collect();
        futures::future::try_join_all(each).await?;
        Ok(self.shown)
    }
}

/// Checks `request` and fixes its nodes.
pub(super) fn accept(
    inventory: &Inventory,
    request: OperationRequest,
    asker: Asker,
    id: Uuid,
    now: Timestamp,
) -> Result<Accepted, OperationError> {
    let mut errors = Vec::new();
    let (reason, ticket) = (request.reason.as_deref(), request.ticket.as_deref());
    let work = Work::parse(request.kind, reason, ticket, &request.options, now);
    if let Err(wrong) = &work {
        errors.extend(wrong.iter().cloned());
    }
    let needed = work.as_ref().map_or(&[][..], Work::needs);
    let features = work.as_ref().map_or(&[][..], Work::features);
    if let Ok(work) = &work {
        let access = &asker.caller.access;
        if let Some(key) = work.label_keys().into_iter().find(|key| access.guards_label(key)) {
            return Err(OperationError::GuardedLabel { key: key.to_owned() });
        }
    }
    let visible = inventory.visible_to(&asker.caller.access);
    let strategy = Strategy::parse(&request.strategy, request.kind).unwrap_or_else(|wrong| {
        errors.extend(wrong);
        Strategy::of(request.kind)
    });
    if MOST_TARGETS < request.targets.len() {
        let message = format!(
            "{} clusters are too many: at most {MOST_TARGETS} are allowed",
            request.targets.len()
        );
        errors.push(QueryError::new("targets", message));
        return Err(OperationError::Invalid { errors });
    }
    let mut found = Vec::new();
    for (place, wanted) in request.targets.iter().enumerate() {
        let parameter = match request.targets.len() {
            1 => "targets".to_owned(),
            _ => format!("targets[{place}]"),
        };
        let snapshot = visible.snapshot(&wanted.cluster)?;
        match select(&snapshot, wanted, &parameter) {
            Ok(entries) => {
                for entry in entries {
                    let ruling = visible.on_labels(needed, &wanted.cluster, &entry.node().labels);
                    permitted(ruling, snapshot.cluster(), &entry.node().name)?;
                    found.push(Candidate::of(snapshot.cluster(), entry));
                }
            }
            Err(wrong) => errors.extend(wrong),
        }
        if MOST_NODES < found.len() {
            break;
        }
    }
    let mut known = HashSet::new();
    if let Some(twice) = found.iter().find(|one| !known.insert((&one.cluster, &one.node))) {
        let message = format!(
            "node {} of cluster {} comes twice: once is allowed",
            twice.node, twice.cluster
        );
        errors.push(QueryError::new("targets", message));
    }
    if MOST_NODES < found.len() {
        let message = format!("{} nodes are too many: at most {MOST_NODES} are allowed", found.len());
        errors.push(QueryError::new("targets", message));
    }
    if found.is_empty() && errors.is_empty() {
        let message = "there is no node to work on: names, or a label_selector that finds some, are expected";
        errors.push(QueryError::new("targets", message));
    }
    if !errors.is_empty() {
        return Err(OperationError::Invalid { errors });
    }
    match strategy.order {
        TargetOrder::AsGiven => {}
        TargetOrder::ByZone => found.sort_by(|one, other| {
            let key = |candidate: &Candidate| (candidate.cluster.clone(), candidate.zone.clone());
            key(one).cmp(&key(other))
        }),
        TargetOrder::LeastPodsFirst => {
            if found.iter().any(|candidate| candidate.pods.is_none()) {
                let message = "least_pods_first needs the number of pods of each node, which is not known now: \
                     kubernetes.watch_pods must be on, and the cluster seen";
                let errors = vec![QueryError::new("strategy.order", message)];
                return Err(OperationError::Invalid { errors });
            }
            found.sort_by_key(|candidate| candidate.pods);
        }
    }
    let targets: Vec<OperationTarget> = (0..).zip(found).map(|(place, one)| one.target(place)).collect();
    let operation = Operation {
        id,
        kind: request.kind,
        actor: asker.caller.actor,
        authority: asker.caller.authority,
        request_id: asker.request_id,
        reason: request.reason,
        ticket: request.ticket,
        options: request.options,
        strategy,
        dry_run: request.dry_run,
        retry_of: request.retry_of,
        idempotency: None,
        created_at: now,
        started_at: None,
        ended_at: None,
        state: OperationState::Queued,
        message: None,
        progress: OperationProgress::of(&targets),
        excused: 0,
    };
    let shown = OperationShown {
        operation,
        targets,
        eta_seconds: None,
    };
    Ok(Accepted { shown, features })
}

/// Whether a node that may be seen may be worked on.
pub(super) fn permitted(ruling: Ruling, cluster: &ClusterName, node: &NodeName) -> Result<(), OperationError> {
    let permission = match ruling {
        Ruling::Allowed => return Ok(()),
        Ruling::Hidden => Permission::View,
        Ruling::Refused(permission) => permission,
    };
    Err(OperationError::NotPermitted {
        permission,
        cluster: cluster.clone(),
        node: node.clone(),
    })
}

/// A node that is to be worked on.
struct Candidate {
    cluster: ClusterName,
    node: NodeName,
    zone: Option<String>,
    /// How many pods it has, if that is known.
    pods: Option<u64>,
}

impl Candidate {
    fn of(cluster: &ClusterName, entry: &NodeEntry) -> Self {
        let node = entry.node();
        Self {
            pods: entry.requested().map(|requested| requested.pods),
            cluster: cluster.clone(),
            node: node.name.clone(),
            zone: node.zone.clone(),
        }
    }

    fn target(self, place: u32) -> OperationTarget {
        OperationTarget {
            place,
            cluster: self.cluster,
            node: self.node,
            zone: self.zone,
            state: TargetState::Waiting,
            message: None,
            started_at: None,
            ended_at: None,
            audit: None,
            hold: None,
            detail: TargetDetail::default(),
        }
    }
}

fn select<'a>(
    snapshot: &'a Snapshot,
    wanted: &TargetRequest,
    parameter: &str,
) -> Result<Vec<&'a Arc<NodeEntry>>, Vec<QueryError>> {
    match (&wanted.label_selector, wanted.nodes.is_empty()) {
        (Some(text), true) => {
            let selector = Selector::parse(text).map_err(|error| {
                vec![QueryError {
                    parameter: format!("{parameter}.label_selector").into(),
                    position: Some(error.position),
                    message: error.message,
                }]
            })?;
            let entries = snapshot.entries();
            Ok(entries.filter(|entry| selector.matches(&entry.node().labels)).collect())
        }
        (None, false) => {
            let (mut found, mut unknown) = (Vec::new(), Vec::new());
            for name in &wanted.nodes {
                match snapshot.find(name) {
                    Some(entry) => found.push(entry),
                    None => unknown.push(format!("\"{}\"", excerpt(name))),
                }
            }
            if unknown.is_empty() {
                return Ok(found);
            }
            let rest = unknown.len().saturating_sub(MOST_NAMED);
            unknown.truncate(MOST_NAMED);
            let more = if rest == 0 {
                String::new()
            } else {
                format!(" and {rest} more")
            };
            let message = format!(
                "{}{more}: cluster {} has no such node",
                unknown.join(", "),
                snapshot.cluster()
            );
            Err(vec![QueryError::new(format!("{parameter}.nodes"), message)])
        }
        (Some(_), false) | (None, true) => Err(vec![QueryError::new(
            parameter.to_owned(),
            "either nodes, a list of names, or a label_selector is expected",
        )]),
    }
}

//! Changes of one node.

use std::sync::Arc;

use knm_domain::{Asked, Asker, NodeChanged, Uncordon};
use knm_model::{Caller, HoldRequest, LabelChange, Permission, QueryError, TaintChange, check_reason, excerpt};
use poem::Request;
use poem::http::{HeaderMap, header};
use poem::web::Data;
use poem_openapi::OpenApi;
use poem_openapi::param::{Path, Query};
use uuid::Uuid;

use super::Group;
use crate::Shared;
use crate::answer::Changed;
use crate::body::Written;
use crate::edge::RequestId;
use crate::gate;
use crate::list::{changed_tag, node_state};
use crate::problem::{Failure, OfChanging, Problem};
use crate::view::{ChangedNodeView, CordonBody, LabelChangeBody, TaintChangeBody, UncordonBody};

pub(crate) struct ChangesApi;

type Outcome = Result<Changed<ChangedNodeView>, Failure<OfChanging>>;

#[OpenApi]
impl ChangesApi {
    /// Change the labels of a node
    ///
    /// One patch, which touches nothing else. Conflicts with others are tried again; with `If-Match` the change is made in that state of the
    /// node only. The answer is the node afterwards, and what changed.
    #[oai(
        path = "/api/v1/clusters/:cluster/nodes/:node/labels",
        method = "patch",
        tag = "Group::Changes",
        operation_id = "changeLabels"
    )]
    async fn labels(
        &self,
        shared: Data<&Arc<Shared>>,
        /// The cluster's name.
        cluster: Path<String>,
        /// The node's name.
        node: Path<String>,
        /// Whether the cluster only says what would come of it: `true` or `false`.
        dry_run: Query<Option<String>>,
        request: &Request,
        body: Written<LabelChangeBody>,
    ) -> Outcome {
        let mut errors = Vec::new();
        let asked = asked(request, dry_run.0.as_deref(), &mut errors);
        let change = checked(LabelChange::parse(&body.0.set, &body.0.remove), errors)?;
        let dry_run = asked.dry_run;
        let access = Arc::clone(&gate::caller(request).access);
        let changed = shared
            .changes
            .label(&cluster.0, &node.0, change, &access, asked)
            .await?;
        shared.answer(&cluster.0, &changed, dry_run)
    }

    /// Change the taints of a node
    ///
    /// A taint is identified by its key and effect; taints that are not named stay. A `NoExecute` taint evicts pods without looking at
    /// disruption budgets, and on a node with running pods it needs `confirm_no_execute`.
    #[oai(
        path = "/api/v1/clusters/:cluster/nodes/:node/taints",
        method = "patch",
        tag = "Group::Changes",
        operation_id = "changeTaints"
    )]
    async fn taints(
        &self,
        shared: Data<&Arc<Shared>>,
        /// The cluster's name.
        cluster: Path<String>,
        /// The node's name.
        node: Path<String>,
        /// Whether the cluster only says what would come of it: `true` or `false`.
        dry_run: Query<Option<String>>,
        request: &Request,
        body: Written<TaintChangeBody>,
    ) -> Outcome {
        let mut errors = Vec::new();
        let asked = asked(request, dry_run.0.as_deref(), &mut errors);
        let add: Vec<_> = body.0.add.iter().map(|taint| taint.raw()).collect();
        let remove: Vec<_> = body.0.remove.iter().map(|taint| taint.raw()).collect();
        let change = checked(TaintChange::parse(&add, &remove), errors)?;
        let (confirmed, dry_run) = (body.0.confirm_no_execute, asked.dry_run);
        if confirmed {
            let caller = gate::caller(request);
            let visible = shared.inventory.visible_to(&caller.access);
            let ruling = visible.decide(&[Permission::NoExecute], &cluster.0, Some(&node.0));
            gate::permit(&caller, ruling, Some(&cluster.0))?;
        }
        let changed = shared
            .changes
            .taint(&cluster.0, &node.0, change, confirmed, asked)
            .await?;
        shared.answer(&cluster.0, &changed, dry_run)
    }

    /// Cordon a node
    ///
    /// Each cordon is a hold with a reason: the node becomes schedulable again when its last hold is released or ran out. The same hold again
    /// only gets another end.
    #[oai(
        path = "/api/v1/clusters/:cluster/nodes/:node/cordon",
        method = "post",
        tag = "Group::Changes",
        operation_id = "cordonNode"
    )]
    async fn cordon(
        &self,
        shared: Data<&Arc<Shared>>,
        /// The cluster's name.
        cluster: Path<String>,
        /// The node's name.
        node: Path<String>,
        /// Whether the cluster only says what would come of it: `true` or `false`.
        dry_run: Query<Option<String>>,
        request: &Request,
        body: Written<CordonBody>,
    ) -> Outcome {
        let mut errors = Vec::new();
        let asked = asked(request, dry_run.0.as_deref(), &mut errors);
        let CordonBody { reason, ticket, until } = &body.0;
        let now = shared.health.now();
        let parsed = HoldRequest::parse(reason, ticket.as_deref(), until.as_deref(), now);
        let hold = checked(parsed, errors)?;
        let dry_run = asked.dry_run;
        let changed = shared.changes.cordon(&cluster.0, &node.0, hold, asked).await?;
        shared.answer(&cluster.0, &changed, dry_run)
    }

    /// Uncordon a node
    ///
    /// Releases the caller's holds, or the one that is named. The node becomes schedulable with its last hold, unless somebody else had
    /// cordoned it before; `force` releases everybody's holds and a cordon that this service did not make.
    #[oai(
        path = "/api/v1/clusters/:cluster/nodes/:node/uncordon",
        method = "post",
        tag = "Group::Changes",
        operation_id = "uncordonNode"
    )]
    async fn uncordon(
        &self,
        shared: Data<&Arc<Shared>>,
        /// The cluster's name.
        cluster: Path<String>,
        /// The node's name.
        node: Path<String>,
        /// Whether the cluster only says what would come of it: `true` or `false`.
        dry_run: Query<Option<String>>,
        request: &Request,
        body: Written<UncordonBody>,
    ) -> Outcome {
        let mut errors = Vec::new();
        let asked = asked(request, dry_run.0.as_deref(), &mut errors);
        let uncordon = checked(uncordon(&body.0), errors)?;
        let dry_run = asked.dry_run;
        let changed = shared.changes.uncordon(&cluster.0, &node.0, uncordon, asked).await?;
        shared.answer(&cluster.0, &changed, dry_run)
    }
}

impl Shared {
    fn answer(&self, cluster: &str, changed: &NodeChanged, dry_run: bool) -> Outcome {
        let snapshot = self.inventory.snapshot(cluster)?;
        let entry = snapshot.find(changed.node.name.as_str());
        let requested = entry.and_then(|entry| entry.requested());
        // What did not happen is no state of the node.
        let tag = (!dry_run).then(|| changed_tag(&changed.node, requested));
        let view = ChangedNodeView::of(snapshot.cluster(), changed, requested, dry_run);
        Ok(Changed::new(tag.as_deref(), &view))
    }
}

/// Who asks, and on which conditions; what is wrong with them goes to `errors`.
fn asked(request: &Request, dry_run: Option<&str>, errors: &mut Vec<QueryError>) -> Asked {
    let Asker { caller, request_id } = asker(request);
    Asked {
        actor: caller.actor,
        request_id,
        known: known(request.headers()),
        dry_run: is_dry_run(dry_run, errors),
    }
}

/// Who asks, and by which request.
pub(super) fn asker(request: &Request) -> Asker {
    Asker {
        caller: Caller::clone(&gate::caller(request)),
        request_id: request.data::<RequestId>().map(|id| id.0.clone()),
    }
}

/// Whether something is only tried; what is wrong with the parameter goes to `errors`.
pub(super) fn is_dry_run(dry_run: Option<&str>, errors: &mut Vec<QueryError>) -> bool {
    match dry_run {
        None | Some("false") => false,
        Some("true") => true,
        Some(other) => {
            errors.push(QueryError::new(
                "dry_run",
                format!("\"{}\" is not true or false", excerpt(other)),
            ));
            false
        }
    }
}

/// The states that `If-Match` names; `None` for any state. A tag that went through compression is weak and names the same state.
pub(super) fn known(headers: &HeaderMap) -> Option<Vec<String>> {
    let tags: Vec<&str> = headers
        .get_all(header::IF_MATCH)
        .iter()
        .flat_map(|value| value.to_str().unwrap_or_default().split(','))
        .map(|tag| tag.trim().trim_start_matches("W/").trim_matches('"'))
        .collect();
    if tags.is_empty() || tags.contains(&"*") {
        return None;
    }
    Some(tags.into_iter().map(|tag| node_state(tag).to_owned()).collect())
}

fn uncordon(body: &UncordonBody) -> Result<Uncordon, Vec<QueryError>> {
    let mut errors = Vec::new();
    errors.extend(body.reason.as_deref().and_then(|reason| check_reason(reason).err()));
    let hold = body.hold.as_deref().and_then(|text| {
        let id = Uuid::parse_str(text);
        if id.is_err() {
            let message = format!("\"{}\" is not the id of a hold: a UUID is expected", excerpt(text));
            errors.push(QueryError::new("hold", message));
        }
        id.ok()
    });
    if hold.is_some() && body.force {
        errors.push(QueryError::new(
            "hold",
            "one hold and force exclude each other: one of both is allowed".to_owned(),
        ));
    }
    if !errors.is_empty() {
        return Err(errors);
    }
    Ok(Uncordon {
        reason: body.reason.clone(),
        hold,
        force: body.force,
    })
}

/// What was parsed, or everything that is wrong at once.
pub(super) fn checked<T>(parsed: Result<T, Vec<QueryError>>, mut errors: Vec<QueryError>) -> Result<T, Problem> {
    match parsed {
        Ok(parsed) if errors.is_empty() => Ok(parsed),
        Ok(_) => Err(Problem::invalid(errors)),
        Err(others) => {
            errors.extend(others);
            Err(Problem::invalid(errors))
        }
    }
}

#[cfg(test)]
mod tests {
    use poem::http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn if_match_names_states_of_the_node() {
        let headers = |values: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(header::IF_MATCH, HeaderValue::from_static(value));
            }
            headers
        };
        assert_eq!(known(&headers(&[])), None);
        assert_eq!(known(&headers(&["\"a-1\"", "*"])), None);
        let both = Some(vec!["a-1".to_owned(), "a-2".to_owned()]);
        assert_eq!(known(&headers(&["\"a-1\", W/\"a-2\""])), both);
        assert_eq!(known(&headers(&["\"a-1\"", "\"a-2\""])), both);
        // Pods that came or went do not matter.
        assert_eq!(known(&headers(&["\"a-1+5f\", W/\"a-2+0\""])), both);
    }

    proptest! {
        #[test]
        fn no_header_makes_it_panic_or_means_any_state(bytes in proptest::collection::vec(prop_oneof![0x20_u8..0x7f, 0x80_u8..=0xff, Just(b','), Just(b'"')], 0..60)) {
            let mut headers = HeaderMap::new();
            headers.insert(header::IF_MATCH, HeaderValue::from_bytes(&bytes).unwrap());
            // Whoever sends a condition that is none changes nothing, unless it says any state.
            prop_assert!(known(&headers).is_some_and(|states| !states.is_empty()) || bytes.contains(&b'*'));
        }

        #[test]
        fn states_are_read_as_they_were_written(states in proptest::collection::vec("[a-z0-9-]{1,12}", 1..5), weak in any::<bool>()) {
            let prefix = if weak { "W/" } else { "" };
            let tags: Vec<String> = states.iter().map(|state| format!("{prefix}\"{state}\"")).collect();
            let mut headers = HeaderMap::new();
            headers.insert(header::IF_MATCH, HeaderValue::from_str(&tags.join(", ")).unwrap());
            prop_assert_eq!(known(&headers), Some(states));
        }
    }
}

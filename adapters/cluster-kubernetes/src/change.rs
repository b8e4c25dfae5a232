//! Changes of nodes: JSON merge patches, which leave alone what they do not name.

use bytes::Bytes;
use http::{Method, StatusCode};
use knm_model::{Node, NodeName, NodePatch, Taint};
use serde_json::{Map, Value, json};

use crate::connection::{Connection, Question, encoded};
use crate::convert;
use crate::error::Failure;
use crate::metric::Call;
use crate::wire::{NodeVolumes, WireNode};

const GET: Call = Call {
    verb: "get",
    resource: "nodes",
};
const PATCH: Call = Call {
    verb: "patch",
    resource: "nodes",
};

/// The node as it is now, `None` if there is none.
pub(crate) async fn node(connection: &Connection, name: &NodeName) -> Result<Option<Node>, Failure> {
    let path = path(name);
    match connection.get(GET, &path, connection.request_timeout).await {
        Ok(wire) => read(wire, GET).map(Some),
        Err(failure) if failure.code == Some(StatusCode::NOT_FOUND) => Ok(None),
        Err(failure) => Err(failure),
    }
}

/// The volumes that are attached to the node, in the cluster's own words.
pub(crate) async fn attached_volumes(connection: &Connection, name: &NodeName) -> Result<Vec<String>, Failure> {
    match connection
        .get::<NodeVolumes>(GET, &path(name), connection.request_timeout)
        .await
    {
        Ok(wire) => Ok(wire
            .status
            .volumes_attached
            .into_iter()
            .map(|volume| volume.name)
            .collect()),
        Err(failure) if failure.code == Some(StatusCode::NOT_FOUND) => Ok(Vec::new()),
        Err(failure) => Err(failure),
    }
}

/// Patches the node and returns it as it is afterwards, or would be.
pub(crate) async fn patch(
    connection: &Connection,
    name: &NodeName,
    patch: &NodePatch,
    dry_run: bool,
) -> Result<Node, Failure> {
    let mut path = path(name);
    path.push_str("?fieldManager=kube-node-manager");
    if dry_run {
        path.push_str("&dryRun=All");
    }
    let question = Question {
        method: Method::PATCH,
        path: &path,
        body: Some(("application/merge-patch+json", Bytes::from(body(patch).to_string()))),
    };
    let wire: WireNode = connection.change(PATCH, &question).await?;
    read(wire, PATCH)
}

fn path(name: &NodeName) -> String {
    format!("/api/v1/nodes/{}", encoded(name.as_str()))
}

fn read(wire: WireNode, call: Call) -> Result<Node, Failure> {
    convert::node(wire)
        .map_err(|error| Failure::unreadable_because(format!("{} of {}: {error}", call.verb, call.resource)))
}

fn body(patch: &NodePatch) -> Value {
    let mut metadata = Map::new();
    if let Some(version) = &patch.resource_version {
        metadata.insert("resourceVersion".to_owned(), json!(version));
    }
    for (key, entries) in [("labels", &patch.labels), ("annotations", &patch.annotations)] {
        if !entries.is_empty() {
            metadata.insert(key.to_owned(), json!(entries));
        }
    }
    let mut spec = Map::new();
    if let Some(taints) = &patch.taints {
        spec.insert("taints".to_owned(), taints.iter().map(taint).collect());
    }
    if let Some(schedulable) = patch.schedulable {
        // Absent and false mean the same; kubectl removes it, too.
        let unschedulable = if schedulable { Value::Null } else { true.into() };
        spec.insert("unschedulable".to_owned(), unschedulable);
    }
    json!({"metadata": metadata, "spec": spec})
}

fn taint(taint: &Taint) -> Value {
    let mut wire = json!({"key": taint.key, "effect": taint.effect.as_str()});
    if !taint.value.is_empty() {
        wire["value"] = json!(taint.value);
    }
    if let Some(added_at) = taint.added_at {
        wire["timeAdded"] = json!(added_at.to_whole_seconds());
    }
    wire
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use knm_model::{TaintEffect, Timestamp};

    use super::*;

    #[test]
    fn a_patch_names_only_what_changes() {
        assert_eq!(body(&NodePatch::default()), json!({"metadata": {}, "spec": {}}));
        let patch = NodePatch {
            resource_version: Some("7".to_owned()),
            labels: BTreeMap::from([("a".to_owned(), Some(String::new())), ("b".to_owned(), None)]),
            schedulable: Some(true),
            taints: Some(vec![Taint {
                key: "k".to_owned(),
                value: String::new(),
                effect: TaintEffect::NoExecute,
                added_at: Timestamp::parse("2030-01-01T00:00:00.5Z").ok(),
            }]),
            ..NodePatch::default()
        };
        assert_eq!(
            body(&patch),
            json!({
                "metadata": {"resourceVersion": "7", "labels": {"a": "", "b": null}},
                "spec": {
                    "unschedulable": null,
                    "taints": [{"key": "k", "effect": "NoExecute", "timeAdded": "2030-01-01T00:00:00Z"}],
                },
            })
        );
    }
}

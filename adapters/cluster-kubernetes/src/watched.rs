//! What is watched of a cluster.

use knm_model::{Node, NodeName, Pod};
use knm_ports::{ClusterError, NodeEvent, PodEvent};

use crate::convert;
use crate::watch::Watched;
use crate::wire::{Meta, WireNode, WirePod};

/// All nodes. They are told at once.
#[derive(Default)]
pub(crate) struct Nodes {
    listed: Vec<Node>,
}

/// The pods that are on nodes. There may be very many, so that each page of a list is told as it comes.
#[derive(Default)]
pub(crate) struct Pods;

impl Watched for Nodes {
    type Wire = WireNode;
    type Event = NodeEvent;

    const PATH: &'static str = "/api/v1/nodes";
    const RESOURCE: &'static str = "nodes";

    fn meta(wire: &WireNode) -> &Meta {
        &wire.metadata
    }

    fn begin(&mut self) -> Option<NodeEvent> {
        self.listed.clear();
        None
    }

    fn page(&mut self, objects: Vec<WireNode>) -> Option<NodeEvent> {
        self.listed.extend(objects.into_iter().filter_map(node));
        None
    }

    fn complete(&mut self) -> NodeEvent {
        NodeEvent::Replaced(std::mem::take(&mut self.listed))
    }

    fn applied(wire: WireNode) -> Option<NodeEvent> {
        Some(NodeEvent::Applied(Box::new(node(wire)?)))
    }

    fn deleted(wire: WireNode) -> Option<NodeEvent> {
        NodeName::parse(&wire.metadata.name).ok().map(NodeEvent::Deleted)
    }

    fn alive() -> NodeEvent {
        NodeEvent::Alive
    }

    fn lost(error: ClusterError) -> NodeEvent {
        NodeEvent::Lost(error)
    }
}

impl Watched for Pods {
    type Wire = WirePod;
    type Event = PodEvent;

    /// A pod that gets onto a node begins to be selected, which is told as if it were new.
    const PATH: &'static str = "/api/v1/pods?fieldSelector=spec.nodeName%21%3D";
    const RESOURCE: &'static str = "pods";

    fn meta(wire: &WirePod) -> &Meta {
        &wire.metadata
    }

    fn begin(&mut self) -> Option<PodEvent> {
        Some(PodEvent::Listing)
    }

    fn page(&mut self, objects: Vec<WirePod>) -> Option<PodEvent> {
        Some(PodEvent::Listed(objects.into_iter().filter_map(pod).collect()))
    }

    fn complete(&mut self) -> PodEvent {
        PodEvent::Complete
    }

    fn applied(wire: WirePod) -> Option<PodEvent> {
        Some(PodEvent::Applied(Box::new(pod(wire)?)))
    }

    fn deleted(wire: WirePod) -> Option<PodEvent> {
        Some(PodEvent::Deleted { uid: wire.metadata.uid })
    }

    fn alive() -> PodEvent {
        PodEvent::Alive
    }

    fn lost(error: ClusterError) -> PodEvent {
        PodEvent::Lost(error)
    }
}

fn node(wire: WireNode) -> Option<Node> {
    match convert::node(wire) {
        Ok(node) => Some(node),
        Err(error) => {
            tracing::warn!(%error, "a node is left out because its name cannot be read");
            None
        }
    }
}

/// `None` for a pod on no node.
fn pod(wire: WirePod) -> Option<Pod> {
    let node = NodeName::parse(&wire.spec.node_name).ok()?;
    Some(convert::pod(wire, &node))
}

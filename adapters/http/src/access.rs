//! What each operation needs: the one place that says so. Tests walk the whole document and hold every operation against it.

use knm_model::Permission::{self, Administer, Change, Drain, Force, NoExecute, View, ViewPods};
use poem::http::Method;

/// What an operation needs of its caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Need {
    /// What it is done with.
    pub(crate) part: Part,
    /// All of these are needed.
    pub(crate) permissions: &'static [Permission],
    /// These may be needed, too: the body or what is stored says so, and the use case decides.
    pub(crate) perhaps: &'static [Permission],
}

/// What an operation is done with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// With nothing that anybody must sign in for.
    Public,
    /// With what tells how this service works, see `metrics.require_auth`.
    Metrics,
    /// With the description of this interface, see `docs.require_auth`.
    Docs,
    /// With what the caller may see of all clusters.
    Anything,
    /// With some nodes of the cluster in the path.
    SomeOfCluster,
    /// With the node in the path.
    Node,
    /// With the service as a whole.
    Everything,
}

/// What an operation needs, by its path as the document has it and its method.
pub(crate) fn need(template: &str, method: &Method) -> Need {
    let need = |part, permissions, perhaps| Need {
        part,
        permissions,
        perhaps,
    };
    let is_read = matches!(*method, Method::GET | Method::HEAD);
    match template {
        "/health" | "/health/live" | "/health/ready" | "/health/detailed" | "/livez" | "/livez/{check}" | "/readyz"
        | "/readyz/{check}" => need(Part::Public, &[], &[]),
        "/metrics" => need(Part::Metrics, &[View], &[]),
        "/docs" | "/openapi.json" | "/openapi.yaml" => need(Part::Docs, &[], &[]),

        // Nobody hands on what they do not have, so all of that is looked at.
        "/api/v1/tokens" if !is_read => need(
            Part::Everything,
            &[Administer],
            &[View, ViewPods, Change, Drain, Force, NoExecute],
        ),
        "/api/v1/tokens" | "/api/v1/tokens/{id}" => need(Part::Everything, &[Administer], &[]),

        "/api/v1/clusters" | "/api/v1/clusters/{cluster}" if !is_read => need(Part::Everything, &[Administer], &[]),
        "/api/v1/clusters/{cluster}/test" => need(Part::Everything, &[Administer], &[]),
        "/api/v1/clusters" | "/api/v1/nodes" => need(Part::Anything, &[View], &[]),
        "/api/v1/clusters/{cluster}"
        | "/api/v1/clusters/{cluster}/summary"
        | "/api/v1/clusters/{cluster}/nodes"
        | "/api/v1/clusters/{cluster}/watch" => need(Part::SomeOfCluster, &[View], &[]),
        "/api/v1/clusters/{cluster}/operations" => {
            need(Part::SomeOfCluster, &[View, Change], &[Drain, Force, NoExecute])
        }

        "/api/v1/clusters/{cluster}/nodes/{node}" | "/api/v1/clusters/{cluster}/nodes/{node}/history" => {
            need(Part::Node, &[View], &[])
        }
        "/api/v1/clusters/{cluster}/nodes/{node}/pods" | "/api/v1/clusters/{cluster}/nodes/{node}/drain/plan" => {
            need(Part::Node, &[View, ViewPods], &[])
        }
        "/api/v1/clusters/{cluster}/nodes/{node}/taints" => need(Part::Node, &[View, Change], &[NoExecute]),
        "/api/v1/clusters/{cluster}/nodes/{node}/labels"
        | "/api/v1/clusters/{cluster}/nodes/{node}/cordon"
        | "/api/v1/clusters/{cluster}/nodes/{node}/uncordon" => need(Part::Node, &[View, Change], &[]),
        "/api/v1/clusters/{cluster}/nodes/{node}/drain" => need(Part::Node, &[View, Change, Drain], &[Force]),

        "/api/v1/operations" if is_read => need(Part::Anything, &[View], &[]),
        "/api/v1/operations/{id}" | "/api/v1/operations/{id}/events" => need(Part::Anything, &[View, ViewPods], &[]),
        "/api/v1/operations"
        | "/api/v1/operations/{id}/cancel"
        | "/api/v1/operations/{id}/pause"
        | "/api/v1/operations/{id}/resume"
        | "/api/v1/operations/{id}/retry" => {
            // The answer tells of the pods of drains.
            need(Part::Anything, &[View, Change], &[ViewPods, Drain, Force, NoExecute])
        }

        "/api/v1/templates/{template}/preview" => need(Part::Anything, &[View], &[]),
        "/api/v1/templates" | "/api/v1/templates/{template}" | "/api/v1/bindings" | "/api/v1/bindings/{binding}"
            if !is_read =>
        {
            need(Part::Everything, &[View, Change], &[NoExecute])
        }
        "/api/v1/templates"
        | "/api/v1/templates/{template}"
        | "/api/v1/templates/{template}/versions"
        | "/api/v1/bindings"
        | "/api/v1/bindings/{binding}"
        | "/api/v1/bindings/{binding}/versions"
        | "/api/v1/bindings/{binding}/drift"
        | "/api/v1/audit"
        | "/api/v1/audit/{id}" => need(Part::Anything, &[View], &[]),

        // Whatever is new is for those who may do everything, until it is said here what it needs.
        _ => need(Part::Everything, &[Administer], &[]),
    }
}

#[cfg(test)]
mod stage;
#[cfg(test)]
mod tests;

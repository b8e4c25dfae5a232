//! The operations of the API.

pub(crate) mod audit;
pub(crate) mod changes;
pub(crate) mod clusters;
pub(crate) mod drain;
mod follow;
pub(crate) mod health;
pub(crate) mod nodes;
pub(crate) mod operations;
pub(crate) mod templates;
pub(crate) mod tokens;
pub(crate) mod watch;

use poem_openapi::Tags;

/// Groups of operations.
#[derive(Tags)]
pub(crate) enum Group {
    /// Whether the service works: for probes, load balancers, dashboards and people.
    Health,
    /// The clusters that this service watches.
    Clusters,
    /// The nodes of the clusters, as they are now.
    Nodes,
    /// Changes of nodes. Each is written into the audit log before it is made and when it was.
    Changes,
    /// Draining nodes: what it would do, and doing it.
    Drains,
    /// Many nodes, and everything that takes time: accepted, done step by step, followed as it goes.
    Operations,
    /// Labels and taints that belong together, and the nodes that are to have them.
    Templates,
    /// API tokens: who may do what.
    Tokens,
    /// What was tried, by whom, and what came of it.
    Audit,
    /// The description of this interface.
    Document,
}

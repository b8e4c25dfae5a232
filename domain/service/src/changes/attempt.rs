//! Trying a change until nobody else gets in between.

use std::time::Duration;

use knm_model::{Node, NodePatch};
use knm_ports::ClusterError;

use super::{Asked, ChangeError, NodeChanged, Target};
use crate::inventory::InventoryError;

/// How often a change is tried while others change the same node.
const MOST: u32 = 10;
/// The pause after the first conflict; each later one is longer by as much.
const PAUSE: Duration = Duration::from_millis(20);

/// The attempts of one change. Each patch is worked out from [`Attempts::node`] and only counts for that state of the node.
pub(super) struct Attempts<'a> {
    target: &'a Target,
    asked: &'a Asked,
    node: Node,
    /// Whether the cluster was asked for `node`; what is known from watching it may be a little old.
    is_fresh: bool,
    count: u32,
}

impl<'a> Attempts<'a> {
    /// Begins with what is known of the node, which costs no call.
    pub(super) async fn begin(target: &'a Target, asked: &'a Asked) -> Result<Self, ChangeError> {
        let Some(node) = target.known.clone() else {
            return Self::begin_fresh(target, asked).await;
        };
        let mut attempts = Self {
            target,
            asked,
            node,
            is_fresh: false,
            count: 0,
        };
        if attempts.check_known().is_err() {
            attempts.ask_again().await?;
        }
        Ok(attempts)
    }

    /// Begins with what the cluster says now.
    pub(super) async fn begin_fresh(target: &'a Target, asked: &'a Asked) -> Result<Self, ChangeError> {
        let attempts = Self {
            target,
            asked,
            node: ask(target).await?,
            is_fresh: true,
            count: 0,
        };
        attempts.check_known()?;
        Ok(attempts)
    }

    /// Begins with what the cluster said a moment ago.
    pub(super) fn begin_at(target: &'a Target, asked: &'a Asked, node: Node) -> Self {
        Self {
            target,
            asked,
            node,
            is_fresh: true,
            count: 0,
        }
    }

    /// The node that the next patch would have been worked out from.
    pub(super) fn into_node(self) -> Node {
        self.node
    }

    /// The node that the next patch is worked out from.
    pub(super) fn node(&self) -> &Node {
        &self.node
    }

    /// Sends `patch`, which was worked out from [`Attempts::node`]; `None` if the node was changed meanwhile and the patch is to be worked
    /// out again.
    pub(super) async fn send(&mut self, patch: NodePatch) -> Result<Option<NodeChanged>, ChangeError> {
        if patch.is_empty() {
            if !self.is_fresh {
                self.ask_again().await?;
                return Ok(None);
            }
            return Ok(Some(NodeChanged::between(&self.node, self.node.clone())));
        }
        let patch = NodePatch {
            resource_version: Some(self.node.resource_version.clone()),
            ..patch
        };
        self.count += 1;
        let gateway = &self.target.cluster.gateway;
        match gateway.patch_node(&self.target.name, &patch, self.asked.dry_run).await {
            Ok(after) => Ok(Some(NodeChanged::between(&self.node, after))),
            Err(ClusterError::Conflict { .. }) if self.count < MOST => {
                tokio::time::sleep(PAUSE * (self.count - 1)).await;
                self.ask_again().await?;
                Ok(None)
            }
            Err(ClusterError::Conflict { .. }) => Err(ChangeError::Contended {
                node: self.target.name.clone(),
                attempts: self.count,
            }),
            Err(error) if error.is_uncertain() && !self.asked.dry_run => Err(ChangeError::Unanswered {
                cluster: self.target.cluster.name.clone(),
                source: error,
            }),
            Err(error) => Err(self.target.failed(error)),
        }
    }

    async fn ask_again(&mut self) -> Result<(), ChangeError> {
        self.node = ask(self.target).await?;
        self.is_fresh = true;
        self.check_known()
    }

    /// The caller may want the change in some states of the node only.
    fn check_known(&self) -> Result<(), ChangeError> {
        let version = self.node.version();
        match &self.asked.known {
            Some(known) if !known.contains(&version) => Err(ChangeError::Stale {
                node: self.target.name.clone(),
                version,
            }),
            _ => Ok(()),
        }
    }
}

async fn ask(target: &Target) -> Result<Node, ChangeError> {
    let answer = target.cluster.gateway.node(&target.name).await;
    answer.map_err(|error| target.failed(error))?.ok_or_else(|| {
        ChangeError::Inventory(InventoryError::UnknownNode {
            cluster: target.cluster.name.clone(),
            node: target.name.to_string(),
        })
    })
}

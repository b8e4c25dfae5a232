//! Cordons that hold.

use std::sync::Arc;

use knm_model::{AuditAction, HoldChange, HoldRequest, HoldState};
use knm_ports::StorageError;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::bringing::Brought;
use super::{Asked, ChangeError, Intent, NodeChanged, NodeChanges, Target, to_its_end};

/// How often a hold is made that others release before it is on the node.
const MOST: u32 = 5;

/// Which holds are to be released, and why.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Uncordon {
    /// Why.
    pub reason: Option<String>,
    /// Only this hold, whoever's it is; `None`: all holds of the caller.
    pub hold: Option<Uuid>,
    /// All holds, also those of others, and a cordon that is not ours.
    pub force: bool,
}

impl NodeChanges {
    /// Holds a node: it is cordoned until its last hold is released. The same hold again only gets another end.
    ///
    /// # Errors
    /// [`ChangeError`]; then nothing was changed, unless it says that this is not known.
    pub async fn cordon(
        self: &Arc<Self>,
        cluster: &str,
        node: &str,
        request: HoldRequest,
        asked: Asked,
    ) -> Result<NodeChanged, ChangeError> {
        let target = self.target(cluster, node)?;
        let intent = Intent {
            action: AuditAction::NodeCordon,
            reason: Some(request.reason.clone()),
            ticket: request.ticket.clone(),
            options: request
                .until
                .map(|until| ("until".to_owned(), json!(until)))
                .into_iter()
                .collect(),
        };
        let this = Arc::clone(self);
        let work = async move {
            let work = this.hold(&target, &request, &asked);
            this.audited(&target, intent, &asked, work).await
        };
        to_its_end(work).await
    }

    /// Releases holds; the node becomes schedulable with its last one, unless somebody else had cordoned it before.
    ///
    /// # Errors
    /// [`ChangeError`]; then nothing was changed, unless it says that this is not known.
    pub async fn uncordon(
        self: &Arc<Self>,
        cluster: &str,
        node: &str,
        request: Uncordon,
        asked: Asked,
    ) -> Result<NodeChanged, ChangeError> {
        let target = self.target(cluster, node)?;
        let mut options = Map::from_iter([("force".to_owned(), Value::from(request.force))]);
        options.extend(request.hold.map(|id| ("hold".to_owned(), json!(id))));
        let intent = Intent {
            action: AuditAction::NodeUncordon,
            reason: request.reason.clone(),
            ticket: None,
            options,
        };
        let this = Arc::clone(self);
        let work = async move {
            let work = this.unhold(&target, &request, &asked);
            this.audited(&target, intent, &asked, work).await
        };
        let changed = to_its_end(work).await?;
        let warnings = match &changed.node.cordon {
            Some(cordon) if cordon.holds.is_empty() => {
                vec!["the node stays cordoned: somebody else had cordoned it before".to_owned()]
            }
            Some(cordon) => vec![format!(
                "the node stays cordoned: it is held by {}",
                holders(cordon.holds.len())
            )],
            None => Vec::new(),
        };
        Ok(NodeChanged { warnings, ..changed })
    }

    async fn hold(&self, target: &Target, request: &HoldRequest, asked: &Asked) -> Result<NodeChanged, ChangeError> {
        for _ in 0..MOST {
            if let Some(changed) = self.try_hold(target, request, asked).await? {
                return Ok(changed);
            }
        }
        Err(ChangeError::Contended {
            node: target.name.clone(),
            attempts: MOST,
        })
    }

    /// `None`: somebody released the hold before it was on the node.
    async fn try_hold(
        &self,
        target: &Target,
        request: &HoldRequest,
        asked: &Asked,
    ) -> Result<Option<NodeChanged>, ChangeError> {
        let plan = self.plan_shared_hold(target, request, asked).await?;
        if asked.dry_run {
            let brought = self.bring_hold(target, &plan, asked).await?;
            return Ok(brought.map(|brought| brought.changed));
        }
        for over in &plan.over {
            self.end_outside(target, over).await?;
        }
        if plan.is_new() {
            self.holds.add(&plan.hold).await?;
        }
        match self.bring_hold(target, &plan, asked).await {
            Ok(Some(brought)) => match self.store(target, &brought).await? {
                true => Ok(Some(brought.changed)),
                false => {
                    self.take_off(target, brought.hold.id, asked).await?;
                    Ok(None)
                }
            },
            Ok(None) => Ok(None),
            Err(error) => {
                // It stays pending where nobody knows: the keeper looks at the node.
                if plan.is_new() && !error.is_uncertain() {
                    self.end(&plan.hold).await;
                }
                Err(error)
            }
        }
    }

    /// Stores of a hold what came of it on the node. `false`: somebody ended it meanwhile.
    async fn store(&self, target: &Target, brought: &Brought) -> Result<bool, ChangeError> {
        let id = brought.hold.id;
        for change in brought.changes() {
            match (&change, self.holds.change(id, &change).await) {
                (_, Ok(true)) => {}
                (_, Ok(false)) => return Ok(false),
                // The caller has to know that the hold ends at another time than it wants.
                (HoldChange::Until(_), Err(error)) => return Err(error.into()),
                // This stands on the node, too, and counts there.
                (HoldChange::OverForeign(_) | HoldChange::EndedOutside(_), Err(error)) => {
                    tracing::warn!(hold = %id, error = &error as &dyn std::error::Error, "a hold could not be updated");
                }
            }
        }
        if brought.hold.state == HoldState::Active {
            return Ok(true);
        }
        match self.holds.advance(id, HoldState::Active, self.clock.now()).await {
            Ok(true) => Ok(true),
            // The keeper may have found it on the node.
            Ok(false) => Ok(self.find_hold(target, id).await?.is_some()),
            Err(error) => {
                // The keeper finds a pending hold and sees what became of it.
                tracing::warn!(hold = %id, error = &error as &dyn std::error::Error, "a hold could not be updated");
                Ok(true)
            }
        }
    }

    async fn unhold(&self, target: &Target, request: &Uncordon, asked: &Asked) -> Result<NodeChanged, ChangeError> {
        let (done, released) = self.free(target, request, asked).await?;
        if !asked.dry_run {
            for hold in &released {
                self.end(hold).await;
            }
        }
        Ok(done)
    }
}

fn holders(count: usize) -> String {
    match count {
        1 => "another hold".to_owned(),
        count => format!("{count} other holds"),
    }
}

/// Errors of the store under the holds.
impl From<StorageError> for ChangeError {
    fn from(source: StorageError) -> Self {
        Self::Holds { source }
    }
}

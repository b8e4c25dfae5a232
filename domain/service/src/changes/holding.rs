//! Cordons that hold.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use knm_model::{
    AuditAction, CordonSource, FIRST_VERSION_REASON_ANNOTATION, FIRST_VERSION_TIMESTAMP_ANNOTATION, HOLDS_ANNOTATION,
    Hold, HoldRequest, HoldState, Node, NodePatch, holds_annotation,
};
use knm_ports::StorageError;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::attempt::Attempts;
use super::{Asked, ChangeError, Intent, NodeChanged, NodeChanges, Target, to_its_end};

/// How often it is looked whether somebody else is about to change the holds of a node.
const LOOKS: u32 = 6;
/// The pause between two looks.
const BETWEEN_LOOKS: Duration = Duration::from_millis(40);

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

/// A hold that is to be brought onto a node.
#[derive(Clone, Debug)]
pub(crate) struct HoldPlan {
    /// The hold.
    pub(crate) hold: Hold,
    /// Whether it is not stored yet.
    pub(crate) is_new: bool,
    /// Holds that somebody ended who uncordoned the node without us.
    pub(crate) over: Vec<Hold>,
    /// The node as it is before.
    pub(crate) node: Node,
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
        let plan = self.plan_hold(target, request, asked).await?;
        let hold = &plan.hold;
        if !asked.dry_run {
            self.end_before(target, &plan).await?;
            match plan.is_new {
                true => self.holds.add(hold).await.map_err(ChangeError::from),
                false => self.prolong(hold).await,
            }?;
        }
        let outcome = self.bring_hold(target, &plan, asked).await;
        if plan.is_new && !asked.dry_run {
            let (state, now) = match &outcome {
                Ok(_) => (HoldState::Active, self.clock.now()),
                // It stays pending where nobody knows: the keeper looks at the node.
                Err(error) if error.is_uncertain() => return outcome,
                Err(_) => (HoldState::Ended, self.clock.now()),
            };
            if let Err(error) = self.holds.advance(hold.id, state, now).await {
                // The keeper finds a pending hold and sees what became of it.
                tracing::warn!(hold = %hold.id, error = &error as &dyn std::error::Error, "a hold could not be updated");
            }
        }
        outcome
    }

    /// What has to be stored before a node is held; nothing is changed yet.
    pub(crate) async fn plan_hold(
        &self,
        target: &Target,
        request: &HoldRequest,
        asked: &Asked,
    ) -> Result<HoldPlan, ChangeError> {
        // Before the node: a hold that is active here was on the node when the node is asked for.
        let mut before = self.holds_of(target).await?;
        let mut node = Attempts::begin_fresh(target, asked).await?.into_node();
        for _ in 0..LOOKS {
            if !before.is_empty() || !has_notes(&node) {
                break;
            }
            // Somebody held it in between: whether that is over a cordon of others stands in their hold.
            before = self.holds_of(target).await?;
            node = Attempts::begin_fresh(target, asked).await?.into_node();
        }
        let (over, before): (Vec<Hold>, Vec<Hold>) = before
            .into_iter()
            .partition(|hold| node.schedulable && hold.state == HoldState::Active);
        let hold = self.wanted(target, request, asked, &before, &node);
        Ok(HoldPlan {
            is_new: !before.iter().any(|known| known.id == hold.id),
            hold,
            over,
            node,
        })
    }

    /// Ends the holds of which the plan says that somebody ended them by uncordoning the node without us.
    pub(crate) async fn end_before(&self, target: &Target, plan: &HoldPlan) -> Result<(), ChangeError> {
        for hold in &plan.over {
            self.end_outside(target, hold).await?;
        }
        Ok(())
    }

    /// Gives a hold that is stored the end that it has here.
    pub(crate) async fn prolong(&self, hold: &Hold) -> Result<(), ChangeError> {
        self.holds.prolong(hold.id, hold.until).await?;
        Ok(())
    }

    /// A hold that is stored and not over, to be brought onto its node.
    pub(crate) async fn stored_hold(
        &self,
        target: &Target,
        id: Uuid,
        asked: &Asked,
    ) -> Result<Option<HoldPlan>, ChangeError> {
        let stored = self.holds_of(target).await?;
        let Some(hold) = stored.into_iter().find(|hold| hold.id == id) else {
            return Ok(None);
        };
        let node = Attempts::begin_fresh(target, asked).await?.into_node();
        Ok(Some(HoldPlan {
            hold,
            is_new: false,
            over: Vec::new(),
            node,
        }))
    }

    /// Brings a hold that is stored onto its node; done again, it changes nothing.
    pub(crate) async fn bring_hold(
        &self,
        target: &Target,
        plan: &HoldPlan,
        asked: &Asked,
    ) -> Result<NodeChanged, ChangeError> {
        let mut attempts = Attempts::begin_at(target, asked, plan.node.clone());
        loop {
            let is_other = |known: &Hold| known.id != plan.hold.id && !plan.over.iter().any(|over| over.id == known.id);
            let mut noted = self.others(target, attempts.node(), is_other).await?;
            noted.push(plan.hold.clone());
            noted.sort_by_key(|hold| hold.id);
            let patch = NodePatch {
                annotations: BTreeMap::from([(HOLDS_ANNOTATION.to_owned(), holds_annotation(&noted))]),
                schedulable: attempts.node().schedulable.then_some(false),
                ..NodePatch::default()
            };
            if let Some(done) = attempts.send(patch).await? {
                return Ok(done);
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

    /// Takes the holds off the node that `request` names, and returns them: they are over, which is not stored yet.
    pub(crate) async fn free(
        &self,
        target: &Target,
        request: &Uncordon,
        asked: &Asked,
    ) -> Result<(NodeChanged, Vec<Hold>), ChangeError> {
        let before = self.holds_of(target).await?;
        let mut attempts = Attempts::begin_fresh(target, asked).await?;
        let released = released(target, request, asked, &before, attempts.node())?;
        let done = self.release(target, &mut attempts, &released, request.force).await?;
        Ok((done, released))
    }

    /// Takes `released` off the node.
    pub(super) async fn release(
        &self,
        target: &Target,
        attempts: &mut Attempts<'_>,
        released: &[Hold],
        force: bool,
    ) -> Result<NodeChanged, ChangeError> {
        let was_foreign = !force && released.iter().any(|hold| hold.over_foreign);
        loop {
            let is_other = |hold: &Hold| !released.iter().any(|released| released.id == hold.id);
            let left = self.others(target, attempts.node(), is_other).await?;
            let node = attempts.node();
            let frees = !node.schedulable && left.is_empty() && !was_foreign;
            let mut annotations = BTreeMap::new();
            if has_notes(node) || !released.is_empty() {
                annotations.insert(HOLDS_ANNOTATION.to_owned(), holds_annotation(&left));
            }
            let is_first_version = |cordon: &knm_model::Cordon| cordon.source == CordonSource::FirstVersion;
            if frees && node.cordon.as_ref().is_some_and(is_first_version) {
                annotations.insert(FIRST_VERSION_REASON_ANNOTATION.to_owned(), None);
                annotations.insert(FIRST_VERSION_TIMESTAMP_ANNOTATION.to_owned(), None);
            }
            let patch = NodePatch {
                annotations,
                schedulable: frees.then_some(true),
                ..NodePatch::default()
            };
            if let Some(done) = attempts.send(patch).await? {
                return Ok(done);
            }
        }
    }

    /// The hold that `request` asks for: one that is there already with another end, or a new one.
    fn wanted(&self, target: &Target, request: &HoldRequest, asked: &Asked, before: &[Hold], node: &Node) -> Hold {
        let holder = asked.actor.label();
        let is_same =
            |hold: &&Hold| hold.holder == holder && hold.reason == request.reason && hold.ticket == request.ticket;
        if let Some(known) = before.iter().find(is_same) {
            return Hold {
                until: request.until,
                ..known.clone()
            };
        }
        let now = self.clock.now();
        Hold {
            id: self.ids.next(now),
            cluster: target.cluster.name.clone(),
            node: target.name.clone(),
            holder: holder.to_owned(),
            reason: request.reason.clone(),
            ticket: request.ticket.clone(),
            since: now,
            until: request.until,
            over_foreign: match before {
                [] => !node.schedulable,
                known => known.iter().any(|hold| hold.over_foreign),
            },
            state: HoldState::Pending,
        }
    }

    /// Marks a hold as over; if that cannot be done now, the keeper will find that the node does not have it.
    pub(super) async fn end(&self, hold: &Hold) {
        if let Err(error) = self.holds.advance(hold.id, HoldState::Ended, self.clock.now()).await {
            tracing::warn!(hold = %hold.id, error = &error as &dyn std::error::Error, "a hold could not be ended");
        }
    }

    /// The holds on a node that satisfy `is_other`. One that is active and that this state of the node does not have any more is being released
    /// by somebody who has not written that down yet: that is waited for, but not for long, because whoever edits annotations by hand takes
    /// no hold away.
    async fn others(
        &self,
        target: &Target,
        node: &Node,
        is_other: impl Fn(&Hold) -> bool + Send,
    ) -> Result<Vec<Hold>, ChangeError> {
        let mut looks = 1;
        loop {
            let mut holds = self.holds_of(target).await?;
            holds.retain(|hold| is_other(hold));
            let is_left = |hold: &Hold| hold.state == HoldState::Active && !is_noted(node, hold);
            if node.schedulable || looks == LOOKS || !holds.iter().any(is_left) {
                return Ok(holds);
            }
            looks += 1;
            tokio::time::sleep(BETWEEN_LOOKS).await;
        }
    }

    pub(super) async fn holds_of(&self, target: &Target) -> Result<Vec<Hold>, ChangeError> {
        let holds = self.holds.of_node(&target.cluster.name, &target.name).await;
        holds.map_err(|source| ChangeError::Holds { source })
    }
}

/// Which of the holds `before` are released.
fn released(
    target: &Target,
    request: &Uncordon,
    asked: &Asked,
    before: &[Hold],
    node: &Node,
) -> Result<Vec<Hold>, ChangeError> {
    let only = |keep: &dyn Fn(&Hold) -> bool| before.iter().filter(|hold| keep(hold)).cloned().collect::<Vec<_>>();
    if let Some(id) = request.hold {
        let found = only(&|hold| hold.id == id);
        return match found.is_empty() {
            true => Err(ChangeError::UnknownHold {
                node: target.name.clone(),
                id,
            }),
            false => Ok(found),
        };
    }
    if request.force || node.schedulable {
        return Ok(before.to_vec());
    }
    let own = only(&|hold| hold.holder == asked.actor.label());
    match (own.is_empty(), before.is_empty()) {
        (false, _) => Ok(own),
        (true, true) => Err(ChangeError::Foreign {
            node: target.name.clone(),
        }),
        (true, false) => Err(ChangeError::HeldByOthers {
            node: target.name.clone(),
            holders: before
                .iter()
                .map(|hold| format!("{} ({})", hold.holder, hold.reason))
                .collect(),
        }),
    }
}

/// Whether holds of this service are noted on the node.
fn has_notes(node: &Node) -> bool {
    node.cordon.as_ref().is_some_and(|cordon| !cordon.holds.is_empty())
}

/// Whether this hold is noted on the node.
fn is_noted(node: &Node, hold: &Hold) -> bool {
    let noted = node.cordon.iter().flat_map(|cordon| &cordon.holds);
    noted.into_iter().any(|noted| noted.id == Some(hold.id))
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

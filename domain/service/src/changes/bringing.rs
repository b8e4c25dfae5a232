//! Holds on their way onto nodes.

use std::collections::BTreeMap;
use std::time::Duration;

use knm_model::{
    HOLDS_ANNOTATION, Hold, HoldChange, HoldRequest, HoldState, Node, NodePatch, NotedHold, Timestamp, holds_annotation,
};
use uuid::Uuid;

use super::attempt::Attempts;
use super::{Asked, ChangeError, NodeChanged, NodeChanges, Target};

/// How often it is looked whether somebody else is about to change the holds of a node: for a second, which is long for a store.
const LOOKS: u32 = 25;
/// The pause between two looks.
const BETWEEN_LOOKS: Duration = Duration::from_millis(40);

/// A hold that is to be brought onto a node.
#[derive(Clone, Debug)]
pub(crate) struct HoldPlan {
    /// The hold, as it is to be.
    pub(crate) hold: Hold,
    /// The hold, as it is stored; `None` if it is not.
    pub(crate) stored: Option<Hold>,
    /// Holds that somebody ended who uncordoned the node without us.
    pub(crate) over: Vec<Hold>,
    /// The node as it is before.
    pub(crate) node: Node,
}

/// A hold that is on its node.
#[derive(Clone, Debug)]
pub(crate) struct Brought {
    /// What became of the node.
    pub(crate) changed: NodeChanged,
    /// The hold, as it stands there.
    pub(crate) hold: Hold,
    /// The hold, as it is stored.
    stored: Hold,
}

impl HoldPlan {
    /// Whether it is not stored yet.
    pub(crate) fn is_new(&self) -> bool {
        self.stored.is_none()
    }
}

impl Brought {
    /// What has to be stored beyond that it is on the node.
    pub(crate) fn changes(&self) -> Vec<HoldChange> {
        let (is, was) = (&self.hold, &self.stored);
        let until = (is.until != was.until).then_some(HoldChange::Until(is.until));
        let over_foreign = is.over_foreign != was.over_foreign;
        let over_foreign = over_foreign.then_some(HoldChange::OverForeign(is.over_foreign));
        until.into_iter().chain(over_foreign).collect()
    }
}

impl NodeChanges {
    /// What has to be stored before a node is held; nothing is changed yet. The same hold of the same holder only gets another end.
    pub(crate) async fn plan_shared_hold(
        &self,
        target: &Target,
        request: &HoldRequest,
        asked: &Asked,
    ) -> Result<HoldPlan, ChangeError> {
        let is_same = |hold: &Hold| {
            hold.holder == asked.actor.label() && hold.reason == request.reason && hold.ticket == request.ticket
        };
        self.plan(target, request, asked, is_same).await
    }

    /// The same with a hold that is nobody else's: it ends with what it is made for.
    pub(crate) async fn plan_own_hold(
        &self,
        target: &Target,
        request: &HoldRequest,
        asked: &Asked,
    ) -> Result<HoldPlan, ChangeError> {
        self.plan(target, request, asked, |_| false).await
    }

    async fn plan(
        &self,
        target: &Target,
        request: &HoldRequest,
        asked: &Asked,
        is_same: impl Fn(&Hold) -> bool + Send,
    ) -> Result<HoldPlan, ChangeError> {
        let mut looks = 1;
        let (before, node) = loop {
            // Before the node: a hold that is active here was on the node when the node is asked for.
            let before = self.holds_of(target).await?;
            let node = Attempts::begin_fresh(target, asked).await?.into_node();
            // Somebody uncordoned the node without us, or released the hold and has not written that down yet.
            let is_unclear = node.schedulable && before.iter().any(|hold| hold.state == HoldState::Active);
            if !is_unclear || looks == LOOKS {
                break (before, node);
            }
            looks += 1;
            tokio::time::sleep(BETWEEN_LOOKS).await;
        };
        let (over, before): (Vec<Hold>, Vec<Hold>) = before
            .into_iter()
            .partition(|hold| node.schedulable && hold.state == HoldState::Active);
        let stored = before.iter().find(|hold| is_same(hold)).cloned();
        let hold = match &stored {
            Some(stored) => Hold {
                until: request.until,
                ..stored.clone()
            },
            None => self.new_hold(target, request, asked),
        };
        Ok(HoldPlan {
            hold,
            stored,
            over,
            node,
        })
    }

    fn new_hold(&self, target: &Target, request: &HoldRequest, asked: &Asked) -> Hold {
        let now = self.clock.now();
        Hold {
            id: self.ids.next(now),
            cluster: target.cluster.name.clone(),
            node: target.name.clone(),
            holder: asked.actor.label().to_owned(),
            reason: request.reason.clone(),
            ticket: request.ticket.clone(),
            since: now,
            until: request.until,
            // That is known when it is on the node. A guess would be read by whoever holds the node in the same moment.
            over_foreign: false,
            state: HoldState::Pending,
        }
    }

    /// A hold that is stored, to be brought onto its node with another end, perhaps.
    pub(crate) async fn plan_stored_hold(
        &self,
        target: &Target,
        stored: Hold,
        until: Option<Timestamp>,
        asked: &Asked,
    ) -> Result<HoldPlan, ChangeError> {
        Ok(HoldPlan {
            hold: Hold {
                until,
                ..stored.clone()
            },
            stored: Some(stored),
            over: Vec::new(),
            node: Attempts::begin_fresh(target, asked).await?.into_node(),
        })
    }

    /// Brings a hold that is stored onto its node; done again, it changes nothing. `None`: somebody ended it before.
    pub(crate) async fn bring_hold(
        &self,
        target: &Target,
        plan: &HoldPlan,
        asked: &Asked,
    ) -> Result<Option<Brought>, ChangeError> {
        let mut attempts = Attempts::begin_at(target, asked, plan.node.clone());
        loop {
            let is_left = |known: &Hold| !plan.over.iter().any(|over| over.id == known.id);
            let mut noted = self.holds_at(target, attempts.node(), is_left).await?;
            // What is new is not stored when it is only tried out.
            let is_there = noted.iter().any(|known| known.id == plan.hold.id) || asked.dry_run && plan.is_new();
            if !is_there {
                return Ok(None);
            }
            noted.retain(|known| known.id != plan.hold.id);
            let hold = Hold {
                over_foreign: is_over_foreign(&plan.hold, attempts.node(), &noted),
                ..plan.hold.clone()
            };
            noted.push(hold.clone());
            noted.sort_by_key(|hold| hold.id);
            let strangers = self
                .strangers(attempts.node(), |id| noted.iter().any(|hold| hold.id == id))
                .await?;
            let annotation = holds_annotation(noted.iter().map(NotedHold::from).chain(strangers));
            let patch = NodePatch {
                annotations: BTreeMap::from([(HOLDS_ANNOTATION.to_owned(), annotation)]),
                schedulable: attempts.node().schedulable.then_some(false),
                ..NodePatch::default()
            };
            if let Some(changed) = attempts.send(patch).await? {
                let stored = plan.stored.clone().unwrap_or_else(|| plan.hold.clone());
                return Ok(Some(Brought { changed, hold, stored }));
            }
        }
    }

    /// The hold with this id, if it is not ended.
    pub(crate) async fn find_hold(&self, target: &Target, id: Uuid) -> Result<Option<Hold>, ChangeError> {
        let stored = self.holds_of(target).await?;
        Ok(stored.into_iter().find(|hold| hold.id == id))
    }

    /// The holds on a node that satisfy `is_meant`. One that is active and that this state of the node does not have any more is being released
    /// by somebody who has not written that down yet: that is waited for, but not for long, because whoever edits annotations by hand takes
    /// no hold away.
    pub(super) async fn holds_at(
        &self,
        target: &Target,
        node: &Node,
        is_meant: impl Fn(&Hold) -> bool + Send,
    ) -> Result<Vec<Hold>, ChangeError> {
        let mut looks = 1;
        loop {
            let mut holds = self.holds_of(target).await?;
            holds.retain(|hold| is_meant(hold));
            let is_left = |hold: &Hold| hold.state == HoldState::Active && noted(node, hold.id).is_none();
            if looks == LOOKS || !holds.iter().any(is_left) {
                return Ok(holds);
            }
            looks += 1;
            tokio::time::sleep(BETWEEN_LOOKS).await;
        }
    }

    /// The holds that are noted on the node and that the store does not know: it was put back to an earlier state, or the node was looked after
    /// with another one. Whoever made them wants the node cordoned. The store is not asked about those of which `is_ours` knows.
    pub(super) async fn strangers(
        &self,
        node: &Node,
        is_ours: impl Fn(Uuid) -> bool + Send,
    ) -> Result<Vec<NotedHold>, ChangeError> {
        let mut strangers = Vec::new();
        for note in node.cordon.iter().flat_map(|cordon| &cordon.holds) {
            let Some(id) = note.id.filter(|id| !is_ours(*id)) else {
                continue;
            };
            let is_known = self.holds.is_known(id).await;
            if !is_known.map_err(|source| ChangeError::Holds { source })? {
                strangers.push(note.clone());
            }
        }
        Ok(strangers)
    }

    pub(super) async fn holds_of(&self, target: &Target) -> Result<Vec<Hold>, ChangeError> {
        let holds = self.holds.of_node(&target.cluster.name, &target.name).await;
        holds.map_err(|source| ChangeError::Holds { source })
    }
}

/// Whether holds of this service are noted on the node.
pub(super) fn has_notes(node: &Node) -> bool {
    node.cordon.as_ref().is_some_and(|cordon| !cordon.holds.is_empty())
}

/// The hold with this id, as it is noted on the node.
pub(super) fn noted(node: &Node, id: Uuid) -> Option<&NotedHold> {
    let noted = node.cordon.iter().flat_map(|cordon| &cordon.holds);
    noted.into_iter().find(|noted| noted.id == Some(id))
}

/// Whether somebody else cordoned the node, in this state of it, before `hold` and the holds that are stored beside it.
fn is_over_foreign(hold: &Hold, node: &Node, others: &[Hold]) -> bool {
    if node.schedulable {
        return false;
    }
    if let Some(note) = noted(node, hold.id) {
        return hold.over_foreign || note.over_foreign;
    }
    let mut holders = others
        .iter()
        .filter_map(|other| Some((other, noted(node, other.id)?)))
        .peekable();
    // Whoever keeps pods off a node that none of us holds is somebody else.
    holders.peek().is_none() || holders.any(|(other, note)| other.over_foreign || note.over_foreign)
}

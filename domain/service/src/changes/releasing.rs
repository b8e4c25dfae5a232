//! Holds on their way off nodes.

use std::collections::BTreeMap;

use knm_model::{
    Cordon, CordonSource, FIRST_VERSION_REASON_ANNOTATION, FIRST_VERSION_TIMESTAMP_ANNOTATION, HOLDS_ANNOTATION, Hold,
    HoldState, Node, NodePatch, NotedHold, holds_annotation,
};
use uuid::Uuid;

use super::attempt::Attempts;
use super::bringing::{has_notes, noted};
use super::{Asked, ChangeError, NodeChanged, NodeChanges, Target, Uncordon};

/// What the end of holds does to their node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Frees {
    /// It becomes schedulable with its last hold, unless somebody else had cordoned it before.
    WithLastHold,
    /// It becomes schedulable with its last hold, whoever cordoned it.
    ByForce,
    /// Nothing: it is schedulable already, and who cordons it next has nothing to do with them.
    Never,
}

impl NodeChanges {
    /// Takes the holds off the node that `request` names, and returns them: they are over, which is not stored yet.
    pub(crate) async fn free(
        &self,
        target: &Target,
        request: &Uncordon,
        asked: &Asked,
    ) -> Result<(NodeChanged, Vec<Hold>), ChangeError> {
        let before = self.holds_of(target).await?;
        let mut attempts = Attempts::begin_fresh(target, asked).await?;
        let (released, frees) = released(target, request, asked, &before, attempts.node())?;
        let done = self.release(target, &mut attempts, &released, frees).await?;
        Ok((done, released))
    }

    /// Takes a hold off its node that somebody ended while it was brought there.
    pub(crate) async fn take_off(&self, target: &Target, id: Uuid, asked: &Asked) -> Result<(), ChangeError> {
        // It is not the state that the caller knows any more, and the caller wants no dead hold in any.
        let asked = Asked {
            known: None,
            ..asked.clone()
        };
        let mut attempts = Attempts::begin_fresh(target, &asked).await?;
        if noted(attempts.node(), id).is_none() {
            return Ok(());
        }
        self.release_ids(target, &mut attempts, &[id], Frees::WithLastHold)
            .await
            .map(drop)
    }

    /// Takes `released` off the node.
    pub(super) async fn release(
        &self,
        target: &Target,
        attempts: &mut Attempts<'_>,
        released: &[Hold],
        frees: Frees,
    ) -> Result<NodeChanged, ChangeError> {
        let ids: Vec<Uuid> = released.iter().map(|hold| hold.id).collect();
        let frees = match frees {
            Frees::WithLastHold if released.iter().any(|hold| hold.over_foreign) => Frees::Never,
            frees => frees,
        };
        self.release_ids(target, attempts, &ids, frees).await
    }

    async fn release_ids(
        &self,
        target: &Target,
        attempts: &mut Attempts<'_>,
        released: &[Uuid],
        frees: Frees,
    ) -> Result<NodeChanged, ChangeError> {
        let is_on = |node: &Node| released.iter().any(|id| noted(node, *id).is_some());
        // Whoever edits annotations by hand takes no hold away.
        let is_edited = !attempts.node().schedulable && !is_on(attempts.node());
        loop {
            let is_other = |hold: &Hold| !released.contains(&hold.id);
            let left = self.holds_at(target, attempts.node(), is_other).await?;
            let node = attempts.node();
            let is_ours = |id: Uuid| released.contains(&id) || left.iter().any(|hold| hold.id == id);
            let strangers = match frees {
                Frees::ByForce => Vec::new(),
                Frees::WithLastHold | Frees::Never => self.strangers(node, is_ours).await?,
            };
            let may_free = match frees {
                Frees::ByForce => true,
                // Where they stood on the node and do not any more, somebody released them, and somebody else cordoned the node.
                Frees::WithLastHold => (is_edited || is_on(node)) && !is_noted_over_foreign(node, released),
                Frees::Never => false,
            };
            let opens = !node.schedulable && left.is_empty() && strangers.is_empty() && may_free;
            let mut annotations = BTreeMap::new();
            if has_notes(node) || !released.is_empty() {
                let notes = left.iter().map(NotedHold::from).chain(strangers);
                annotations.insert(HOLDS_ANNOTATION.to_owned(), holds_annotation(notes));
            }
            let is_first_version = |cordon: &Cordon| cordon.source == CordonSource::FirstVersion;
            if opens && node.cordon.as_ref().is_some_and(is_first_version) {
                annotations.insert(FIRST_VERSION_REASON_ANNOTATION.to_owned(), None);
                annotations.insert(FIRST_VERSION_TIMESTAMP_ANNOTATION.to_owned(), None);
            }
            let patch = NodePatch {
                annotations,
                schedulable: opens.then_some(true),
                ..NodePatch::default()
            };
            if let Some(done) = attempts.send(patch).await? {
                return Ok(done);
            }
        }
    }

    /// Marks a hold as over; if that cannot be done now, the keeper will find that the node does not have it.
    pub(super) async fn end(&self, hold: &Hold) {
        if let Err(error) = self.holds.advance(hold.id, HoldState::Ended, self.clock.now()).await {
            tracing::warn!(hold = %hold.id, error = &error as &dyn std::error::Error, "a hold could not be ended");
        }
    }
}

/// Which of the holds `before` are released, and what that does to their node.
fn released(
    target: &Target,
    request: &Uncordon,
    asked: &Asked,
    before: &[Hold],
    node: &Node,
) -> Result<(Vec<Hold>, Frees), ChangeError> {
    let only = |keep: &dyn Fn(&Hold) -> bool| before.iter().filter(|hold| keep(hold)).cloned().collect::<Vec<_>>();
    // One that is active was on the node, and somebody uncordoned that; others are just being made.
    let is_over = |hold: &Hold| node.schedulable && hold.state == HoldState::Active;
    if let Some(id) = request.hold {
        let found = only(&|hold| hold.id == id);
        let frees = match found.iter().any(is_over) {
            true => Frees::Never,
            false => Frees::WithLastHold,
        };
        return match found.is_empty() {
            true => Err(ChangeError::UnknownHold {
                node: target.name.clone(),
                id,
            }),
            false => Ok((found, frees)),
        };
    }
    if request.force {
        return Ok((before.to_vec(), Frees::ByForce));
    }
    if node.schedulable {
        return Ok((only(&is_over), Frees::Never));
    }
    let own = only(&|hold| hold.holder == asked.actor.label());
    match (own.is_empty(), before.is_empty()) {
        (false, _) => Ok((own, Frees::WithLastHold)),
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

/// Whether one of these holds is noted as being over a cordon of somebody else.
fn is_noted_over_foreign(node: &Node, released: &[Uuid]) -> bool {
    let mut notes = released.iter().filter_map(|id| noted(node, *id));
    notes.any(|note| note.over_foreign)
}

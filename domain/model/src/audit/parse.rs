//! Reads the parameters of a list of records.

use super::{AuditAction, AuditFilter, AuditOutcome, AuditQuery, RawAuditQuery};
use crate::parameter::{Errors, Refusal, quoted, time, uuid, whole_number, word};
use crate::{ClusterName, NodeName, QueryError};

/// A page is never larger.
const LARGEST_PAGE: usize = 1_000;

pub(super) fn parse(raw: &RawAuditQuery) -> Result<AuditQuery, Vec<QueryError>> {
    let mut errors = Errors::default();
    let cluster = errors.read("cluster", &raw.cluster, |text| {
        ClusterName::parse(text).map_err(|error| (None, error.to_string()))
    });
    let node = errors.read("node", &raw.node, |text| {
        NodeName::parse(text).map_err(|error| (None, error.to_string()))
    });
    let actor = errors.read("actor", &raw.actor, word);
    let action = errors.read("action", &raw.action, action);
    let outcome = errors.read("outcome", &raw.outcome, outcome);
    let from = errors.read("from", &raw.from, time);
    let until = errors.read("until", &raw.until, |text| match (from, time(text)?) {
        (Some(from), until) if until <= from => Err((
            None,
            format!("{} is not later than from: nothing lies between them", quoted(text)),
        )),
        (_, until) => Ok(until),
    });
    let reason = errors.read("reason", &raw.reason, word);
    let operation = errors.read("operation", &raw.operation, |text| {
        uuid(text).ok_or_else(|| {
            (
                None,
                format!("{} is not the id of an operation: a UUID is", quoted(text)),
            )
        })
    });
    let limit = errors.read("limit", &raw.limit, |text| whole_number(text, LARGEST_PAGE));
    let before = errors.read("cursor", &raw.cursor, |text| {
        uuid(text).ok_or_else(|| {
            let message = format!(
                "{} is not a cursor: the next_cursor of an earlier answer is expected",
                quoted(text)
            );
            (None, message)
        })
    });
    errors.none()?;
    Ok(AuditQuery {
        filter: AuditFilter {
            cluster,
            node,
            actor,
            action,
            outcome,
            from,
            until,
            reason,
            operation,
        },
        limit: limit.and_then(|limit| u32::try_from(limit).ok()),
        before,
    })
}

fn action(text: &str) -> Result<AuditAction, Refusal> {
    AuditAction::parse(text).ok_or_else(|| {
        let known = AuditAction::ALL.map(AuditAction::as_str).join(", ");
        (
            None,
            format!("{} is not an action: one of {known} is expected", quoted(text)),
        )
    })
}

fn outcome(text: &str) -> Result<Option<AuditOutcome>, Refusal> {
    if text == AuditOutcome::PENDING {
        return Ok(None);
    }
    AuditOutcome::parse(text).map(Some).ok_or_else(|| {
        let known = AuditOutcome::ALL.map(AuditOutcome::as_str).join(", ");
        let pending = AuditOutcome::PENDING;
        (
            None,
            format!(
                "{} is not an outcome: one of {pending}, {known} is expected",
                quoted(text)
            ),
        )
    })
}

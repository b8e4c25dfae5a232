//! Holds: who keeps a node cordoned, why and for how long.

use serde_json::{Value, json};
use uuid::Uuid;

use crate::text::unprintable;
use crate::{AuditRecord, ClusterName, NodeName, NotedHold, QueryError, Timestamp, excerpt};

/// The longest reason, in characters.
const LONGEST_REASON: usize = 500;
/// The longest ticket, in characters.
const LONGEST_TICKET: usize = 100;

/// A hold on a node. The node becomes schedulable again when its last hold is released.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hold {
    /// A UUID v7: ids sort by the time of the holds.
    pub id: Uuid,
    /// The cluster.
    pub cluster: ClusterName,
    /// The node.
    pub node: NodeName,
    /// Who holds it, see [`Actor::label`](crate::Actor::label).
    pub holder: String,
    /// Why.
    pub reason: String,
    /// The holder's ticket.
    pub ticket: Option<String>,
    /// Since when.
    pub since: Timestamp,
    /// When it ends by itself; `None`: it does not.
    pub until: Option<Timestamp>,
    /// Whether the node was cordoned by somebody else before: then it stays so when the last hold is released.
    pub over_foreign: bool,
    /// How far it is.
    pub state: HoldState,
}

/// How far a hold is. It only ever moves on in this order, and may leave the middle out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum HoldState {
    /// Stored, and perhaps not on the node yet.
    Pending,
    /// On the node.
    Active,
    /// Over.
    Ended,
}

/// What becomes of a hold that is not ended, beyond its state.
#[derive(Clone, Debug, PartialEq)]
pub enum HoldChange {
    /// It has another end; `None`: it does not end by itself.
    Until(Option<Timestamp>),
    /// Whether it is over a cordon of somebody else, as that turned out on the node.
    OverForeign(bool),
    /// Somebody uncordoned the node without this service, which ended it. The record tells of that.
    EndedOutside(Box<AuditRecord>),
}

/// Why, for what and how long somebody wants to hold a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HoldRequest {
    /// Why.
    pub reason: String,
    /// The ticket.
    pub ticket: Option<String>,
    /// When it ends by itself.
    pub until: Option<Timestamp>,
}

impl Hold {
    /// Whether its time is up.
    #[must_use]
    pub fn is_over(&self, now: Timestamp) -> bool {
        self.until.is_some_and(|until| until <= now)
    }
}

impl HoldState {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Pending, Self::Active, Self::Ended];

    /// `pending`, `active` or `ended`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Active => "active",
            Self::Ended => "ended",
        }
    }
}

impl HoldRequest {
    /// Checks what a caller wants.
    ///
    /// # Errors
    /// Everything that is wrong with it, at once.
    pub fn parse(
        reason: &str,
        ticket: Option<&str>,
        until: Option<&str>,
        now: Timestamp,
    ) -> Result<Self, Vec<QueryError>> {
        let mut errors = Vec::new();
        errors.extend(check_reason(reason).err());
        if let Some(ticket) = ticket {
            errors.extend(check_ticket(ticket).err());
        }
        let until = until.and_then(|text| match Timestamp::parse(text) {
            Ok(until) if until <= now => {
                let message = format!("\"{}\" is over: a time in the future is expected", excerpt(text));
                errors.push(QueryError::new("until", message));
                None
            }
            Ok(until) => Some(until),
            Err(_) => {
                let message = format!(
                    "\"{}\" is not a time: RFC 3339 is expected, such as 2030-01-31T12:00:00Z",
                    excerpt(text)
                );
                errors.push(QueryError::new("until", message));
                None
            }
        });
        if !errors.is_empty() {
            return Err(errors);
        }
        Ok(Self {
            reason: reason.to_owned(),
            ticket: ticket.map(str::to_owned),
            until,
        })
    }
}

/// Checks a reason: it goes into the audit log and onto nodes.
///
/// # Errors
/// What is wrong with it.
pub fn check_reason(text: &str) -> Result<(), QueryError> {
    check_text("reason", text, LONGEST_REASON)
}

/// Checks a ticket, as [`check_reason`] checks a reason.
pub(crate) fn check_ticket(text: &str) -> Result<(), QueryError> {
    check_text("ticket", text, LONGEST_TICKET)
}

/// What stands in [`HOLDS_ANNOTATION`](crate::HOLDS_ANNOTATION) for these holds; `None` for none of them.
#[must_use]
pub fn holds_annotation(holds: impl IntoIterator<Item = NotedHold>) -> Option<String> {
    let write = |hold: NotedHold| -> Value {
        let texts = [("by", hold.by), ("reason", hold.reason), ("ticket", hold.ticket)];
        let times = [("since", hold.since), ("until", hold.until)];
        let id = hold.id.map(|id| ("id", json!(id)));
        let texts = texts.into_iter().filter_map(|(key, text)| Some((key, json!(text?))));
        let times = times.into_iter().filter_map(|(key, time)| Some((key, json!(time?))));
        let over_foreign = hold.over_foreign.then_some(("over_foreign", json!(true)));
        id.into_iter().chain(texts).chain(times).chain(over_foreign).collect()
    };
    let entries: Vec<Value> = holds.into_iter().map(write).collect();
    (!entries.is_empty()).then(|| Value::from(entries).to_string())
}

impl From<&Hold> for NotedHold {
    fn from(hold: &Hold) -> Self {
        Self {
            id: Some(hold.id),
            by: Some(hold.holder.clone()),
            reason: Some(hold.reason.clone()),
            ticket: hold.ticket.clone(),
            since: Some(hold.since),
            until: hold.until,
            over_foreign: hold.over_foreign,
        }
    }
}

fn check_text(parameter: &'static str, text: &str, longest: usize) -> Result<(), QueryError> {
    let length = text.chars().count();
    if text.trim().is_empty() {
        return Err(QueryError::new(
            parameter,
            format!("it is empty: 1 to {longest} characters are expected"),
        ));
    }
    if longest < length {
        return Err(QueryError::new(
            parameter,
            format!("it has {length} characters: at most {longest} are allowed"),
        ));
    }
    if let Some(character) = unprintable(text) {
        let message = format!(
            "\"{}\" has the control character {}: printable characters are expected",
            excerpt(text),
            character.escape_debug()
        );
        return Err(QueryError::new(parameter, message));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::{Cordon, HOLDS_ANNOTATION};

    fn now() -> Timestamp {
        Timestamp::parse("2030-01-01T00:00:00Z").unwrap()
    }

    fn hold(number: u128, until: Option<Timestamp>) -> Hold {
        Hold {
            id: Uuid::from_u128(number),
            cluster: ClusterName::from_any("demo"),
            node: NodeName::parse("a").unwrap(),
            holder: "ann".to_owned(),
            reason: "disk \"sda\"".to_owned(),
            ticket: Some("OPS-1".to_owned()),
            since: now(),
            until,
            over_foreign: false,
            state: HoldState::Active,
        }
    }

    #[test]
    fn everything_that_is_wrong_with_a_hold_is_told_at_once() {
        let errors = HoldRequest::parse(" ", Some(&"x".repeat(101)), Some("tomorrow"), now()).unwrap_err();
        let parameters: Vec<_> = errors.iter().map(|error| error.parameter.as_ref()).collect();
        assert_eq!(parameters, ["reason", "ticket", "until"]);
        assert!(errors[1].message.contains("101") && errors[2].message.contains("\"tomorrow\""));
        for (reason, until, expected) in [
            ("a\nb", None, "control character \\n"),
            ("a\u{202e}b", None, "control character \\u{202e}"),
            ("fine", Some("2030-01-01T00:00:00Z"), "is over"),
        ] {
            let errors = HoldRequest::parse(reason, None, until, now()).unwrap_err();
            assert!(errors[0].message.contains(expected), "{errors:?}");
        }
        assert!(HoldRequest::parse("a disk", None, Some("2030-01-01T00:00:01Z"), now()).is_ok());
    }

    #[test]
    fn a_reason_and_a_ticket_are_kept_with_the_blanks_around_them() {
        let request = HoldRequest::parse("  a disk ", Some(" OPS-1 "), None, now()).unwrap();
        assert_eq!(
            (request.reason.as_str(), request.ticket.as_deref()),
            ("  a disk ", Some(" OPS-1 "))
        );
        let long = format!(" {} ", "x".repeat(LONGEST_REASON - 1));
        assert!(HoldRequest::parse(&long, None, None, now()).is_err(), "blanks count");
    }

    #[test]
    fn a_hold_is_over_at_its_end() {
        assert!(!hold(1, None).is_over(now()));
        assert!(hold(1, Some(now())).is_over(now()));
        let later = now().plus(std::time::Duration::from_millis(1));
        assert!(!hold(1, Some(later)).is_over(now()));
    }

    #[test]
    fn what_stands_on_the_node_is_read_back() {
        assert_eq!(holds_annotation([]), None);
        let over_foreign = Hold {
            over_foreign: true,
            ..hold(2, Some(now()))
        };
        let text = holds_annotation([&hold(1, None), &over_foreign].map(NotedHold::from)).unwrap();
        let annotations = BTreeMap::from([(HOLDS_ANNOTATION.to_owned(), text)]);
        let cordon = Cordon::read(&annotations, None);
        assert_eq!(cordon.by.as_deref(), Some("ann"));
        assert_eq!(cordon.holds.len(), 2);
        assert_eq!(cordon.holds[0].reason.as_deref(), Some("disk \"sda\""));
        assert_eq!(cordon.holds[1].id, Some(Uuid::from_u128(2)));
        assert_eq!(cordon.holds[1].until, Some(now()));
        assert_eq!(
            cordon.holds.iter().map(|hold| hold.over_foreign).collect::<Vec<_>>(),
            [false, true]
        );
        assert!(cordon.is_over_foreign());
        let again = holds_annotation(cordon.holds);
        assert_eq!(again.as_deref(), annotations.get(HOLDS_ANNOTATION).map(String::as_str));
    }
}

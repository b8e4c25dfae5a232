//! Which operations a reader wants, as it comes and as it is understood.

use uuid::Uuid;

use super::{OperationFilter, OperationKind, OperationState};
use crate::parameter::{Errors, Refusal, quoted, time, uuid, whole_number, word};
use crate::{ClusterName, NodeName, QueryError};

/// A page is never larger.
const LARGEST_PAGE: usize = 1_000;

/// The parameters of a list of operations as they came, unparsed; a parameter that was not given is `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RawOperationQuery {
    /// `cluster`.
    pub cluster: Option<String>,
    /// `node`.
    pub node: Option<String>,
    /// `kind`: one of [`OperationKind::ALL`].
    pub kind: Option<String>,
    /// `state`: some of [`OperationState::ALL`], separated by commas.
    pub state: Option<String>,
    /// `actor`.
    pub actor: Option<String>,
    /// `from`: RFC 3339.
    pub from: Option<String>,
    /// `until`: RFC 3339, later than `from`.
    pub until: Option<String>,
    /// `limit`: 1 to 1,000 operations a page.
    pub limit: Option<String>,
    /// `cursor`: the `next_cursor` of the page before.
    pub cursor: Option<String>,
}

/// Which operations a reader wants, and which of them now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OperationQuery {
    /// Which operations.
    pub filter: OperationFilter,
    /// At most so many; `None`: as many as is usual.
    pub limit: Option<u32>,
    /// Only those before this one: the last operation of the page before.
    pub before: Option<Uuid>,
}

impl OperationQuery {
    /// Parses the parameters of a list.
    ///
    /// # Errors
    /// All that is wrong, in the order of the parameters, never empty.
    pub fn parse(raw: &RawOperationQuery) -> Result<Self, Vec<QueryError>> {
        let mut errors = Errors::default();
        let cluster = errors.read("cluster", &raw.cluster, |text| {
            ClusterName::parse(text).map_err(|error| (None, error.to_string()))
        });
        let node = errors.read("node", &raw.node, |text| {
            NodeName::parse(text).map_err(|error| (None, error.to_string()))
        });
        let kind = errors.read("kind", &raw.kind, kind);
        let states = errors.read("state", &raw.state, |text| text.split(',').map(state).collect());
        let actor = errors.read("actor", &raw.actor, word);
        let from = errors.read("from", &raw.from, time);
        let until = errors.read("until", &raw.until, |text| match (from, time(text)?) {
            (Some(from), until) if until <= from => Err((
                None,
                format!("{} is not later than from: nothing lies between them", quoted(text)),
            )),
            (_, until) => Ok(until),
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
        Ok(Self {
            filter: OperationFilter {
                cluster,
                node,
                kind,
                states: states.unwrap_or_default(),
                actor,
                from,
                until,
                idempotency: None,
            },
            limit: limit.and_then(|limit| u32::try_from(limit).ok()),
            before,
        })
    }
}

fn kind(text: &str) -> Result<OperationKind, Refusal> {
    OperationKind::parse(text).ok_or_else(|| {
        let known = OperationKind::ALL.map(OperationKind::as_str).join(", ");
        (
            None,
            format!(
                "{} is not a kind of operation: one of {known} is expected",
                quoted(text)
            ),
        )
    })
}

fn state(text: &str) -> Result<OperationState, Refusal> {
    OperationState::parse(text).ok_or_else(|| {
        let known = OperationState::ALL.map(OperationState::as_str).join(", ");
        (
            None,
            format!(
                "{} is not a state of an operation: some of {known} are expected",
                quoted(text)
            ),
        )
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_given_is_understood() {
        let id = "01b8dac5-b400-7000-8000-00000000000a";
        let some = |text: &str| Some(text.to_owned());
        let query = OperationQuery::parse(&RawOperationQuery {
            cluster: some("prod"),
            node: some("worker-1"),
            kind: some("drain"),
            state: some("running,paused"),
            actor: some("ann"),
            from: some("2030-01-01T00:00:00Z"),
            until: some("2030-01-02T00:00:00Z"),
            limit: some("5"),
            cursor: some(id),
        });
        let query = query.unwrap();
        assert_eq!(query.filter.states, [OperationState::Running, OperationState::Paused]);
        assert_eq!(query.filter.kind, Some(OperationKind::Drain));
        assert_eq!((query.limit, query.before), (Some(5), Uuid::try_parse(id).ok()));
        assert_eq!(
            OperationQuery::parse(&RawOperationQuery::default()),
            Ok(OperationQuery::default())
        );
    }

    #[test]
    fn everything_that_is_wrong_is_told_at_once() {
        let some = |text: &str| Some(text.to_owned());
        let errors = OperationQuery::parse(&RawOperationQuery {
            cluster: some("Prod"),
            node: some("a_b"),
            kind: some("reboot"),
            state: some("running,lost"),
            actor: some(""),
            from: some("2030-01-02T00:00:00Z"),
            until: some("2030-01-01T00:00:00Z"),
            limit: some("1001"),
            cursor: some("x"),
        });
        let errors = errors.unwrap_err();
        let parameters: Vec<_> = errors.iter().map(|error| error.parameter.as_ref()).collect();
        assert_eq!(
            parameters,
            ["cluster", "node", "kind", "state", "actor", "until", "limit", "cursor"]
        );
        assert!(errors[3].message.contains("\"lost\"") && errors[3].message.contains("partly_failed"));
    }

    proptest! {
        #[test]
        fn no_parameter_makes_it_panic(texts in proptest::collection::vec(proptest::option::of("\\PC{0,40}|[0-9a-fA-F-]{30,40}|[0-9TZ:+.-]{0,30}"), 9)) {
            let mut texts = texts.into_iter().map(Option::unwrap_or_default).map(Some);
            let mut next = || texts.next().flatten();
            let _ = OperationQuery::parse(&RawOperationQuery {
                cluster: next(), node: next(), kind: next(), state: next(), actor: next(), from: next(), until: next(), limit: next(), cursor: next(),
            });
        }

        #[test]
        fn a_cursor_is_read_as_it_was_written_and_in_no_other_form(id in any::<u128>()) {
            let id = Uuid::from_u128(id);
            let read = |text: String| OperationQuery::parse(&RawOperationQuery { cursor: Some(text), ..RawOperationQuery::default() });
            prop_assert_eq!(read(id.to_string()).unwrap().before, Some(id));
            for other in [id.simple().to_string(), id.braced().to_string(), id.urn().to_string(), format!("{id} "), format!("+{id}")] {
                prop_assert!(read(other).is_err());
            }
        }
    }
}

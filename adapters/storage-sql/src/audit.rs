//! Rows and statements of `audit_records`. The statements are put together from fixed pieces; all values are bound.

use std::marker::PhantomData;

use knm_model::{
    Actor, ActorKind, AuditAction, AuditCompletion, AuditFilter, AuditOutcome, AuditRecord, ClusterName, NodeName,
    Timestamp,
};
use knm_ports::StorageError;
use serde_json::{Map, Value};
use sqlx::{Database, Encode, FromRow, QueryBuilder, Type};
use uuid::Uuid;

const SELECT: &str = "SELECT id, at_unix_ms, actor_name, actor_kind, actor_address, action, cluster, node, operation, \
    request_id, reason, ticket, options_json, outcome, completed_at_unix_ms, error, before_json, after_json \
    FROM audit_records WHERE true";
const INSERT: &str = "INSERT INTO audit_records (id, at_unix_ms, actor_name, actor_kind, actor_address, action, cluster, \
    node, operation, request_id, reason, ticket, options_json, outcome, completed_at_unix_ms, error, before_json, \
    after_json) ";
/// Both databases call the columns of a list of values so.
const COMPLETE_ALL: &str = "UPDATE audit_records SET outcome = told.column2, completed_at_unix_ms = told.column3, \
    error = told.column4, before_json = told.column5, after_json = told.column6 FROM (";
/// How far the time in an id may be from the time of its record. It bounds how much of the table is read for a span of time.
const SLACK_MS: i64 = 3_600_000;

/// A row of `audit_records`.
#[derive(Clone, Debug, FromRow)]
pub struct AuditRow {
    id: Uuid,
    at_unix_ms: i64,
    actor_name: Option<String>,
    actor_kind: String,
    actor_address: Option<String>,
    action: String,
    cluster: String,
    node: Option<String>,
    operation: Option<Uuid>,
    request_id: Option<String>,
    reason: Option<String>,
    ticket: Option<String>,
    options_json: String,
    outcome: String,
    completed_at_unix_ms: Option<i64>,
    error: Option<String>,
    before_json: Option<String>,
    after_json: Option<String>,
}

/// Reads a row.
///
/// # Errors
/// [`StorageError::Corrupt`] if it holds what this program does not write.
pub fn audit_record(row: AuditRow) -> Result<AuditRecord, StorageError> {
    let id = row.id;
    let corrupt = |message: String| StorageError::Corrupt {
        what: "audit record",
        message: format!("{id}: {message}"),
    };
    let unknown = |column: &str, value: &str| corrupt(format!("the {column} \"{value}\" is not known"));
    let time = |column: &str, milliseconds: i64| {
        Timestamp::from_unix_millis(milliseconds).ok_or_else(|| {
            corrupt(format!(
                "{column} {milliseconds} is not a time between the years -9999 and 9999"
            ))
        })
    };
    let object = |column: &str, text: Option<&str>| {
        serde_json::from_str::<Map<String, Value>>(text.unwrap_or("{}"))
            .map_err(|error| corrupt(format!("{column} is not a JSON object: {error}")))
    };
    let completion = match (row.outcome.as_str(), row.completed_at_unix_ms) {
        (AuditOutcome::PENDING, _) => None,
        (_, None) => return Err(corrupt("it has an outcome and no completed_at_unix_ms".to_owned())),
        (outcome, Some(at)) => Some(AuditCompletion {
            outcome: AuditOutcome::parse(outcome).ok_or_else(|| unknown("outcome", outcome))?,
            at: time("completed_at_unix_ms", at)?,
            error: row.error,
            before: object("before_json", row.before_json.as_deref())?,
            after: object("after_json", row.after_json.as_deref())?,
        }),
    };
    Ok(AuditRecord {
        id,
        at: time("at_unix_ms", row.at_unix_ms)?,
        actor: Actor {
            name: row.actor_name,
            kind: ActorKind::parse(&row.actor_kind).ok_or_else(|| unknown("actor_kind", &row.actor_kind))?,
            address: row.actor_address,
        },
        action: AuditAction::parse(&row.action).ok_or_else(|| unknown("action", &row.action))?,
        cluster: ClusterName::parse(&row.cluster).map_err(|error| corrupt(error.to_string()))?,
        node: row
            .node
            .map(|node| NodeName::parse(&node).map_err(|error| corrupt(error.to_string())))
            .transpose()?,
        operation: row.operation,
        request_id: row.request_id,
        reason: row.reason,
        ticket: row.ticket,
        options: object("options_json", Some(&row.options_json))?,
        completion,
    })
}

/// The statements on `audit_records`, which are the same in both dialects but for one function.
#[derive(Debug)]
pub struct AuditStatements<DB> {
    /// Where a text is in the reason in lower case, without the text and the closing bracket; 0 if it is not.
    place_in_reason: &'static str,
    dialect: PhantomData<fn() -> DB>,
}

impl<DB> AuditStatements<DB>
where
    DB: Database,
    DB::Arguments: Default,
    for<'t> i64: Encode<'t, DB> + Type<DB>,
    for<'t> Option<i64>: Encode<'t, DB> + Type<DB>,
    for<'t> String: Encode<'t, DB> + Type<DB>,
    for<'t> Option<String>: Encode<'t, DB> + Type<DB>,
    for<'t> &'static str: Encode<'t, DB> + Type<DB>,
    for<'t> Uuid: Encode<'t, DB> + Type<DB>,
    for<'t> Option<Uuid>: Encode<'t, DB> + Type<DB>,
{
    /// The statements of a dialect, which finds a text in the reason by `place_in_reason`: what comes before the text, as in
    /// `instr(lower(reason), `.
    #[must_use]
    pub fn new(place_in_reason: &'static str) -> Self {
        Self {
            place_in_reason,
            dialect: PhantomData,
        }
    }

    /// Adds `record`.
    #[must_use]
    pub fn open(&self, record: &AuditRecord) -> QueryBuilder<DB> {
        self.open_all(std::slice::from_ref(record))
    }

    /// Adds all of `records`.
    #[must_use]
    pub fn open_all(&self, records: &[AuditRecord]) -> QueryBuilder<DB> {
        let mut statement = QueryBuilder::new(INSERT);
        statement.push_values(records, |mut values, record| {
            let completion = record.completion.as_ref();
            values
                .push_bind(record.id)
                .push_bind(record.at.unix_millis())
                .push_bind(record.actor.name.clone())
                .push_bind(record.actor.kind.as_str())
                .push_bind(record.actor.address.clone())
                .push_bind(record.action.as_str())
                .push_bind(record.cluster.as_str().to_owned())
                .push_bind(record.node.as_ref().map(|node| node.as_str().to_owned()))
                .push_bind(record.operation)
                .push_bind(record.request_id.clone())
                .push_bind(record.reason.clone())
                .push_bind(record.ticket.clone())
                .push_bind(json(&record.options))
                .push_bind(outcome(record.outcome()))
                .push_bind(completion.map(|completion| completion.at.unix_millis()))
                .push_bind(completion.and_then(|completion| completion.error.clone()))
                .push_bind(completion.map(|completion| json(&completion.before)))
                .push_bind(completion.map(|completion| json(&completion.after)));
        });
        statement
    }

    /// Completes the record with this id if it is not completed yet.
    #[must_use]
    pub fn complete(&self, id: Uuid, completion: &AuditCompletion) -> QueryBuilder<DB> {
        let mut statement = completing(completion);
        statement.push(" AND id = ").push_bind(id);
        statement
    }

    /// Completes those of the records with these ids that are not completed yet.
    #[must_use]
    pub fn complete_all(&self, completions: &[(Uuid, AuditCompletion)]) -> QueryBuilder<DB> {
        let mut statement = QueryBuilder::new(COMPLETE_ALL);
        statement.push_values(completions, |mut values, (id, completion)| {
            values
                .push_bind(*id)
                .push_bind(completion.outcome.as_str())
                .push_bind(completion.at.unix_millis())
                .push_bind(completion.error.clone())
                .push_bind(json(&completion.before))
                .push_bind(json(&completion.after));
        });
        statement.push(") AS told WHERE id = told.column1 AND audit_records.outcome = ");
        statement.push_bind(AuditOutcome::PENDING);
        statement
    }

    /// Completes the records without an operation that were written before `opened_before` and not completed since.
    #[must_use]
    pub fn give_up(&self, opened_before: Timestamp, completion: &AuditCompletion) -> QueryBuilder<DB> {
        let mut statement = completing(completion);
        statement
            .push(" AND operation IS NULL AND at_unix_ms < ")
            .push_bind(opened_before.unix_millis_rounded_up());
        statement
    }

    /// The record with this id.
    #[must_use]
    pub fn find(&self, id: Uuid) -> QueryBuilder<DB> {
        let mut statement = QueryBuilder::new(SELECT);
        statement.push(" AND id = ").push_bind(id);
        statement
    }

    /// Records that satisfy `filter`, the latest id first.
    #[must_use]
    pub fn page(&self, filter: &AuditFilter, before: Option<Uuid>, limit: u32) -> QueryBuilder<DB> {
        let mut statement = QueryBuilder::new(SELECT);
        if let Some(cluster) = &filter.cluster {
            statement.push(" AND cluster = ").push_bind(cluster.as_str().to_owned());
        }
        if let Some(node) = &filter.node {
            statement.push(" AND node = ").push_bind(node.as_str().to_owned());
        }
        if let Some(actor) = &filter.actor {
            statement
                .push(" AND coalesce(actor_name, actor_kind) = ")
                .push_bind(actor.clone());
        }
        if let Some(action) = filter.action {
            statement.push(" AND action = ").push_bind(action.as_str());
        }
        if let Some(wanted) = filter.outcome {
            statement.push(" AND outcome = ").push_bind(outcome(wanted));
        }
        if let Some(operation) = filter.operation {
            statement.push(" AND operation = ").push_bind(operation);
        }
        if let Some(text) = &filter.reason {
            statement
                .push(" AND 0 < ")
                .push(self.place_in_reason)
                .push_bind(text.to_ascii_lowercase())
                .push(")");
        }
        if let Some(from) = filter.from.map(Timestamp::unix_millis_rounded_up) {
            statement.push(" AND at_unix_ms >= ").push_bind(from);
            statement.push(" AND id >= ").push_bind(first_id(from - SLACK_MS));
        }
        let mut below = before;
        if let Some(until) = filter.until.map(Timestamp::unix_millis_rounded_up) {
            statement.push(" AND at_unix_ms < ").push_bind(until);
            let end = id_above(until);
            below = Some(below.map_or(end, |before| before.min(end)));
        }
        if let Some(below) = below {
            statement.push(" AND id < ").push_bind(below);
        }
        statement.push(" ORDER BY id DESC LIMIT ").push_bind(i64::from(limit));
        statement
    }

    /// Removes completed records that were written before `at`, the oldest first.
    #[must_use]
    pub fn remove_before(&self, at: Timestamp, limit: u32) -> QueryBuilder<DB> {
        let at = at.unix_millis_rounded_up();
        let mut statement =
            QueryBuilder::new("DELETE FROM audit_records WHERE id IN (SELECT id FROM audit_records WHERE outcome <> ");
        statement.push_bind(AuditOutcome::PENDING);
        statement.push(" AND at_unix_ms < ").push_bind(at);
        statement.push(" AND id < ").push_bind(id_above(at));
        statement
            .push(" ORDER BY id LIMIT ")
            .push_bind(i64::from(limit))
            .push(")");
        statement
    }
}

/// The start of a statement that completes records which are not completed yet.
fn completing<DB>(completion: &AuditCompletion) -> QueryBuilder<DB>
where
    DB: Database,
    DB::Arguments: Default,
    for<'t> i64: Encode<'t, DB> + Type<DB>,
    for<'t> String: Encode<'t, DB> + Type<DB>,
    for<'t> Option<String>: Encode<'t, DB> + Type<DB>,
    for<'t> &'static str: Encode<'t, DB> + Type<DB>,
{
    let mut statement = QueryBuilder::new("UPDATE audit_records SET outcome = ");
    statement.push_bind(completion.outcome.as_str());
    statement
        .push(", completed_at_unix_ms = ")
        .push_bind(completion.at.unix_millis());
    statement.push(", error = ").push_bind(completion.error.clone());
    statement.push(", before_json = ").push_bind(json(&completion.before));
    statement.push(", after_json = ").push_bind(json(&completion.after));
    statement.push(" WHERE outcome = ").push_bind(AuditOutcome::PENDING);
    statement
}

fn outcome(outcome: Option<AuditOutcome>) -> &'static str {
    outcome.map_or(AuditOutcome::PENDING, AuditOutcome::as_str)
}

/// A JSON object as text.
#[must_use]
pub fn json(object: &Map<String, Value>) -> String {
    Value::Object(object.clone()).to_string()
}

/// An id above all that replicas gave out until this time, in milliseconds since 1970, though their clocks differ.
#[must_use]
pub fn id_above(milliseconds: i64) -> Uuid {
    first_id(milliseconds.saturating_add(SLACK_MS))
}

/// The smallest id that can be made at this time.
fn first_id(milliseconds: i64) -> Uuid {
    let milliseconds = u64::try_from(milliseconds).unwrap_or(0);
    uuid::Builder::from_unix_timestamp_millis(milliseconds, &[0; 10]).into_uuid()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row() -> AuditRow {
        AuditRow {
            id: first_id(1_500),
            at_unix_ms: 1_500,
            actor_name: Some("ada".to_owned()),
            actor_kind: "anonymous".to_owned(),
            actor_address: None,
            action: "node.cordon".to_owned(),
            cluster: "prod-eu".to_owned(),
            node: Some("worker-1".to_owned()),
            operation: None,
            request_id: None,
            reason: None,
            ticket: None,
            options_json: "{\"a\":1}".to_owned(),
            outcome: "pending".to_owned(),
            completed_at_unix_ms: None,
            error: None,
            before_json: None,
            after_json: None,
        }
    }

    #[test]
    fn a_row_becomes_a_record() {
        let record = audit_record(row()).unwrap();
        assert_eq!(record.action, AuditAction::NodeCordon);
        assert_eq!(record.at.to_string(), "1970-01-01T00:00:01.5Z");
        assert_eq!((record.options["a"].as_i64(), record.completion), (Some(1), None));
        let completed = audit_record(AuditRow {
            outcome: "failed".to_owned(),
            completed_at_unix_ms: Some(2_000),
            ..row()
        });
        assert_eq!(completed.unwrap().outcome(), Some(AuditOutcome::Failed));
    }

    #[test]
    fn a_row_that_nobody_here_wrote_is_corrupt_and_says_what() {
        type Damage = fn(&mut AuditRow);
        let damage: [(Damage, &str); 9] = [
            (|row| row.actor_kind = "ghost".to_owned(), "\"ghost\""),
            (|row| row.action = "node.explode".to_owned(), "\"node.explode\""),
            (|row| row.cluster = "Prod".to_owned(), "'P'"),
            (|row| row.node = Some("a_b".to_owned()), "'_'"),
            (|row| row.options_json = "[]".to_owned(), "options_json"),
            (|row| row.at_unix_ms = i64::MAX, "at_unix_ms"),
            (|row| row.outcome = "failed".to_owned(), "completed_at_unix_ms"),
            (
                |row| {
                    row.outcome = "happy".to_owned();
                    row.completed_at_unix_ms = Some(0);
                },
                "\"happy\"",
            ),
            (
                |row| {
                    row.outcome = "failed".to_owned();
                    row.completed_at_unix_ms = Some(0);
                    row.after_json = Some("{".to_owned());
                },
                "after_json",
            ),
        ];
        for (damage, expected) in damage {
            let mut row = row();
            damage(&mut row);
            let error = audit_record(row).unwrap_err();
            assert!(matches!(error, StorageError::Corrupt { .. }), "{error:?}");
            assert!(error.to_string().contains(expected), "{error}");
        }
    }
}

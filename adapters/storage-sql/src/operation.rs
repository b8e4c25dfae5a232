//! Rows of `operations`, `operation_targets` and `operation_events`.

use knm_model::{
    Actor, ActorKind, Authority, ClusterName, EventKind, NewEvent, NodeName, Operation, OperationEvent, OperationKind,
    OperationProgress, OperationState, OperationTarget, Strategy, TargetDetail, TargetState, Timestamp,
};
use knm_ports::StorageError;
use serde_json::{Map, Value};
use sqlx::FromRow;
use uuid::Uuid;

/// A row of `operations`, without its lease.
#[derive(Clone, Debug, FromRow)]
pub struct OperationRow {
    id: Uuid,
    kind: String,
    actor_name: Option<String>,
    actor_kind: String,
    actor_address: Option<String>,
    authority_json: Option<String>,
    request_id: Option<String>,
    reason: Option<String>,
    ticket: Option<String>,
    options_json: String,
    strategy_json: String,
    dry_run: bool,
    retry_of: Option<Uuid>,
    idempotency: Option<Vec<u8>>,
    created_at_unix_ms: i64,
    started_at_unix_ms: Option<i64>,
    ended_at_unix_ms: Option<i64>,
    state: String,
    message: Option<String>,
    total: i64,
    done: i64,
    failed: i64,
    skipped: i64,
    excused: i64,
}

/// A row of `operation_targets`.
#[derive(Clone, Debug, FromRow)]
pub struct OperationTargetRow {
    operation: Uuid,
    place: i64,
    cluster: String,
    node: String,
    zone: Option<String>,
    state: String,
    message: Option<String>,
    started_at_unix_ms: Option<i64>,
    ended_at_unix_ms: Option<i64>,
    audit: Option<Uuid>,
    hold: Option<Uuid>,
    detail_json: String,
}

/// Operation, number, time, kind and data of an event.
pub type OperationEventRow = (Uuid, i64, i64, String, String);

/// What makes a stored thing unreadable.
struct Corrupt {
    what: &'static str,
    operation: Uuid,
}

impl Corrupt {
    fn because(&self, message: impl std::fmt::Display) -> StorageError {
        StorageError::Corrupt {
            what: self.what,
            message: format!("of operation {}: {message}", self.operation),
        }
    }

    fn time(&self, column: &str, milliseconds: i64) -> Result<Timestamp, StorageError> {
        Timestamp::from_unix_millis(milliseconds).ok_or_else(|| {
            self.because(format!(
                "{column} {milliseconds} is not a time between the years -9999 and 9999"
            ))
        })
    }

    fn word<T>(&self, column: &str, text: &str, parse: fn(&str) -> Option<T>) -> Result<T, StorageError> {
        parse(text).ok_or_else(|| self.because(format!("the {column} \"{text}\" is not known")))
    }

    fn object(&self, column: &str, text: &str) -> Result<Map<String, Value>, StorageError> {
        serde_json::from_str(text).map_err(|error| self.because(format!("{column} is not a JSON object: {error}")))
    }

    fn digest(&self, column: &str, bytes: Vec<u8>) -> Result<[u8; 32], StorageError> {
        let wrong = |bytes: Vec<u8>| self.because(format!("{column} has {} bytes and not 32", bytes.len()));
        bytes.try_into().map_err(wrong)
    }

    fn count(&self, column: &str, number: i64) -> Result<u32, StorageError> {
        u32::try_from(number).map_err(|_| self.because(format!("{column} {number} is not a number of nodes")))
    }
}

/// Reads a row.
///
/// # Errors
/// [`StorageError::Corrupt`] if it holds what this program does not write.
pub fn operation(row: OperationRow) -> Result<Operation, StorageError> {
    let corrupt = Corrupt {
        what: "operation",
        operation: row.id,
    };
    let time = |column: &str, at: Option<i64>| at.map(|at| corrupt.time(column, at)).transpose();
    Ok(Operation {
        id: row.id,
        kind: corrupt.word("kind", &row.kind, OperationKind::parse)?,
        actor: Actor {
            name: row.actor_name,
            kind: corrupt.word("actor_kind", &row.actor_kind, ActorKind::parse)?,
            address: row.actor_address,
        },
        authority: match row.authority_json.as_deref() {
            // Not repeated: there may be claims in it.
            Some(text) => Authority::from_json(text)
                .ok_or_else(|| corrupt.because("authority_json is no authority that is known"))?,
            // It was accepted by a program that let everybody do everything.
            None => Authority::Open,
        },
        request_id: row.request_id,
        reason: row.reason,
        ticket: row.ticket,
        options: corrupt.object("options_json", &row.options_json)?,
        strategy: serde_json::from_str(&row.strategy_json)
            .map_err(|error| corrupt.because(format!("strategy_json cannot be read: {error}")))?,
        dry_run: row.dry_run,
        retry_of: row.retry_of,
        idempotency: row
            .idempotency
            .map(|bytes| corrupt.digest("idempotency", bytes))
            .transpose()?,
        created_at: corrupt.time("created_at_unix_ms", row.created_at_unix_ms)?,
        started_at: time("started_at_unix_ms", row.started_at_unix_ms)?,
        ended_at: time("ended_at_unix_ms", row.ended_at_unix_ms)?,
        state: corrupt.word("state", &row.state, OperationState::parse)?,
        message: row.message,
        progress: OperationProgress {
            total: corrupt.count("total", row.total)?,
            done: corrupt.count("done", row.done)?,
            failed: corrupt.count("failed", row.failed)?,
            skipped: corrupt.count("skipped", row.skipped)?,
        },
        excused: corrupt.count("excused", row.excused)?,
    })
}

/// Reads a row.
///
/// # Errors
/// [`StorageError::Corrupt`] if it holds what this program does not write.
pub fn operation_target(row: OperationTargetRow) -> Result<OperationTarget, StorageError> {
    let corrupt = Corrupt {
        what: "node of an operation",
        operation: row.operation,
    };
    let time = |column: &str, at: Option<i64>| at.map(|at| corrupt.time(column, at)).transpose();
    Ok(OperationTarget {
        place: corrupt.count("place", row.place)?,
        cluster: ClusterName::parse(&row.cluster).map_err(|error| corrupt.because(error))?,
        node: NodeName::parse(&row.node).map_err(|error| corrupt.because(error))?,
        zone: row.zone,
        state: corrupt.word("state", &row.state, TargetState::parse)?,
        message: row.message,
        started_at: time("started_at_unix_ms", row.started_at_unix_ms)?,
        ended_at: time("ended_at_unix_ms", row.ended_at_unix_ms)?,
        audit: row.audit,
        hold: row.hold,
        detail: TargetDetail::parse(&row.detail_json)
            .map_err(|error| corrupt.because(format!("detail_json is not a JSON object: {error}")))?,
    })
}

/// Reads a row.
///
/// # Errors
/// [`StorageError::Corrupt`] if it holds what this program does not write.
pub fn operation_event(row: OperationEventRow) -> Result<OperationEvent, StorageError> {
    let (operation, number, at, kind, data) = row;
    let corrupt = Corrupt {
        what: "event of an operation",
        operation,
    };
    Ok(OperationEvent {
        number: u64::try_from(number).map_err(|_| corrupt.because(format!("{number} is not a number of an event")))?,
        event: NewEvent {
            at: corrupt.time("at_unix_ms", at)?,
            kind: corrupt.word("kind", &kind, EventKind::parse)?,
            data: corrupt.object("data_json", &data)?,
        },
    })
}

/// What is stored of a strategy.
///
/// # Errors
/// [`StorageError::Internal`] if it cannot be written, which is a defect.
pub fn strategy_json(strategy: &Strategy) -> Result<String, StorageError> {
    serde_json::to_string(strategy).map_err(|error| StorageError::Internal { source: error.into() })
}

/// Reads a state.
///
/// # Errors
/// [`StorageError::Corrupt`] if it is none that this program writes.
pub fn operation_state(operation: Uuid, text: &str) -> Result<OperationState, StorageError> {
    let corrupt = Corrupt {
        what: "operation",
        operation,
    };
    corrupt.word("state", text, OperationState::parse)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row() -> OperationRow {
        OperationRow {
            id: Uuid::from_u128(7),
            kind: "drain".to_owned(),
            actor_name: None,
            actor_kind: "anonymous".to_owned(),
            actor_address: None,
            authority_json: None,
            request_id: None,
            reason: None,
            ticket: None,
            options_json: "{}".to_owned(),
            strategy_json: serde_json::to_string(&Strategy::of(OperationKind::Drain)).unwrap(),
            dry_run: false,
            retry_of: None,
            idempotency: None,
            created_at_unix_ms: 1_500,
            started_at_unix_ms: None,
            ended_at_unix_ms: None,
            state: "queued".to_owned(),
            message: None,
            total: 1,
            done: 0,
            failed: 0,
            skipped: 0,
            excused: 0,
        }
    }

    fn target() -> OperationTargetRow {
        OperationTargetRow {
            operation: Uuid::from_u128(7),
            place: 0,
            cluster: "prod".to_owned(),
            node: "worker-1".to_owned(),
            zone: None,
            state: "waiting".to_owned(),
            message: None,
            started_at_unix_ms: None,
            ended_at_unix_ms: None,
            audit: None,
            hold: None,
            detail_json: "{}".to_owned(),
        }
    }

    #[test]
    fn rows_become_values() {
        let read = operation(row()).unwrap();
        assert_eq!((read.kind, read.state), (OperationKind::Drain, OperationState::Queued));
        assert_eq!(read.strategy, Strategy::of(OperationKind::Drain));
        assert_eq!(read.authority, Authority::Open, "of before");
        let by_service = Some(Authority::Service.to_json());
        let read = operation(OperationRow {
            authority_json: by_service,
            ..row()
        });
        assert_eq!(read.unwrap().authority, Authority::Service);
        assert_eq!(operation_target(target()).unwrap().state, TargetState::Waiting);
        let event = (Uuid::from_u128(7), 1, 2, "node".to_owned(), "{\"a\":1}".to_owned());
        assert_eq!(operation_event(event).unwrap().event.kind, EventKind::Node);
    }

    #[test]
    fn rows_that_nobody_here_wrote_are_corrupt_and_say_what() {
        type Damage = fn(&mut OperationRow);
        let damage: [(Damage, &str); 10] = [
            (|row| row.kind = "reboot".to_owned(), "\"reboot\""),
            (|row| row.actor_kind = "ghost".to_owned(), "\"ghost\""),
            (|row| row.authority_json = Some("\"god\"".to_owned()), "authority_json"),
            (|row| row.authority_json = Some(String::new()), "authority_json"),
            (|row| row.state = "lost".to_owned(), "\"lost\""),
            (|row| row.options_json = "[]".to_owned(), "options_json"),
            (|row| row.strategy_json = "{}".to_owned(), "strategy_json"),
            (|row| row.failed = -1, "failed -1"),
            (|row| row.idempotency = Some(vec![7; 31]), "idempotency has 31 bytes"),
            (|row| row.created_at_unix_ms = i64::MAX, "created_at_unix_ms"),
        ];
        for (damage, expected) in damage {
            let mut row = row();
            damage(&mut row);
            let error = operation(row).unwrap_err();
            assert!(matches!(error, StorageError::Corrupt { .. }), "{error:?}");
            assert!(error.to_string().contains(expected), "{error}");
        }
        type TargetDamage = fn(&mut OperationTargetRow);
        let damage: [(TargetDamage, &str); 4] = [
            (|row| row.cluster = "Prod".to_owned(), "'P'"),
            (|row| row.node = "a_b".to_owned(), "'_'"),
            (|row| row.state = "lost".to_owned(), "\"lost\""),
            (|row| row.detail_json = "7".to_owned(), "detail_json"),
        ];
        for (damage, expected) in damage {
            let mut row = target();
            damage(&mut row);
            let error = operation_target(row).unwrap_err();
            assert!(error.to_string().contains(expected), "{error}");
        }
        let event = (Uuid::from_u128(7), -1, 2, "node".to_owned(), "{}".to_owned());
        assert!(operation_event(event).unwrap_err().to_string().contains("-1"));
    }
}

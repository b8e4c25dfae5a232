//! Those who read the events of an operation as they come.

use std::sync::Arc;

use knm_model::{EventKind, OperationEvent, OperationState};
use knm_ports::StorageError;
use metrics::histogram;
use serde_json::Value;
use uuid::Uuid;

use super::Operations;
use super::waiting::News;
use crate::metric;

/// How many events are read at once.
const EVENTS_AT_ONCE: u32 = 500;

/// Somebody who follows an operation.
pub(super) struct Follower {
    operations: Arc<Operations>,
    id: Uuid,
    after: u64,
    news: News,
    is_over: bool,
    /// Whether everything until now was read: what comes now did not happen before the reader came.
    is_live: bool,
}

impl Follower {
    /// Who wants the events of the operation after the one with the number `after`.
    pub(super) fn new(operations: Arc<Operations>, id: Uuid, after: u64) -> Self {
        Self {
            id,
            after,
            news: operations.waiting.follow(id),
            operations,
            is_over: false,
            is_live: false,
        }
    }

    /// The next events, as soon as there are some.
    pub(super) async fn advance(mut self) -> Option<(Result<Vec<OperationEvent>, StorageError>, Self)> {
        if self.is_over {
            return None;
        }
        loop {
            if self.is_live {
                self.news.next(self.operations.look_every).await;
            }
            match self.read().await {
                Ok(events) if events.is_empty() && self.is_over => return None,
                Ok(events) if events.is_empty() => {}
                Ok(events) => return Some((Ok(events), self)),
                Err(error) => {
                    self.is_over = true;
                    return Some((Err(error), self));
                }
            }
        }
    }

    async fn read(&mut self) -> Result<Vec<OperationEvent>, StorageError> {
        let store = &self.operations.store;
        // A reader who comes when it is over may have seen the event that says so. Before its events: what is over now has no later ones.
        let was_over = match self.is_live {
            true => false,
            false => store
                .find(self.id)
                .await?
                .is_none_or(|operation| operation.state.is_ended()),
        };
        let events = store.events_after(self.id, self.after, EVENTS_AT_ONCE).await?;
        if let Some(last) = events.last() {
            self.after = last.number;
        }
        if self.is_live {
            let now = self.operations.clock.now();
            for event in &events {
                histogram!(metric::OPERATION_EVENT_LAG).record(now.since(event.event.at).as_secs_f64());
            }
        }
        let is_complete = u32::try_from(events.len()).is_ok_and(|count| count < EVENTS_AT_ONCE);
        self.is_over = is_complete && (was_over || events.iter().any(is_end));
        // While there are more of them, they are still those of before.
        self.is_live = is_complete;
        Ok(events)
    }
}

/// Whether the event is the last one of its operation.
fn is_end(event: &OperationEvent) -> bool {
    let state = event.event.data.get("state").and_then(Value::as_str);
    let state = state.and_then(OperationState::parse);
    event.event.kind == EventKind::Operation && state.is_some_and(OperationState::is_ended)
}

//! Reads the audit log, and keeps it in order.

use std::sync::Arc;
use std::time::Duration;

use futures::Stream;
use knm_model::{Access, AuditCompletion, AuditFilter, AuditOutcome, AuditQuery, AuditRecord};
use knm_ports::{AuditLog, Clock, Leases, StorageError};
use metrics::counter;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;
use uuid::Uuid;

use crate::duty::{Duty, Terms, Turn};
use crate::inventory::Inventory;
use crate::metric;
use crate::visible::Visible;

/// How many records a page has if nobody says.
const USUAL_PAGE: u32 = 100;
/// How many records an export reads at once.
const EXPORT_PAGE: u32 = 500;
const DUTY: Terms = Terms {
    lease: "audit-keeper",
    every: Duration::from_secs(60),
    outlives: Duration::from_secs(180),
};
/// How many records are removed at once.
const BATCH: u32 = 1_000;
/// No change of a node takes longer; an intent that is older and has no operation belongs to a process that is gone.
const LONGEST_CHANGE: Duration = Duration::from_secs(600);
/// How often a completion that could not be written is tried again, each time after twice the pause.
const COMPLETION_ATTEMPTS: u32 = 8;
const ENDED: &str = "the process that tried it ended before it could tell";

/// How many records are read at once at least, for somebody who may not see all of them.
const LEAST_READ: u32 = 200;
/// How many records are looked at for a page of somebody who may not see all of them.
const MOST_LOOKED_AT: u32 = 2_000;

/// Reads the audit log.
pub struct Audit {
    log: Arc<dyn AuditLog>,
    inventory: Arc<Inventory>,
}

/// Records, and where to go on.
#[derive(Clone, Debug, PartialEq)]
pub struct AuditPage {
    /// The records, the latest first.
    pub records: Vec<AuditRecord>,
    /// The last of them if there are more: [`AuditQuery::before`] of the next page.
    pub next: Option<Uuid>,
}

impl Audit {
    /// Reads `log`, which is about the nodes of the clusters of `inventory`.
    pub fn new(log: Arc<dyn AuditLog>, inventory: Arc<Inventory>) -> Self {
        Self { log, inventory }
    }

    /// The page that `query` asks for, as far as it may be seen. There is no total: to count millions takes longer than to read a page. For
    /// somebody who does not see everything a page may be shorter than its limit although there are more: the next one goes on.
    ///
    /// # Errors
    /// What the store says.
    pub async fn page(&self, query: &AuditQuery, access: &Access) -> Result<AuditPage, StorageError> {
        let limit = query.limit.unwrap_or(USUAL_PAGE);
        let visible = self.inventory.visible_to(access);
        if visible.is_everything() {
            return read(&*self.log, &query.filter, query.before, limit).await;
        }
        let block = limit.max(LEAST_READ);
        let is_full = |records: &[AuditRecord]| u32::try_from(records.len()).is_ok_and(|count| limit <= count);
        let (mut records, mut before, mut looked_at) = (Vec::new(), query.before, 0);
        loop {
            let found = read(&*self.log, &query.filter, before, block).await?;
            for record in found.records {
                if is_full(&records) {
                    return Ok(AuditPage { records, next: before });
                }
                before = Some(record.id);
                if sees(visible, &record) {
                    records.push(record);
                }
            }
            looked_at += block;
            if found.next.is_none() || is_full(&records) || MOST_LOOKED_AT <= looked_at {
                let next = found.next;
                return Ok(AuditPage { records, next });
            }
        }
    }

    /// The record with this id, if it may be seen.
    ///
    /// # Errors
    /// What the store says.
    pub async fn find(&self, id: Uuid, access: &Access) -> Result<Option<AuditRecord>, StorageError> {
        let found = self.log.find(id).await?;
        Ok(found.filter(|record| sees(self.inventory.visible_to(access), record)))
    }

    /// All records that `query` asks for, not only a page of them, read a page at a time: no more than that is held in memory. It ends
    /// after the first error.
    pub fn export(
        &self,
        query: AuditQuery,
        access: Arc<Access>,
    ) -> impl Stream<Item = Result<Vec<AuditRecord>, StorageError>> + Send + use<> {
        let start = Export {
            log: Arc::clone(&self.log),
            inventory: Arc::clone(&self.inventory),
            access,
            filter: query.filter,
            place: Place::Before(query.before),
            left: query.limit,
        };
        futures::stream::unfold(start, Export::advance)
    }
}

/// An export under way.
struct Export {
    log: Arc<dyn AuditLog>,
    inventory: Arc<Inventory>,
    access: Arc<Access>,
    filter: AuditFilter,
    place: Place,
    /// How many records are still wanted; `None`: all.
    left: Option<u32>,
}

/// Where an export goes on.
enum Place {
    Before(Option<Uuid>),
    Ended,
}

impl Export {
    async fn advance(mut self) -> Option<(Result<Vec<AuditRecord>, StorageError>, Self)> {
        let Place::Before(before) = self.place else {
            return None;
        };
        let limit = self.left.unwrap_or(EXPORT_PAGE).min(EXPORT_PAGE);
        let mut page = read(&*self.log, &self.filter, before, limit).await;
        if let Ok(page) = &mut page {
            let visible = self.inventory.visible_to(&self.access);
            page.records.retain(|record| sees(visible, record));
            let told = u32::try_from(page.records.len()).unwrap_or(u32::MAX);
            self.left = self.left.map(|left| left.saturating_sub(told));
        }
        self.place = match &page {
            Ok(AuditPage { next: Some(next), .. }) if self.left != Some(0) => Place::Before(Some(*next)),
            Ok(_) | Err(_) => Place::Ended,
        };
        Some((page.map(|page| page.records), self))
    }
}

/// Whether a record may be seen.
fn sees(visible: Visible<'_>, record: &AuditRecord) -> bool {
    visible.is_everything() || visible.sees(record.cluster.as_str(), record.node.as_ref().map(|node| node.as_str()))
}

/// Reads one record more than a page has, to know whether there is a next page.
async fn read(
    log: &dyn AuditLog,
    filter: &AuditFilter,
    before: Option<Uuid>,
    limit: u32,
) -> Result<AuditPage, StorageError> {
    let mut records = log.page(filter, before, limit.saturating_add(1)).await?;
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let is_last = records.len() <= limit;
    records.truncate(limit);
    let last = records.last().map(|record| record.id);
    Ok(AuditPage {
        next: last.filter(|_| !is_last),
        records,
    })
}

/// Keeps the audit log in order: removes what is too old, and gives up intents of processes that are gone. One replica does so at a time.
pub struct AuditKeeper {
    /// The log.
    pub log: Arc<dyn AuditLog>,
    /// Decides which replica does it.
    pub leases: Arc<dyn Leases>,
    /// Tells how old records are.
    pub clock: Arc<dyn Clock>,
    /// This process, under a name that no other one has.
    pub owner: String,
    /// How long records are kept; `None`: for ever.
    pub retention: Option<Duration>,
}

impl AuditKeeper {
    /// Keeps it in order until `shutdown`.
    pub async fn keep(self, shutdown: CancellationToken) {
        let mut duty = Duty::new(DUTY, Arc::clone(&self.leases), self.owner.clone(), shutdown.clone());
        while let Some(turn) = duty.turn().await {
            if turn == Turn::Others {
                continue;
            }
            if let Some(Err(error)) = shutdown.run_until_cancelled(self.round(&duty)).await {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "the audit log could not be kept in order"
                );
            }
        }
    }

    async fn round(&self, duty: &Duty) -> Result<(), StorageError> {
        let now = self.clock.now();
        let unknown = AuditCompletion {
            outcome: AuditOutcome::Unknown,
            at: now,
            error: Some(ENDED.to_owned()),
            before: serde_json::Map::new(),
            after: serde_json::Map::new(),
        };
        let given_up = self.log.give_up(now.minus(LONGEST_CHANGE), &unknown).await?;
        if 0 < given_up {
            tracing::warn!(
                records = given_up,
                "audit records without an outcome were given up: nobody knows what came of them"
            );
        }
        let Some(retention) = self.retention else {
            return Ok(());
        };
        let mut removed = 0;
        loop {
            let batch = self.log.remove_before(now.minus(retention), BATCH).await?;
            removed += batch;
            if batch < u64::from(BATCH) || !duty.goes_on().await {
                break;
            }
        }
        if 0 < removed {
            tracing::info!(records = removed, "old audit records were removed");
        }
        Ok(())
    }
}

/// Writes what came of a change; if that cannot be done now, it is tried again while nobody waits for it.
pub(crate) async fn complete(log: &Arc<dyn AuditLog>, id: Uuid, completion: AuditCompletion) {
    let Err(error) = log.complete(id, &completion).await else {
        return;
    };
    counter!(metric::AUDIT_FAILURES).increment(1);
    tracing::warn!(
        audit_record = %id,
        error = &error as &dyn std::error::Error,
        "what came of a change could not be written and is tried again"
    );
    let log = Arc::clone(log);
    let retry = async move {
        for attempt in 0..COMPLETION_ATTEMPTS {
            tokio::time::sleep(Duration::from_secs(1 << attempt)).await;
            match log.complete(id, &completion).await {
                // Somebody gave it up meanwhile, or a try that seemed to fail did not.
                Ok(()) | Err(StorageError::Conflict { .. }) => return,
                Err(error) if error.is_transient() => {}
                Err(_) => break,
            }
        }
        tracing::error!(
            audit_record = %id,
            outcome = completion.outcome.as_str(),
            "what came of a change was not written: the record will say that nobody knows"
        );
    };
    tokio::spawn(retry.in_current_span());
}

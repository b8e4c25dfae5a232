//! Moves all that a store holds into another one, which is empty.

mod checksum;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::sync::Arc;

use knm_ports::{Cell, Row, StorageError, StoreContent, Table};
use tokio::sync::watch;

use crate::transfer::checksum::Checksum;

/// The table and the column that name the key of each stored secret.
const SEALED: (&str, &str) = ("registered_clusters", "key_id");
/// How many tables of somebody else are named.
const NAMED: usize = 5;

/// Moves all that `source` holds into `target`.
pub struct Transfer {
    /// It is read and stays as it is.
    pub source: Arc<dyn StoreContent>,
    /// It is filled by one transaction, or stays as it is.
    pub target: Arc<dyn StoreContent>,
    /// Who follows how far it is.
    pub progress: watch::Sender<TransferProgress>,
}

/// How far it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TransferProgress {
    /// What is being done.
    pub phase: Phase,
    /// With which table.
    pub table: &'static str,
    /// How many rows this was done with, of all tables.
    pub rows: u64,
    /// How many there are.
    pub of: u64,
}

impl TransferProgress {
    /// Before anything was done.
    pub const START: Self = Self {
        phase: Phase::Looking,
        table: "",
        rows: 0,
        of: 0,
    };
}

/// What is being done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// It is looked whether everything is as it must be.
    Looking,
    /// Rows are read from the one store and, if it is no rehearsal, written into the other one.
    Moving,
    /// Rows are read back.
    Checking,
    /// The transaction ends.
    Keeping,
}

/// What was moved, or would be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransferReport {
    /// All tables.
    pub tables: Vec<MovedTable>,
    /// The version of the schema on both sides.
    pub schema: i64,
    /// Whether the target had no schema before.
    pub is_schema_new: bool,
    /// The ids of the keys that stored secrets are sealed with.
    pub seal_keys: BTreeSet<String>,
}

/// What was moved of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MovedTable {
    /// Its name.
    pub name: &'static str,
    /// How many rows.
    pub rows: u64,
    /// The SHA-256 of all their values in the order of their keys, in hexadecimal.
    pub checksum: String,
}

/// Why nothing was moved.
#[derive(Debug, thiserror::Error)]
pub enum TransferError {
    /// A store has the schema of another version of this program.
    #[error(
        "{place} has schema version {applied}, and this program moves version {wanted}: {}",
        version_advice(*applied, *wanted)
    )]
    Schema {
        /// Which store.
        place: String,
        /// Its version; 0 is none.
        applied: i64,
        /// That of this program.
        wanted: i64,
    },
    /// The target has something.
    #[error("{place} is not empty: it has {found}; only an empty database is filled, such as a new one")]
    NotEmpty {
        /// Where it is.
        place: String,
        /// Rows by table, or tables, for people.
        found: String,
    },
    /// A row does not fit into the target.
    #[error("{place} cannot hold a row of {from}: {why}; the row with the key {key}")]
    Misfit {
        /// The target.
        place: String,
        /// The source.
        from: String,
        /// What is wrong with which column.
        why: String,
        /// The key of the row.
        key: String,
    },
    /// What the target has is something else than the source has.
    #[error(
        "{table} is not the same on both sides: {source_rows} rows in {from}, {target_rows} in {place}, and their checksums are {checksums}"
    )]
    Differs {
        /// The source.
        from: String,
        /// The target.
        place: String,
        /// The table.
        table: &'static str,
        /// How many rows were read.
        source_rows: u64,
        /// How many rows are there.
        target_rows: u64,
        /// Both, for people.
        checksums: String,
    },
    /// Not all rows of the source were read.
    #[error(
        "{from} counts {counted} rows of {table}, and {rows} were read from it: it is damaged, or somebody else changed it; nothing was moved"
    )]
    Miscounted {
        /// The source.
        from: String,
        /// The table.
        table: &'static str,
        /// How many rows it says there are.
        counted: u64,
        /// How many were read.
        rows: u64,
    },
    /// The source does not work.
    #[error("{place} cannot be read")]
    Source {
        /// Where it is.
        place: String,
        #[source]
        /// What lies below.
        source: StorageError,
    },
    /// The target does not work.
    #[error("{place} cannot be filled; it got no row")]
    Target {
        /// Where it is.
        place: String,
        #[source]
        /// What lies below.
        source: StorageError,
    },
    /// The target was lost at the very end.
    #[error("{place} was lost while the transaction ended: it has either all or nothing, which --dry-run tells")]
    Uncertain {
        /// Where it is.
        place: String,
        #[source]
        /// What lies below.
        source: StorageError,
    },
}

fn version_advice(applied: i64, wanted: i64) -> &'static str {
    match (applied, applied < wanted) {
        (0, _) => "it has no schema of this program",
        (_, true) => "run `kube-node-manager migrate` on it first",
        (_, false) => "use the version of this program that migrated it",
    }
}

impl Transfer {
    /// Looks whether both stores are such that the one could be moved into the other one. Nothing is made or changed.
    ///
    /// # Errors
    /// [`TransferError`] that [`Transfer::run`] would end with before it begins.
    pub async fn check(&self) -> Result<(), TransferError> {
        self.look_at_schemas().await.map(drop)
    }

    /// Moves everything: both stores are looked at, all rows are written into the target's transaction and read back from there, and
    /// only when both sides are the same does the transaction end.
    ///
    /// # Errors
    /// [`TransferError`]; then the target holds nothing.
    pub async fn run(&self) -> Result<TransferReport, TransferError> {
        let seen = self.look().await?;
        if seen.is_schema_new {
            self.target
                .create_schema()
                .await
                .map_err(|error| self.target_error(error))?;
            self.refuse_unless_empty().await?;
        }
        let mut told = Told::new(&self.progress, seen.counts.iter().sum());
        let mut report = seen.report();
        told.begin(Phase::Moving);
        for (table, counted) in self.source.tables().iter().zip(&seen.counts) {
            let moved = self.move_table(table, &mut told, &mut report.seal_keys).await?;
            self.refuse_unless_all(*counted, &moved)?;
            report.tables.push(moved);
        }
        told.begin(Phase::Checking);
        for (table, moved) in self.target.tables().iter().zip(&report.tables) {
            self.check_table(table, moved, &mut told).await?;
        }
        self.target.settle().await.map_err(|error| self.target_error(error))?;
        told.begin(Phase::Keeping);
        self.target.keep().await.map_err(|error| match error.is_transient() {
            true => TransferError::Uncertain {
                place: self.target.place(),
                source: error,
            },
            false => self.target_error(error),
        })?;
        Ok(report)
    }

    /// Does all of that but writing: reads everything and looks whether it fits.
    ///
    /// # Errors
    /// [`TransferError`] that [`Transfer::run`] would end with.
    pub async fn rehearse(&self) -> Result<TransferReport, TransferError> {
        let seen = self.look().await?;
        let mut told = Told::new(&self.progress, seen.counts.iter().sum());
        let mut report = seen.report();
        told.begin(Phase::Moving);
        for (table, counted) in self.source.tables().iter().zip(&seen.counts) {
            let mut reading = Reading::new(table);
            loop {
                let rows = self.next(table, &mut reading, &mut report.seal_keys).await?;
                if rows.is_empty() {
                    break;
                }
                told.went_on(table, rows.len());
            }
            let moved = reading.finish();
            self.refuse_unless_all(*counted, &moved)?;
            report.tables.push(moved);
        }
        Ok(report)
    }

    async fn look(&self) -> Result<Seen, TransferError> {
        let (schema, is_schema_new) = self.look_at_schemas().await?;
        let mut counts = Vec::new();
        for table in self.source.tables() {
            let count = self.source.count(table).await;
            counts.push(count.map_err(|error| self.source_error(error))?);
        }
        Ok(Seen {
            counts,
            schema,
            is_schema_new,
        })
    }

    /// The version of the source's schema, and whether the target, which is empty, has none yet.
    async fn look_at_schemas(&self) -> Result<(i64, bool), TransferError> {
        let source = self.source.schema().await.map_err(|error| self.source_error(error))?;
        if source.applied != source.wanted {
            return Err(self.wrong_schema(&*self.source, source.applied, source.wanted));
        }
        let target = self.target.schema().await.map_err(|error| self.target_error(error))?;
        if target.applied == 0 {
            self.refuse_if_somebody_elses().await?;
            return Ok((source.applied, true));
        }
        if target.applied != target.wanted {
            return Err(self.wrong_schema(&*self.target, target.applied, target.wanted));
        }
        self.refuse_unless_empty().await?;
        Ok((source.applied, false))
    }

    /// Rows are counted by another way than they are read: by another index, which may be whole where the one of the key is not.
    fn refuse_unless_all(&self, counted: u64, moved: &MovedTable) -> Result<(), TransferError> {
        if counted == moved.rows {
            return Ok(());
        }
        Err(TransferError::Miscounted {
            from: self.source.place(),
            table: moved.name,
            counted,
            rows: moved.rows,
        })
    }

    /// A store without a schema is new, or it is somebody else's.
    async fn refuse_if_somebody_elses(&self) -> Result<(), TransferError> {
        let relations = self.target.relations().await;
        let relations = relations.map_err(|error| self.target_error(error))?;
        if relations.is_empty() {
            return Ok(());
        }
        let some: Vec<String> = relations.iter().take(NAMED).map(|name| format!("{name:?}")).collect();
        let more = match relations.len() - some.len() {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        Err(TransferError::NotEmpty {
            place: self.target.place(),
            found: format!("the tables {}{more}, and no schema of this program", some.join(", ")),
        })
    }

    async fn refuse_unless_empty(&self) -> Result<(), TransferError> {
        let mut found = Vec::new();
        for table in self.target.tables() {
            let count = self
                .target
                .count(table)
                .await
                .map_err(|error| self.target_error(error))?;
            if 0 < count {
                found.push(format!("{count} in {}", table.name));
            }
        }
        match found.is_empty() {
            true => Ok(()),
            false => Err(TransferError::NotEmpty {
                place: self.target.place(),
                found: found.join(", "),
            }),
        }
    }

    async fn move_table(
        &self,
        table: &'static Table,
        told: &mut Told<'_>,
        seal_keys: &mut BTreeSet<String>,
    ) -> Result<MovedTable, TransferError> {
        let mut reading = Reading::new(table);
        let mut rows = self.next(table, &mut reading, seal_keys).await?;
        while !rows.is_empty() {
            let count = rows.len();
            // The one store reads ahead while the other one writes.
            let put = async {
                let put = self.target.put(table, rows).await;
                put.map_err(|error| self.target_error(error))
            };
            let (next, ()) = futures::try_join!(self.next(table, &mut reading, seal_keys), put)?;
            told.went_on(table, count);
            rows = next;
        }
        Ok(reading.finish())
    }

    /// The next rows of the source, which fit into the target.
    async fn next(
        &self,
        table: &'static Table,
        reading: &mut Reading,
        seal_keys: &mut BTreeSet<String>,
    ) -> Result<Vec<Row>, TransferError> {
        let rows = reading
            .next(&*self.source)
            .await
            .map_err(|error| self.source_error(error))?;
        for row in &rows {
            if let Some(why) = self.target.misfit(table, row) {
                return Err(TransferError::Misfit {
                    place: self.target.place(),
                    from: self.source.place(),
                    why,
                    key: shown(table.key_of(row)),
                });
            }
            if let Some(key) = seal_key(table, row) {
                seal_keys.insert(key.to_owned());
            }
        }
        Ok(rows)
    }

    async fn check_table(
        &self,
        table: &'static Table,
        moved: &MovedTable,
        told: &mut Told<'_>,
    ) -> Result<(), TransferError> {
        let mut reading = Reading::new(table);
        loop {
            let rows = reading
                .next(&*self.target)
                .await
                .map_err(|error| self.target_error(error))?;
            if rows.is_empty() {
                break;
            }
            told.went_on(table, rows.len());
        }
        let found = reading.finish();
        if found == *moved {
            return Ok(());
        }
        Err(TransferError::Differs {
            from: self.source.place(),
            place: self.target.place(),
            table: table.name,
            source_rows: moved.rows,
            target_rows: found.rows,
            checksums: format!("{} and {}", moved.checksum, found.checksum),
        })
    }

    fn wrong_schema(&self, store: &dyn StoreContent, applied: i64, wanted: i64) -> TransferError {
        TransferError::Schema {
            place: store.place(),
            applied,
            wanted,
        }
    }

    fn source_error(&self, source: StorageError) -> TransferError {
        TransferError::Source {
            place: self.source.place(),
            source,
        }
    }

    fn target_error(&self, source: StorageError) -> TransferError {
        TransferError::Target {
            place: self.target.place(),
            source,
        }
    }
}

/// What was found before the first row moved.
struct Seen {
    /// How many rows each table of the source has.
    counts: Vec<u64>,
    schema: i64,
    is_schema_new: bool,
}

impl Seen {
    fn report(&self) -> TransferReport {
        TransferReport {
            tables: Vec::new(),
            schema: self.schema,
            is_schema_new: self.is_schema_new,
            seal_keys: BTreeSet::new(),
        }
    }
}

/// How far the reading of a table is.
struct Reading {
    table: &'static Table,
    after: Option<Row>,
    is_over: bool,
    rows: u64,
    checksum: Checksum,
}

impl Reading {
    fn new(table: &'static Table) -> Self {
        Self {
            table,
            after: None,
            is_over: false,
            rows: 0,
            checksum: Checksum::default(),
        }
    }

    /// The next rows, none at the end.
    async fn next(&mut self, store: &dyn StoreContent) -> Result<Vec<Row>, StorageError> {
        if self.is_over {
            return Ok(Vec::new());
        }
        let rows = store.rows(self.table, self.after.take()).await?;
        self.is_over = rows.len() < self.table.page;
        self.after = rows.last().map(|row| self.table.key_of(row).to_vec());
        self.rows += u64::try_from(rows.len()).unwrap_or(u64::MAX);
        for row in &rows {
            self.checksum.add(row);
        }
        Ok(rows)
    }

    fn finish(self) -> MovedTable {
        MovedTable {
            name: self.table.name,
            rows: self.rows,
            checksum: self.checksum.finish(),
        }
    }
}

/// Tells those who follow how far it is.
struct Told<'a> {
    progress: &'a watch::Sender<TransferProgress>,
    now: TransferProgress,
}

impl<'a> Told<'a> {
    fn new(progress: &'a watch::Sender<TransferProgress>, of: u64) -> Self {
        let now = TransferProgress {
            of,
            ..TransferProgress::START
        };
        Self { progress, now }
    }

    fn begin(&mut self, phase: Phase) {
        self.now = TransferProgress {
            phase,
            rows: 0,
            ..self.now
        };
        self.progress.send_replace(self.now);
    }

    fn went_on(&mut self, table: &'static Table, rows: usize) {
        self.now.table = table.name;
        self.now.rows += u64::try_from(rows).unwrap_or(u64::MAX);
        self.progress.send_replace(self.now);
    }
}

fn seal_key<'a>(table: &Table, row: &'a [Cell]) -> Option<&'a str> {
    if table.name != SEALED.0 {
        return None;
    }
    let place = table.columns.iter().position(|column| column.name == SEALED.1)?;
    match row.get(place) {
        Some(Cell::Text(key)) => Some(key),
        Some(Cell::Nothing | Cell::Integer(_) | Cell::Flag(_) | Cell::Bytes(_) | Cell::Id(_)) | None => None,
    }
}

/// A key, for people. Keys are names and ids; none is a secret.
fn shown(key: &[Cell]) -> String {
    let cells = key.iter().map(|cell| match cell {
        Cell::Nothing => "null".to_owned(),
        Cell::Text(text) => format!("{text:?}"),
        Cell::Integer(number) => number.to_string(),
        Cell::Flag(flag) => flag.to_string(),
        Cell::Bytes(bytes) => checksum::hexadecimal(bytes),
        Cell::Id(id) => id.to_string(),
    });
    cells.collect::<Vec<_>>().join(", ")
}

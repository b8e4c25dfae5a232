//! All tables, row by row, over one connection that nobody else uses.

use async_trait::async_trait;
use knm_ports::{Cell, Column, ColumnKind, Purpose, Row as Cells, SchemaVersions, StorageError, StoreContent, Table};
use knm_storage_sql::{Origin, TABLES, schema_status};
use sqlx::query::{Query, QueryScalar};
use sqlx::{AssertSqlSafe, Connection, Database, Row};
use tokio::sync::{Mutex, MutexGuard};

use crate::dialect::{BY_BYTES, Driver, WIDE};
use crate::holding::{self, Hold};

type DriverConnection = <Driver as Database>::Connection;
type DriverRow = <Driver as Database>::Row;
type DriverQuery<'q> = Query<'q, Driver, <Driver as Database>::Arguments>;

const WHAT: &str = "content";

/// A connection in a transaction, as long as it is held.
pub(crate) struct SqlStoreContent {
    connection: Mutex<Option<DriverConnection>>,
    origin: Origin,
    purpose: Purpose,
    /// What keeps others out beside the transaction.
    hold: Hold,
}

impl SqlStoreContent {
    /// Takes over a connection that is in its transaction.
    pub(crate) fn new(connection: DriverConnection, origin: Origin, purpose: Purpose, hold: Hold) -> Self {
        Self {
            connection: Mutex::new(Some(connection)),
            origin,
            purpose,
            hold,
        }
    }

    async fn lock(&self) -> Result<Connected<'_>, StorageError> {
        let guard = self.connection.lock().await;
        match guard.is_some() {
            true => Ok(Connected { guard }),
            false => Err(self.failed(sqlx::Error::PoolClosed)),
        }
    }

    fn failed(&self, error: sqlx::Error) -> StorageError {
        self.origin.storage_error(WHAT, error)
    }

    async fn execute(&self, statement: &'static str) -> Result<(), StorageError> {
        let mut connected = self.lock().await?;
        let done = sqlx::query(statement).execute(connected.get()?).await;
        done.map(drop).map_err(|error| self.failed(error))
    }
}

#[async_trait]
impl StoreContent for SqlStoreContent {
    fn place(&self) -> String {
        self.origin.place.clone()
    }

    fn tables(&self) -> &'static [Table] {
        &TABLES
    }

    async fn schema(&self) -> Result<SchemaVersions, StorageError> {
        let mut connected = self.lock().await?;
        schema_versions(&self.origin, connected.get()?).await
    }

    async fn relations(&self) -> Result<Vec<String>, StorageError> {
        let mut connected = self.lock().await?;
        let found = sqlx::query_scalar(holding::RELATIONS).fetch_all(connected.get()?).await;
        found.map_err(|error| self.failed(error))
    }

    async fn create_schema(&self) -> Result<(), StorageError> {
        let mut connected = self.lock().await?;
        let connection = connected.get()?;
        let ended = sqlx::query("ROLLBACK").execute(&mut *connection).await;
        ended.map_err(|error| self.failed(error))?;
        holding::migrate(&self.hold, &self.origin, connection).await?;
        holding::begin(&self.origin, connection, self.purpose).await
    }

    async fn count(&self, table: &'static Table) -> Result<u64, StorageError> {
        let mut connected = self.lock().await?;
        let statement = AssertSqlSafe(format!("SELECT count(*) FROM {}", table.name));
        let counted: QueryScalar<'_, Driver, i64, _> = sqlx::query_scalar(statement);
        let count = counted.fetch_one(connected.get()?).await;
        Ok(count.map_err(|error| self.failed(error))?.unsigned_abs())
    }

    async fn rows(&self, table: &'static Table, after: Option<Cells>) -> Result<Vec<Cells>, StorageError> {
        let mut connected = self.lock().await?;
        let mut query = sqlx::query(AssertSqlSafe(select(table, after.is_some())));
        for cell in after.into_iter().flatten() {
            query = bind(query, cell);
        }
        let found = query.fetch_all(connected.get()?).await;
        let rows = found.and_then(|rows| rows.iter().map(|row| cells(table, row)).collect());
        rows.map_err(|error| self.origin.storage_error(table.name, error))
    }

    fn misfit(&self, table: &'static Table, row: &[Cell]) -> Option<String> {
        let columns = table.columns.iter().zip(row);
        columns
            .filter_map(|(column, cell)| holding::misfit(column, cell))
            .next()
            .map(|why| format!("{}.{why}", table.name))
    }

    async fn put(&self, table: &'static Table, rows: Vec<Cells>) -> Result<(), StorageError> {
        let mut connected = self.lock().await?;
        let put = holding::put(connected.get()?, table, rows).await;
        put.map_err(|error| self.origin.storage_error(table.name, error))
    }

    async fn settle(&self) -> Result<(), StorageError> {
        for statement in holding::BEFORE_THE_END {
            self.execute(statement).await?;
        }
        Ok(())
    }

    async fn keep(&self) -> Result<(), StorageError> {
        self.execute("COMMIT").await
    }

    async fn close(&self) {
        if let Some(connection) = self.connection.lock().await.take() {
            // A transaction that is open ends with its connection; whether the database says goodbye is of no interest.
            drop(connection.close().await);
        }
        self.hold.end();
    }
}

/// The connection while somebody works with it.
struct Connected<'a> {
    guard: MutexGuard<'a, Option<DriverConnection>>,
}

impl Connected<'_> {
    fn get(&mut self) -> Result<&mut DriverConnection, StorageError> {
        self.guard.as_mut().ok_or_else(|| StorageError::Unavailable {
            source: sqlx::Error::PoolClosed.into(),
        })
    }
}

/// Which schema there is, and which one this program works with.
pub(crate) async fn schema_versions(
    origin: &Origin,
    connection: &mut DriverConnection,
) -> Result<SchemaVersions, StorageError> {
    let applied = crate::admin::applied(connection).await;
    let applied = applied.map_err(|error| origin.storage_error("the schema", error))?;
    let migrator = &crate::admin::MIGRATOR;
    let status = schema_status(migrator, &applied)?;
    Ok(SchemaVersions {
        applied: status.applied,
        wanted: migrator.iter().map(|migration| migration.version).max().unwrap_or(0),
    })
}

/// The names of columns, separated by commas.
pub(crate) fn names(columns: &[Column]) -> String {
    let names: Vec<&str> = columns.iter().map(|column| column.name).collect();
    names.join(", ")
}

fn select(table: &Table, is_continued: bool) -> String {
    let columns: Vec<String> = table.columns.iter().map(selected).collect();
    let key: Vec<String> = table.columns[..table.key].iter().map(sorted).collect();
    let (columns, key) = (columns.join(", "), key.join(", "));
    let beyond = match is_continued {
        true => {
            let places: Vec<String> = (1..=table.key).map(|place| format!("${place}")).collect();
            format!(" WHERE ({key}) > ({})", places.join(", "))
        }
        false => String::new(),
    };
    format!(
        "SELECT {columns} FROM {}{beyond} ORDER BY {key} LIMIT {}",
        table.name, table.page
    )
}

fn selected(column: &Column) -> String {
    match column.kind {
        ColumnKind::Small => format!("{}{WIDE}", column.name),
        ColumnKind::Text | ColumnKind::Integer | ColumnKind::Flag | ColumnKind::Bytes | ColumnKind::Id => {
            column.name.to_owned()
        }
    }
}

/// Text is sorted by its bytes, whatever the database's locale is: so both sides tell their rows in the same order.
fn sorted(column: &Column) -> String {
    match column.kind {
        ColumnKind::Text => format!("{}{BY_BYTES}", column.name),
        ColumnKind::Integer | ColumnKind::Small | ColumnKind::Flag | ColumnKind::Bytes | ColumnKind::Id => {
            column.name.to_owned()
        }
    }
}

fn cells(table: &Table, row: &DriverRow) -> Result<Cells, sqlx::Error> {
    let columns = table.columns.iter().enumerate();
    columns.map(|(place, column)| cell(row, place, column.kind)).collect()
}

fn cell(row: &DriverRow, place: usize, kind: ColumnKind) -> Result<Cell, sqlx::Error> {
    let cell = match kind {
        ColumnKind::Text => row.try_get::<Option<String>, _>(place)?.map(Cell::Text),
        ColumnKind::Integer | ColumnKind::Small => row.try_get::<Option<i64>, _>(place)?.map(Cell::Integer),
        ColumnKind::Flag => row.try_get::<Option<bool>, _>(place)?.map(Cell::Flag),
        ColumnKind::Bytes => row.try_get::<Option<Vec<u8>>, _>(place)?.map(Cell::Bytes),
        ColumnKind::Id => row.try_get::<Option<uuid::Uuid>, _>(place)?.map(Cell::Id),
    };
    Ok(cell.unwrap_or(Cell::Nothing))
}

/// Binds `cell` as the next value of `query`.
pub(crate) fn bind(query: DriverQuery<'_>, cell: Cell) -> DriverQuery<'_> {
    match cell {
        Cell::Nothing => query.bind(None::<String>),
        Cell::Text(text) => query.bind(text),
        Cell::Integer(number) => query.bind(number),
        Cell::Flag(flag) => query.bind(flag),
        Cell::Bytes(bytes) => query.bind(bytes),
        Cell::Id(id) => query.bind(id),
    }
}

//! A database that nobody else works with meanwhile: to move what is in it. Whoever writes with other means waits for the locks of the
//! tables.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use knm_ports::{Cell, Column, ColumnKind, HoldError, Purpose, StorageError, StoreContent, Table};
use knm_storage_sql::{Dialect, Origin, TABLES};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, PgConnection};

use crate::store_content::{SqlStoreContent, names, schema_versions};
use crate::{OPERATION_TIMEOUT, PostgresOptions, alone, check_root_cert, connect_options};

/// Where migrations make theirs. What an extension brought is no content.
pub(crate) const RELATIONS: &str = "SELECT relname::text FROM pg_class
WHERE relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = current_schema())
    AND relkind IN ('r', 'p', 'v', 'm', 'f') AND relname <> '_sqlx_migrations'
    AND NOT EXISTS (SELECT FROM pg_depend WHERE classid = 'pg_class'::regclass AND objid = pg_class.oid AND deptype = 'e')
ORDER BY relname";
/// What is done before a transaction ends: the planner knows nothing of the rows until somebody tells it.
pub(crate) const BEFORE_THE_END: &[&str] = &["ANALYZE audit_records, operations, operation_targets, operation_events"];

/// Holds the database: no service works with it until it is closed.
///
/// # Errors
/// [`HoldError`].
pub async fn hold(options: &PostgresOptions, purpose: Purpose) -> Result<Arc<dyn StoreContent>, HoldError> {
    check_root_cert(options).await?;
    let origin = origin(options);
    let failed = |error| origin.storage_error("the connection", error);
    let connecting = async { connect_options(options).application_name(alone::NAME).connect().await };
    let limit = options.acquire_timeout;
    let connected = tokio::time::timeout(limit, connecting).await;
    let mut connection = connected
        .map_err(|_| StorageError::TimedOut { limit })?
        .map_err(failed)?;
    if let Err(error) = begin_alone(&origin, &mut connection, purpose).await {
        // Whether the server says goodbye is of no interest.
        drop(connection.close().await);
        return Err(error);
    }
    let hold = Hold {
        migration_timeout: options.migration_timeout,
    };
    Ok(Arc::new(SqlStoreContent::new(connection, origin, purpose, hold)))
}

/// Where errors come from.
pub(crate) fn origin(options: &PostgresOptions) -> Origin {
    Origin {
        dialect: Dialect::Postgres,
        place: format!(
            "postgres database \"{}\" at {}:{}",
            options.database, options.host, options.port
        ),
        statement_timeout: OPERATION_TIMEOUT,
    }
}

/// What keeps others out beside the transaction: here nothing.
#[derive(Debug)]
pub(crate) struct Hold {
    /// How long migrations may take, `None`: as long as they need.
    migration_timeout: Option<Duration>,
}

impl Hold {
    /// Nothing is to be ended that does not end with the connection.
    pub(crate) fn end(&self) {}
}

/// Applies all migrations.
pub(crate) async fn migrate(hold: &Hold, origin: &Origin, connection: &mut PgConnection) -> Result<(), StorageError> {
    crate::admin::migrate_within(origin, connection, hold.migration_timeout, &mut 0).await
}

/// Begins the transaction.
pub(crate) async fn begin(
    origin: &Origin,
    connection: &mut PgConnection,
    purpose: Purpose,
) -> Result<(), StorageError> {
    match begin_alone(origin, connection, purpose).await {
        Ok(()) => Ok(()),
        Err(HoldError::Storage(error)) => Err(error),
        Err(error @ (HoldError::InUse { .. } | HoldError::Missing { .. })) => Err(StorageError::Refused {
            message: error.to_string(),
            source: None,
        }),
    }
}

async fn begin_alone(origin: &Origin, connection: &mut PgConnection, purpose: Purpose) -> Result<(), HoldError> {
    alone::begin(origin, connection).await?;
    lock_tables(origin, connection, purpose).await
}

/// Nobody writes to the tables until the transaction ends, whoever it is. A schema of another version is only looked at.
async fn lock_tables(origin: &Origin, connection: &mut PgConnection, purpose: Purpose) -> Result<(), HoldError> {
    let schema = schema_versions(origin, connection).await?;
    if schema.applied != schema.wanted {
        return Ok(());
    }
    let mode = match purpose {
        Purpose::Read | Purpose::Rehearse => "SHARE",
        Purpose::Fill => "EXCLUSIVE",
    };
    let tables: Vec<&str> = TABLES.iter().map(|table| table.name).collect();
    let statement = AssertSqlSafe(format!("LOCK TABLE {} IN {mode} MODE", tables.join(", ")));
    match sqlx::query(statement).execute(connection).await {
        Ok(_) => Ok(()),
        Err(error) => match origin.storage_error("the tables", error) {
            StorageError::TimedOut { .. } => Err(StorageError::Refused {
                message: format!(
                    "{}: somebody has locked its tables, such as a service, a migration, VACUUM or CREATE INDEX CONCURRENTLY; \
                     pg_locks and pg_stat_activity show who; let that end and try again",
                    origin.place
                ),
                source: None,
            }
            .into()),
            error => Err(error.into()),
        },
    }
}

/// Why a column cannot hold a value.
pub(crate) fn misfit(column: &Column, cell: &Cell) -> Option<String> {
    let name = column.name;
    match cell {
        Cell::Text(text) if text.contains('\0') => Some(format!(
            "{name}: the text holds a NUL character, which PostgreSQL does not store"
        )),
        Cell::Integer(number) if column.kind == ColumnKind::Small && i16::try_from(*number).is_err() => {
            Some(format!("{name}: {number} is not a number from -32768 to 32767"))
        }
        Cell::Nothing | Cell::Text(_) | Cell::Integer(_) | Cell::Flag(_) | Cell::Bytes(_) | Cell::Id(_) => None,
    }
}

/// Adds rows by COPY.
pub(crate) async fn put(
    connection: &mut PgConnection,
    table: &'static Table,
    rows: Vec<Vec<Cell>>,
) -> Result<(), sqlx::Error> {
    let statement = format!("COPY {} ({}) FROM STDIN", table.name, names(table.columns));
    let mut text = String::new();
    for row in &rows {
        write_row(&mut text, row);
    }
    let mut copy = connection.copy_in_raw(&statement).await?;
    copy.send(text.into_bytes()).await?;
    copy.finish().await.map(drop)
}

/// A line of COPY's text format.
fn write_row(text: &mut String, row: &[Cell]) {
    for (place, cell) in row.iter().enumerate() {
        if 0 < place {
            text.push('\t');
        }
        write_cell(text, cell);
    }
    text.push('\n');
}

fn write_cell(text: &mut String, cell: &Cell) {
    // Writing to a text does not fail.
    let _ = match cell {
        Cell::Nothing => text.write_str("\\N"),
        Cell::Text(value) => {
            write_escaped(text, value);
            Ok(())
        }
        Cell::Integer(number) => write!(text, "{number}"),
        Cell::Flag(flag) => text.write_str(if *flag { "t" } else { "f" }),
        Cell::Bytes(bytes) => {
            text.push_str("\\\\x");
            bytes.iter().try_for_each(|byte| write!(text, "{byte:02x}"))
        }
        Cell::Id(id) => write!(text, "{id}"),
    };
}

fn write_escaped(text: &mut String, value: &str) {
    for character in value.chars() {
        match character {
            '\\' => text.push_str("\\\\"),
            '\n' => text.push_str("\\n"),
            '\r' => text.push_str("\\r"),
            '\t' => text.push_str("\\t"),
            _ => text.push(character),
        }
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn each_kind_of_value_is_written_so_that_the_server_reads_the_same() {
        let row = [
            Cell::Nothing,
            Cell::Text(String::new()),
            Cell::Text("a\tb\nc\rd\\N é 🦀".to_owned()),
            Cell::Integer(i64::MIN),
            Cell::Flag(true),
            Cell::Flag(false),
            Cell::Bytes(vec![0, 255, 92]),
            Cell::Id(Uuid::from_u128(7)),
        ];
        let mut text = String::new();
        write_row(&mut text, &row);
        assert_eq!(
            text,
            "\\N\t\ta\\tb\\nc\\rd\\\\N é 🦀\t-9223372036854775808\tt\tf\t\\\\x00ff5c\t00000000-0000-0000-0000-000000000007\n"
        );
    }

    #[test]
    fn what_a_column_cannot_hold_is_named() {
        let column = |kind| Column { name: "some", kind };
        let nul = Cell::Text("a\0b".to_owned());
        assert!(misfit(&column(ColumnKind::Text), &nul).is_some_and(|why| why.starts_with("some: ")));
        assert!(misfit(&column(ColumnKind::Small), &Cell::Integer(32_768)).is_some_and(|why| why.contains("32768")));
        assert_eq!(misfit(&column(ColumnKind::Small), &Cell::Integer(-32_768)), None);
        assert_eq!(misfit(&column(ColumnKind::Integer), &Cell::Integer(i64::MAX)), None);
        assert_eq!(misfit(&column(ColumnKind::Bytes), &Cell::Bytes(vec![0])), None);
    }
}

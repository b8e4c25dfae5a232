//! Migrations: what both dialects do with them.

use std::collections::HashMap;

use knm_ports::{SchemaStatus, StorageError};
use sqlx::migrate::{AppliedMigration, Migrate, MigrateError, Migrator};

use crate::Origin;

/// Where sqlx notes what was applied; users of `sqlx` tools find it under this name.
const TABLE: &str = "_sqlx_migrations";

/// Applies what `migrator` has and the database has not, and returns how many that were.
///
/// The connection holds the migration lock afterwards if this fails: throw it away then.
///
/// # Errors
/// [`StorageError::Corrupt`] if an applied migration is another one now; else what the database says.
pub async fn apply_pending<C: Migrate + Send>(
    origin: &Origin,
    migrator: &Migrator,
    connection: &mut C,
) -> Result<usize, StorageError> {
    let failed = |error| migration_error(origin, error);
    connection.lock().await.map_err(failed)?;
    connection.ensure_migrations_table(TABLE).await.map_err(failed)?;
    if let Some(version) = connection.dirty_version(TABLE).await.map_err(failed)? {
        return Err(failed(MigrateError::Dirty(version)));
    }
    let applied = connection.list_applied_migrations(TABLE).await.map_err(failed)?;
    schema_status(migrator, &applied)?;

    let mut count = 0;
    for migration in migrator.iter() {
        if applied.iter().any(|applied| applied.version == migration.version) {
            continue;
        }
        connection.apply(TABLE, migration).await.map_err(failed)?;
        count += 1;
    }
    connection.unlock().await.map_err(failed)?;
    Ok(count)
}

/// Compares what `migrator` has with what is `applied`. A migration that only the database knows is a later version's work during a
/// rolling update and is fine.
///
/// # Errors
/// [`StorageError::Corrupt`] if an applied migration is another one now.
pub fn schema_status(migrator: &Migrator, applied: &[AppliedMigration]) -> Result<SchemaStatus, StorageError> {
    let checksums: HashMap<i64, &[u8]> = applied.iter().map(|one| (one.version, &*one.checksum)).collect();
    let mut pending = 0;
    for migration in migrator.iter() {
        match checksums.get(&migration.version) {
            None => pending += 1,
            Some(checksum) if **checksum == *migration.checksum => {}
            Some(_) => {
                return Err(StorageError::Corrupt {
                    what: "the schema",
                    message: format!(
                        "migration {} ({}) was applied with other contents than this program has",
                        migration.version, migration.description
                    ),
                });
            }
        }
    }
    Ok(SchemaStatus {
        applied: applied.iter().map(|one| one.version).max().unwrap_or(0),
        pending,
    })
}

fn migration_error(origin: &Origin, error: MigrateError) -> StorageError {
    match error {
        MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => {
            origin.storage_error("the schema", error)
        }
        MigrateError::Dirty(version) => StorageError::Corrupt {
            what: "the schema",
            message: format!("migration {version} was interrupted halfway; repair it and remove its row from {TABLE}"),
        },
        // The enum is foreign and non-exhaustive; the other variants are about sources and directions that are not used here.
        other => StorageError::Internal { source: other.into() },
    }
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use sqlx::SqlSafeStr;
    use sqlx::migrate::{Migration, MigrationType};

    use super::*;

    fn migrator(statements: &[&'static str]) -> Migrator {
        let migrations = statements.iter().zip(1..).map(|(sql, version)| {
            Migration::new(
                version,
                "table".into(),
                MigrationType::Simple,
                sql.into_sql_str(),
                false,
            )
        });
        Migrator::with_migrations(migrations.collect())
    }

    fn applied(migrator: &Migrator) -> Vec<AppliedMigration> {
        let applied = migrator.iter().map(|migration| AppliedMigration {
            version: migration.version,
            checksum: Cow::Owned(migration.checksum.to_vec()),
        });
        applied.collect()
    }

    #[test]
    fn what_is_not_applied_is_pending() {
        let ours = migrator(&["CREATE TABLE a", "CREATE TABLE b", "CREATE TABLE c"]);
        let status = schema_status(&ours, &applied(&ours)[..1]).unwrap();
        assert_eq!(status, SchemaStatus { applied: 1, pending: 2 });
        assert_eq!(
            schema_status(&ours, &[]).unwrap(),
            SchemaStatus { applied: 0, pending: 3 }
        );
    }

    #[test]
    fn a_schema_of_a_later_version_is_fine() {
        let theirs = migrator(&["CREATE TABLE a", "CREATE TABLE b"]);
        let status = schema_status(&migrator(&["CREATE TABLE a"]), &applied(&theirs)).unwrap();
        assert_eq!(status, SchemaStatus { applied: 2, pending: 0 });
    }

    #[test]
    fn a_changed_migration_is_corrupt() {
        let theirs = migrator(&["CREATE TABLE other"]);
        let error = schema_status(&migrator(&["CREATE TABLE a"]), &applied(&theirs)).unwrap_err();
        assert!(matches!(&error, StorageError::Corrupt { .. }), "{error:?}");
        assert!(error.to_string().contains("migration 1 (table)"), "{error}");
    }
}

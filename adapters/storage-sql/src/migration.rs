//! Migrations: what both dialects do with them.

use std::collections::HashMap;

use knm_ports::{SchemaStatus, StorageError};
use sqlx::migrate::{Migrate, MigrateError, Migrator};

use crate::Origin;

/// Where sqlx notes what was applied; users of `sqlx` tools find it under this name.
const TABLE: &str = "_sqlx_migrations";
/// How the name of a migration begins that merely adds something: versions that do not know it go on working.
const ADDS: &str = "add ";

/// What the database tells of a migration: its version, its checksum and its name.
pub type AppliedRow = (i64, Vec<u8>, String);

/// Asks for every [`AppliedRow`]. The table is there only after the first migration.
pub const APPLIED: &str = "SELECT version, checksum, description FROM _sqlx_migrations ORDER BY version";

/// Applies what `migrator` has and the database has not, and counts that in `count`, also what was applied before it fails.
///
/// The connection holds the migration lock afterwards if this fails: throw it away then.
///
/// # Errors
/// [`StorageError::Corrupt`] if an applied migration is another one now; else what the database says.
pub async fn apply_pending<C: Migrate + Send>(
    origin: &Origin,
    migrator: &Migrator,
    connection: &mut C,
    count: &mut usize,
) -> Result<(), StorageError> {
    let failed = |error| migration_error(origin, error);
    connection.lock().await.map_err(failed)?;
    connection.ensure_migrations_table(TABLE).await.map_err(failed)?;
    if let Some(version) = connection.dirty_version(TABLE).await.map_err(failed)? {
        return Err(failed(MigrateError::Dirty(version)));
    }
    let applied = connection.list_applied_migrations(TABLE).await.map_err(failed)?;
    check_contents(migrator, applied.iter().map(|one| (one.version, &*one.checksum)))?;

    for migration in migrator.iter() {
        if applied.iter().any(|applied| applied.version == migration.version) {
            continue;
        }
        connection.apply(TABLE, migration).await.map_err(failed)?;
        *count += 1;
    }
    connection.unlock().await.map_err(failed)
}

/// Compares what `migrator` has with what is `applied`. Migrations that only the database knows are a later version's work during a rolling
/// update or before a rollback, and fine if their names say that they merely add something.
///
/// # Errors
/// [`StorageError::Corrupt`] if an applied migration is another one now, or if a later one is not known to merely add something.
pub fn schema_status(migrator: &Migrator, applied: &[AppliedRow]) -> Result<SchemaStatus, StorageError> {
    check_contents(
        migrator,
        applied.iter().map(|(version, checksum, _)| (*version, &**checksum)),
    )?;
    let is_known = |version: i64| migrator.iter().any(|migration| migration.version == version);
    let mut later = 0;
    for (version, _, description) in applied.iter().filter(|(version, ..)| !is_known(*version)) {
        if !description.starts_with(ADDS) {
            return Err(StorageError::Corrupt {
                what: "the schema",
                message: format!(
                    "a later version of the program applied migration {version} ({description}), with which this version cannot work: \
                     run that version, or restore a backup from before it"
                ),
            });
        }
        later += 1;
    }
    let is_applied = |version: i64| applied.iter().any(|(applied, ..)| *applied == version);
    Ok(SchemaStatus {
        applied: applied.iter().map(|(version, ..)| *version).max().unwrap_or(0),
        pending: migrator
            .iter()
            .filter(|migration| !is_applied(migration.version))
            .count(),
        later,
    })
}

/// A migration that both know must be the same one.
fn check_contents<'a>(migrator: &Migrator, applied: impl Iterator<Item = (i64, &'a [u8])>) -> Result<(), StorageError> {
    let checksums: HashMap<i64, &[u8]> = applied.collect();
    for migration in migrator.iter() {
        if let Some(checksum) = checksums.get(&migration.version)
            && **checksum != *migration.checksum
        {
            return Err(StorageError::Corrupt {
                what: "the schema",
                message: format!(
                    "migration {} ({}) was applied with other contents than this program has",
                    migration.version, migration.description
                ),
            });
        }
    }
    Ok(())
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
    use sqlx::SqlSafeStr;
    use sqlx::migrate::{Migration, MigrationType};

    use super::*;

    fn migrator(migrations: &[(&'static str, &'static str)]) -> Migrator {
        let migrations = migrations.iter().zip(1..).map(|((name, sql), version)| {
            Migration::new(
                version,
                (*name).into(),
                MigrationType::Simple,
                sql.into_sql_str(),
                false,
            )
        });
        Migrator::with_migrations(migrations.collect())
    }

    fn applied(migrator: &Migrator) -> Vec<AppliedRow> {
        let row = |migration: &Migration| {
            let name = migration.description.clone().into_owned();
            (migration.version, migration.checksum.to_vec(), name)
        };
        migrator.iter().map(row).collect()
    }

    const A: (&str, &str) = ("a", "CREATE TABLE a");
    const B: (&str, &str) = ("add b", "CREATE TABLE b");
    const C: (&str, &str) = ("c", "DROP TABLE a");

    #[test]
    fn what_is_not_applied_is_pending() {
        let ours = migrator(&[A, B, C]);
        let status = |applied, pending| SchemaStatus {
            applied,
            pending,
            later: 0,
        };
        assert_eq!(schema_status(&ours, &applied(&ours)[..1]).unwrap(), status(1, 2));
        assert_eq!(schema_status(&ours, &[]).unwrap(), status(0, 3));
    }

    #[test]
    fn a_schema_to_which_a_later_version_added_something_is_fine() {
        let status = schema_status(&migrator(&[A]), &applied(&migrator(&[A, B]))).unwrap();
        let expected = SchemaStatus {
            applied: 2,
            pending: 0,
            later: 1,
        };
        assert_eq!(status, expected);
    }

    #[test]
    fn a_schema_that_a_later_version_changed_otherwise_is_refused_with_what_to_do() {
        let error = schema_status(&migrator(&[A, B]), &applied(&migrator(&[A, B, C]))).unwrap_err();
        assert!(matches!(&error, StorageError::Corrupt { .. }), "{error:?}");
        let text = error.to_string();
        assert!(
            text.contains("migration 3 (c)") && text.contains("run that version"),
            "{text}"
        );
    }

    #[test]
    fn a_changed_migration_is_corrupt() {
        let theirs = migrator(&[("a", "CREATE TABLE other")]);
        let error = schema_status(&migrator(&[A]), &applied(&theirs)).unwrap_err();
        assert!(matches!(&error, StorageError::Corrupt { .. }), "{error:?}");
        assert!(error.to_string().contains("migration 1 (a)"), "{error}");
    }
}

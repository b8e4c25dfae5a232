//! The schema of a version that does not exist yet.

use super::PostgresServer;

/// What a later version may do to each table, and what it may not do.
const LATER: &str = "DO $$
DECLARE known TEXT;
BEGIN
    FOR known IN SELECT tablename FROM pg_tables WHERE schemaname = 'public' AND tablename <> '_sqlx_migrations' LOOP
        EXECUTE format('ALTER TABLE %I ADD COLUMN later_name TEXT', known);
        EXECUTE format('ALTER TABLE %I ADD COLUMN later_count BIGINT NOT NULL DEFAULT 7', known);
    END LOOP;
    CREATE TABLE later_things (name TEXT NOT NULL);
    INSERT INTO _sqlx_migrations VALUES (9999, 'add what nobody knows', now(), true, '\\x00', 1);
END $$";

impl PostgresServer {
    /// Migrates a database as a later version may: each table gets columns, there is another table, and migration 9999 is recorded.
    pub fn migrate_to_later(&self, database: &str) {
        self.run(database, LATER);
    }
}

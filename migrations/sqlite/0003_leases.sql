-- Who does what only one replica may do, until when. Times are milliseconds since 1970-01-01T00:00:00Z by the clock of the database.
CREATE TABLE leases (
    name TEXT NOT NULL PRIMARY KEY,
    owner TEXT NOT NULL,
    expires_at_unix_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

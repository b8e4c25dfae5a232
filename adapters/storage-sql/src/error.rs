//! From the driver's errors to the port's, in one place.

use std::fmt;
use std::io;
use std::time::Duration;

use knm_ports::StorageError;

/// Which database speaks: they number their errors differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// Result codes, as decimal numbers.
    Sqlite,
    /// SQLSTATE, five characters.
    Postgres,
}

/// Where errors come from; it gives them the name of the file or server.
#[derive(Clone, Debug)]
pub struct Origin {
    /// Which database speaks.
    pub dialect: Dialect,
    /// The file or the server, without any secret.
    pub place: String,
    /// How long a statement may take; named by the error when it took longer.
    pub statement_timeout: Duration,
}

impl Origin {
    /// Translates `error`, which happened to `what`; the source is kept, below the name of the place.
    pub fn storage_error(&self, what: &'static str, error: sqlx::Error) -> StorageError {
        match &error {
            sqlx::Error::RowNotFound => StorageError::NotFound { what },
            sqlx::Error::Database(database) => {
                let code = database.code().map_or_else(String::new, |code| code.into_owned());
                self.database_error(what, &code, error)
            }
            sqlx::Error::Io(io) => match io.kind() {
                // This is how a certificate that is not accepted arrives.
                io::ErrorKind::InvalidData
                | io::ErrorKind::PermissionDenied
                | io::ErrorKind::ReadOnlyFilesystem
                | io::ErrorKind::NotADirectory
                | io::ErrorKind::IsADirectory => self.refused(error),
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => StorageError::Full {
                    source: self.located(error),
                },
                _ => self.unavailable(error),
            },
            sqlx::Error::Tls(_) => self.refused(error),
            sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed
            | sqlx::Error::Protocol(_) => self.unavailable(error),
            sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) | sqlx::Error::ColumnNotFound(_) => {
                StorageError::Corrupt {
                    what,
                    message: format!("{}: {error}", self.place),
                }
            }
            // The enum is foreign and non-exhaustive; everything else is a mistake in a statement.
            _ => StorageError::Internal {
                source: self.located(error),
            },
        }
    }

    fn database_error(&self, what: &'static str, code: &str, error: sqlx::Error) -> StorageError {
        let fault = match self.dialect {
            Dialect::Sqlite => sqlite_fault(code.parse().unwrap_or(0)),
            Dialect::Postgres => postgres_fault(code),
        };
        match fault {
            Fault::Conflict => StorageError::Conflict { what },
            Fault::Unavailable => self.unavailable(error),
            Fault::TimedOut => StorageError::TimedOut {
                limit: self.statement_timeout,
            },
            Fault::Refused => self.refused(error),
            Fault::Full => StorageError::Full {
                source: self.located(error),
            },
            Fault::Corrupt => StorageError::Corrupt {
                what,
                message: format!("{}: {error}", self.place),
            },
            Fault::Defect => StorageError::Internal {
                source: self.located(error),
            },
        }
    }

    fn refused(&self, error: sqlx::Error) -> StorageError {
        StorageError::Refused {
            message: format!("{}: {error}", self.place),
            source: Some(error.into()),
        }
    }

    fn unavailable(&self, error: sqlx::Error) -> StorageError {
        StorageError::Unavailable {
            source: self.located(error),
        }
    }

    fn located(&self, error: sqlx::Error) -> Box<Located> {
        Box::new(Located {
            place: self.place.clone(),
            error,
        })
    }
}

/// A driver's error with the place where it happened.
#[derive(Debug)]
struct Located {
    place: String,
    error: sqlx::Error,
}

impl fmt::Display for Located {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.error)
    }
}

impl std::error::Error for Located {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.error)
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Fault {
    Conflict,
    Unavailable,
    TimedOut,
    Refused,
    Full,
    Corrupt,
    Defect,
}

/// By the primary code, the lowest byte, except where the extended one says more.
fn sqlite_fault(code: u32) -> Fault {
    match (code, code & 0xff) {
        // Unique index, primary key, row id.
        (2067 | 1555 | 2579, _) => Fault::Conflict,
        // The shared memory beside a write-ahead log could not grow.
        (4874, _) => Fault::Full,
        (_, 5 | 6) => Fault::TimedOut,
        (_, 3 | 8 | 14 | 23) => Fault::Refused,
        (_, 13) => Fault::Full,
        (_, 11 | 26) => Fault::Corrupt,
        (_, 10) => Fault::Unavailable,
        _ => Fault::Defect,
    }
}

fn postgres_fault(code: &str) -> Fault {
    match code {
        // Unique key, exclusion, serialization, deadlock.
        "23505" | "23P01" | "40001" | "40P01" => Fault::Conflict,
        // A statement or a lock took too long.
        "57014" | "55P03" | "25P03" => Fault::TimedOut,
        // Disk full.
        "53100" => Fault::Full,
        // No such database, no privilege, read-only server.
        "3D000" | "42501" | "25006" => Fault::Refused,
        // Data or index corrupted.
        "XX001" | "XX002" => Fault::Corrupt,
        // Not these credentials.
        _ if code.starts_with("28") => Fault::Refused,
        // Connection lost, out of memory or connections, shutting down or starting up.
        _ if ["08", "53", "57", "58"].iter().any(|class| code.starts_with(class)) => Fault::Unavailable,
        _ => Fault::Defect,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin() -> Origin {
        Origin {
            dialect: Dialect::Sqlite,
            place: "sqlite file /data/nodes.db".to_owned(),
            statement_timeout: Duration::from_secs(10),
        }
    }

    #[test]
    fn sqlite_codes_are_told_apart_by_what_can_be_done() {
        let cases = [
            (1555, Fault::Conflict),
            (2067, Fault::Conflict),
            (787, Fault::Defect),
            (5, Fault::TimedOut),
            (517, Fault::TimedOut),
            (8, Fault::Refused),
            (1544, Fault::Refused),
            (14, Fault::Refused),
            (13, Fault::Full),
            (4874, Fault::Full),
            (778, Fault::Unavailable),
            (11, Fault::Corrupt),
            (26, Fault::Corrupt),
            (1, Fault::Defect),
            (0, Fault::Defect),
        ];
        for (code, fault) in cases {
            assert_eq!(sqlite_fault(code), fault, "{code}");
        }
    }

    #[test]
    fn postgres_codes_are_told_apart_by_what_can_be_done() {
        let cases = [
            ("23505", Fault::Conflict),
            ("40P01", Fault::Conflict),
            ("23503", Fault::Defect),
            ("57014", Fault::TimedOut),
            ("55P03", Fault::TimedOut),
            ("53100", Fault::Full),
            ("53300", Fault::Unavailable),
            ("57P01", Fault::Unavailable),
            ("57P03", Fault::Unavailable),
            ("08006", Fault::Unavailable),
            ("28P01", Fault::Refused),
            ("28000", Fault::Refused),
            ("3D000", Fault::Refused),
            ("42501", Fault::Refused),
            ("25006", Fault::Refused),
            ("XX001", Fault::Corrupt),
            ("42601", Fault::Defect),
            ("", Fault::Defect),
        ];
        for (code, fault) in cases {
            assert_eq!(postgres_fault(code), fault, "{code}");
        }
    }

    #[test]
    fn a_lost_connection_is_transient_and_names_the_place() {
        let error = origin().storage_error("row", io::Error::from(io::ErrorKind::ConnectionReset).into());
        assert!(error.is_transient(), "{error:?}");
        let source = std::error::Error::source(&error).unwrap().to_string();
        assert!(source.contains("/data/nodes.db"), "{source}");
    }

    #[test]
    fn no_room_names_the_place() {
        let error = origin().storage_error("row", io::Error::from(io::ErrorKind::StorageFull).into());
        assert!(matches!(error, StorageError::Full { .. }), "{error:?}");
        let source = std::error::Error::source(&error).unwrap().to_string();
        assert!(source.contains("/data/nodes.db"), "{source}");
    }

    #[test]
    fn a_certificate_that_is_not_accepted_is_a_refusal() {
        let error = origin().storage_error("row", io::Error::from(io::ErrorKind::InvalidData).into());
        assert!(matches!(error, StorageError::Refused { .. }), "{error:?}");
    }
}

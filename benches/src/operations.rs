//! What operations take beside kubectl, on the same real API server in the same run, and how soon a long audit log answers.

mod audit;
mod blocked;
pub(crate) mod ground;
mod kubectl;
mod races;

use std::path::{Path, PathBuf};

use clap::ValueEnum;
use tempfile::TempDir;

use crate::Failure;
use crate::suite::Report;
use crate::table::Row;
use kubectl::Kubectl;

/// What can be measured by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Measure {
    /// Label 1,000 nodes, against `kubectl label nodes --all`
    Label,
    /// Cordon 500 nodes, against `kubectl cordon`
    Cordon,
    /// Drain 10 nodes with 20 pods each, against `kubectl drain`
    Drain,
    /// Memory and time on a core with 300 drains in flight, half of their 10,000 pods blocked for a minute
    Blocked,
    /// Pages of a million records in SQLite
    AuditSqlite,
    /// The same in PostgreSQL
    AuditPostgres,
}

/// One run.
pub struct Operations {
    binary: PathBuf,
    /// How often each side has its turn.
    rounds: usize,
    kubectl: Option<Kubectl>,
    /// Databases and logs of the service, and what kubectl keeps; removed at the end.
    folder: TempDir,
}

impl Operations {
    /// Prepares a run of the service in the file `binary`.
    pub async fn new(binary: &Path, rounds: usize) -> Result<Self, Failure> {
        let folder = tempfile::Builder::new().prefix("knm-bench-").tempdir()?;
        Ok(Self {
            binary: binary.to_owned(),
            rounds,
            kubectl: Kubectl::find(folder.path()).await?,
            folder,
        })
    }

    /// The version of the kubectl that is compared with; `None` if there is none on the `PATH`.
    #[must_use]
    pub fn compared_with(&self) -> Option<&str> {
        self.kubectl.as_ref().map(Kubectl::version)
    }

    /// Measures all of `wanted`, in order.
    pub async fn run(&self, wanted: &[Measure], report: Report<'_>) -> Result<Vec<Row>, Failure> {
        let mut rows = Vec::new();
        for measure in wanted {
            let measured = match measure {
                Measure::Label => vec![self.label().await?],
                Measure::Cordon => vec![self.cordon().await?],
                Measure::Drain => vec![self.drain().await?],
                Measure::Blocked => self.blocked().await?,
                Measure::AuditSqlite => vec![self.audit_in_sqlite().await?],
                Measure::AuditPostgres => vec![self.audit_in_postgres().await?],
            };
            for row in measured {
                report(&row)?;
                rows.push(row);
            }
        }
        Ok(rows)
    }
}

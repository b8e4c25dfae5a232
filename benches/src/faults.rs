//! What the service promises while the network to its database or to a cluster is in trouble, and what was measured of it.

mod ground;
mod probing;
mod trial;

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use knm_test_support::proxy::Fault;

use crate::Failure;
use ground::Ground;

/// What is in trouble.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The way to PostgreSQL.
    Database,
    /// The way to the API server.
    Cluster,
}

/// One kind of trouble on one side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// Where it is.
    pub side: Side,
    /// What it is.
    pub fault: Fault,
    /// What people call it.
    pub name: &'static str,
}

/// What was measured in one trouble: what is in a column, and whether that keeps the promise.
pub struct Measured {
    /// The trouble.
    pub trouble: Trouble,
    /// In the order of [`COLUMNS`].
    pub cells: [Cell; COLUMNS.len()],
}

/// One measured thing.
pub struct Cell {
    /// For people.
    pub text: String,
    /// Whether what was promised was kept.
    pub kept: bool,
}

/// What is run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The file of the service.
    pub binary: PathBuf,
    /// How long each trouble lasts.
    pub time: Duration,
    /// Only those whose name holds this.
    pub only: Option<String>,
}

/// The promises, as columns of a table.
pub const COLUMNS: [&str; 8] = [
    "/health/live",
    "/health/ready",
    "reads",
    "writes",
    "operation under way",
    "changes and records",
    "writes again after",
    "connections",
];

const FAULTS: [(Fault, &str); 6] = [
    (Fault::Delay(Duration::from_millis(100)), "delay of 100 ms"),
    (Fault::Loss, "loss of a tenth"),
    (Fault::Reset, "reset"),
    (Fault::HalfOpen, "half-open"),
    (Fault::Slow(2_000), "slow, 2 kB/s"),
    (Fault::Stopped, "stopped"),
];

/// All troubles, in the order in which they are run.
#[must_use]
pub fn troubles() -> Vec<Trouble> {
    let sides = [Side::Database, Side::Cluster];
    let each = sides
        .into_iter()
        .flat_map(|side| FAULTS.map(|(fault, name)| Trouble { side, fault, name }));
    each.collect()
}

/// Runs each trouble; each result is told as soon as it is known.
pub async fn run(
    plan: &Plan,
    tell: &mut (dyn FnMut(&Measured) -> Result<(), Failure> + Send),
) -> Result<Vec<Measured>, Failure> {
    let ground = Ground::prepare(&plan.binary).await?;
    let wanted = |trouble: &Trouble| plan.only.as_ref().is_none_or(|only| trouble.to_string().contains(only));
    let mut all = Vec::new();
    for (number, trouble) in troubles()
        .into_iter()
        .enumerate()
        .filter(|(_, trouble)| wanted(trouble))
    {
        let measured = trial::measure(&ground, trouble, number, plan.time).await?;
        tell(&measured)?;
        all.push(measured);
    }
    if all.is_empty() {
        let only = plan.only.as_deref().unwrap_or_default();
        return Err(format!("no trouble has \"{only}\" in its name").into());
    }
    ground.end().await?;
    Ok(all)
}

/// The first two lines of a table in Markdown.
#[must_use]
pub fn head() -> String {
    format!(
        "| fault | {} |\n|---|{}",
        COLUMNS.join(" | "),
        "---|".repeat(COLUMNS.len())
    )
}

impl Measured {
    /// Whether every promise was kept.
    #[must_use]
    pub fn is_kept(&self) -> bool {
        self.cells.iter().all(|cell| cell.kept)
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let side = match self.side {
            Side::Database => "PostgreSQL",
            Side::Cluster => "API server",
        };
        write!(f, "{side}: {}", self.name)
    }
}

/// A row of the table.
impl fmt::Display for Measured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "| {} |", self.trouble)?;
        for cell in &self.cells {
            let verdict = if cell.kept { "" } else { "**BROKEN** " };
            write!(f, " {verdict}{} |", cell.text)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_for_operators_has_a_row_for_each_trouble_and_a_column_for_each_promise() {
        let page = include_str!("../../docs/reliability.md");
        let table: Vec<&str> = page
            .lines()
            .skip_while(|line| !line.starts_with("| fault |"))
            .take_while(|line| line.starts_with('|'))
            .collect();
        assert_eq!(table[..2].join("\n"), head());
        let rows: Vec<String> = table[2..]
            .iter()
            .map(|row| row.split('|').nth(1).unwrap_or_default().trim().to_owned())
            .collect();
        let expected: Vec<String> = troubles().iter().map(Trouble::to_string).collect();
        assert_eq!(rows, expected);
        for row in &table[2..] {
            assert_eq!(row.matches('|').count(), COLUMNS.len() + 2, "{row}");
        }
    }

    #[test]
    fn a_promise_that_was_not_kept_is_seen_in_its_row() {
        let cell = |kept| Cell {
            text: "x".to_owned(),
            kept,
        };
        let mut measured = Measured {
            trouble: troubles()[0],
            cells: [(); COLUMNS.len()].map(|()| cell(true)),
        };
        assert!(measured.is_kept() && !measured.to_string().contains("BROKEN"));
        measured.cells[3] = cell(false);
        assert!(!measured.is_kept());
        assert!(measured.to_string().contains("| **BROKEN** x |"), "{measured}");
    }
}

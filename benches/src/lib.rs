//! Benchmarks that compare side by side in one run: the parts that they are made of.

pub mod bare;
pub mod client;
pub mod statistics;
pub mod table;

/// Why a run was given up; a benchmark only ever prints it.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

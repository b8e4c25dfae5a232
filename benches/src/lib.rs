//! Benchmarks that compare side by side in one run: the parts that they are made of.

pub mod bare;
pub mod caller;
pub mod client;
pub mod contest;
pub mod cores;
pub mod crowd;
pub mod faults;
pub mod fit;
pub mod operations;
pub mod pods;
pub mod process;
pub mod procfs;
pub mod program;
pub mod scale;
pub mod service;
pub mod soak;
pub mod statistics;
pub mod suite;
pub mod table;

/// Why a run was given up; a benchmark only ever prints it.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

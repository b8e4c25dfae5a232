//! A simulated fleet of nodes, for tests and for the demo.

mod chance;
mod change;
mod eviction;
mod fleet;
mod gateway;
mod pod_watch;
mod simulated;
mod workload;

pub use fleet::{Fleet, FleetOptions};

//! Changes of nodes, on a simulated fleet and a store in memory.

#![expect(clippy::unwrap_used, reason = "what a test builds is right, or the test is wrong")]

mod foreign;
mod holds;
mod keeper;
mod labels_and_taints;
#[path = "../support/meddler.rs"]
mod meddler;
#[path = "../support/nodes.rs"]
mod nodes;
mod rivals;
mod stage;
#[path = "../support/through.rs"]
mod through;

//! Operations over a simulated cluster: what is accepted is done, whatever happens to those who do it.

#![expect(clippy::unwrap_used, reason = "what a test builds is right, or the test is wrong")]
#![expect(clippy::panic, reason = "a test that waits in vain says for what")]

mod accepting;
mod allowed;
mod around;
mod batches;
mod cancelling;
mod drains;
mod figures;
mod holds;
mod late;
mod leases;
mod limited;
mod limits;
#[path = "../support/meddler.rs"]
mod meddler;
#[path = "../support/nodes.rs"]
mod nodes;
mod odd;
mod retention;
mod retries;
mod scripted;
mod stage;
mod takeovers;
mod templates;
#[path = "../support/through.rs"]
mod through;

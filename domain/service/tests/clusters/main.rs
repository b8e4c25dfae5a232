//! Clusters that are registered while the service runs.

#![expect(clippy::unwrap_used, reason = "what a test builds is right, or the test is wrong")]

mod expiring;
mod following;
mod inventory;
mod registering;
mod removing;
mod stage;

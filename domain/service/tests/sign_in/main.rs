//! Who sends requests, by which way, and what they may do, now and later.

#![expect(clippy::unwrap_used, reason = "what a test builds is right, or the test is wrong")]

mod clusters;
mod providers;
mod stage;
mod tokens;

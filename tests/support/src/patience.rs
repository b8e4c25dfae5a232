//! Waiting for what happens in its own time.

use std::time::Duration;

/// How long something may take before the test fails: generous, because machines are slow at times.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often is looked whether it happened.
const GLANCE: Duration = Duration::from_millis(20);

/// Waits until `look` sees something, and returns it.
///
/// # Panics
/// If it never does.
pub fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let mut rest = PATIENCE;
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        let Some(less) = rest.checked_sub(GLANCE) else {
            unreachable!("waited in vain for {what}");
        };
        rest = less;
        std::thread::sleep(GLANCE);
    }
}

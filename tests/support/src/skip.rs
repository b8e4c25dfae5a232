//! Tests that cannot run on this machine.

use std::io::Write as _;

/// Says loudly that the running test is skipped for want of what it `needs`.
///
/// # Panics
/// If `KNM_TEST_REQUIRE`, names separated by commas, has `name` among them: then nothing that needs it may be skipped.
pub fn skip(name: &str, needs: &str) {
    let required = std::env::var("KNM_TEST_REQUIRE").unwrap_or_default();
    assert!(
        !required.split(',').any(|one| one.trim() == name),
        "KNM_TEST_REQUIRE asks for {name}, and this test needs {needs}"
    );
    let thread = std::thread::current();
    let test = thread.name().unwrap_or("a test");
    // Past the harness, which hides what a passing test prints. Without stderr nobody is there to be told.
    let _ = writeln!(std::io::stderr(), "SKIPPED: {test} needs {needs}");
}

//! Panics are logged like everything else.

use std::panic::{PanicHookInfo, set_hook};

use crate::format::relative;
use crate::queue::LineQueue;

/// From here on a panic is one line of the log, on paper before the thread unwinds.
pub(crate) fn log_panics(queue: LineQueue) {
    set_hook(Box::new(move |panic| {
        let place = panic
            .location()
            .map(|location| format!("{}:{}", relative(location.file()), location.line()))
            .unwrap_or_default();
        tracing::error!(panic = message(panic), place, "a part of the program panicked");
        queue.flush();
    }));
}

fn message<'a>(panic: &'a PanicHookInfo<'_>) -> &'a str {
    panic.payload_as_str().unwrap_or("without a message")
}

//! Whether and how to trace.

use std::path::PathBuf;

use knm_telemetry::{TraceSettings, check_endpoint};

use super::resolve::Resolved;
use super::settings::Reader;

/// Reads what is configured, `None` where nobody traces, and adds to `problems` what is wrong with it.
pub fn read(resolved: &Resolved, problems: &mut Vec<String>) -> Option<TraceSettings> {
    let read = Reader(resolved);
    let endpoint = read.optional("traces.otlp_endpoint").filter(|text| !text.is_empty())?;
    if let Err(wrong) = check_endpoint(&endpoint) {
        let origin = &resolved.get("traces.otlp_endpoint").1;
        problems.push(format!(
            "traces.otlp_endpoint: the value ({origin}) cannot be used: {wrong}"
        ));
    }
    Some(TraceSettings {
        endpoint,
        sample_percent: read.number("traces.sample_percent"),
        headers_file: read.optional("traces.headers_file").map(PathBuf::from),
        ca_file: read.optional("traces.ca_file").map(PathBuf::from),
    })
}

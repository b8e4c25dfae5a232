//! Where traces are sent to.

use std::path::PathBuf;

/// What is appended to the address of a collector.
#[cfg_attr(
    not(feature = "otel"),
    expect(dead_code, reason = "nothing is sent without the feature")
)]
pub(crate) const PATH: &str = "/v1/traces";

/// How to trace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceSettings {
    /// The address of the collector, to which `/v1/traces` is appended.
    pub endpoint: String,
    /// Of how many requests and operations in a hundred spans are kept.
    pub sample_percent: u8,
    /// A file with a header per line that the collector wants.
    pub headers_file: Option<PathBuf>,
    /// A file with certificates to trust besides those of the machine.
    pub ca_file: Option<PathBuf>,
}

/// Says whether `text` can be the address of a collector.
///
/// # Errors
/// What is wrong and what is allowed. It repeats nothing of `text`, which may hold a password.
pub fn check_endpoint(text: &str) -> Result<(), &'static str> {
    const ALLOWED: &str = "the address of a collector that speaks OTLP over HTTP is allowed, such as http://127.0.0.1:4318 or https://collector.example/otlp";
    let rest = text
        .strip_prefix("http://")
        .or_else(|| text.strip_prefix("https://"))
        .ok_or(ALLOWED)?;
    let authority = rest.split('/').next().unwrap_or_default();
    if rest.contains('@') {
        return Err("it must not hold credentials: what the collector wants to see goes into traces.headers_file");
    }
    let is_odd = |character: char| !character.is_ascii_graphic() || matches!(character, '?' | '#' | '"' | '<' | '>');
    match authority.is_empty() || authority.starts_with(':') || rest.contains(is_odd) {
        true => Err(ALLOWED),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_a_plain_address_without_secrets() {
        for text in [
            "http://127.0.0.1:4318",
            "https://collector.example/otlp",
            "http://[::1]:4318/",
        ] {
            assert_eq!(check_endpoint(text), Ok(()), "{text}");
        }
        for text in [
            "",
            "collector:4318",
            "grpc://collector:4317",
            "http://",
            "http://:4318",
            "http:///v1/traces",
            "http://a b",
            "http://collector?token=x",
            "http://collector#x",
            "https://user:hunter2@collector",
        ] {
            let error = check_endpoint(text).unwrap_err();
            assert!(!error.contains("hunter2"), "{text}: {error}");
        }
    }
}

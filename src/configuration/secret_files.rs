//! Keys that name files with secrets. What such a file holds may stand there by a slip, and a path is shown everywhere.

use knm_model::looks_like_a_token;

use super::resolve::Resolved;
use super::value::Value;

const KEYS: [&str; 4] = [
    "server.tls.key_file",
    "traces.headers_file",
    "secrets.key_file",
    "auth.bootstrap_token_file",
];
/// How many digits a key of 32 bytes has in base64, the last one a sign that fills it up.
const DIGITS: usize = 44;

/// Adds to `problems` which of these keys have what a file holds, without repeating it.
pub fn check(resolved: &Resolved, problems: &mut Vec<String>) {
    for key in KEYS {
        if let (Value::Text(text), origin) = resolved.get(key)
            && is_content(text)
        {
            problems.push(format!(
                "{key} ({origin}) is what such a file holds, and the path of one is allowed"
            ));
        }
    }
}

fn is_content(text: &str) -> bool {
    let is_pem = text.starts_with("-----");
    let is_token = looks_like_a_token(text) && text.split('_').count() == 3;
    is_pem || is_token || text.contains(['\n', '\r']) || is_header(text) || is_key(text)
}

fn is_header(text: &str) -> bool {
    text.split_once(": ").is_some_and(|(name, _)| !name.contains('/'))
}

fn is_key(text: &str) -> bool {
    let digits = text.split_once(':').map_or(text, |(_, key)| key);
    digits.len() == DIGITS && digits.ends_with('=')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_is_told_from_paths() {
        for text in [
            "-----BEGIN PRIVATE KEY-----",
            "first:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
            "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
            "knm_0123456789abcdef_00",
            "authorization: Bearer x",
            "two\nlines",
        ] {
            assert!(is_content(text), "{text}");
        }
        for text in [
            "",
            "knm_token",
            "/run/secrets/knm_token",
            "./keys:old",
            "/etc/knm: keys/one",
            "C=A",
        ] {
            assert!(!is_content(text), "{text}");
        }
    }
}

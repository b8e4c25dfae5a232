//! Keys and values of labels, and keys of taints.

/// Why a text is not a key or value of a label.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LabelError {
    /// Not a qualified name.
    #[error(
        "\"{text}\" is not a key: an optional DNS subdomain of at most 253 characters and '/', then 1 to 63 letters, digits, '-', '_' or '.', starting and ending with a letter or digit are expected"
    )]
    Key {
        /// Its first characters.
        text: String,
    },
    /// Not a value.
    #[error(
        "\"{text}\" is not a label's value: nothing or at most 63 letters, digits, '-', '_' or '.', starting and ending with a letter or digit are expected"
    )]
    Value {
        /// Its first characters.
        text: String,
    },
}

/// Checks a key: a qualified name, as `zone` or `topology.kubernetes.io/zone`.
///
/// # Errors
/// [`LabelError::Key`] that quotes it.
pub fn check_label_key(text: &str) -> Result<(), LabelError> {
    let (prefix, name) = match text.split_once('/') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, text),
    };
    let prefix_is_fine = prefix.is_none_or(|prefix| crate::NodeName::parse(prefix).is_ok());
    if prefix_is_fine && !name.is_empty() && is_short_name(name) {
        return Ok(());
    }
    Err(LabelError::Key { text: beginning(text) })
}

/// Checks a label's value; an empty one is valid.
///
/// # Errors
/// [`LabelError::Value`] that quotes it.
pub fn check_label_value(text: &str) -> Result<(), LabelError> {
    if text.is_empty() || is_short_name(text) {
        return Ok(());
    }
    Err(LabelError::Value { text: beginning(text) })
}

fn is_short_name(text: &str) -> bool {
    let bytes = text.as_bytes();
    let ends_well = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    bytes.len() <= 63
        && ends_well(bytes.first())
        && ends_well(bytes.last())
        && bytes
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
}

/// As much of a text as an error quotes, without control characters.
fn beginning(text: &str) -> String {
    text.chars().take(100).flat_map(char::escape_debug).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn qualified_names_are_keys() {
        let long = "a".repeat(63);
        let prefixed = format!(
            "{}/{long}",
            ["b".repeat(63), "b".repeat(63), "b".repeat(63), "b".repeat(61)].join(".")
        );
        for text in ["a", "A_b.c-9", "topology.kubernetes.io/zone", &long, &prefixed] {
            assert_eq!(check_label_key(text), Ok(()), "{text}");
        }
    }

    #[test]
    fn what_is_not_a_qualified_name_is_refused_with_the_text() {
        let long = "a".repeat(64);
        let prefix = format!("{}/a", "b".repeat(254));
        for text in [
            "", "/", "a/", "/a", "a/b/c", "-a", "a-", "a b", "ä", "Prefix/a", "a\n", &long, &prefix,
        ] {
            let error = check_label_key(text).unwrap_err();
            assert!(error.to_string().contains("is not a key"), "{error}");
        }
    }

    #[test]
    fn an_empty_value_is_valid() {
        for text in ["", "a", "1.2_3-A", &"a".repeat(63)] {
            assert_eq!(check_label_value(text), Ok(()), "{text}");
        }
        for text in ["-", "a/b", "a b", ".a", "a\u{0}", &"a".repeat(64)] {
            assert!(check_label_value(text).is_err(), "{text}");
        }
    }
}

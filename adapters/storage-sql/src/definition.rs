//! Rows of `definition_versions`.

use knm_model::{Definition, DefinitionKind, DefinitionName, Timestamp};
use knm_ports::StorageError;

/// Kind, name, version, content as JSON, time of the change in milliseconds since 1970, and who made it.
pub type DefinitionRow = (String, String, i64, Option<String>, i64, String);

/// Reads a row.
///
/// # Errors
/// [`StorageError::Corrupt`] if it holds what this program does not write.
pub fn definition(row: DefinitionRow) -> Result<Definition, StorageError> {
    let (kind, name, version, content, changed_at, changed_by) = row;
    let corrupt = |message: String| StorageError::Corrupt {
        what: "definition",
        message: format!("{kind} \"{name}\": {message}"),
    };
    Ok(Definition {
        kind: DefinitionKind::parse(&kind).ok_or_else(|| {
            let known = DefinitionKind::ALL.map(DefinitionKind::as_str).join(", ");
            corrupt(format!("the kind is not known; known are {known}"))
        })?,
        name: DefinitionName::parse(&name).map_err(|error| corrupt(error.to_string()))?,
        version: u32::try_from(version).map_err(|_| corrupt(format!("{version} is not a version")))?,
        content: content
            .as_deref()
            .map(serde_json::from_str)
            .transpose()
            .map_err(|error| corrupt(format!("the content is not a JSON object: {error}")))?,
        changed_at: Timestamp::from_unix_millis(changed_at).ok_or_else(|| {
            corrupt(format!(
                "changed_at_unix_ms {changed_at} is not a time between the years -9999 and 9999"
            ))
        })?,
        changed_by,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(kind: &str, name: &str, version: i64, content: Option<&str>, changed_at: i64) -> DefinitionRow {
        let text = str::to_owned;
        (
            text(kind),
            text(name),
            version,
            content.map(text),
            changed_at,
            text("ann"),
        )
    }

    #[test]
    fn a_row_becomes_a_definition() {
        let found = definition(row("binding", "gpu", 3, Some(r#"{"a": 1}"#), 1_500)).unwrap();
        assert_eq!((found.kind, found.version), (DefinitionKind::Binding, 3));
        assert_eq!(found.content.unwrap()["a"], 1);
        assert_eq!(definition(row("template", "gpu", 4, None, 0)).unwrap().content, None);
    }

    #[test]
    fn a_row_that_nobody_here_wrote_is_corrupt_and_says_what() {
        let cases = [
            (row("moon", "a", 1, None, 0), "known are template, binding"),
            (row("template", "A", 1, None, 0), "'A'"),
            (row("template", "a", -1, None, 0), "-1 is not a version"),
            (row("template", "a", 1, Some("[]"), 0), "JSON object"),
            (row("template", "a", 1, None, i64::MAX), "changed_at_unix_ms"),
        ];
        for (row, expected) in cases {
            let error = definition(row).unwrap_err();
            assert!(matches!(error, StorageError::Corrupt { .. }), "{error:?}");
            assert!(error.to_string().contains(expected), "{error}");
        }
    }
}

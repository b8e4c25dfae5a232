//! Rows of `cluster_registrations`.

use knm_model::{ClusterName, ClusterRegistration, ClusterSource, Timestamp};
use knm_ports::StorageError;

/// Name, source, time of registration and of the last change, both in milliseconds since 1970.
pub type ClusterRegistrationRow = (String, String, i64, i64);

/// Reads a row.
///
/// # Errors
/// [`StorageError::Corrupt`] if it holds what this program does not write.
pub fn cluster_registration(row: ClusterRegistrationRow) -> Result<ClusterRegistration, StorageError> {
    let (name, source, registered_at, changed_at) = row;
    let corrupt = |message: String| StorageError::Corrupt {
        what: "cluster registration",
        message: format!("\"{name}\": {message}"),
    };
    let time = |column: &str, milliseconds: i64| {
        Timestamp::from_unix_millis(milliseconds).ok_or_else(|| {
            corrupt(format!(
                "{column} {milliseconds} is not a time between the years -9999 and 9999"
            ))
        })
    };
    Ok(ClusterRegistration {
        name: ClusterName::parse(&name).map_err(|error| corrupt(error.to_string()))?,
        source: ClusterSource::parse(&source).ok_or_else(|| {
            let known = ClusterSource::ALL.map(ClusterSource::as_str).join(", ");
            corrupt(format!("the source \"{source}\" is not known; known are {known}"))
        })?,
        registered_at: time("registered_at_unix_ms", registered_at)?,
        changed_at: time("changed_at_unix_ms", changed_at)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(name: &str, source: &str, registered_at: i64) -> ClusterRegistrationRow {
        (name.to_owned(), source.to_owned(), registered_at, 2_000)
    }

    #[test]
    fn a_row_becomes_a_registration() {
        let registration = cluster_registration(row("prod-eu", "in-cluster", 1_500)).unwrap();
        assert_eq!(registration.name.as_str(), "prod-eu");
        assert_eq!(registration.source, ClusterSource::InCluster);
        assert_eq!(registration.registered_at.to_string(), "1970-01-01T00:00:01.5Z");
    }

    #[test]
    fn a_row_that_nobody_here_wrote_is_corrupt_and_says_what() {
        let cases = [
            (row("Prod", "demo", 0), "'P'"),
            (
                row("prod", "moon", 0),
                "\"moon\" is not known; known are in-cluster, kubeconfig, demo",
            ),
            (row("prod", "demo", i64::MAX), "registered_at_unix_ms"),
        ];
        for (row, expected) in cases {
            let error = cluster_registration(row).unwrap_err();
            assert!(matches!(error, StorageError::Corrupt { .. }), "{error:?}");
            assert!(error.to_string().contains(expected), "{error}");
        }
    }
}

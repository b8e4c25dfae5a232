//! Rows of `registered_clusters`.

use knm_model::{ClusterName, RegisteredCluster, SealedSecret, Timestamp};
use knm_ports::StorageError;
use uuid::Uuid;

/// Name, revision, id of the key, nonce, ciphertext, server, user, then the times of expiry, registration and the last change in
/// milliseconds since 1970.
pub type RegisteredClusterRow = (
    String,
    String,
    String,
    Vec<u8>,
    Vec<u8>,
    String,
    String,
    Option<i64>,
    i64,
    i64,
);

/// Reads a row.
///
/// # Errors
/// [`StorageError::Corrupt`] if it holds what this program does not write.
pub fn registered_cluster(row: RegisteredClusterRow) -> Result<RegisteredCluster, StorageError> {
    let (name, revision, key_id, nonce, ciphertext, server, user, expires_at, registered_at, changed_at) = row;
    let corrupt = |message: String| StorageError::Corrupt {
        what: "registered cluster",
        message: format!("\"{name}\": {message}"),
    };
    let time = |column: &str, milliseconds: i64| {
        Timestamp::from_unix_millis(milliseconds).ok_or_else(|| {
            corrupt(format!(
                "{column} {milliseconds} is not a time between the years -9999 and 9999"
            ))
        })
    };
    Ok(RegisteredCluster {
        name: ClusterName::parse(&name).map_err(|error| corrupt(error.to_string()))?,
        revision: Uuid::try_parse(&revision).map_err(|_| corrupt("the revision is not a uuid".to_owned()))?,
        sealed: SealedSecret {
            key_id,
            nonce,
            ciphertext,
        },
        server,
        user,
        expires_at: expires_at.map(|at| time("expires_at_unix_ms", at)).transpose()?,
        registered_at: time("registered_at_unix_ms", registered_at)?,
        changed_at: time("changed_at_unix_ms", changed_at)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const REVISION: &str = "01b8dac5-b400-7000-8000-00000000000a";

    fn row(name: &str, revision: &str, expires_at: Option<i64>, changed_at: i64) -> RegisteredClusterRow {
        let text = str::to_owned;
        let (nonce, ciphertext) = (vec![1], vec![2]);
        (
            text(name),
            text(revision),
            text("key-1"),
            nonce,
            ciphertext,
            text("https://10.0.0.1/"),
            text("ann"),
            expires_at,
            1_500,
            changed_at,
        )
    }

    #[test]
    fn a_row_becomes_a_cluster() {
        let cluster = registered_cluster(row("prod", REVISION, Some(2_500), 2_000)).unwrap();
        assert_eq!((cluster.name.as_str(), cluster.user.as_str()), ("prod", "ann"));
        assert_eq!(cluster.expires_at.unwrap().to_string(), "1970-01-01T00:00:02.5Z");
        assert_eq!(cluster.sealed.key_id, "key-1");
        assert_eq!(
            registered_cluster(row("prod", REVISION, None, 0)).unwrap().expires_at,
            None
        );
    }

    #[test]
    fn a_row_that_nobody_here_wrote_is_corrupt_and_says_what() {
        for (row, expected) in [
            (row("Prod", REVISION, None, 0), "'P'"),
            (row("prod", "1", None, 0), "not a uuid"),
            (row("prod", REVISION, Some(i64::MAX), 0), "expires_at_unix_ms"),
            (row("prod", REVISION, None, i64::MAX), "changed_at_unix_ms"),
        ] {
            let error = registered_cluster(row).unwrap_err();
            assert!(matches!(error, StorageError::Corrupt { .. }), "{error:?}");
            assert!(error.to_string().contains(expected), "{error}");
        }
    }
}

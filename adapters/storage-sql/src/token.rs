//! Rows of `api_tokens`.

use std::collections::BTreeSet;

use knm_model::{ApiToken, ClusterName, Role, RoleGrant, Timestamp, TokenId, check_token_name};
use knm_ports::StorageError;
use serde_json::Value;
use sqlx::FromRow;

/// A row of `api_tokens`.
#[derive(Clone, Debug, FromRow)]
pub struct ApiTokenRow {
    id: String,
    name: String,
    hash: Vec<u8>,
    role: String,
    force: bool,
    clusters_json: Option<String>,
    nodes: Option<String>,
    created_at_unix_ms: i64,
    created_by: String,
    expires_at_unix_ms: i64,
    revoked_at_unix_ms: Option<i64>,
    revoked_by: Option<String>,
    last_used_at_unix_ms: Option<i64>,
}

/// Reads a row.
///
/// # Errors
/// [`StorageError::Corrupt`] if it holds what this program does not write. It says nothing of the hash but how long it is.
pub fn api_token(row: ApiTokenRow) -> Result<ApiToken, StorageError> {
    let id = row.id;
    let corrupt = |message: String| StorageError::Corrupt {
        what: "API token",
        message: format!("\"{id}\": {message}"),
    };
    let time = |column: &str, milliseconds: i64| {
        Timestamp::from_unix_millis(milliseconds).ok_or_else(|| {
            corrupt(format!(
                "{column} {milliseconds} is not a time between the years -9999 and 9999"
            ))
        })
    };
    let clusters = |text: &str| {
        serde_json::from_str::<Vec<String>>(text)
            .map_err(|error| corrupt(format!("clusters_json is not a list of texts: {error}")))?
            .iter()
            .map(|name| ClusterName::parse(name).map_err(|error| corrupt(format!("clusters_json: {error}"))))
            .collect::<Result<BTreeSet<ClusterName>, StorageError>>()
    };
    check_token_name(&row.name).map_err(|error| corrupt(error.message))?;
    Ok(ApiToken {
        id: TokenId::parse(&id).ok_or_else(|| corrupt("the id is not 16 hexadecimal digits".to_owned()))?,
        hash: row
            .hash
            .try_into()
            .map_err(|bytes: Vec<u8>| corrupt(format!("hash has {} bytes and not 32", bytes.len())))?,
        grant: RoleGrant {
            role: Role::parse(&row.role).ok_or_else(|| {
                let known = Role::ALL.map(Role::as_str).join(", ");
                corrupt(format!("the role \"{}\" is not known; known are {known}", row.role))
            })?,
            force: row.force,
            clusters: row.clusters_json.as_deref().map(clusters).transpose()?,
            // As it was written: what it means is up to the model, for which one that it cannot read finds no node.
            nodes: row.nodes,
        },
        created_at: time("created_at_unix_ms", row.created_at_unix_ms)?,
        expires_at: time("expires_at_unix_ms", row.expires_at_unix_ms)?,
        revoked: match (row.revoked_at_unix_ms, row.revoked_by) {
            (Some(at), Some(by)) => Some((time("revoked_at_unix_ms", at)?, by)),
            (None, None) => None,
            (Some(_), None) | (None, Some(_)) => {
                return Err(corrupt("it has one of revoked_at_unix_ms and revoked_by".to_owned()));
            }
        },
        last_used_at: row
            .last_used_at_unix_ms
            .map(|at| time("last_used_at_unix_ms", at))
            .transpose()?,
        name: row.name,
        created_by: row.created_by,
    })
}

/// What is stored of the clusters that a grant is limited to.
#[must_use]
pub fn clusters_json(clusters: &BTreeSet<ClusterName>) -> String {
    let names: Vec<&str> = clusters.iter().map(ClusterName::as_str).collect();
    Value::from(names).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row() -> ApiTokenRow {
        ApiTokenRow {
            id: "0123456789abcdef".to_owned(),
            name: "ci".to_owned(),
            hash: vec![0xab; 32],
            role: "operator".to_owned(),
            force: true,
            clusters_json: Some("[\"prod\",\"demo\"]".to_owned()),
            nodes: Some("pool=gpu".to_owned()),
            created_at_unix_ms: 1_500,
            created_by: "ann".to_owned(),
            expires_at_unix_ms: 2_500,
            revoked_at_unix_ms: None,
            revoked_by: None,
            last_used_at_unix_ms: None,
        }
    }

    #[test]
    fn a_row_becomes_a_token() {
        let token = api_token(row()).unwrap();
        assert_eq!(token.id.to_string(), "0123456789abcdef");
        assert_eq!((token.grant.role, token.grant.force), (Role::Operator, true));
        let clusters = token.grant.clusters.unwrap();
        assert_eq!(clusters_json(&clusters), "[\"demo\",\"prod\"]");
        assert_eq!(token.revoked, None);
        assert_eq!(token.expires_at.to_string(), "1970-01-01T00:00:02.5Z");
    }

    #[test]
    fn a_selector_that_is_not_understood_any_more_is_no_error_and_no_permission() {
        let token = api_token(ApiTokenRow {
            nodes: Some("pool in (".to_owned()),
            ..row()
        });
        let grant = token.unwrap().grant.grant();
        assert_eq!(grant.permissions.iter().count(), 0, "{grant:?}");
    }

    #[test]
    fn a_row_that_nobody_here_wrote_is_corrupt_and_says_what() {
        type Damage = fn(&mut ApiTokenRow);
        let damage: [(Damage, &str); 10] = [
            (|row| row.id = "0123456789ABCDEF".to_owned(), "hexadecimal"),
            (|row| row.name = "c i".to_owned(), "\"c i\""),
            (|row| row.hash = vec![0xab; 31], "hash has 31 bytes"),
            (|row| row.role = "god".to_owned(), "known are viewer, operator, admin"),
            (|row| row.clusters_json = Some("{}".to_owned()), "clusters_json"),
            (|row| row.clusters_json = Some("[\"Prod\"]".to_owned()), "'P'"),
            (|row| row.expires_at_unix_ms = i64::MAX, "expires_at_unix_ms"),
            (|row| row.last_used_at_unix_ms = Some(i64::MIN), "last_used_at_unix_ms"),
            (|row| row.revoked_at_unix_ms = Some(1), "revoked_by"),
            (|row| row.revoked_by = Some("ann".to_owned()), "revoked_by"),
        ];
        for (damage, expected) in damage {
            let mut row = row();
            damage(&mut row);
            let error = api_token(row).unwrap_err();
            assert!(matches!(error, StorageError::Corrupt { .. }), "{error:?}");
            assert!(error.to_string().contains(expected), "{error}");
        }
    }
}

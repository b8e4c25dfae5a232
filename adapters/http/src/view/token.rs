//! API tokens.

use knm_domain::MadeToken;
use knm_model::{ApiToken, RawRoleGrant, Timestamp};
use poem_openapi::{Enum, Object};
use serde::{Deserialize, Serialize};

/// A new API token.
#[derive(Debug, Deserialize, Object)]
#[oai(rename = "NewToken")]
#[serde(deny_unknown_fields)]
pub(crate) struct NewTokenBody {
    /// What people call it: 1 to 63 letters, digits, '-', '_', '.' and '@'. It stands in the audit log and on nodes. No other token that is not revoked has it.
    pub(crate) name: String,
    /// What it allows: `viewer`, `operator` or `admin`.
    role: String,
    /// Whether drains may be forced with it, as far as it goes otherwise.
    #[oai(default)]
    #[serde(default)]
    force: bool,
    /// The names of the clusters that it is limited to; absent: all, also those that come later.
    #[oai(default)]
    #[serde(default)]
    clusters: Option<Vec<String>>,
    /// A label selector of the nodes that it is limited to; absent: all.
    #[oai(default)]
    #[serde(default)]
    nodes: Option<String>,
    /// For how many days it is valid, 1 to 3,650.
    #[oai(default, validator(minimum(value = "1"), maximum(value = "3650")))]
    #[serde(default)]
    pub(crate) expires_in_days: Option<u32>,
}

/// An API token, without its secret.
#[derive(Debug, Object, Serialize)]
#[oai(rename = "Token")]
pub(crate) struct TokenView {
    /// Its id, which is a part of it.
    id: String,
    /// What people call it.
    name: String,
    /// What it allows.
    role: RoleView,
    /// Whether drains may be forced with it.
    force: bool,
    /// The clusters that it is limited to; null: all.
    clusters: Option<Vec<String>>,
    /// The label selector of the nodes that it is limited to; null: all.
    nodes: Option<String>,
    /// Whether it is worth something.
    state: TokenStateView,
    /// When it was made, RFC 3339 in UTC.
    created_at: String,
    /// Who made it.
    created_by: String,
    /// From when on it is worth nothing, RFC 3339 in UTC.
    expires_at: String,
    /// When it was last used, to the minute; null: never.
    last_used_at: Option<String>,
    /// When it was revoked; null: it was not.
    revoked_at: Option<String>,
    /// Who revoked it; null: nobody.
    revoked_by: Option<String>,
}

/// An API token that was just made. Its secret is told this once, and is in no log: this is not `Debug`.
#[derive(Object, Serialize)]
#[oai(rename = "MadeToken")]
pub(crate) struct MadeTokenView {
    /// The token for the header `Authorization: Bearer`. Nobody can get it again.
    secret: String,
    /// What is kept of it.
    token: TokenView,
}

/// All API tokens.
#[derive(Debug, Object, Serialize)]
#[oai(rename = "TokenList")]
pub(crate) struct TokenListView {
    /// The tokens, the latest first, also those that are revoked or have run out.
    items: Vec<TokenView>,
    /// Always null: the list is whole.
    next_cursor: Option<String>,
    /// How many there are.
    total: u64,
}

/// A role.
#[derive(Clone, Copy, Debug, Enum, Serialize)]
#[oai(rename = "Role", rename_all = "snake_case")]
#[serde(rename_all = "snake_case")]
pub(crate) enum RoleView {
    /// Sees everything and changes nothing.
    Viewer,
    /// Changes and drains nodes, too.
    Operator,
    /// Says who may do what and which clusters there are, too.
    Admin,
}

/// Whether a token is worth something.
#[derive(Clone, Copy, Debug, Enum, Serialize)]
#[oai(rename = "TokenState", rename_all = "snake_case")]
#[serde(rename_all = "snake_case")]
pub(crate) enum TokenStateView {
    /// It is.
    Valid,
    /// It has run out.
    Expired,
    /// It was revoked.
    Revoked,
}

impl NewTokenBody {
    pub(crate) fn grant(&self) -> RawRoleGrant {
        RawRoleGrant {
            role: self.role.clone(),
            force: self.force,
            clusters: self.clusters.clone(),
            nodes: self.nodes.clone(),
        }
    }
}

impl TokenView {
    pub(crate) fn of(token: &ApiToken, now: Timestamp) -> Self {
        let revoked = token.revoked.as_ref();
        Self {
            id: token.id.to_string(),
            name: token.name.clone(),
            role: match token.grant.role {
                knm_model::Role::Viewer => RoleView::Viewer,
                knm_model::Role::Operator => RoleView::Operator,
                knm_model::Role::Admin => RoleView::Admin,
            },
            force: token.grant.force,
            clusters: token
                .grant
                .clusters
                .as_ref()
                .map(|names| names.iter().map(ToString::to_string).collect()),
            nodes: token.grant.nodes.clone(),
            state: match revoked {
                Some(_) => TokenStateView::Revoked,
                None if token.is_valid(now) => TokenStateView::Valid,
                None => TokenStateView::Expired,
            },
            created_at: token.created_at.to_string(),
            created_by: token.created_by.clone(),
            expires_at: token.expires_at.to_string(),
            last_used_at: token.last_used_at.map(|at| at.to_string()),
            revoked_at: revoked.map(|(at, _)| at.to_string()),
            revoked_by: revoked.map(|(_, by)| by.clone()),
        }
    }
}

impl MadeTokenView {
    pub(crate) fn of(made: &MadeToken, now: Timestamp) -> Self {
        Self {
            secret: made.text.reveal(),
            token: TokenView::of(&made.token, now),
        }
    }
}

impl TokenListView {
    pub(crate) fn of(tokens: &[ApiToken], now: Timestamp) -> Self {
        Self {
            items: tokens.iter().map(|token| TokenView::of(token, now)).collect(),
            next_cursor: None,
            total: u64::try_from(tokens.len()).unwrap_or(u64::MAX),
        }
    }
}

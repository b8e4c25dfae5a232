//! By what somebody may do something.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::TokenId;

/// By what somebody may do something. It is stored with what takes longer, and asked again before that begins: permissions that were
/// withdrawn meanwhile count no more.
///
/// Of identity tokens the end is kept. Of tokens of a cluster nothing tells when they end: their holders are asked about by the groups that they
/// had when they signed in, and what they follow ends after an hour.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Authority {
    /// Nobody signs in here: everybody may do everything.
    Open,
    /// This service itself.
    Service,
    /// An API token of this service.
    Token(TokenId),
    /// What their clusters allow them.
    Kubernetes(KubernetesIdentity),
    /// The claims of an identity token, as far as permissions come from them.
    Oidc {
        /// The subject, as the issuer names it.
        subject: String,
        /// The claims that the configuration makes permissions of.
        claims: Map<String, Value>,
        /// When the token ended or will end, in seconds since 1970; `None`: that is not known.
        #[serde(default)]
        exp: Option<i64>,
    },
}

/// Who somebody is, by the word of a cluster: what a TokenReview tells and a SubjectAccessReview takes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct KubernetesIdentity {
    /// The name.
    pub user: String,
    /// The id that no other user of this name has had.
    #[serde(default)]
    pub uid: String,
    /// The groups.
    #[serde(default)]
    pub groups: Vec<String>,
    /// What authorizers are told besides.
    #[serde(default)]
    pub extra: BTreeMap<String, Vec<String>>,
}

impl KubernetesIdentity {
    /// The same person in a cluster that did not sign them in; `None` for what means something in its own cluster only: service accounts, nodes
    /// and others whose name begins with `system:`. A service account of one cluster must not become the one of the same name in another.
    #[must_use]
    pub fn elsewhere(&self) -> Option<Self> {
        if self.user.starts_with("system:") {
            return None;
        }
        let groups = self
            .groups
            .iter()
            .filter(|group| !group.starts_with("system:") || *group == "system:authenticated")
            .cloned()
            .collect();
        Some(Self {
            user: self.user.clone(),
            uid: self.uid.clone(),
            groups,
            extra: BTreeMap::new(),
        })
    }
}

impl Authority {
    /// As text, to be stored. There is nothing secret in it.
    #[must_use]
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Reads [`Authority::to_json`] back, `None` for any other text.
    #[must_use]
    pub fn from_json(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }
}

//! What the claims of an identity token allow.

use serde_json::{Map, Value};

use super::{Access, RawRoleGrant, RoleGrant};
use crate::{QueryError, excerpt};

/// How claims become permissions: what the configuration says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClaimRules {
    /// Each of those that holds adds its grant.
    pub rules: Vec<ClaimRule>,
}

/// Whoever has `value` in a claim gets a grant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimRule {
    /// The claim; a dot goes into an object, as in `realm_access.roles`. A claim whose own name has dots is found, too.
    pub claim: String,
    /// The claim is this text, or is a list with it. `*`: the claim is there at all.
    pub value: String,
    /// What that allows.
    pub grant: RoleGrant,
}

/// A rule as the configuration writes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RawClaimRule {
    /// The claim.
    pub claim: String,
    /// What it must be.
    pub value: String,
    /// What that allows.
    pub grant: RawRoleGrant,
}

impl ClaimRule {
    /// Reads a rule such as `groups=sre -> operator+force in east|west on pool=gpu`: `in` limits it to clusters, `on` to nodes.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn parse_text(text: &str) -> Result<Self, Vec<QueryError>> {
        let parts = text
            .split_once("->")
            .and_then(|(left, right)| Some((left.split_once('=')?, right.trim())));
        let Some(((claim, value), allowed)) = parts else {
            let message = format!(
                "\"{}\" is no rule: <claim>=<value> -> <role>[+force] [in <cluster>|<cluster>] [on <label selector>] is expected",
                excerpt(text)
            );
            return Err(vec![QueryError::new("rule", message)]);
        };
        let (allowed, nodes) = match allowed.split_once(" on ") {
            Some((allowed, nodes)) => (allowed, Some(nodes.trim().to_owned())),
            None => (allowed, None),
        };
        let (role, clusters) = match allowed.split_once(" in ") {
            Some((role, clusters)) => {
                let names = clusters.split('|').map(|name| name.trim().to_owned());
                (role, Some(names.collect()))
            }
            None => (allowed, None),
        };
        let (role, force) = match role.trim().split_once('+') {
            Some((role, "force")) => (role, true),
            _ => (role.trim(), false),
        };
        Self::parse(&RawClaimRule {
            claim: claim.trim().to_owned(),
            value: value.trim().to_owned(),
            grant: RawRoleGrant {
                role: role.to_owned(),
                force,
                clusters,
                nodes,
            },
        })
    }

    /// Checks a rule.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn parse(raw: &RawClaimRule) -> Result<Self, Vec<QueryError>> {
        let mut errors = Vec::new();
        for (name, text) in [("claim", &raw.claim), ("value", &raw.value)] {
            if text.is_empty() || 253 < text.len() || text.chars().any(char::is_control) {
                let message = format!(
                    "\"{}\" is not allowed: 1 to 253 bytes without control characters are",
                    excerpt(text)
                );
                errors.push(QueryError::new(name, message));
            }
        }
        match RoleGrant::parse(&raw.grant) {
            Ok(grant) if errors.is_empty() => Ok(Self {
                claim: raw.claim.clone(),
                value: raw.value.clone(),
                grant,
            }),
            Ok(_) => Err(errors),
            Err(wrong) => {
                errors.extend(wrong);
                Err(errors)
            }
        }
    }

    fn holds(&self, claims: &Map<String, Value>) -> bool {
        let matches = |text: &str| self.value == "*" || self.value == text;
        match claim(claims, &self.claim) {
            Some(Value::String(text)) => matches(text),
            Some(Value::Array(values)) => values.iter().filter_map(Value::as_str).any(matches),
            Some(Value::Bool(flag)) => matches(if *flag { "true" } else { "false" }),
            Some(Value::Null | Value::Number(_) | Value::Object(_)) | None => false,
        }
    }
}

impl ClaimRules {
    /// What these claims allow.
    #[must_use]
    pub fn access(&self, claims: &Map<String, Value>) -> Access {
        let holding = self.rules.iter().filter(|rule| rule.holds(claims));
        Access::new(holding.map(|rule| rule.grant.grant()).collect())
    }

    /// The claims that the rules look at, and nothing else of a token.
    #[must_use]
    pub fn relevant(&self, claims: &Map<String, Value>) -> Map<String, Value> {
        let first = |path: &str| match claims.contains_key(path) {
            true => path.to_owned(),
            false => path.split('.').next().unwrap_or(path).to_owned(),
        };
        self.rules
            .iter()
            .map(|rule| first(&rule.claim))
            .filter_map(|name| claims.get(&name).map(|value| (name, value.clone())))
            .collect()
    }
}

/// A claim by its name, or by the way to it.
fn claim<'a>(claims: &'a Map<String, Value>, path: &str) -> Option<&'a Value> {
    if let Some(value) = claims.get(path) {
        return Some(value);
    }
    let mut names = path.split('.');
    let mut value = claims.get(names.next()?)?;
    for name in names {
        value = value.get(name)?;
    }
    Some(value)
}

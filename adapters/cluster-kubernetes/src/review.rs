//! What the API server says of people: whose a token is (TokenReview) and what somebody may do (SubjectAccessReview). Also what this service may do
//! (SelfSubjectAccessReview).

use std::collections::BTreeMap;

use bytes::Bytes;
use http::{Method, StatusCode};
use knm_model::{ClusterFeature, KubernetesAction, KubernetesIdentity};
use knm_ports::ClusterError;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::connection::{Connection, Question, Reply};
use crate::error::Failure;
use crate::metric::Call;

const TOKEN: Call = Call {
    verb: "create",
    resource: "tokenreviews",
};
const ACCESS: Call = Call {
    verb: "create",
    resource: "subjectaccessreviews",
};
const OWN_ACCESS: Call = Call {
    verb: "create",
    resource: "selfsubjectaccessreviews",
};
const TOKEN_PATH: &str = "/apis/authentication.k8s.io/v1/tokenreviews";
const ACCESS_PATH: &str = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
const OWN_ACCESS_PATH: &str = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
/// How many characters of a cluster's reason are logged.
const LONGEST_REASON: usize = 300;

#[derive(Deserialize)]
struct Review<T> {
    status: T,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct TokenStatus {
    #[serde(default)]
    authenticated: bool,
    #[serde(default)]
    user: Option<User>,
    /// Those of the audiences asked for that the token is for.
    #[serde(default)]
    audiences: Option<Vec<String>>,
    #[serde(default)]
    error: String,
}

#[derive(Deserialize)]
struct User {
    #[serde(default)]
    username: String,
    #[serde(default)]
    uid: String,
    #[serde(default)]
    groups: Option<Vec<String>>,
    #[serde(default)]
    extra: Option<BTreeMap<String, Vec<String>>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct AccessStatus {
    #[serde(default)]
    allowed: bool,
    #[serde(default)]
    denied: bool,
    #[serde(default)]
    evaluation_error: String,
}

/// Who a token belongs to, `None` if it is not accepted or for none of `audiences`.
pub(crate) async fn identify(
    connection: &Connection,
    token: &str,
    audiences: &[String],
) -> Result<Option<KubernetesIdentity>, Failure> {
    if token.is_empty() {
        // API servers call that invalid, and not a token that nobody has.
        return Ok(None);
    }
    let mut spec = json!({"token": token});
    if !audiences.is_empty() {
        spec["audiences"] = json!(audiences);
    }
    let body = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": spec});
    let status: TokenStatus = ask(connection, TOKEN, TOKEN_PATH, &body).await?;
    if !status.authenticated {
        // It may say why, in words of an authenticator that may quote what it was given.
        let why: String = match status.error.contains(token) {
            true => String::new(),
            false => status.error.chars().take(LONGEST_REASON).collect(),
        };
        tracing::debug!(cluster = %connection.cluster(), why, "the cluster does not accept a token");
        return Ok(None);
    }
    let is_for = |audience: &String| status.audiences.iter().flatten().any(|one| one == audience);
    if !audiences.is_empty() && !audiences.iter().any(is_for) {
        // So does an authenticator that knows no audiences: the token is one for the API server.
        tracing::debug!(cluster = %connection.cluster(), "a token is not for one of our audiences");
        return Ok(None);
    }
    match status.user {
        Some(user) if !user.username.is_empty() => Ok(Some(KubernetesIdentity {
            user: user.username,
            uid: user.uid,
            groups: user.groups.unwrap_or_default(),
            extra: user.extra.unwrap_or_default(),
        })),
        Some(_) | None => Err(Failure::unreadable_because(
            "create of tokenreviews: a token is accepted, and nobody is named".to_owned(),
        )),
    }
}

/// Whether somebody may do all of `actions`.
pub(crate) async fn may(
    connection: &Connection,
    identity: &KubernetesIdentity,
    actions: &[KubernetesAction],
) -> Result<bool, Failure> {
    if identity.user.is_empty() || actions.is_empty() {
        return Ok(false);
    }
    let each = actions.iter().map(|action| may_once(connection, identity, action));
    let answers = futures::future::try_join_all(each).await?;
    Ok(answers.into_iter().all(|is_allowed| is_allowed))
}

async fn may_once(
    connection: &Connection,
    identity: &KubernetesIdentity,
    action: &KubernetesAction,
) -> Result<bool, Failure> {
    let status: AccessStatus = ask(connection, ACCESS, ACCESS_PATH, &access_review(identity, action)).await?;
    if !status.evaluation_error.is_empty() {
        tracing::debug!(cluster = %connection.cluster(), error = status.evaluation_error, "the cluster could not look at all of its rules");
    }
    Ok(status.allowed && !status.denied)
}

/// Whether this service may do `action`.
pub(crate) async fn may_we(connection: &Connection, action: &KubernetesAction) -> Result<bool, Failure> {
    let body = json!({
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": attributes(action)},
    });
    let status: AccessStatus = ask(connection, OWN_ACCESS, OWN_ACCESS_PATH, &body).await?;
    if !status.allowed && !status.denied && !status.evaluation_error.is_empty() {
        let why: String = status.evaluation_error.chars().take(LONGEST_REASON).collect();
        return Err(Failure::unreadable_because(format!(
            "{} of {}: the cluster could not look at all of its rules: {why}",
            OWN_ACCESS.verb, OWN_ACCESS.resource
        )));
    }
    Ok(status.allowed && !status.denied)
}

/// Without a namespace and a name: in all namespaces, and each of them.
fn attributes(action: &KubernetesAction) -> Value {
    let mut attributes = json!({"verb": action.verb, "group": action.group, "resource": action.resource});
    if !action.subresource.is_empty() {
        attributes["subresource"] = json!(action.subresource);
    }
    attributes
}

fn access_review(identity: &KubernetesIdentity, action: &KubernetesAction) -> Value {
    json!({
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SubjectAccessReview",
        "spec": {
            "user": identity.user,
            "uid": identity.uid,
            "groups": identity.groups,
            "extra": identity.extra,
            "resourceAttributes": attributes(action),
        },
    })
}

async fn ask<T: DeserializeOwned>(connection: &Connection, call: Call, path: &str, body: &Value) -> Result<T, Failure> {
    let question = Question {
        method: Method::POST,
        path,
        body: Some(("application/json", Bytes::from(body.to_string()))),
    };
    let reply = connection.reply(call, &question).await?;
    if !reply.code.is_success() {
        return Err(refused(connection, call, &reply));
    }
    let review: Review<T> = serde_json::from_slice(&reply.body).map_err(|error| Failure::unreadable(call, &error))?;
    Ok(review.status)
}

/// A refusal in our own words: those of the server, or of a webhook that it asks, might quote the token.
fn refused(connection: &Connection, call: Call, reply: &Reply) -> Failure {
    let mut failure = Failure::refused(call, reply.code, &reply.headers, &[]);
    if reply.code == StatusCode::FORBIDDEN {
        let action = call.action();
        let feature = action.and_then(ClusterFeature::that_needs);
        let role = feature.map_or("system:basic-user", ClusterFeature::role);
        failure.error = ClusterError::Forbidden {
            action,
            message: format!(
                "{} of {}: the cluster role {role} or system:auth-delegator would allow it",
                call.verb, call.resource
            ),
        };
    }
    if let ClusterError::TooManyRequests {
        retry_after: Some(time),
    } = failure.error
    {
        connection.hush(time);
    }
    failure
}

#[cfg(test)]
mod tests {
    use knm_model::Permission;

    use super::*;

    #[test]
    fn a_review_names_the_person_with_all_that_is_known_and_the_action_in_all_namespaces() {
        let identity = KubernetesIdentity {
            user: "alice".to_owned(),
            uid: "u".to_owned(),
            groups: vec!["sre".to_owned()],
            extra: BTreeMap::from([("scopes".to_owned(), vec!["a".to_owned(), "b".to_owned()])]),
        };
        let review = access_review(&identity, &Permission::Drain.kubernetes()[0]);
        assert_eq!(
            review["spec"],
            json!({"user": "alice", "uid": "u", "groups": ["sre"], "extra": {"scopes": ["a", "b"]},
                "resourceAttributes": {"verb": "create", "group": "", "resource": "pods", "subresource": "eviction"}})
        );
        let review = access_review(&identity, &Permission::Administer.kubernetes()[0]);
        assert_eq!(
            review["spec"]["resourceAttributes"],
            json!({"verb": "administer", "group": "kube-node-manager.io", "resource": "service"})
        );
    }
}

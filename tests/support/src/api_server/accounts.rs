//! Service accounts with rules, and tokens of theirs.

use std::fs;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use base64::prelude::BASE64_STANDARD;
use http::Method;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use serde_json::{Value, json};

use super::{ApiServer, QUESTIONS};

const ACCOUNTS: &str = "/api/v1/namespaces/default/serviceaccounts";
const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";
/// How long a token is valid: the shortest time that API servers know is ten minutes.
const VALID_SECONDS: u32 = 3600;

impl ApiServer {
    /// Creates a service account in the namespace `default` that may do in the whole cluster what `rules` say, those of a ClusterRole, and
    /// returns a token of it for the API server. It is not there before; its ClusterRole and ClusterRoleBinding are called `account-<name>`.
    ///
    /// # Panics
    /// If something is refused.
    pub async fn service_account(&self, name: &str, rules: &[Value]) -> String {
        self.created(ACCOUNTS, &json!({"metadata": {"name": name}})).await;
        if !rules.is_empty() {
            self.allow(name, rules).await;
        }
        self.service_account_token(name, &[]).await
    }

    /// Lets a service account do what `rules` say and nothing else. The API server learns of what it may not do any more a moment later.
    ///
    /// # Panics
    /// If something is refused.
    pub async fn change_rules(&self, name: &str, rules: &[Value]) {
        let path = format!("{RBAC}/clusterroles/account-{name}");
        let (status, answer) = self.request(Method::PATCH, &path, Some(&json!({"rules": rules}))).await;
        assert_eq!(status, 200, "{path}: {answer}");
        for rule in rules {
            self.until_allowed(name, rule).await;
        }
    }

    /// Another token of a service account, for these audiences; for the API server if there are none.
    ///
    /// # Panics
    /// If it is refused.
    pub async fn service_account_token(&self, name: &str, audiences: &[&str]) -> String {
        let body = json!({"spec": {"audiences": audiences, "expirationSeconds": VALID_SECONDS}});
        let answer = self.created(&format!("{ACCOUNTS}/{name}/token"), &body).await;
        answer["status"]["token"].as_str().expect("a token").to_owned()
    }

    /// The token with changed claims, signed by the cluster: what it would have given out in other circumstances.
    ///
    /// # Panics
    /// If it is no token of a service account of this server.
    #[must_use]
    pub fn signed_again(&self, token: &str, change: impl FnOnce(&mut Value)) -> String {
        let mut parts = token.split('.');
        let (header, claims) = (parts.next().expect("a header"), parts.next().expect("claims"));
        let mut claims: Value =
            serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).expect("base64")).expect("claims");
        change(&mut claims);
        let signed = format!("{header}.{}", URL_SAFE_NO_PAD.encode(claims.to_string()));
        let pem = fs::read_to_string(self.folder.path().join("sa.key")).expect("our own key");
        let lines: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
        let key = BASE64_STANDARD.decode(lines).expect("our own key");
        let random = SystemRandom::new();
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &key, &random).expect("our own key");
        let signature = key.sign(&random, signed.as_bytes()).expect("a signature");
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    /// Lets a service account do what `rules` say, and waits until the API server knows.
    async fn allow(&self, name: &str, rules: &[Value]) {
        let role_name = format!("account-{name}");
        let role = json!({"metadata": {"name": role_name}, "rules": rules});
        self.created(&format!("{RBAC}/clusterroles"), &role).await;
        let binding = json!({
            "metadata": {"name": role_name},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role_name},
            "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": "default"}],
        });
        self.created(&format!("{RBAC}/clusterrolebindings"), &binding).await;
        for rule in rules {
            self.until_allowed(name, rule).await;
        }
    }

    /// The API server reads rules from a watch, so it knows them a moment after they are stored.
    async fn until_allowed(&self, name: &str, rule: &Value) {
        let first = |field: &str| rule[field][0].as_str().expect("a list of texts");
        let (resource, subresource) = first("resources").split_once('/').unwrap_or((first("resources"), ""));
        let attributes = json!({
            "verb": first("verbs"), "group": first("apiGroups"), "resource": resource, "subresource": subresource,
            "name": rule["resourceNames"][0],
        });
        let user = format!("system:serviceaccount:default:{name}");
        let review = json!({"spec": {"user": user, "resourceAttributes": attributes}});
        for _ in 0..QUESTIONS {
            let answer = self
                .created("/apis/authorization.k8s.io/v1/subjectaccessreviews", &review)
                .await;
            if answer["status"]["allowed"] == true {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        unreachable!("the API server does not learn of {rule}");
    }

    async fn created(&self, path: &str, body: &Value) -> Value {
        let (status, answer) = self.request(Method::POST, path, Some(body)).await;
        assert_eq!(status, 201, "{path}: {answer}");
        answer
    }
}

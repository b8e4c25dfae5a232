//! What becomes of an API server's answers about people.

use std::sync::Arc;

use knm_model::{KubernetesIdentity, Permission};
use knm_ports::{AccessReviews, ClusterError};
use serde_json::{Value, json};

use crate::scripted::{Answer, Scripted};
use crate::{cluster, refusal};

const TOKEN: &str = "POST /apis/authentication.k8s.io/v1/tokenreviews";
const ACCESS: &str = "POST /apis/authorization.k8s.io/v1/subjectaccessreviews";
/// What somebody signs in with here.
const SECRET: &str = "canary-of-somebody";

async fn reviews(server: &Scripted) -> Arc<dyn AccessReviews> {
    cluster(server).await.reviews
}

fn created(status: &Value) -> Answer {
    Answer::Is(201, "", json!({"kind": "Review", "status": status}).to_string())
}

fn body(request: &str) -> Value {
    let (_, body) = request.split_once("\r\n\r\n").expect("a head");
    serde_json::from_str(body).expect("json")
}

fn alice() -> KubernetesIdentity {
    KubernetesIdentity {
        user: "alice".to_owned(),
        ..KubernetesIdentity::default()
    }
}

async fn identify(status: &Value, audiences: &[&str]) -> (Result<Option<KubernetesIdentity>, ClusterError>, Value) {
    let server = Scripted::start([(TOKEN, created(status))]).await;
    let audiences: Vec<String> = audiences.iter().map(|one| (*one).to_owned()).collect();
    let told = reviews(&server).await.identify(SECRET, &audiences).await;
    (told, body(&server.seen()[0]))
}

#[tokio::test]
async fn a_person_is_known_with_all_that_the_cluster_tells_of_them() {
    let user = json!({"username": "alice", "uid": "7", "groups": ["sre"], "extra": {"scopes": ["a", "b"]}});
    let status = json!({"authenticated": true, "user": user, "audiences": ["other", "ours"]});
    let (told, asked) = identify(&status, &["mine", "ours"]).await;
    let expected = KubernetesIdentity {
        uid: "7".to_owned(),
        groups: vec!["sre".to_owned()],
        extra: [("scopes".to_owned(), vec!["a".to_owned(), "b".to_owned()])].into(),
        ..alice()
    };
    assert_eq!(told.expect("an answer"), Some(expected));
    assert_eq!(asked["spec"], json!({"token": SECRET, "audiences": ["mine", "ours"]}));
}

#[tokio::test]
async fn nobody_is_known_by_a_token_that_is_not_accepted_or_for_somebody_else() {
    let user = json!({"username": "alice", "groups": null, "extra": null});
    for (status, audiences) in [
        (json!({}), &["ours"][..]),
        (
            json!({"authenticated": false, "user": user, "audiences": ["ours"], "error": "expired"}),
            &["ours"],
        ),
        (json!({"user": user, "audiences": ["ours"]}), &["ours"]),
        (
            json!({"authenticated": true, "user": user, "audiences": ["theirs"]}),
            &["ours"],
        ),
        // An authenticator that knows no audiences.
        (json!({"authenticated": true, "user": user}), &["ours"]),
        (
            json!({"authenticated": true, "user": user, "audiences": null}),
            &["ours"],
        ),
    ] {
        let (told, _) = identify(&status, audiences).await;
        assert_eq!(told.expect("an answer"), None, "{status}");
    }
    let (told, asked) = identify(&json!({"authenticated": true, "user": user}), &[]).await;
    assert_eq!(told.expect("an answer"), Some(alice()));
    assert_eq!(asked["spec"], json!({"token": SECRET}));
}

#[tokio::test]
async fn no_token_is_not_asked_about() {
    let server = Scripted::start([]).await;
    assert_eq!(reviews(&server).await.identify("", &[]).await.expect("an answer"), None);
    assert!(server.seen().is_empty());
}

#[tokio::test]
async fn a_person_without_a_name_is_an_answer_that_cannot_be_read() {
    for user in [
        json!(null),
        json!({}),
        json!({"username": "", "groups": ["system:masters"]}),
    ] {
        let (told, _) = identify(&json!({"authenticated": true, "user": user}), &[]).await;
        assert!(matches!(told, Err(ClusterError::Unreadable { .. })), "{user}: {told:?}");
    }
    for garbage in [
        "",
        "<html>",
        "{}",
        "{\"status\":null}",
        "{\"status\":{\"authenticated\":\"true\"}}",
    ] {
        let server = Scripted::start([(TOKEN, Answer::Is(201, "", garbage.to_owned()))]).await;
        let told = reviews(&server).await.identify(SECRET, &[]).await;
        assert!(
            matches!(told, Err(ClusterError::Unreadable { .. })),
            "{garbage}: {told:?}"
        );
    }
}

#[tokio::test]
async fn no_refusal_repeats_the_token() {
    for status in [400, 401, 403, 404, 409, 422, 429, 500] {
        let quoting =
            json!({"kind": "Status", "message": format!("spec.token: \"{SECRET}\" is wrong"), "code": status});
        let answer = Answer::Is(status, "", quoting.to_string());
        let server = Scripted::start([(TOKEN, answer.clone()), (TOKEN, answer)]).await;
        let error = reviews(&server)
            .await
            .identify(SECRET, &[])
            .await
            .expect_err("it is refused");
        assert!(!format!("{error} {error:?}").contains(SECRET), "{error:?}");
        let as_expected = match status {
            401 => matches!(error, ClusterError::Unauthenticated { .. }),
            403 => {
                matches!(&error, ClusterError::Forbidden { message, .. } if message.contains("system:auth-delegator"))
            }
            404 => matches!(error, ClusterError::NotFound { .. }),
            409 => matches!(error, ClusterError::Conflict { .. }),
            429 => matches!(error, ClusterError::TooManyRequests { .. }),
            500 => matches!(error, ClusterError::Unavailable { .. }),
            _ => matches!(error, ClusterError::Invalid { .. }),
        };
        assert!(as_expected, "{status}: {error:?}");
    }
}

#[tokio::test]
async fn somebody_may_what_the_cluster_allows_and_does_not_deny() {
    for (status, expected) in [
        (json!({"allowed": true}), true),
        (json!({"allowed": true, "evaluationError": "a role is missing"}), true),
        (json!({"allowed": false}), false),
        (json!({}), false),
        (json!({"allowed": false, "evaluationError": "a role is missing"}), false),
        (json!({"allowed": false, "denied": true}), false),
        (json!({"allowed": true, "denied": true}), false),
    ] {
        let server = Scripted::start([(ACCESS, created(&status))]).await;
        let told = reviews(&server).await.may(&alice(), Permission::Force).await;
        assert_eq!(told.expect("an answer"), expected, "{status}");
    }
}

#[tokio::test]
async fn a_permission_of_several_actions_needs_each_of_them() {
    let (yes, no) = (json!({"allowed": true}), json!({"allowed": false}));
    for (first, second, expected) in [(&yes, &yes, true), (&yes, &no, false), (&no, &yes, false)] {
        let server = Scripted::start([(ACCESS, created(first)), (ACCESS, created(second))]).await;
        let told = reviews(&server).await.may(&alice(), Permission::View).await;
        assert_eq!(told.expect("an answer"), expected);
        let mut verbs: Vec<Value> = server
            .seen()
            .iter()
            .map(|request| body(request)["spec"]["resourceAttributes"]["verb"].clone())
            .collect();
        verbs.sort_by_key(Value::to_string);
        assert_eq!(verbs, ["get", "list"]);
    }
}

#[tokio::test]
async fn half_an_answer_about_several_actions_is_an_error() {
    let server = Scripted::start([(ACCESS, created(&json!({"allowed": true}))), (ACCESS, refusal(500))]).await;
    let told = reviews(&server).await.may(&alice(), Permission::View).await;
    assert!(matches!(told, Err(ClusterError::Unavailable { .. })), "{told:?}");
}

#[tokio::test]
async fn nobody_may_nothing_and_no_cluster_is_asked() {
    let server = Scripted::start([]).await;
    let nobody = KubernetesIdentity {
        groups: vec!["system:masters".to_owned()],
        ..KubernetesIdentity::default()
    };
    let told = reviews(&server).await.may(&nobody, Permission::View).await;
    assert!(!told.expect("an answer"));
    assert!(server.seen().is_empty());
}

#[tokio::test]
async fn who_asks_about_people_does_not_silence_the_rest() {
    let busy = Answer::Is(429, "retry-after: 60\r\n", String::new());
    let version = || Answer::Is(200, "", json!({"gitVersion": "v1.30.0"}).to_string());
    let server = Scripted::start([
        (TOKEN, busy.clone()),
        ("GET /version", version()),
        ("GET /version", busy),
        (ACCESS, created(&json!({"allowed": true}))),
    ])
    .await;
    let cluster = cluster(&server).await;
    let told = cluster.reviews.identify(SECRET, &[]).await;
    assert!(matches!(told, Err(ClusterError::TooManyRequests { .. })), "{told:?}");
    assert_eq!(cluster.gateway.server_version().await.expect("an answer"), "v1.30.0");

    let one = self::cluster(&server).await;
    let told = one.gateway.server_version().await;
    assert!(matches!(told, Err(ClusterError::TooManyRequests { .. })), "{told:?}");
    let told = one.reviews.may(&alice(), Permission::Drain).await;
    assert!(told.expect("an answer"), "nor the other way round");
}

#[tokio::test]
async fn a_busy_server_is_left_alone_and_one_that_hangs_is_a_timeout() {
    let server = Scripted::start([(TOKEN, Answer::Is(429, "retry-after: 60\r\n", String::new()))]).await;
    let reviews = reviews(&server).await;
    for _ in 0..2 {
        let told = reviews.identify(SECRET, &[]).await;
        assert!(
            matches!(told, Err(ClusterError::TooManyRequests { retry_after: Some(_) })),
            "{told:?}"
        );
    }
    assert_eq!(server.seen().len(), 1);

    let server = Scripted::start([(ACCESS, Answer::Hangs)]).await;
    let told = self::reviews(&server).await.may(&alice(), Permission::Drain).await;
    assert!(matches!(told, Err(ClusterError::TimedOut { .. })), "{told:?}");
}

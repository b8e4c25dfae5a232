//! What becomes of an API server's answers to evictions. Each row of the table is tested beside the code; here is what needs a connection.

use std::time::Duration;

use knm_ports::{ClusterError, EvictOptions, Eviction, PodRef};
use serde_json::{Value, json};

use crate::open;
use crate::scripted::{Answer, Scripted};

const EVICTION: &str = "POST /api/v1/namespaces/team/pods/web%2D1/eviction";

fn failure(http: u16, headers: &'static str, code: u16, message: &str, causes: &Value) -> Answer {
    let body = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": message, "code": code,
        "details": {"causes": causes}});
    Answer::Is(http, headers, body.to_string())
}

fn accepted() -> Answer {
    Answer::Is(
        201,
        "",
        json!({"kind": "Status", "status": "Success", "code": 201}).to_string(),
    )
}

fn no_v1() -> Answer {
    let message = "Eviction in version \"v1\" cannot be handled as a Eviction: no kind \"Eviction\" is registered for version \"policy/v1\"";
    failure(400, "", 400, message, &json!([]))
}

async fn evict(server: &Scripted) -> Result<Eviction, ClusterError> {
    let options = EvictOptions {
        grace_period_seconds: Some(7),
        dry_run: true,
    };
    open(server).await.evict(&web(), &options).await
}

fn web() -> PodRef {
    PodRef {
        namespace: "team".to_owned(),
        name: "web-1".to_owned(),
        uid: "the-uid".to_owned(),
    }
}

fn body(request: &str) -> Value {
    let (_, body) = request.split_once("\r\n\r\n").expect("a head");
    serde_json::from_str(body).expect("json")
}

#[tokio::test]
async fn the_options_are_sent_as_api_servers_read_them() {
    let server = Scripted::start([(EVICTION, accepted())]).await;
    assert_eq!(evict(&server).await.expect("an answer"), Eviction::Accepted);
    let sent = body(&server.seen()[0]);
    let expected = json!({
        "apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "web-1", "namespace": "team"},
        "deleteOptions": {"gracePeriodSeconds": 7, "preconditions": {"uid": "the-uid"}, "dryRun": ["All"]}});
    assert_eq!(sent, expected);
    assert!(
        server.seen()[0]
            .to_lowercase()
            .contains("content-type: application/json")
    );
}

#[tokio::test]
async fn several_budgets_are_told_in_the_body_of_an_answer_that_looks_like_a_success() {
    let message = "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.";
    for http in [201, 500] {
        let server = Scripted::start([(EVICTION, failure(http, "", 500, message, &json!([])))]).await;
        let told = evict(&server).await.expect("an answer");
        assert!(matches!(told, Eviction::SeveralBudgets { .. }), "{http}: {told:?}");
    }
}

#[tokio::test]
async fn a_full_budget_is_told_from_a_busy_server_and_both_say_when_to_come_back() {
    let causes = json!([{"reason": "DisruptionBudget", "message": "The disruption budget web needs 2 healthy pods and has 2 currently"}]);
    for (causes, expected) in [
        (
            causes,
            Eviction::Blocked {
                budget: Some("web".to_owned()),
                message: "The disruption budget web needs 2 healthy pods and has 2 currently".to_owned(),
                retry_after: Some(Duration::from_secs(9)),
            },
        ),
        (
            json!([]),
            Eviction::Busy {
                retry_after: Some(Duration::from_secs(9)),
            },
        ),
    ] {
        let answer = failure(429, "retry-after: 9\r\n", 429, "no", &causes);
        let server = Scripted::start([(EVICTION, answer)]).await;
        assert_eq!(evict(&server).await.expect("an answer"), expected);
    }
}

#[tokio::test]
async fn a_busy_server_that_refuses_an_eviction_or_a_delete_is_left_alone_by_everybody() {
    const DELETION: &str = "DELETE /api/v1/namespaces/team/pods/web%2D1";
    for place in [EVICTION, DELETION] {
        let busy = failure(429, "retry-after: 60\r\n", 429, "no", &json!([]));
        let server = Scripted::start([(place, busy)]).await;
        let gateway = open(&server).await;
        let options = EvictOptions::default();
        let told = match place {
            EVICTION => gateway.evict(&web(), &options).await,
            _ => gateway.delete_pod(&web(), &options).await,
        };
        assert!(matches!(told, Ok(Eviction::Busy { .. })), "{told:?}");
        let refused = gateway.disruption_budgets().await;
        let is_told = matches!(&refused, Err(ClusterError::TooManyRequests { retry_after: Some(left) }) if *left <= Duration::from_secs(60));
        assert!(is_told, "{refused:?}");
        let again = gateway.evict(&web(), &options).await;
        assert!(matches!(again, Err(ClusterError::TooManyRequests { .. })), "{again:?}");
        assert_eq!(server.seen().len(), 1, "{:?}", server.seen());
    }
}

#[tokio::test]
async fn a_budget_without_room_silences_nobody() {
    let causes = json!([{"reason": "DisruptionBudget", "message": "The disruption budget web needs 2 healthy pods and has 2 currently"}]);
    let full = failure(429, "retry-after: 60\r\n", 429, "no", &causes);
    let server = Scripted::start([(EVICTION, full), (EVICTION, accepted())]).await;
    let gateway = open(&server).await;
    let options = EvictOptions::default();
    let told = gateway.evict(&web(), &options).await;
    assert!(matches!(told, Ok(Eviction::Blocked { .. })), "{told:?}");
    assert!(matches!(gateway.evict(&web(), &options).await, Ok(Eviction::Accepted)));
}

#[tokio::test]
async fn a_server_that_only_knows_the_beta_is_asked_by_it_from_then_on() {
    let server = Scripted::start([(EVICTION, no_v1()), (EVICTION, accepted()), (EVICTION, accepted())]).await;
    let gateway = open(&server).await;
    for _ in 0..2 {
        let told = gateway.evict(&web(), &EvictOptions::default()).await;
        assert_eq!(told.expect("an answer"), Eviction::Accepted);
    }
    let versions: Vec<Value> = server
        .seen()
        .iter()
        .map(|request| body(request)["apiVersion"].clone())
        .collect();
    assert_eq!(versions, ["policy/v1", "policy/v1beta1", "policy/v1beta1"]);
}

#[tokio::test]
async fn a_server_that_fails_is_passing_and_one_that_is_lost_is_a_transient_error() {
    let server = Scripted::start([(EVICTION, Answer::Is(502, "", "<html>".to_owned()))]).await;
    let told = evict(&server).await.expect("an answer");
    assert!(matches!(told, Eviction::Passing { .. }), "{told:?}");
    for answer in [Answer::Hangs, Answer::CutOff("{".to_owned())] {
        let server = Scripted::start([(EVICTION, answer)]).await;
        let error = evict(&server).await.expect_err("nothing whole comes");
        assert!(error.is_transient(), "{error:?}");
    }
}

#[tokio::test]
async fn refused_credentials_are_read_again_before_an_eviction_fails() {
    let unauthorized = || failure(401, "", 401, "Unauthorized", &json!([]));
    let server = Scripted::start([(EVICTION, unauthorized()), (EVICTION, accepted())]).await;
    assert_eq!(evict(&server).await.expect("an answer"), Eviction::Accepted);

    let server = Scripted::start([(EVICTION, unauthorized()), (EVICTION, unauthorized())]).await;
    let error = evict(&server).await.expect_err("they are not taken");
    assert!(matches!(error, ClusterError::Unauthenticated { .. }), "{error:?}");
}

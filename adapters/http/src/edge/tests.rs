//! What no operation of the program does, or should: taking too long, and panicking.

use std::panic::panic_any;
use std::sync::Arc;

use knm_domain::{Inventory, SignIn, Ways};
use knm_ports::{Clock, ManualClock};
use poem::EndpointExt as _;
use poem::endpoint::make;

use tokio_util::sync::CancellationToken;

use super::*;
use crate::problem;

fn edge<E: Endpoint<Output = Response>>(inner: E) -> Edge<E> {
    let settings = AppSettings {
        debug_errors: false,
        metrics_require_auth: false,
        docs_require_auth: false,
        cors_origins: Vec::new(),
        trusted_proxies: Vec::new(),
        write_timeout: Duration::from_millis(20),
        read_timeout: Duration::from_secs(1),
        max_body_bytes: 1_000,
    };
    let limits = ServerLimits::of_tests();
    let clock: Arc<dyn Clock> = ManualClock::at("2030-01-01T00:00:00Z");
    let inventory = Inventory::start(Arc::clone(&clock), Vec::new(), CancellationToken::new());
    let gate = Gate {
        sign_in: SignIn::new(Ways::Open, Arc::clone(&inventory), clock),
        inventory,
        metrics_require_auth: false,
        docs_require_auth: false,
        cors_origins: Vec::new(),
    };
    Edge::new(inner, gate, settings, limits, Paths::All)
}

async fn problem_of<E: Endpoint<Output = Response>>(edge: &Edge<E>) -> serde_json::Value {
    let request = Request::builder()
        .uri(Uri::from_static("/api/v1/nodes"))
        .header(header::HOST, "localhost")
        .header(REQUEST_ID, "mine");
    let response = edge.answer(request.finish()).await;
    assert_eq!(response.content_type(), Some(problem::CONTENT_TYPE));
    assert_eq!(response.headers()[REQUEST_ID], "mine");
    let status = response.status().as_u16();
    let body = response.into_body().into_bytes().await.unwrap();
    let problem: serde_json::Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(
        (&problem["status"], &problem["request_id"]),
        (&status.into(), &"mine".into())
    );
    problem
}

#[tokio::test]
async fn an_operation_that_takes_too_long_is_a_504() {
    let edge = edge(make(|_| std::future::pending::<Response>()).map_to_response());
    assert_eq!(problem_of(&edge).await["status"], 504);
}

#[tokio::test]
async fn a_panic_is_a_500_that_tells_nothing_and_harms_nobody_else() {
    let edge = edge(make(|_| async { panic_any("a secret") as Response }).map_to_response());
    for _ in 0..2 {
        let problem = problem_of(&edge).await;
        assert_eq!(problem["status"], 500);
        assert!(!problem.to_string().contains("secret"), "{problem}");
    }
}

/// An edge with two places for what is expensive, whose operations never end.
fn busy_edge() -> Edge<impl Endpoint<Output = Response>> {
    let mut edge = edge(make(|_| std::future::pending::<Response>()).map_to_response());
    edge.settings.write_timeout = Duration::from_secs(60);
    edge.rates = Limits::new(&ServerLimits {
        expensive_requests: 2,
        ..ServerLimits::of_tests()
    });
    edge
}

fn preview() -> Request {
    Request::builder()
        .method(Method::POST)
        .uri(Uri::from_static("/api/v1/templates/t/preview"))
        .header(header::HOST, "localhost")
        .finish()
}

#[tokio::test]
async fn expensive_requests_beyond_their_places_are_a_429_and_others_are_not() {
    let edge = busy_edge();
    let mut first = Box::pin(edge.answer(preview()));
    assert!(futures::poll!(&mut first).is_pending());
    // One caller takes half of the places.
    let refused = edge.answer(preview()).await;
    assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(refused.headers()[header::RETRY_AFTER], "1");
    let cheap = Request::builder()
        .uri(Uri::from_static("/api/v1/nodes"))
        .header(header::HOST, "localhost");
    let mut cheap = Box::pin(edge.answer(cheap.finish()));
    assert!(futures::poll!(&mut cheap).is_pending());
    // A caller that leaves takes none any more.
    drop(first);
    let mut next = Box::pin(edge.answer(preview()));
    assert!(futures::poll!(&mut next).is_pending());
}

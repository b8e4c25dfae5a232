use governor::clock::FakeRelativeClock;

use super::*;

fn limits(all: u32, each: u32) -> ServerLimits {
    ServerLimits {
        requests_per_second: all,
        caller_requests_per_second: each,
        expensive_requests: 3,
        streams_per_caller: 2,
        ..ServerLimits::of_tests()
    }
}

fn caller(last: u8) -> CallerKey {
    CallerKey::Address(IpAddr::from([192, 0, 2, last]))
}

fn waits(limits: &Limits<FakeRelativeClock>, caller: &CallerKey) -> Option<String> {
    let problem = limits.admit(caller).err()?;
    let response = problem.into_response();
    assert_eq!(response.status(), 429);
    Some(response.headers()["retry-after"].to_str().unwrap().to_owned())
}

#[test]
fn a_caller_has_a_burst_of_two_seconds_and_then_its_rate() {
    let clock = FakeRelativeClock::default();
    let limits = Limits::with_clock(&limits(0, 10), clock.clone());
    for _ in 0..20 {
        assert_eq!(waits(&limits, &caller(1)), None);
    }
    assert_eq!(waits(&limits, &caller(1)).as_deref(), Some("1"));
    assert_eq!(waits(&limits, &caller(2)), None, "another one has its own");
    clock.advance(Duration::from_millis(100));
    assert_eq!(waits(&limits, &caller(1)), None);
    assert!(waits(&limits, &caller(1)).is_some());
    clock.advance(Duration::from_secs(60));
    let admitted = (0..100).filter(|_| waits(&limits, &caller(1)).is_none()).count();
    assert_eq!(admitted, 20);
}

#[test]
fn all_callers_together_have_a_rate_that_one_alone_cannot_use_up() {
    let limits = Limits::with_clock(&limits(50, 10), FakeRelativeClock::default());
    let admitted = |last: u8| (0..1_000).filter(|_| waits(&limits, &caller(last)).is_none()).count();
    assert_eq!([admitted(1), admitted(2), admitted(3), admitted(4)], [20, 20, 10, 0]);
}

#[test]
fn zero_is_no_limit() {
    let limits = Limits::with_clock(&limits(0, 0), FakeRelativeClock::default());
    assert!((0..100_000).all(|_| waits(&limits, &caller(1)).is_none()));
    let places = Places::new(0, 0);
    let taken: Vec<_> = (0..100).map(|_| places.take(caller(1))).collect();
    assert!(taken.iter().all(Option::is_some));
}

#[test]
fn a_million_callers_take_no_more_memory_than_one() {
    let limits = Limits::with_clock(&limits(0, 500), FakeRelativeClock::default());
    for number in 0..1_000_000_u32 {
        let caller = CallerKey::Address(IpAddr::from(number.to_be_bytes()));
        assert!(limits.admit(&caller).is_ok(), "those who share a rate are few");
    }
    let slots = limits.each.unwrap().into_state_store().slots;
    assert!(std::mem::size_of_val(&*slots) <= 1 << 20);
}

#[test]
fn places_are_free_again_when_they_are_given_back() {
    let places = Places::new(3, 2);
    let first = places.take(caller(1));
    let second = places.take(caller(1));
    assert!(first.is_some() && second.is_some());
    assert!(places.take(caller(1)).is_none(), "it has its two");
    let other = places.take(caller(2));
    assert!(other.is_some());
    assert!(places.take(caller(3)).is_none(), "there are three");
    drop(second);
    let third = places.take(caller(3));
    assert!(third.is_some());
    drop((first, other, third));
    let taken = places.taken();
    assert_eq!((taken.total, taken.of_each.len()), (0, 0));
}

#[tokio::test]
async fn an_answer_keeps_its_place_until_it_was_read() {
    let places = Places::new(1, 1);
    let place = places.take(caller(1)).unwrap();
    let mut response = place.kept_by(Response::builder().body("text"));
    assert!(places.take(caller(1)).is_none());
    assert_eq!(response.take_body().into_string().await.unwrap(), "text");
    assert!(places.take(caller(1)).is_some());
    let place = places.take(caller(1)).unwrap();
    drop(place.kept_by(Response::builder().finish()));
    assert!(places.take(caller(1)).is_some());
}

#[test]
fn who_reads_lines_or_has_work_done_needs_a_place() {
    let limits = Limits::with_clock(&limits(0, 0), FakeRelativeClock::default());
    let mut lines = HeaderMap::new();
    lines.insert("accept", "application/x-ndjson".parse().unwrap());
    let plain = HeaderMap::new();
    let needs = |route, headers| limits.place(route, headers, caller(1)).unwrap().is_some();
    for route in [
        "/api/v1/clusters/{cluster}/nodes/{node}/drain/plan",
        "/api/v1/templates/{template}/preview",
        "/api/v1/bindings/{binding}/drift",
        "/api/v1/operations/{id}/events",
        "/api/v1/clusters/{cluster}/watch",
    ] {
        assert!(needs(route, &plain), "{route}");
    }
    for route in ["/api/v1/audit", "/api/v1/clusters/{cluster}/nodes/{node}/history"] {
        assert!(!needs(route, &plain) && needs(route, &lines), "{route}");
    }
    assert!(!needs("/api/v1/clusters/{cluster}/nodes/{node}", &lines));
}

#[test]
fn whoever_has_a_network_of_ipv6_is_one_caller() {
    let key = |text: &str| {
        let mut request = Request::builder().finish();
        request.set_data(ClientAddress(text.parse().ok()));
        caller_key(&request)
    };
    assert_eq!(key("2001:db8:1:2:3:4:5:6"), key("2001:db8:1:2::1"));
    assert_ne!(key("2001:db8:1:2::1"), key("2001:db8:1:3::1"));
    assert_ne!(key("192.0.2.1"), key("192.0.2.2"));
    assert_eq!(key("nothing"), CallerKey::Unknown);
}

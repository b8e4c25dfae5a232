//! How much callers may ask for: so many requests a second, and so many at once of those that take long.

use std::collections::HashMap;
use std::hash::{BuildHasher, DefaultHasher, Hash, Hasher, RandomState};
use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU32;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use governor::clock::{Clock, DefaultClock};
use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::state::{InMemoryState, NotKeyed, StateStore};
use governor::{Quota, RateLimiter};
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::combinators::BoxBody;
use knm_model::{Authority, Caller};
use poem::http::HeaderMap;
use poem::{Body, Request, Response};
use tokio::time::Instant;

use crate::client::ClientAddress;
use crate::problem::Problem;
use crate::{ServerLimits, lines, route};

/// How many callers' rates are told apart. Memory is taken for all of them at once, and never more, however many addresses ask; beyond that
/// some share a rate, and who shares with whom nobody can know or choose.
const SLOTS: usize = 1 << 16;
/// How often the log tells of refused requests at most.
const TELL_EVERY: Duration = Duration::from_secs(10);

/// Whom a request counts for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum CallerKey {
    /// Somebody who signed in, wherever they are: a hash of their identity.
    SignedIn(u64),
    /// An address; of IPv6 the network that one customer gets.
    Address(IpAddr),
    /// All that have no address.
    Unknown,
}

/// Whom `request` counts for.
pub(crate) fn caller_key(request: &Request) -> CallerKey {
    match request.data::<ClientAddress>().and_then(|address| address.0) {
        Some(IpAddr::V6(address)) => {
            let network = u128::from(address) & !u128::from(u64::MAX);
            CallerKey::Address(IpAddr::V6(Ipv6Addr::from(network)))
        }
        Some(address) => CallerKey::Address(address),
        None => CallerKey::Unknown,
    }
}

impl CallerKey {
    /// Whom a request counts for once it is known who sent it: where nobody signs in that stays the address.
    pub(crate) fn signed_in(self, caller: &Caller) -> Self {
        match caller.authority {
            Authority::Open => self,
            Authority::Service | Authority::Token(_) | Authority::Kubernetes(_) | Authority::Oidc { .. } => {
                let mut hasher = DefaultHasher::new();
                caller.identity().hash(&mut hasher);
                Self::SignedIn(hasher.finish())
            }
        }
    }
}

/// Nothing beside the decision.
type Plain<C> = NoOpMiddleware<<C as Clock>::Instant>;

/// The limits and how far they are used up.
pub(crate) struct Limits<C: Clock = DefaultClock> {
    clock: C,
    requests_per_second: u32,
    caller_requests_per_second: u32,
    /// Of all callers together; `None`: there is no limit.
    all: Option<RateLimiter<NotKeyed, InMemoryState, C, Plain<C>>>,
    /// Of each caller.
    each: Option<RateLimiter<CallerKey, Slots, C, Plain<C>>>,
    expensive: Arc<Places>,
    streams: Arc<Places>,
    refusals: Mutex<Refusals>,
}

/// The rates of callers.
struct Slots {
    hasher: RandomState,
    slots: Box<[InMemoryState]>,
}

/// What may be done at once, and by whom it is done.
struct Places {
    most: usize,
    most_of_each: usize,
    taken: Mutex<Taken>,
}

#[derive(Default)]
struct Taken {
    total: usize,
    /// Those who have any: never more than there are requests.
    of_each: HashMap<CallerKey, usize>,
}

/// One of the places; another caller may take it when it is dropped.
pub(crate) struct Place {
    places: Arc<Places>,
    caller: CallerKey,
}

#[derive(Default)]
struct Refusals {
    count: u64,
    told: Option<Instant>,
}

impl Limits {
    pub(crate) fn new(limits: &ServerLimits) -> Self {
        Self::with_clock(limits, DefaultClock::default())
    }
}

impl<C: Clock + Clone> Limits<C> {
    fn with_clock(limits: &ServerLimits, clock: C) -> Self {
        let all = NonZeroU32::new(limits.requests_per_second);
        let each = NonZeroU32::new(limits.caller_requests_per_second);
        Self {
            requests_per_second: limits.requests_per_second,
            caller_requests_per_second: limits.caller_requests_per_second,
            all: all.map(|rate| RateLimiter::new(Quota::per_second(rate), InMemoryState::default(), clock.clone())),
            each: each.map(|rate| {
                let quota = Quota::per_second(rate).allow_burst(rate.saturating_add(rate.get()));
                RateLimiter::new(quota, Slots::new(SLOTS), clock.clone())
            }),
            // One caller leaves others half of what is expensive.
            expensive: Places::new(limits.expensive_requests, limits.expensive_requests.div_ceil(2)),
            streams: Places::new(0, limits.streams_per_caller),
            refusals: Mutex::default(),
            clock,
        }
    }

    /// Counts a request of `caller`.
    ///
    /// # Errors
    /// What it is told if there were too many.
    pub(crate) fn admit(&self, caller: &CallerKey) -> Result<(), Problem> {
        // Each caller's comes first, so that nobody uses up that of all alone.
        if let Some(each) = &self.each {
            each.check_key(caller).map_err(|busy| {
                let detail = format!(
                    "these are more than {} requests a second",
                    self.caller_requests_per_second
                );
                self.refused(detail, busy.wait_time_from(self.clock.now()))
            })?;
        }
        if let Some(all) = &self.all {
            all.check().map_err(|busy| {
                let rate = self.requests_per_second;
                let detail = format!("all callers together send more than {rate} requests a second");
                self.refused(detail, busy.wait_time_from(self.clock.now()))
            })?;
        }
        Ok(())
    }

    /// The place that a request at `route` needs; `None` if it needs none.
    ///
    /// # Errors
    /// What `caller` is told if all are taken.
    pub(crate) fn place(
        &self,
        route: &'static str,
        headers: &HeaderMap,
        caller: CallerKey,
    ) -> Result<Option<Place>, Problem> {
        if route::is_stream(route) {
            let taken = || {
                let detail = format!("you have {} event streams open: close one", self.streams.most_of_each);
                self.refused(detail, Duration::ZERO)
            };
            return self.streams.take(caller).ok_or_else(taken).map(Some);
        }
        if route::is_expensive(route) || (route::is_list_of_records(route) && lines::wants_lines(headers)) {
            let taken = || {
                let detail = format!(
                    "at most {} requests of this kind are answered at once, {} of each caller",
                    self.expensive.most, self.expensive.most_of_each
                );
                self.refused(detail, Duration::ZERO)
            };
            return self.expensive.take(caller).ok_or_else(taken).map(Some);
        }
        Ok(None)
    }

    /// Refusals are told in the log now and then, and not one by one: that would be work to make for others.
    fn refused(&self, detail: String, wait: Duration) -> Problem {
        let mut refusals = self.refusals.lock().unwrap_or_else(PoisonError::into_inner);
        refusals.count += 1;
        let now = Instant::now();
        if refusals.told.is_none_or(|told| TELL_EVERY <= now.duration_since(told)) {
            let count = std::mem::take(&mut refusals.count);
            refusals.told = Some(now);
            tracing::warn!(
                count,
                last = detail,
                "requests were refused because there were too many"
            );
        }
        let seconds = wait.as_secs() + u64::from(0 < wait.subsec_nanos());
        Problem::too_many(detail, u32::try_from(seconds.max(1)).unwrap_or(u32::MAX))
    }
}

impl Slots {
    fn new(count: usize) -> Self {
        Self {
            hasher: RandomState::new(),
            slots: std::iter::repeat_with(InMemoryState::default).take(count).collect(),
        }
    }
}

impl StateStore for Slots {
    type Key = CallerKey;

    fn measure_and_replace<T, F, E>(&self, key: &CallerKey, f: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let hash = self.hasher.hash_one(key);
        let slot = usize::try_from(hash % self.slots.len() as u64).unwrap_or_default();
        self.slots[slot].measure_and_replace(&NotKeyed::NonKey, f)
    }
}

impl Places {
    /// So many in all and so many of each caller; 0 is no limit.
    fn new(most: usize, most_of_each: usize) -> Arc<Self> {
        Arc::new(Self {
            most,
            most_of_each,
            taken: Mutex::default(),
        })
    }

    fn take(self: &Arc<Self>, caller: CallerKey) -> Option<Place> {
        let mut taken = self.taken();
        let of_caller = taken.of_each.get(&caller).copied().unwrap_or_default();
        let is_full = |most: usize, taken: usize| most != 0 && most <= taken;
        if is_full(self.most, taken.total) || is_full(self.most_of_each, of_caller) {
            return None;
        }
        taken.total += 1;
        taken.of_each.insert(caller, of_caller + 1);
        Some(Place {
            places: Arc::clone(self),
            caller,
        })
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.taken();
        taken.total -= 1;
        let left = taken.of_each.get(&self.caller).map_or(0, |count| count - 1);
        match left {
            0 => taken.of_each.remove(&self.caller),
            left => taken.of_each.insert(self.caller, left),
        };
    }
}

impl Place {
    /// `response`, which keeps the place until its body was sent or its reader left.
    pub(crate) fn kept_by(self, mut response: Response) -> Response {
        let body: BoxBody<Bytes, io::Error> = response.take_body().into();
        response.set_body(Body::from(BoxBody::new(Keeping { body, _place: self })));
        response
    }
}

/// A body that keeps a place.
struct Keeping {
    body: BoxBody<Bytes, io::Error>,
    _place: Place,
}

impl HttpBody for Keeping {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests;

//! Addresses from which too much comes that is worth nothing.

use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use knm_model::Timestamp;
use moka::ops::compute::Op;
use moka::sync::Cache;

/// Over this time failures are counted.
const SPAN: Duration = Duration::from_secs(60);
/// So many are nothing special: somebody whose token has run out, a few times.
const FREE: u32 = 20;
/// How many addresses are remembered; beyond that those that were seen least are forgotten.
const MOST_ADDRESSES: u64 = 100_000;

/// How often sign-in failed lately, by address.
pub(super) struct Failures {
    recent: Cache<IpAddr, Recent>,
}

#[derive(Clone, Copy)]
struct Recent {
    since: Timestamp,
    count: u32,
}

impl Default for Failures {
    fn default() -> Self {
        Self {
            recent: Cache::builder()
                .max_capacity(MOST_ADDRESSES)
                .time_to_live(2 * SPAN)
                .build(),
        }
    }
}

impl Failures {
    /// One more.
    pub(super) fn note(&self, address: Option<IpAddr>, now: Timestamp) {
        let Some(address) = address else {
            return;
        };
        // It is always put, so there is nothing in the outcome.
        let _ = self.recent.entry(place(address)).and_compute_with(|known| {
            let known = known
                .map(moka::Entry::into_value)
                .filter(|known| now.since(known.since) < SPAN);
            let count = known.map_or(0, |known| known.count);
            Op::Put(Recent {
                since: known.map_or(now, |known| known.since),
                count: count.saturating_add(1),
            })
        });
    }

    /// For how many seconds this address is slowed down.
    pub(super) fn slowed(&self, address: Option<IpAddr>, now: Timestamp) -> Option<u32> {
        let known = self.recent.get(&place(address?))?;
        let passed = now.since(known.since);
        if passed >= SPAN || known.count < FREE {
            return None;
        }
        let rest = SPAN.saturating_sub(passed).as_secs_f64().ceil();
        // Between 1 and 60.
        Some(rest as u32)
    }
}

/// Whoever has an IPv6 address has all of its network.
fn place(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(address) => {
            let network = address.to_bits() >> 64 << 64;
            IpAddr::V6(Ipv6Addr::from_bits(network))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_slowed_down_until_its_minute_is_over() {
        let failures = Failures::default();
        let address = Some(IpAddr::from([10, 0, 0, 1]));
        let start = Timestamp::parse("2030-01-01T00:00:00Z").unwrap();
        for _ in 0..FREE {
            assert_eq!(failures.slowed(address, start), None);
            failures.note(address, start);
        }
        assert_eq!(failures.slowed(address, start), Some(60));
        assert_eq!(failures.slowed(address, start.plus(Duration::from_secs(45))), Some(15));
        assert_eq!(failures.slowed(Some(IpAddr::from([10, 0, 0, 2])), start), None);
        let later = start.plus(SPAN);
        assert_eq!(failures.slowed(address, later), None);
        failures.note(address, later);
        assert_eq!(failures.slowed(address, later), None, "a new minute begins with none");
    }

    #[test]
    fn addresses_of_one_ipv6_network_are_one() {
        let failures = Failures::default();
        let start = Timestamp::parse("2030-01-01T00:00:00Z").unwrap();
        for last in 0..FREE {
            let address = format!("2001:db8::{last:x}").parse().unwrap();
            failures.note(Some(address), start);
        }
        let slowed = |text: &str| failures.slowed(Some(text.parse().unwrap()), start);
        assert_eq!(slowed("2001:db8::ffff"), Some(60));
        assert_eq!(slowed("2001:db8:0:1::1"), None);
    }
}

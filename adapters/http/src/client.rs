//! From which address a request came.

use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use ipnet::IpNet;
use poem::http::{HeaderMap, HeaderName};
use poem::{Addr, Request};

/// Each proxy adds to the end of it whom the request came from. `Forwarded` says the same in other words, and is ignored: two headers could
/// contradict each other, and most proxies pass on the one that they do not write.
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The address of the caller, as far as it can be believed; `None` if the caller has none. It is with every request that gets past the edge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ClientAddress(pub(crate) Option<IpAddr>);

/// Addresses that belong together: one of them, or all that begin alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network(IpNet);

/// A text that names no addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it is no address and no network such as 10.0.0.0/8 or 2001:db8::/32")]
pub struct NetworkError;

impl FromStr for Network {
    type Err = NetworkError;

    /// Reads an address, or a network as `address/length`; IPv4 addresses in the clothes of IPv6 (`::ffff:a.b.c.d`) are IPv4 addresses.
    fn from_str(text: &str) -> Result<Self, NetworkError> {
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(Self(address.to_canonical().into()));
        }
        let network: IpNet = text.parse().map_err(|_| NetworkError)?;
        let canonical = network.addr().to_canonical();
        if canonical.is_ipv4() && network.addr().is_ipv6() {
            let length = network.prefix_len().checked_sub(96).ok_or(NetworkError)?;
            return IpNet::new(canonical, length).map(Self).map_err(|_| NetworkError);
        }
        Ok(Self(network))
    }
}

impl Network {
    fn holds(self, address: IpAddr) -> bool {
        self.0.contains(&address)
    }
}

impl ClientAddress {
    /// The peer, or whom it asks for if it is a proxy that is trusted.
    pub(crate) fn of(request: &Request, trusted: &[Network]) -> Self {
        match &request.remote_addr().0 {
            Addr::SocketAddr(peer) => Self(Some(behind(peer.ip().to_canonical(), request.headers(), trusted))),
            Addr::Unix(_) | Addr::Custom(..) => Self(None),
        }
    }
}

/// The first address from the end of the way that is no trusted proxy. Where the way cannot be read any further that is the last proxy.
fn behind(peer: IpAddr, headers: &HeaderMap, trusted: &[Network]) -> IpAddr {
    let is_trusted = |address: IpAddr| trusted.iter().any(|network| network.holds(address));
    let lines = headers.get_all(FORWARDED_FOR);
    let mut way = lines
        .iter()
        .rev()
        .flat_map(|line| line.to_str().unwrap_or("unreadable").rsplit(','));
    let mut last = peer;
    while is_trusted(last) {
        match way.next().and_then(|entry| address_in(entry.trim())) {
            Some(before) => last = before,
            None => break,
        }
    }
    last
}

/// The address of an entry; some proxies write the port, too.
fn address_in(entry: &str) -> Option<IpAddr> {
    let bare = entry.strip_prefix('[').and_then(|entry| entry.strip_suffix(']'));
    let address = match bare {
        Some(bare) => IpAddr::V6(bare.parse().ok()?),
        None => entry
            .parse()
            .or_else(|_| entry.parse().map(|address: SocketAddr| address.ip()))
            .ok()?,
    };
    Some(address.to_canonical())
}

#[cfg(test)]
mod tests {
    use poem::http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn found(peer: &str, lines: &[&str], trusted: &[&str]) -> String {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(FORWARDED_FOR, HeaderValue::from_bytes(line.as_bytes()).unwrap());
        }
        headers.insert("forwarded", HeaderValue::from_static("for=192.0.2.99"));
        let trusted: Vec<Network> = trusted.iter().map(|text| text.parse().unwrap()).collect();
        let peer: IpAddr = peer.parse().unwrap();
        behind(peer.to_canonical(), &headers, &trusted).to_string()
    }

    #[test]
    fn nobody_is_believed_whom_the_configuration_does_not_name() {
        assert_eq!(found("198.51.100.7", &["192.0.2.1"], &[]), "198.51.100.7");
        assert_eq!(found("198.51.100.7", &["192.0.2.1"], &["10.0.0.0/8"]), "198.51.100.7");
        assert_eq!(
            found("2001:db8::7", &["192.0.2.1"], &["2001:db8:1::/48"]),
            "2001:db8::7"
        );
    }

    #[test]
    fn a_trusted_proxy_says_whom_it_asks_for() {
        let trusted = ["10.0.0.0/8", "2001:db8::/32", "192.0.2.200"];
        for (peer, lines, expected) in [
            ("10.1.2.3", &["198.51.100.7"][..], "198.51.100.7"),
            // What the caller wrote itself stands before what the proxy wrote.
            ("10.1.2.3", &["192.0.2.1, 198.51.100.7"], "198.51.100.7"),
            ("10.1.2.3", &["nonsense,198.51.100.7 "], "198.51.100.7"),
            // Other trusted proxies are passed over, on one line or on several.
            (
                "10.1.2.3",
                &["192.0.2.1, 198.51.100.7, 10.9.9.9,192.0.2.200"],
                "198.51.100.7",
            ),
            (
                "10.1.2.3",
                &["192.0.2.1", "198.51.100.7, 10.9.9.9", "2001:db8::1"],
                "198.51.100.7",
            ),
            ("2001:db8::2", &["2001:DB9::5"], "2001:db9::5"),
            // With a port, as some write it.
            ("10.1.2.3", &["198.51.100.7:4711"], "198.51.100.7"),
            ("10.1.2.3", &["[2001:db9::5]:4711"], "2001:db9::5"),
            ("10.1.2.3", &["[2001:db9::5]"], "2001:db9::5"),
        ] {
            assert_eq!(found(peer, lines, &trusted), expected, "{lines:?}");
        }
    }

    #[test]
    fn the_last_proxy_is_the_caller_where_the_way_ends() {
        let trusted = ["10.0.0.0/8"];
        for (lines, expected) in [
            (&[][..], "10.1.2.3"),
            (&[""], "10.1.2.3"),
            (&["198.51.100.7,"], "10.1.2.3"),
            (&["198.51.100.7, unknown"], "10.1.2.3"),
            (&["198.51.100.7, \u{ff}"], "10.1.2.3"),
            (&["198.51.100.7, _hidden, 10.9.9.9"], "10.9.9.9"),
            (&["10.8.8.8, 10.9.9.9"], "10.8.8.8"),
            (&["1.2.3.4.5"], "10.1.2.3"),
            (&["[198.51.100.7]"], "10.1.2.3"),
        ] {
            assert_eq!(found("10.1.2.3", lines, &trusted), expected, "{lines:?}");
        }
    }

    #[test]
    fn an_ipv4_address_is_one_in_any_clothes() {
        let mapped = "::ffff:10.1.2.3";
        for trusted in ["10.0.0.0/8", "::ffff:10.0.0.0/104", "::ffff:10.1.2.3", "10.1.2.3"] {
            assert_eq!(found(mapped, &["::ffff:198.51.100.7"], &[trusted]), "198.51.100.7");
        }
        assert_eq!(found(mapped, &["198.51.100.7"], &["::/0"]), "10.1.2.3");
    }

    #[test]
    fn what_names_no_addresses_is_refused() {
        for text in [
            "",
            "proxy",
            "10.0.0.0/33",
            "10.0.0/8",
            "10.0.0.0/-1",
            "10.0.0.0/8/8",
            "2001:db8::/129",
            "::ffff:10.0.0.0/95",
            "10.0.0.1:80",
            " 10.0.0.1",
        ] {
            assert!(text.parse::<Network>().is_err(), "{text}");
        }
        assert_eq!(
            "10.1.2.3/8"
                .parse::<Network>()
                .map(|network| network.holds([10, 9, 9, 9].into())),
            Ok(true)
        );
    }

    proptest! {
        #[test]
        fn whatever_is_sent_the_caller_is_somebody_whom_a_trusted_proxy_named(
            way in proptest::collection::vec(prop_oneof![
                any::<[u8; 4]>().prop_map(|address| IpAddr::from(address).to_string()),
                any::<[u8; 16]>().prop_map(|address| IpAddr::from(address).to_string()),
                (0_u8..=255).prop_map(|last| format!("10.0.0.{last}")),
                "[ -~]{0,20}".prop_map(|text| text),
            ], 0..8),
        ) {
            let trusted = ["10.0.0.0/24"];
            let line = way.join(",");
            // Nobody is believed but a proxy.
            prop_assert_eq!(found("198.51.100.7", &[&line], &trusted), "198.51.100.7");
            let told = found("10.0.0.1", &[&line], &trusted);
            let network: Network = trusted[0].parse().unwrap();
            let entries: Vec<&str> = line.split(',').map(str::trim).collect();
            let is_trusted = |text: &str| address_in(text).is_some_and(|address| network.holds(address));
            let proxies = entries.iter().rev().take_while(|entry| is_trusted(entry)).count();
            let named = entries.iter().rev().nth(proxies).and_then(|entry| address_in(entry));
            let last = proxies.checked_sub(1).and_then(|last| address_in(entries[entries.len() - 1 - last]));
            let expected = named.or(last).map_or("10.0.0.1".to_owned(), |address| address.to_string());
            prop_assert_eq!(told, expected);
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(prop_oneof![0x20_u8..0x7f, 0x80_u8..=0xff], 0..80), text in "\\PC*") {
            let mut headers = HeaderMap::new();
            headers.insert(FORWARDED_FOR, HeaderValue::from_bytes(&bytes).unwrap());
            let everybody: Network = "0.0.0.0/0".parse().unwrap();
            let _ = behind([10, 0, 0, 1].into(), &headers, &[everybody]);
            let _ = text.parse::<Network>();
        }
    }
}

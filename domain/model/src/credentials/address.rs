//! Where a registered cluster may be: what is refused so that nobody has this service knock at doors of its own network.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use url::{Host, Url};

use super::AccessRules;

/// The longest URL of a server.
const LONGEST: usize = 2_048;
/// Services that tell a machine of a cloud its own secrets.
const METADATA_V4: [Ipv4Addr; 3] = [
    Ipv4Addr::new(169, 254, 169, 254),
    Ipv4Addr::new(100, 100, 100, 200),
    Ipv4Addr::new(168, 63, 129, 16),
];
/// The same of AWS and Google, over IPv6.
const METADATA_V6: [Ipv6Addr; 2] = [
    Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254),
    Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254),
];
/// Their names.
const METADATA_NAMES: [&str; 5] = [
    "metadata",
    "metadata.google.internal",
    "metadata.goog",
    "instance-data",
    "instance-data.ec2.internal",
];

/// The address of an API server: `https`, in the one way of writing it, and where it may be. It may be shown to anybody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerUrl(Url);

impl ServerUrl {
    /// Parses the URL of a server.
    ///
    /// # Errors
    /// What is wrong with it, without the URL: it may hold a password.
    pub fn parse(text: &str, rules: &AccessRules) -> Result<Self, String> {
        if LONGEST < text.len() {
            return Err(format!("it has {} bytes, at most {LONGEST} are allowed", text.len()));
        }
        if text
            .chars()
            .any(|character| character.is_control() || character.is_whitespace())
        {
            return Err("white space and control characters are not allowed".to_owned());
        }
        let url = Url::parse(text).map_err(|_| "it is not a url: https://host:port is expected".to_owned())?;
        if url.scheme() != "https" {
            return Err("only https is allowed".to_owned());
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(
                "a user or password in the url is not allowed: credentials have fields of their own".to_owned(),
            );
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err("a query or fragment is not allowed".to_owned());
        }
        let server = Self(url);
        server.check(rules)?;
        Ok(server)
    }

    /// Whether it may be there, as far as that can be told without a look-up of its name.
    ///
    /// # Errors
    /// Why not.
    pub fn check(&self, rules: &AccessRules) -> Result<(), String> {
        // Written in decimal, octal or hexadecimal, addresses have become addresses when the URL was parsed.
        match self.0.host() {
            None => Err("it has no host".to_owned()),
            Some(Host::Ipv4(address)) => rules.check_address(IpAddr::V4(address)),
            Some(Host::Ipv6(address)) => rules.check_address(IpAddr::V6(address)),
            Some(Host::Domain(name)) => check_name(name, rules),
        }
    }

    /// The URL.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// The name or address without the brackets of IPv6, and the port.
    #[must_use]
    pub fn host_and_port(&self) -> (String, u16) {
        let host = match self.0.host() {
            Some(Host::Ipv6(address)) => address.to_string(),
            Some(Host::Ipv4(address)) => address.to_string(),
            Some(Host::Domain(name)) => name.to_owned(),
            None => String::new(),
        };
        (host, self.0.port_or_known_default().unwrap_or(443))
    }
}

impl AccessRules {
    /// Whether a server may be at `address`, also when that is written as an address of IPv6 that stands for one of IPv4.
    ///
    /// # Errors
    /// Why not, without the address.
    pub fn check_address(&self, address: IpAddr) -> Result<(), String> {
        match address {
            IpAddr::V4(address) => self.check_v4(address),
            IpAddr::V6(address) => {
                self.check_v6(address)?;
                embedded(address).map_or(Ok(()), |address| self.check_v4(address))
            }
        }
    }

    fn check_v4(&self, address: Ipv4Addr) -> Result<(), String> {
        if METADATA_V4.contains(&address) {
            return Err("the address of a cloud's metadata service is not allowed".to_owned());
        }
        if address.is_link_local() {
            return Err("a link-local address is not allowed".to_owned());
        }
        if address.octets()[0] == 0 {
            return Err("an unspecified address is not allowed".to_owned());
        }
        if address.is_multicast() || address.is_broadcast() {
            return Err("a multicast or broadcast address is not allowed".to_owned());
        }
        self.check_loopback(address.is_loopback())
    }

    fn check_v6(&self, address: Ipv6Addr) -> Result<(), String> {
        if METADATA_V6.contains(&address) {
            return Err("the address of a cloud's metadata service is not allowed".to_owned());
        }
        if address.is_unicast_link_local() {
            return Err("a link-local address is not allowed".to_owned());
        }
        if address.is_unspecified() {
            return Err("an unspecified address is not allowed".to_owned());
        }
        if address.is_multicast() {
            return Err("a multicast or broadcast address is not allowed".to_owned());
        }
        self.check_loopback(address.is_loopback())
    }

    fn check_loopback(&self, is_loopback: bool) -> Result<(), String> {
        match is_loopback && !self.allow_loopback {
            true => Err("a loopback address is not allowed unless registration.allow_loopback is true".to_owned()),
            false => Ok(()),
        }
    }
}

fn check_name(name: &str, rules: &AccessRules) -> Result<(), String> {
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    if name.is_empty() {
        return Err("it has no host".to_owned());
    }
    if METADATA_NAMES.contains(&name.as_str()) {
        return Err("the name of a cloud's metadata service is not allowed".to_owned());
    }
    rules.check_loopback(name == "localhost" || name.ends_with(".localhost"))
}

/// The address of IPv4 that one of IPv6 leads to: mapped, compatible, translated (NAT64) or through 6to4.
fn embedded(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let octets = address.octets();
    let last = || Ipv4Addr::new(octets[12], octets[13], octets[14], octets[15]);
    match address.segments() {
        // The unspecified address and loopback are of IPv6.
        [0, 0, 0, 0, 0, 0, 0, 0 | 1] => None,
        [0, 0, 0, 0, 0, 0xffff | 0, _, _] | [0, 0, 0, 0, 0xffff, 0, _, _] => Some(last()),
        [0x64, 0xff9b, 0, 0, 0, 0, _, _] | [0x64, 0xff9b, 1, _, _, _, _, _] => Some(last()),
        [0x2002, ..] => Some(Ipv4Addr::new(octets[2], octets[3], octets[4], octets[5])),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const STRICT: AccessRules = AccessRules {
        allow_loopback: false,
        allow_insecure_tls: false,
    };

    #[test]
    fn servers_of_clusters_are_taken_in_the_one_way_of_writing_them() {
        for (given, kept) in [
            ("https://10.0.0.1:6443", "https://10.0.0.1:6443/"),
            ("https://API.example.com", "https://api.example.com/"),
            (
                "https://192.168.1.1/k8s/clusters/c-1",
                "https://192.168.1.1/k8s/clusters/c-1",
            ),
            ("https://[fd12::1]:6443", "https://[fd12::1]:6443/"),
            // 10.0.0.1 in decimal.
            ("https://167772161:6443", "https://10.0.0.1:6443/"),
        ] {
            let server = ServerUrl::parse(given, &STRICT);
            assert_eq!(server.as_ref().map(ServerUrl::as_str), Ok(kept), "{given}");
        }
    }

    #[test]
    fn servers_that_are_none_of_a_cluster_are_refused_with_the_reason() {
        let cases: [(&str, &[&str]); 8] = [
            (
                "only https",
                &["http://10.0.0.1", "ftp://10.0.0.1", "file:///etc/passwd"],
            ),
            ("not a url", &["10.0.0.1:x", "", "https://", "https://1.2.3.256"]),
            (
                "user or password",
                &["https://admin:hunter2@10.0.0.1", "https://admin@10.0.0.1"],
            ),
            ("query or fragment", &["https://10.0.0.1/?a=b", "https://10.0.0.1/#a"]),
            (
                "link-local",
                &[
                    "https://169.254.1.1",
                    "https://[fe80::1]",
                    "https://[febf::1]",
                    "https://[::ffff:169.254.1.1]",
                    "https://[64:ff9b::a9fe:101]",
                ],
            ),
            (
                "metadata",
                &[
                    "https://169.254.169.254",
                    "https://2852039166",
                    "https://0xa9fea9fe",
                    "https://0251.0376.0251.0376",
                    "https://169.254.43518",
                    "https://[::ffff:169.254.169.254]",
                    "https://[::169.254.169.254]",
                    "https://[::ffff:0:a9fe:a9fe]",
                    "https://[2002:a9fe:a9fe::]",
                    "https://[64:ff9b::169.254.169.254]",
                    "https://[fd00:ec2::254]",
                    "https://[fd20:ce::254]",
                    "https://[FD20:00CE:0::0254]",
                    "https://100.100.100.200",
                    "https://168.63.129.16",
                    "https://metadata.google.internal",
                    "https://METADATA.google.internal.",
                    "https://metadata",
                    "https://①⑥⑨.254.169.254",
                ],
            ),
            (
                "unspecified",
                &["https://0.0.0.0", "https://0", "https://[::]", "https://0.1.2.3"],
            ),
            (
                "multicast",
                &["https://224.0.0.1", "https://[ff02::1]", "https://255.255.255.255"],
            ),
        ];
        for (reason, servers) in cases {
            for server in servers {
                let refused = ServerUrl::parse(server, &STRICT).unwrap_err();
                assert!(refused.contains(reason), "{server}: {refused}");
                assert!(!refused.contains("hunter2"), "{refused}");
            }
        }
        assert!(ServerUrl::parse(&format!("https://{}", "a".repeat(2_048)), &STRICT).is_err());
        assert!(ServerUrl::parse("https://a\n.example.com", &STRICT).is_err());
    }

    #[test]
    fn loopback_is_refused_unless_it_is_allowed() {
        let allowing = AccessRules {
            allow_loopback: true,
            ..STRICT
        };
        for server in [
            "https://127.0.0.1:6443",
            "https://127.1",
            "https://2130706433",
            "https://0x7f.1",
            "https://0177.0.0.1",
            "https://[::1]",
            "https://[::ffff:127.0.0.1]",
            "https://[::127.0.0.1]",
            "https://localhost",
            "https://LOCALHOST.",
            "https://api.localhost",
        ] {
            let refused = ServerUrl::parse(server, &STRICT).unwrap_err();
            assert!(refused.contains("registration.allow_loopback"), "{server}: {refused}");
            assert!(ServerUrl::parse(server, &allowing).is_ok(), "{server}");
        }
    }

    proptest! {
        #[test]
        fn what_leads_to_a_refused_address_of_ipv4_is_refused_in_every_dress(last in 0u16..=u16::MAX) {
            let address = Ipv4Addr::new(169, 254, (last >> 8) as u8, last as u8);
            let number = u32::from(address);
            for server in [
                format!("https://{address}"), format!("https://{number}"), format!("https://{number:#x}"),
                format!("https://[::ffff:{address}]"), format!("https://[64:ff9b::{address}]"),
            ] {
                prop_assert!(ServerUrl::parse(&server, &STRICT).is_err(), "{}", server);
            }
        }

        #[test]
        fn no_text_is_too_odd(text in "\\PC{0,80}") {
            let _ = ServerUrl::parse(&text, &STRICT);
            let _ = ServerUrl::parse(&format!("https://{text}"), &STRICT);
        }
    }
}

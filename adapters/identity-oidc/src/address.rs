//! Where an issuer is asked. Whoever can change what it answers can sign in as anybody, so it is asked over TLS, or on this machine.

use url::{Host, Url};

/// The part of every issuer where it says more about itself.
const DISCOVERY: &str = "/.well-known/openid-configuration";

/// Where the issuer of this name says more about itself.
pub(crate) fn discovery(issuer: &str) -> Result<Url, &'static str> {
    let url = Url::parse(issuer).map_err(|_| "it is not a url")?;
    check(&url)?;
    if url.query().is_some() || url.fragment().is_some() {
        return Err("a query or fragment is not allowed");
    }
    let place = format!("{}{DISCOVERY}", issuer.trim_end_matches('/'));
    Url::parse(&place).map_err(|_| "it is not a url")
}

/// Where the keys are, as the issuer that is asked at `discovery` says.
pub(crate) fn keys(text: &str, discovery: &Url) -> Result<Url, &'static str> {
    let url = Url::parse(text).map_err(|_| "it is not a url")?;
    check(&url)?;
    if discovery.scheme() == "https" && url.scheme() != "https" {
        return Err("an issuer with https must have its keys at https, too");
    }
    Ok(url)
}

fn check(url: &Url) -> Result<(), &'static str> {
    if !url.username().is_empty() || url.password().is_some() {
        return Err("credentials in it are not allowed");
    }
    match url.scheme() {
        "https" if url.host().is_some() => Ok(()),
        "http" if is_loopback(url) => Ok(()),
        "http" => Err("https is needed: http is for addresses of this machine only"),
        _ => Err("https is needed"),
    }
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_issuer_is_asked_over_tls_or_on_this_machine() {
        for (issuer, expected) in [
            (
                "https://id.example.com",
                "https://id.example.com/.well-known/openid-configuration",
            ),
            (
                "https://id.example.com/",
                "https://id.example.com/.well-known/openid-configuration",
            ),
            (
                "https://id.example.com/realms/a",
                "https://id.example.com/realms/a/.well-known/openid-configuration",
            ),
            (
                "http://localhost:8080",
                "http://localhost:8080/.well-known/openid-configuration",
            ),
            ("http://127.9.9.9", "http://127.9.9.9/.well-known/openid-configuration"),
            ("http://[::1]:1", "http://[::1]:1/.well-known/openid-configuration"),
        ] {
            assert_eq!(discovery(issuer).map(String::from), Ok(expected.to_owned()));
        }
        for issuer in [
            "",
            "id.example.com",
            "ftp://id.example.com",
            "file:///etc/passwd",
            "http://id.example.com",
            "http://10.0.0.1",
            "http://localhost.example.com",
            "http://127.0.0.1.example.com",
            "http://0.0.0.0",
            "https://user@id.example.com",
            "https://:secret@id.example.com",
            "https://id.example.com?x",
            "https://id.example.com#x",
            "https://",
        ] {
            assert!(discovery(issuer).is_err(), "{issuer}");
        }
    }

    #[test]
    fn keys_may_be_elsewhere_but_not_less_safe() {
        let far = discovery("https://id.example.com").unwrap();
        let near = discovery("http://127.0.0.1:1").unwrap();
        for (text, from_far, from_near) in [
            ("https://keys.example.com/keys?v=1", true, true),
            ("http://127.0.0.1:2/keys", false, true),
            ("http://keys.example.com/keys", false, false),
            ("/keys", false, false),
            ("data:,{}", false, false),
        ] {
            assert_eq!(
                (keys(text, &far).is_ok(), keys(text, &near).is_ok()),
                (from_far, from_near),
                "{text}"
            );
        }
    }
}

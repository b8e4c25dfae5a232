//! Where nobody signs in, whoever reaches the service may do everything, and so may a page that makes a browser reach it: what such pages
//! have sent is refused.

use std::net::IpAddr;

use poem::Request;
use poem::http::{HeaderName, Method, header};

use crate::problem::{Kind, Problem, shortened};

const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Refuses what a page of an origin that is not `known` has a browser send.
///
/// # Errors
/// Why it is refused.
pub(crate) fn check(request: &Request, known: &[String]) -> Result<(), Problem> {
    let text = |name: HeaderName| {
        let value = request.headers().get(name);
        value.map(|value| String::from_utf8_lossy(value.as_bytes()))
    };
    // HTTP/1.0 knows no host, and no browser speaks it.
    let host = text(header::HOST);
    if let Some(host) = host.as_deref().filter(|host| !is_here(host)) {
        let detail = format!(
            "nobody signs in here, so {:?} is no name of this service: localhost and addresses are",
            shortened(host)
        );
        return Err(Problem::new(Kind::Forbidden, detail));
    }
    if matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS) {
        return Ok(());
    }
    let origin = text(header::ORIGIN);
    if let Some(origin) = &origin
        && known.iter().any(|known| known == origin)
    {
        return Ok(());
    }
    let is_own = |origin: &str| {
        let written = origin.split_once("://").map(|(_, written)| written);
        matches!((written, host.as_deref()), (Some(written), Some(host)) if written.eq_ignore_ascii_case(host))
    };
    let is_foreign = origin.as_deref().is_some_and(|origin| !is_own(origin));
    let comes_from_elsewhere = text(FETCH_SITE).is_some_and(|site| matches!(&*site, "cross-site" | "same-site"));
    if is_foreign || comes_from_elsewhere {
        let detail = format!(
            "nobody signs in here, so pages of other origins such as {:?} change nothing: server.cors_origins names those that may",
            shortened(origin.as_deref().unwrap_or("?"))
        );
        return Err(Problem::new(Kind::Forbidden, detail));
    }
    Ok(())
}

/// Whether `host` is no name that somebody else could let lead here: this machine's own, or an address.
fn is_here(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_refused(method: Method, headers: &[(&'static str, &'static str)]) -> bool {
        let mut request = Request::builder().method(method);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let known = ["https://known.example".to_owned()];
        match check(&request.finish(), &known) {
            Ok(()) => false,
            Err(problem) => {
                assert_eq!(problem.kind().status().as_u16(), 403);
                true
            }
        }
    }

    #[test]
    fn names_that_others_let_lead_here_are_refused() {
        for host in [
            "localhost",
            "LocalHost:8080",
            "127.0.0.1:1",
            "[::1]:8080",
            "[::1]",
            "192.0.2.1:80",
        ] {
            assert!(!is_refused(Method::GET, &[("host", host)]), "{host}");
        }
        for host in [
            "evil.example",
            "evil.example:8080",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "",
            ":8080",
            "[evil]",
        ] {
            assert!(is_refused(Method::GET, &[("host", host)]), "{host}");
        }
    }

    #[test]
    fn pages_of_other_origins_change_nothing() {
        let host = ("host", "localhost:8080");
        for (headers, refused) in [
            (&[host][..], false),
            (
                &[
                    host,
                    ("origin", "http://localhost:8080"),
                    ("sec-fetch-site", "same-origin"),
                ],
                false,
            ),
            (&[host, ("origin", "https://localhost:8080")], false),
            (&[host, ("sec-fetch-site", "none")], false),
            (
                &[
                    host,
                    ("origin", "https://known.example"),
                    ("sec-fetch-site", "cross-site"),
                ],
                false,
            ),
            (&[host, ("origin", "https://evil.example")], true),
            (
                &[
                    host,
                    ("origin", "http://localhost:3000"),
                    ("sec-fetch-site", "same-site"),
                ],
                true,
            ),
            (&[host, ("origin", "null")], true),
            (&[host, ("sec-fetch-site", "cross-site")], true),
            (&[host, ("sec-fetch-site", "same-site")], true),
        ] {
            for method in [Method::POST, Method::PUT, Method::PATCH, Method::DELETE] {
                assert_eq!(is_refused(method, headers), refused, "{headers:?}");
            }
            assert!(
                !is_refused(Method::GET, headers),
                "{headers:?}: it may not be read either"
            );
        }
    }
}

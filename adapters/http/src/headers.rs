//! Headers that every answer has: what browsers may do with it, and whose pages may read it.

use poem::http::{HeaderMap, HeaderName, HeaderValue, header};

use crate::route;

/// What browsers must not do with any answer.
const ANSWER_SECURITY: [(HeaderName, &str); 3] = [
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (RESOURCE_POLICY, "same-origin"),
];
/// What they must not do with a page, which alone may open others and lead to them.
const PAGE_SECURITY: [(HeaderName, &str); 2] = [
    (header::REFERRER_POLICY, "no-referrer"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
];
const RESOURCE_POLICY: HeaderName = HeaderName::from_static("cross-origin-resource-policy");
const PAGE_POLICY: &str = "default-src 'none'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; \
     img-src 'self' data:; font-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
const DATA_POLICY: &str = "default-src 'none'; frame-ancestors 'none'";

/// How many headers are added to an answer, by this module and around it.
const ADDED: usize = 13;

/// Tells browsers what they must not do with an answer of `route`, and caches whether they may keep it.
pub(crate) fn secure(headers: &mut HeaderMap, route: &str) {
    headers.reserve(ADDED);
    for (name, value) in ANSWER_SECURITY {
        headers.insert(name, HeaderValue::from_static(value));
    }
    let policy = if route == "/docs" {
        for (name, value) in PAGE_SECURITY {
            headers.insert(name, HeaderValue::from_static(value));
        }
        PAGE_POLICY
    } else {
        DATA_POLICY
    };
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(policy));
    let caching = if route::is_routine(route) {
        "no-store"
    } else {
        "no-cache"
    };
    headers
        .entry(header::CACHE_CONTROL)
        .or_insert(HeaderValue::from_static(caching));
}

/// Tells browsers that what they got by TLS is never to be asked for without it: for a year, from each answer on.
pub(crate) fn insist_on_tls(headers: &mut HeaderMap) {
    let year = HeaderValue::from_static("max-age=31536000");
    headers.insert(header::STRICT_TRANSPORT_SECURITY, year);
}

/// What a page of another origin says about itself.
pub(crate) struct Visitor {
    origin: Option<HeaderValue>,
    /// Whether it asks what it may ask.
    is_preflight: bool,
}

impl Visitor {
    pub(crate) fn of(asked: &HeaderMap) -> Self {
        Self {
            origin: asked.get(header::ORIGIN).cloned(),
            is_preflight: asked.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD),
        }
    }

    /// Lets pages of the origins `known` read the answer of `route`, and no others.
    pub(crate) fn share(self, headers: &mut HeaderMap, route: &str, known: &[String]) {
        if known.is_empty() {
            return;
        }
        headers.append(header::VARY, HeaderValue::from_static("origin"));
        let Some(origin) = self
            .origin
            .filter(|origin| known.iter().any(|known| known.as_bytes() == origin.as_bytes()))
        else {
            return;
        };
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        let shown = HeaderValue::from_static("etag, retry-after, x-request-id");
        headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, shown);
        headers.insert(RESOURCE_POLICY, HeaderValue::from_static("cross-origin"));
        if self.is_preflight {
            let methods = HeaderValue::from_static(route::allowed(route));
            headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, methods);
            let sent = HeaderValue::from_static(
                "authorization, content-type, idempotency-key, if-match, if-none-match, last-event-id, x-request-id",
            );
            headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, sent);
            headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
        }
    }
}

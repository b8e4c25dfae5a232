//! Compression of answers, as `Accept-Encoding` asks for it.

use bytes::Bytes;
use poem::http::{HeaderMap, header};
use poem::web::{Compress, CompressionAlgo, CompressionLevel};
use poem::{Body, IntoResponse, Response};

/// Answers of fewer bytes are sent as they are: compressing them costs more than it saves.
pub(crate) const WORTHWHILE_BYTES: u64 = 1_024;

/// A way of compressing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Encoding {
    Zstd,
    Brotli,
    Gzip,
}

impl Encoding {
    /// All of them, the one that we like best first.
    const ALL: [Self; 3] = [Self::Zstd, Self::Brotli, Self::Gzip];

    /// The one that the caller likes best, and we among those that it likes as much; `None` if it wants none.
    pub(crate) fn negotiate(asked: &HeaderMap) -> Option<Self> {
        let mut best: Option<(f32, Self)> = None;
        let wishes: Vec<(&str, f32)> = asked
            .get_all(header::ACCEPT_ENCODING)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .map(wish)
            .collect();
        if wishes.is_empty() {
            return None;
        }
        let liking = |name: &str| {
            let named = wishes.iter().find(|(asked, _)| asked.eq_ignore_ascii_case(name));
            named.map(|(_, q)| *q)
        };
        for encoding in Self::ALL {
            let quality = liking(encoding.as_str()).or_else(|| liking("*")).unwrap_or(0.0);
            if 0.0 < quality && best.is_none_or(|(known, _)| known < quality) {
                best = Some((quality, encoding));
            }
        }
        // Who does not mention what is not compressed likes it least.
        let plain = liking("identity").unwrap_or(0.0);
        best.filter(|(quality, _)| plain <= *quality)
            .map(|(_, encoding)| encoding)
    }

    /// Its name in headers.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Zstd => "zstd",
            Self::Brotli => "br",
            Self::Gzip => "gzip",
        }
    }

    fn algorithm(self) -> CompressionAlgo {
        match self {
            Self::Zstd => CompressionAlgo::ZSTD,
            Self::Brotli => CompressionAlgo::BR,
            Self::Gzip => CompressionAlgo::GZIP,
        }
    }
}

/// An encoding, and how much the caller likes it.
fn wish(text: &str) -> (&str, f32) {
    let mut parts = text.split(';');
    let name = parts.next().unwrap_or_default().trim();
    let quality = parts
        .filter_map(|parameter| parameter.split_once('='))
        .find(|(key, _)| key.trim().eq_ignore_ascii_case("q"))
        .map_or(1.0, |(_, quality)| quality.trim().parse().unwrap_or(0.0));
    (name, quality)
}

/// The response, compressed while it is sent.
pub(crate) fn compressed(response: Response, encoding: Encoding) -> Response {
    Compress::new(response, encoding.algorithm())
        .with_quality(CompressionLevel::Fastest)
        .into_response()
}

/// All of `body`, compressed at once.
pub(crate) async fn compress(body: Body, encoding: Encoding) -> Bytes {
    match compressed(Response::from(body), encoding)
        .into_body()
        .into_bytes()
        .await
    {
        Ok(bytes) => bytes,
        Err(error) => {
            // It reads from memory and writes to memory.
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "an answer could not be compressed"
            );
            Bytes::new()
        }
    }
}

#[cfg(test)]
mod tests {
    use poem::http::HeaderValue;

    use super::*;

    #[test]
    fn the_caller_chooses_among_what_we_can() {
        let cases = [
            ("", None),
            ("identity", None),
            ("gzip", Some(Encoding::Gzip)),
            ("gzip, deflate, br, zstd", Some(Encoding::Zstd)),
            ("gzip;q=1.0, zstd;q=0.5", Some(Encoding::Gzip)),
            ("gzip;q=0, br;q=0", None),
            ("*", Some(Encoding::Zstd)),
            ("*;q=0.5, zstd;q=0", Some(Encoding::Brotli)),
            ("GZIP", Some(Encoding::Gzip)),
            ("gzip;q=nonsense", None),
            ("gzip ; Q = 0", None),
            ("identity, gzip;q=0.5", None),
            ("identity, gzip", Some(Encoding::Gzip)),
            ("identity;q=0, *", Some(Encoding::Zstd)),
            ("compress", None),
        ];
        for (asked, expected) in cases {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static(asked));
            assert_eq!(Encoding::negotiate(&headers), expected, "{asked}");
        }
        assert_eq!(Encoding::negotiate(&HeaderMap::new()), None);
    }
}

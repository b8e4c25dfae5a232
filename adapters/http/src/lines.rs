//! Lists that callers may have as lines of JSON, too: as many as there are, while they are read.

use std::io;
use std::marker::PhantomData;

use bytes::Bytes;
use futures::{Stream, StreamExt};
use knm_ports::StorageError;
use poem::http::{HeaderMap, HeaderValue, header};
use poem::{Body, IntoResponse, Response};
use poem_openapi::ApiResponse;
use poem_openapi::registry::{MetaMediaType, MetaResponse, MetaResponses, Registry};
use poem_openapi::types::Type;
use serde::Serialize;

use crate::answer::{JSON, json};

/// The media type of one JSON value per line.
pub(crate) const NDJSON: &str = "application/x-ndjson";

/// A list of the shape `L` as JSON, or each of its items of the shape `I` as a line of JSON: as the caller asks.
pub(crate) struct ListOrLines<L, I>(Response, PhantomData<fn() -> (L, I)>);

impl<L: Serialize, I> ListOrLines<L, I> {
    pub(crate) fn list(list: &L) -> Self {
        Self::of(JSON, Body::from(json(list)))
    }

    /// The items of `pages`. An error after the first page ends the answer in the middle: nobody takes it for whole.
    ///
    /// # Errors
    /// That of the first page, when it can still be told.
    pub(crate) async fn lines<T: Send + 'static>(
        pages: impl Stream<Item = Result<Vec<T>, StorageError>> + Send + 'static,
        view: fn(&T) -> I,
    ) -> Result<Self, StorageError>
    where
        I: Serialize + 'static,
    {
        let mut pages = Box::pin(pages);
        let first = pages.next().await.transpose()?.unwrap_or_default();
        let first = futures::stream::iter([Ok(first)]);
        let span = tracing::Span::current();
        let written = first.chain(pages).map(move |page| match page {
            Ok(items) => Ok(written(&items, view)),
            Err(error) => {
                span.in_scope(|| {
                    tracing::error!(error = &error as &dyn std::error::Error, "an answer was cut off");
                });
                Err(io::Error::other(error))
            }
        });
        // Whoever gathers pieces asks once more after the end.
        Ok(Self::of(NDJSON, Body::from_bytes_stream(written.fuse())))
    }

    fn of(content_type: &'static str, body: Body) -> Self {
        let answer = Response::builder().content_type(content_type);
        let answer = answer.header(header::VARY, HeaderValue::from_static("accept"));
        Self(answer.body(body), PhantomData)
    }
}

/// Each item as a line.
fn written<T, I: Serialize>(items: &[T], view: fn(&T) -> I) -> Bytes {
    let mut lines = Vec::new();
    for item in items {
        lines.extend_from_slice(&json(&view(item)));
        lines.push(b'\n');
    }
    lines.into()
}

/// Whether the caller would rather have lines than a list.
pub(crate) fn wants_lines(asked: &HeaderMap) -> bool {
    let wishes: Vec<(String, f32)> = asked
        .get_all(header::ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(wish)
        .collect();
    let liking = |name: &str| wishes.iter().find(|(asked, _)| asked == name).map(|(_, q)| *q);
    let of_list = [JSON, "application/*", "*/*"].into_iter().find_map(liking);
    liking(NDJSON).is_some_and(|of_lines| of_list.unwrap_or(0.0) < of_lines)
}

/// A media type in lower case, and how much the caller likes it.
fn wish(text: &str) -> (String, f32) {
    let mut parts = text.split(';');
    let name = parts.next().unwrap_or_default().trim().to_ascii_lowercase();
    let quality = parts
        .filter_map(|parameter| parameter.split_once('='))
        .find(|(key, _)| key.trim().eq_ignore_ascii_case("q"))
        .map_or(1.0, |(_, quality)| quality.trim().parse().unwrap_or(0.0));
    (name, quality)
}

impl<L: Send, I> IntoResponse for ListOrLines<L, I> {
    fn into_response(self) -> Response {
        self.0
    }
}

impl<L: Type, I: Type> ApiResponse for ListOrLines<L, I> {
    fn meta() -> MetaResponses {
        let list = MetaMediaType {
            content_type: JSON,
            schema: L::schema_ref(),
        };
        let line = MetaMediaType {
            content_type: NDJSON,
            schema: I::schema_ref(),
        };
        MetaResponses {
            responses: vec![MetaResponse {
                description: "The answer.",
                status: Some(200),
                status_range: None,
                content: vec![list, line],
                headers: vec![],
            }],
        }
    }

    fn register(registry: &mut Registry) {
        L::register(registry);
        I::register(registry);
    }
}

#[cfg(test)]
mod tests {
    use futures::stream::iter;
    use http_body_util::BodyExt;
    use http_body_util::combinators::BoxBody;

    use super::*;
    use crate::compression::{Encoding, compressed};

    type Numbers = ListOrLines<Vec<u8>, u8>;

    fn broken() -> StorageError {
        StorageError::Conflict { what: "number" }
    }

    #[test]
    fn lines_are_for_those_who_ask_for_them() {
        for asked in [
            "application/x-ndjson",
            "Application/X-NDJSON",
            "application/json;q=0.5, application/x-ndjson",
            "application/x-ndjson, */*;q=0.1",
            "text/html, application/x-ndjson;q=0.2",
        ] {
            assert!(wants_lines(&accepting(asked)), "{asked}");
        }
        for asked in [
            "",
            "*/*",
            "application/*",
            "application/json, application/x-ndjson",
            "application/x-ndjson;q=0",
            "application/x-ndjson;q=0.1, */*",
            "application/x-ndjson-more",
        ] {
            assert!(!wants_lines(&accepting(asked)), "{asked}");
        }
        assert!(!wants_lines(&HeaderMap::new()));
    }

    #[tokio::test]
    async fn every_item_of_every_page_is_a_line() {
        let pages = iter([Ok(vec![1, 2]), Ok(vec![]), Ok(vec![3])]);
        let answer = Numbers::lines(pages, |number| *number).await.unwrap();
        assert_eq!(body(answer.into_response()).await.unwrap(), "1\n2\n3\n");
        let pages = futures::stream::unfold(
            0,
            |page| async move { (page < 2).then_some((Ok(vec![page]), page + 1)) },
        );
        let answer = Numbers::lines(pages, |number| *number).await.unwrap();
        let mut body_of_lines: BoxBody<Bytes, io::Error> = answer.into_response().into_body().into();
        for _ in 0..2 {
            assert!(body_of_lines.frame().await.is_some());
        }
        for _ in 0..2 {
            assert!(body_of_lines.frame().await.is_none(), "it is not polled after its end");
        }
        let nothing = Numbers::lines(iter([]), |number: &u8| *number).await.unwrap();
        assert_eq!(body(nothing.into_response()).await.unwrap(), "");
    }

    #[tokio::test]
    async fn an_error_of_the_first_page_is_the_answer() {
        let answer = Numbers::lines(iter([Err(broken())]), |number: &u8| *number).await;
        assert!(answer.is_err());
    }

    #[tokio::test]
    async fn a_later_error_cuts_the_answer_off_compressed_or_not() {
        let pages = || iter([Ok(vec![1]), Err(broken()), Ok(vec![2])]);
        let plain = Numbers::lines(pages(), |number| *number).await.unwrap();
        assert!(body(plain.into_response()).await.is_err());
        let answer = Numbers::lines(pages(), |number| *number).await.unwrap();
        let compressed = compressed(answer.into_response(), Encoding::Gzip);
        assert!(body(compressed).await.is_err());
    }

    async fn body(response: Response) -> Result<Bytes, poem::error::ReadBodyError> {
        response.into_body().into_bytes().await
    }

    fn accepting(text: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, HeaderValue::from_str(text).unwrap());
        headers
    }
}

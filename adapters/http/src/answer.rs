//! Answers whose bytes are ready, with their shape for the document.

use std::collections::VecDeque;
use std::io;
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use poem::http::{HeaderMap, HeaderValue, StatusCode, header};
use poem::{Body, IntoResponse, Response};
use poem_openapi::ApiResponse;
use poem_openapi::payload::Payload;
use poem_openapi::registry::{
    MetaHeader, MetaMediaType, MetaResponse, MetaResponses, MetaSchema, MetaSchemaRef, Registry,
};
use poem_openapi::types::Type;
use serde::Serialize;
use uuid::Uuid;

/// The media type of JSON.
pub(crate) const JSON: &str = "application/json";

/// JSON that was written already; `T` is its shape.
pub(crate) struct Ready<T>(Bytes, PhantomData<fn() -> T>);

/// An answer that callers may keep and ask again for with `If-None-Match`; `T` is the shape of its JSON.
pub(crate) struct Cacheable<T>(Response, PhantomData<fn() -> T>);

/// A text of a media type that is not written by views.
pub(crate) trait Media: 'static {
    /// The whole header `Content-Type`.
    const TYPE: &'static str;
    /// The type of its schema.
    const SHAPE: &'static str = "string";
}

/// A text that is another one each time.
pub(crate) struct Fleeting<M>(Response, PhantomData<fn() -> M>);

/// A text that never changes while the process runs.
pub(crate) struct Fixed<M>(Response, PhantomData<fn() -> M>);

/// A body of pieces that are there already: nothing is copied, and its length is known.
pub(crate) struct Pieces {
    pieces: VecDeque<Bytes>,
    left: u64,
}

impl<T: Serialize> Ready<T> {
    pub(crate) fn of(view: &T) -> Self {
        Self(json(view), PhantomData)
    }
}

/// Writes `view` as JSON.
pub(crate) fn json<T: Serialize>(view: &T) -> Bytes {
    match serde_json::to_vec(view) {
        Ok(bytes) => bytes.into(),
        Err(error) => {
            // Views hold nothing but texts, numbers and maps with texts as keys.
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "an answer could not be written"
            );
            Bytes::from_static(b"null")
        }
    }
}

impl<T: Type> Payload for Ready<T> {
    const CONTENT_TYPE: &'static str = JSON;

    fn schema_ref() -> MetaSchemaRef {
        T::schema_ref()
    }

    fn register(registry: &mut Registry) {
        T::register(registry);
    }
}

impl<T> IntoResponse for Ready<T>
where
    T: Send,
{
    fn into_response(self) -> Response {
        Response::builder().content_type(JSON).body(self.0)
    }
}

impl<T: Type> ApiResponse for Ready<T> {
    fn meta() -> MetaResponses {
        MetaResponses {
            responses: vec![success(JSON, T::schema_ref(), vec![])],
        }
    }

    fn register(registry: &mut Registry) {
        T::register(registry);
    }
}

impl<T> Cacheable<T> {
    /// The answer with this tag; 304 without a body if the caller has it already, and then `body` is never made.
    pub(crate) fn new(tag: &str, asked: &HeaderMap, body: impl FnOnce() -> Body) -> Self {
        match is_known(tag, asked) {
            true => Self::not_modified(tag),
            false => Self::changed(tag, body()),
        }
    }

    /// 304: the caller has it already.
    pub(crate) fn not_modified(tag: &str) -> Self {
        Self(not_modified(tag), PhantomData)
    }

    /// The answer with this tag, which the caller does not have.
    pub(crate) fn changed(tag: &str, body: Body) -> Self {
        Self(changed(tag, JSON, body), PhantomData)
    }

    /// The same answer, encoded already.
    pub(crate) fn encoded(self, encoding: &'static str) -> Self {
        let mut response = self.0;
        response
            .headers_mut()
            .insert(header::CONTENT_ENCODING, HeaderValue::from_static(encoding));
        Self(response, PhantomData)
    }
}

impl<T: Send> IntoResponse for Cacheable<T> {
    fn into_response(self) -> Response {
        self.0
    }
}

impl<T: Type> ApiResponse for Cacheable<T> {
    fn meta() -> MetaResponses {
        tagged(JSON, T::schema_ref())
    }

    fn register(registry: &mut Registry) {
        T::register(registry);
    }
}

impl<M: Media> Fleeting<M> {
    pub(crate) fn new(text: String) -> Self {
        Self(Response::builder().content_type(M::TYPE).body(text), PhantomData)
    }
}

impl<M> IntoResponse for Fleeting<M> {
    fn into_response(self) -> Response {
        self.0
    }
}

impl<M: Media> ApiResponse for Fleeting<M> {
    fn meta() -> MetaResponses {
        MetaResponses {
            responses: vec![success(M::TYPE, text_of::<M>(), vec![])],
        }
    }

    fn register(_: &mut Registry) {}
}

impl<M: Media> Fixed<M> {
    /// The text with this tag; 304 if the caller has it already.
    pub(crate) fn new(text: &Bytes, tag: &str, asked: &HeaderMap) -> Self {
        let response = match is_known(tag, asked) {
            true => not_modified(tag),
            false => changed(tag, M::TYPE, text.clone().into()),
        };
        Self(response, PhantomData)
    }
}

impl<M> IntoResponse for Fixed<M> {
    fn into_response(self) -> Response {
        self.0
    }
}

impl<M: Media> ApiResponse for Fixed<M> {
    fn meta() -> MetaResponses {
        tagged(M::TYPE, text_of::<M>())
    }

    fn register(_: &mut Registry) {}
}

/// What came of a change, with the tag of the new state if there is one.
pub(crate) struct Changed<T>(Response, PhantomData<fn() -> T>);

impl<T: Serialize> Changed<T> {
    pub(crate) fn new(tag: Option<&str>, view: &T) -> Self {
        let answer = Response::builder().content_type(JSON);
        let answer = match tag {
            Some(tag) => answer.header(header::ETAG, tag),
            None => answer,
        };
        Self(answer.body(json(view)), PhantomData)
    }
}

impl<T: Send> IntoResponse for Changed<T> {
    fn into_response(self) -> Response {
        self.0
    }
}

impl<T: Type> ApiResponse for Changed<T> {
    fn meta() -> MetaResponses {
        let tag = MetaHeader {
            name: "ETag".to_owned(),
            description: Some(
                "Names the state of the node after the change, for `If-Match`; not there for a dry run.".to_owned(),
            ),
            required: false,
            deprecated: false,
            schema: String::schema_ref(),
        };
        MetaResponses {
            responses: vec![success(JSON, T::schema_ref(), vec![tag])],
        }
    }

    fn register(registry: &mut Registry) {
        T::register(registry);
    }
}

/// A version of something, with its tag.
pub(crate) struct Tagged<T>(Response, PhantomData<fn() -> T>);

impl<T: Serialize> Tagged<T> {
    pub(crate) fn new(version: u32, view: &T) -> Self {
        Self(tagged_version(StatusCode::OK, version, view), PhantomData)
    }
}

impl<T: Send> IntoResponse for Tagged<T> {
    fn into_response(self) -> Response {
        self.0
    }
}

impl<T: Type> ApiResponse for Tagged<T> {
    fn meta() -> MetaResponses {
        MetaResponses {
            responses: vec![success(JSON, T::schema_ref(), vec![version_tag()])],
        }
    }

    fn register(registry: &mut Registry) {
        T::register(registry);
    }
}

/// 201: what was created, with its tag.
pub(crate) struct Created<T>(Response, PhantomData<fn() -> T>);

impl<T: Serialize> Created<T> {
    pub(crate) fn new(version: u32, view: &T) -> Self {
        Self(tagged_version(StatusCode::CREATED, version, view), PhantomData)
    }
}

impl<T: Send> IntoResponse for Created<T> {
    fn into_response(self) -> Response {
        self.0
    }
}

impl<T: Type> ApiResponse for Created<T> {
    fn meta() -> MetaResponses {
        let created = MetaResponse {
            status: Some(201),
            description: "It was created.",
            ..success(JSON, T::schema_ref(), vec![version_tag()])
        };
        MetaResponses {
            responses: vec![created],
        }
    }

    fn register(registry: &mut Registry) {
        T::register(registry);
    }
}

/// 201: what was made, with something that is told this once and kept nowhere.
pub(crate) struct MadeOnce<T>(Response, PhantomData<fn() -> T>);

impl<T: Serialize> MadeOnce<T> {
    pub(crate) fn new(view: &T) -> Self {
        let answer = Response::builder().status(StatusCode::CREATED).content_type(JSON);
        let answer = answer.header(header::CACHE_CONTROL, "no-store");
        Self(answer.body(json(view)), PhantomData)
    }
}

impl<T: Send> IntoResponse for MadeOnce<T> {
    fn into_response(self) -> Response {
        self.0
    }
}

impl<T: Type> ApiResponse for MadeOnce<T> {
    fn meta() -> MetaResponses {
        let made = MetaResponse {
            status: Some(201),
            description: "It was made.",
            ..success(JSON, T::schema_ref(), vec![])
        };
        MetaResponses { responses: vec![made] }
    }

    fn register(registry: &mut Registry) {
        T::register(registry);
    }
}

fn tagged_version<T: Serialize>(status: StatusCode, version: u32, view: &T) -> Response {
    let answer = Response::builder().status(status).content_type(JSON);
    answer.header(header::ETAG, format!("\"{version}\"")).body(json(view))
}

fn version_tag() -> MetaHeader {
    MetaHeader {
        name: "ETag".to_owned(),
        description: Some("Names this version, for `If-Match`.".to_owned()),
        required: true,
        deprecated: false,
        schema: String::schema_ref(),
    }
}

/// 204: it is gone.
pub(crate) struct Deleted;

impl IntoResponse for Deleted {
    fn into_response(self) -> Response {
        Response::builder().status(StatusCode::NO_CONTENT).finish()
    }
}

impl ApiResponse for Deleted {
    fn meta() -> MetaResponses {
        let deleted = MetaResponse {
            description: "It was deleted.",
            status: Some(204),
            status_range: None,
            content: vec![],
            headers: vec![],
        };
        MetaResponses {
            responses: vec![deleted],
        }
    }

    fn register(_: &mut Registry) {}
}

/// 202: what was accepted, and where it can be followed.
pub(crate) struct Accepted<T>(Response, PhantomData<fn() -> T>);

impl<T: Serialize> Accepted<T> {
    /// The operation with this id.
    pub(crate) fn operation(id: Uuid, view: &T) -> Self {
        let answer = Response::builder().status(StatusCode::ACCEPTED).content_type(JSON);
        let answer = answer.header(header::LOCATION, location(&id.to_string()));
        Self(answer.body(json(view)), PhantomData)
    }
}

/// Where the operation with this id is.
pub(crate) fn location(id: &str) -> String {
    format!("/api/v1/operations/{id}")
}

impl<T: Send> IntoResponse for Accepted<T> {
    fn into_response(self) -> Response {
        self.0
    }
}

impl<T: Type> ApiResponse for Accepted<T> {
    fn meta() -> MetaResponses {
        let location = MetaHeader {
            name: "Location".to_owned(),
            description: Some("Where it can be followed.".to_owned()),
            required: true,
            deprecated: false,
            schema: String::schema_ref(),
        };
        let accepted = MetaResponse {
            status: Some(202),
            description: "It was accepted.",
            ..success(JSON, T::schema_ref(), vec![location])
        };
        MetaResponses {
            responses: vec![accepted],
        }
    }

    fn register(registry: &mut Registry) {
        T::register(registry);
    }
}

/// 304: the caller has it already.
pub(crate) fn not_modified(tag: &str) -> Response {
    let answer = Response::builder().status(StatusCode::NOT_MODIFIED);
    answer.header(header::ETAG, tag).finish()
}

fn changed(tag: &str, content_type: &'static str, body: Body) -> Response {
    let answer = Response::builder().content_type(content_type);
    answer.header(header::ETAG, tag).body(body)
}

/// The schema of a text.
fn text_of<M: Media>() -> MetaSchemaRef {
    MetaSchemaRef::Inline(Box::new(MetaSchema::new(M::SHAPE)))
}

/// An answer with a tag, or 304.
fn tagged(content_type: &'static str, schema: MetaSchemaRef) -> MetaResponses {
    let tag = || MetaHeader {
        name: "ETag".to_owned(),
        description: Some("Names this state of the answer, for `If-None-Match`.".to_owned()),
        required: true,
        deprecated: false,
        schema: String::schema_ref(),
    };
    let unchanged = MetaResponse {
        description: "Nothing changed since the answer that `If-None-Match` names.",
        status: Some(304),
        status_range: None,
        content: vec![],
        headers: vec![tag()],
    };
    MetaResponses {
        responses: vec![success(content_type, schema, vec![tag()]), unchanged],
    }
}

fn success(content_type: &'static str, schema: MetaSchemaRef, headers: Vec<MetaHeader>) -> MetaResponse {
    MetaResponse {
        description: "The answer.",
        status: Some(200),
        status_range: None,
        content: vec![MetaMediaType { content_type, schema }],
        headers,
    }
}

/// Whether `If-None-Match` names `tag`, compared weakly as RFC 9110 says.
pub(crate) fn is_known(tag: &str, asked: &HeaderMap) -> bool {
    fn opaque(tag: &str) -> &str {
        tag.trim().trim_start_matches("W/")
    }
    let own = opaque(tag);
    asked
        .get_all(header::IF_NONE_MATCH)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|known| known.trim() == "*" || opaque(known) == own)
}

impl Pieces {
    pub(crate) fn new(pieces: impl IntoIterator<Item = Bytes>) -> Self {
        let pieces: VecDeque<Bytes> = pieces.into_iter().filter(|piece| !piece.is_empty()).collect();
        let left = pieces.iter().map(|piece| piece.len() as u64).sum();
        Self { pieces, left }
    }

    pub(crate) fn into_body(self) -> Body {
        Body::from(http_body_util::combinators::BoxBody::new(self))
    }
}

impl HttpBody for Pieces {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let piece = self.pieces.pop_front();
        if let Some(piece) = &piece {
            self.left -= piece.len() as u64;
        }
        Poll::Ready(piece.map(|piece| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.pieces.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(values: &[&'static str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(header::IF_NONE_MATCH, HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn tags_are_compared_weakly() {
        for known in [
            &["W/\"a\""][..],
            &["\"a\""],
            &["*"],
            &["\"b\", W/\"a\""],
            &["\"b\"", "\"a\""],
        ] {
            assert!(is_known("W/\"a\"", &asked(known)), "{known:?}");
        }
        for unknown in [&[][..], &["\"b\""], &["a"], &["\"a"], &["W/\"b\", \"c\""]] {
            assert!(!is_known("\"a\"", &asked(unknown)), "{unknown:?}");
        }
    }

    #[tokio::test]
    async fn a_body_of_pieces_is_all_of_them_and_knows_its_length() {
        let pieces = Pieces::new(["[", "", "1,2", "]"].map(Bytes::from));
        assert_eq!(pieces.size_hint().exact(), Some(5));
        assert_eq!(pieces.into_body().into_bytes().await.unwrap(), "[1,2]");
    }
}

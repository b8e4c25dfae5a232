//! Answers about clusters, which have a tag if they can be changed here.

use std::marker::PhantomData;

use poem::http::{StatusCode, header};
use poem::{IntoResponse, Response};
use poem_openapi::ApiResponse;
use poem_openapi::registry::{MetaHeader, MetaMediaType, MetaResponse, MetaResponses, Registry};
use poem_openapi::types::Type;
use serde::Serialize;
use uuid::Uuid;

use crate::answer::{JSON, json};

/// Something in a revision, with its tag if it has one.
pub(crate) struct Revised<T>(Response, PhantomData<fn() -> T>);

/// 201: what was registered, with its tag; or 200: what came of trying it, of which nothing was stored.
pub(crate) enum Registered<T, D> {
    /// It was registered.
    Stored(Revised<T>),
    /// It was tried.
    Tried(Revised<D>),
}

impl<T: Serialize> Revised<T> {
    pub(crate) fn new(revision: Option<Uuid>, view: &T) -> Self {
        Self::with_status(StatusCode::OK, revision, view)
    }

    pub(crate) fn with_status(status: StatusCode, revision: Option<Uuid>, view: &T) -> Self {
        let answer = Response::builder().status(status).content_type(JSON);
        let answer = match revision {
            Some(revision) => answer.header(header::ETAG, format!("\"{revision}\"")),
            None => answer,
        };
        Self(answer.body(json(view)), PhantomData)
    }
}

impl<T: Send> IntoResponse for Revised<T> {
    fn into_response(self) -> Response {
        self.0
    }
}

impl<T: Type> ApiResponse for Revised<T> {
    fn meta() -> MetaResponses {
        MetaResponses {
            responses: vec![described::<T>(200, "The answer.", vec![tag(false)])],
        }
    }

    fn register(registry: &mut Registry) {
        T::register(registry);
    }
}

impl<T: Send, D: Send> IntoResponse for Registered<T, D> {
    fn into_response(self) -> Response {
        match self {
            Self::Stored(answer) => answer.into_response(),
            Self::Tried(answer) => answer.into_response(),
        }
    }
}

impl<T: Type, D: Type> ApiResponse for Registered<T, D> {
    fn meta() -> MetaResponses {
        MetaResponses {
            responses: vec![
                described::<D>(200, "It was tried, because of `dry_run`; nothing was stored.", vec![]),
                described::<T>(201, "It was registered.", vec![tag(true)]),
            ],
        }
    }

    fn register(registry: &mut Registry) {
        T::register(registry);
        D::register(registry);
    }
}

fn described<T: Type>(status: u16, description: &'static str, headers: Vec<MetaHeader>) -> MetaResponse {
    MetaResponse {
        description,
        status: Some(status),
        status_range: None,
        content: vec![MetaMediaType {
            content_type: JSON,
            schema: T::schema_ref(),
        }],
        headers,
    }
}

fn tag(required: bool) -> MetaHeader {
    MetaHeader {
        name: "ETag".to_owned(),
        description: Some(
            "Names this state of the registration, for `If-Match`; clusters of the configuration have none.".to_owned(),
        ),
        required,
        deprecated: false,
        schema: String::schema_ref(),
    }
}

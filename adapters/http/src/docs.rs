//! The document and the page that shows it.

use std::sync::OnceLock;

use bytes::Bytes;
use poem::http::HeaderMap;
use poem::{IntoResponse, Response};
use poem_openapi::payload::{Html, Payload, PlainText};
use poem_openapi::registry::{MetaResponses, Registry};
use poem_openapi::{ApiResponse, OpenApi};

use crate::answer::is_known;
use crate::api::Group;
use crate::document::{INTERFACE_VERSION, openapi_json, openapi_yaml};
use crate::problem::{Failure, Hardly, OfOptional};

pub(crate) struct DocsApi;

/// A text that never changes while the process runs.
pub(crate) struct Fixed(Response);

#[OpenApi]
impl DocsApi {
    /// Show this document as JSON
    ///
    /// The OpenAPI document of this very program.
    #[oai(
        path = "/openapi.json",
        method = "get",
        tag = "Group::Document",
        operation_id = "getDocumentAsJson"
    )]
    async fn json(&self, headers: &HeaderMap) -> Result<Fixed, Failure<Hardly>> {
        static TEXT: OnceLock<Bytes> = OnceLock::new();
        Ok(Fixed::new(
            "application/json",
            TEXT.get_or_init(|| openapi_json().into()),
            headers,
        ))
    }

    /// Show this document as YAML
    ///
    /// The OpenAPI document of this very program.
    #[oai(
        path = "/openapi.yaml",
        method = "get",
        tag = "Group::Document",
        operation_id = "getDocumentAsYaml"
    )]
    async fn yaml(&self, headers: &HeaderMap) -> Result<Fixed, Failure<Hardly>> {
        static TEXT: OnceLock<Bytes> = OnceLock::new();
        Ok(Fixed::new(
            "application/yaml",
            TEXT.get_or_init(|| openapi_yaml().into()),
            headers,
        ))
    }

    /// Browse this document
    ///
    /// A page that needs no internet.
    #[oai(path = "/docs", method = "get", tag = "Group::Document", operation_id = "getDocs")]
    async fn page(&self) -> Result<Html<String>, Failure<OfOptional>> {
        page()
    }
}

#[cfg(feature = "docs-ui")]
fn page() -> Result<Html<String>, Failure<OfOptional>> {
    static PAGE: OnceLock<String> = OnceLock::new();
    let page = PAGE.get_or_init(|| {
        let service = crate::service();
        // The framework shows what the operations declare; we show what we publish.
        service
            .swagger_ui_html()
            .replacen(&service.spec(), &openapi_json(), 1)
            .replacen("<title>Swagger UI</title>", "<title>kube-node-manager API</title>", 1)
    });
    Ok(Html(page.clone()))
}

#[cfg(not(feature = "docs-ui"))]
fn page() -> Result<Html<String>, Failure<OfOptional>> {
    use crate::problem::{Kind, Problem};

    let detail = "the page is not in this program: build it with the feature docs-ui, or read /openapi.yaml";
    Err(Problem::new(Kind::NotBuilt, detail).into())
}

impl Fixed {
    fn new(kind: &'static str, text: &Bytes, headers: &HeaderMap) -> Self {
        let tag = format!("W/\"{INTERFACE_VERSION}-{:x}\"", text.len());
        let answer = Response::builder().header("etag", &tag);
        Self(match is_known(&tag, headers) {
            true => answer.status(poem::http::StatusCode::NOT_MODIFIED).finish(),
            false => answer.content_type(kind).body(text.clone()),
        })
    }
}

impl IntoResponse for Fixed {
    fn into_response(self) -> Response {
        self.0
    }
}

impl ApiResponse for Fixed {
    fn meta() -> MetaResponses {
        PlainText::<String>::meta()
    }

    fn register(registry: &mut Registry) {
        <PlainText<String> as Payload>::register(registry);
    }
}

//! The document and the page that shows it.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::OnceLock;

use bytes::Bytes;
use poem::http::HeaderMap;
use poem_openapi::OpenApi;

use crate::answer::{Fixed, Media};
use crate::api::Group;
use crate::document::{openapi_json, openapi_yaml};
use crate::problem::{Failure, Hardly, OfOptional};

pub(crate) struct DocsApi;

struct Json;

impl Media for Json {
    const TYPE: &'static str = "application/json";
    const SHAPE: &'static str = "object";
}

struct Yaml;

impl Media for Yaml {
    const TYPE: &'static str = "application/yaml";
    const SHAPE: &'static str = "object";
}

struct Html;

impl Media for Html {
    const TYPE: &'static str = "text/html; charset=utf-8";
}

/// A text that is made once, and its tag.
struct Once(OnceLock<(Bytes, String)>);

impl Once {
    const fn new() -> Self {
        Self(OnceLock::new())
    }

    fn answer<M: Media>(&self, headers: &HeaderMap, text: impl FnOnce() -> String) -> Fixed<M> {
        let (text, tag) = self.0.get_or_init(|| {
            let text = text();
            let mut hasher = DefaultHasher::new();
            text.hash(&mut hasher);
            (text.into(), format!("W/\"{:x}\"", hasher.finish()))
        });
        Fixed::new(text, tag, headers)
    }
}

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
    async fn json(&self, headers: &HeaderMap) -> Result<Fixed<Json>, Failure<Hardly>> {
        static TEXT: Once = Once::new();
        Ok(TEXT.answer(headers, openapi_json))
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
    async fn yaml(&self, headers: &HeaderMap) -> Result<Fixed<Yaml>, Failure<Hardly>> {
        static TEXT: Once = Once::new();
        Ok(TEXT.answer(headers, openapi_yaml))
    }

    /// Browse this document
    ///
    /// A page that needs no internet.
    #[oai(path = "/docs", method = "get", tag = "Group::Document", operation_id = "getDocs")]
    async fn page(&self, headers: &HeaderMap) -> Result<Fixed<Html>, Failure<OfOptional>> {
        page(headers)
    }
}

#[cfg(feature = "docs-ui")]
fn page(headers: &HeaderMap) -> Result<Fixed<Html>, Failure<OfOptional>> {
    static PAGE: Once = Once::new();
    Ok(PAGE.answer(headers, || {
        let service = crate::service();
        // The framework shows what the operations declare; we show what we publish.
        service
            .swagger_ui_html()
            .replacen(&service.spec(), &openapi_json(), 1)
            .replacen("<title>Swagger UI</title>", "<title>kube-node-manager API</title>", 1)
    }))
}

#[cfg(not(feature = "docs-ui"))]
fn page(_: &HeaderMap) -> Result<Fixed<Html>, Failure<OfOptional>> {
    use crate::problem::{Kind, Problem};

    let detail = "the page is not in this program: build it with the feature docs-ui, or read /openapi.yaml";
    Err(Problem::new(Kind::NotBuilt, detail).into())
}

//! What went wrong, as `application/problem+json` (RFC 9457).

use std::error::Error;
use std::marker::PhantomData;
use std::sync::Arc;

use knm_domain::{ChangeError, InventoryError, OperationError, RegistryError, TemplateError, TokenAdminError};
use knm_model::QueryError;
use knm_ports::{ClusterError, StorageError};
use poem::Response;
use poem::http::{HeaderValue, StatusCode, header};
use poem_openapi::registry::{MetaMediaType, MetaResponse, MetaResponses, Registry};
use poem_openapi::types::Type;
use poem_openapi::{ApiResponse, Object};
use serde::Serialize;

use crate::answer::json;

/// The media type of problems.
pub(crate) const CONTENT_TYPE: &str = "application/problem+json";
/// How long a caller should wait before it asks an unreachable part again, in seconds.
const RETRY_AFTER_SECONDS: u32 = 5;

/// What everybody is told who is not signed in.
pub(crate) const NOT_SIGNED_IN: &str = "sign in with the header \"Authorization: Bearer <token>\": this token, or the lack of one, is not accepted. \
     Whoever runs the service makes tokens with `kube-node-manager token create`";

/// How many characters of a caller's text an answer repeats: the name of any node, and no page of nonsense.
const MOST_REPEATED: usize = 253;

/// What went wrong, in the form of RFC 9457.
#[derive(Clone, Debug, Object, Serialize)]
#[oai(rename = "Problem")]
pub(crate) struct ProblemView {
    /// Names the kind of problem, always the same for the same kind: `urn:kube-node-manager:problem:<kind>`.
    #[serde(rename = "type")]
    #[oai(rename = "type")]
    kind: String,
    /// The kind of problem in a few words, always the same for the same kind.
    title: String,
    /// The HTTP status of the answer.
    #[oai(validator(minimum(value = "400"), maximum(value = "599")))]
    status: u16,
    /// What happened this time: the value, what was wrong with it and what is allowed.
    detail: String,
    /// Identifies the request; the log has it too.
    request_id: String,
    /// The parameters that were wrong, each with the place if that can be told; empty for other problems.
    errors: Vec<ParameterErrorView>,
    /// The chain of errors below, for developers: only with `server.mode: debug`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[oai(skip_serializing_if_is_none)]
    chain: Option<Vec<String>>,
}

/// What was wrong with one parameter.
#[derive(Clone, Debug, Object, Serialize)]
#[oai(rename = "ParameterError")]
pub(crate) struct ParameterErrorView {
    /// The parameter.
    parameter: String,
    /// Where in its value, in characters from 1; null if that cannot be told.
    position: Option<u64>,
    /// The value, what was wrong with it and what is allowed.
    message: String,
}

/// A kind of problem.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Malformed,
    NotSignedIn,
    Forbidden,
    NotFound,
    MethodNotAllowed,
    RequestTimeout,
    Conflict,
    Stale,
    TooLarge,
    UriTooLong,
    MediaType,
    Invalid,
    TooMany,
    HeadersTooLarge,
    Internal,
    NotBuilt,
    NotConfigured,
    ClusterRefused,
    Unavailable,
    TimedOut,
}

/// A problem on its way to the caller.
#[derive(Clone, Debug)]
pub(crate) struct Problem {
    kind: Kind,
    detail: String,
    errors: Vec<QueryError>,
    retry_after_seconds: Option<u32>,
    chain: Option<Arc<dyn Error + Send + Sync>>,
}

macro_rules! kinds {
    ($($kind:ident $status:ident $word:literal $title:literal;)+) => {
        impl Kind {
            pub(crate) const ALL: &[Self] = &[$(Self::$kind),+];

            pub(crate) fn status(self) -> StatusCode {
                match self {
                    $(Self::$kind => StatusCode::$status,)+
                }
            }

            fn word(self) -> &'static str {
                match self {
                    $(Self::$kind => $word,)+
                }
            }

            pub(crate) fn title(self) -> &'static str {
                match self {
                    $(Self::$kind => $title,)+
                }
            }
        }
    };
}

kinds! {
    Malformed BAD_REQUEST "malformed" "the request cannot be read";
    NotSignedIn UNAUTHORIZED "not-signed-in" "a caller is needed";
    Forbidden FORBIDDEN "forbidden" "the caller may not do this";
    NotFound NOT_FOUND "not-found" "there is no such thing";
    MethodNotAllowed METHOD_NOT_ALLOWED "method-not-allowed" "the method is not allowed here";
    RequestTimeout REQUEST_TIMEOUT "request-timeout" "the request took too long to arrive";
    Conflict CONFLICT "conflict" "the state of what is named does not allow it";
    Stale PRECONDITION_FAILED "stale" "what is named is not in the state that was expected";
    TooLarge PAYLOAD_TOO_LARGE "too-large" "the body is too large";
    UriTooLong URI_TOO_LONG "uri-too-long" "the URL is too long";
    MediaType UNSUPPORTED_MEDIA_TYPE "media-type" "the body is of a kind that cannot be read";
    Invalid UNPROCESSABLE_ENTITY "invalid" "a parameter is wrong";
    TooMany TOO_MANY_REQUESTS "too-many" "there are too many requests";
    HeadersTooLarge REQUEST_HEADER_FIELDS_TOO_LARGE "headers-too-large" "the headers are too large";
    Internal INTERNAL_SERVER_ERROR "internal" "something failed in this service";
    NotBuilt NOT_IMPLEMENTED "not-built" "this program was built without it";
    NotConfigured NOT_IMPLEMENTED "not-configured" "this service is not configured for it";
    ClusterRefused BAD_GATEWAY "cluster-refused" "the cluster refuses us";
    Unavailable SERVICE_UNAVAILABLE "unavailable" "something that is needed cannot be reached";
    TimedOut GATEWAY_TIMEOUT "timed-out" "it took too long";
}

impl Kind {
    /// The kind of an answer with this status that nobody explained.
    pub(crate) fn of(status: StatusCode) -> Self {
        let fallback = if status.is_client_error() {
            Self::Malformed
        } else {
            Self::Internal
        };
        Self::ALL
            .iter()
            .copied()
            .find(|kind| kind.status() == status)
            .unwrap_or(fallback)
    }
}

impl Problem {
    pub(crate) fn new(kind: Kind, detail: impl Into<String>) -> Self {
        let retry_after_seconds = (kind == Kind::Unavailable).then_some(RETRY_AFTER_SECONDS);
        Self {
            kind,
            detail: detail.into(),
            errors: Vec::new(),
            retry_after_seconds,
            chain: None,
        }
    }

    /// The one answer to everybody who is not signed in, whatever was wrong.
    pub(crate) fn not_signed_in() -> Self {
        Self::new(Kind::NotSignedIn, NOT_SIGNED_IN)
    }

    pub(crate) fn invalid(errors: Vec<QueryError>) -> Self {
        let told: Vec<String> = errors.iter().map(ToString::to_string).collect();
        Self {
            errors,
            ..Self::new(Kind::Invalid, told.join("; "))
        }
    }

    /// There are too many requests: one may be sent again after so many seconds.
    pub(crate) fn too_many(detail: impl Into<String>, retry_after_seconds: u32) -> Self {
        Self {
            retry_after_seconds: Some(retry_after_seconds),
            ..Self::new(Kind::TooMany, detail)
        }
    }

    /// Keeps `source` for the log, and for the caller in debug mode.
    pub(crate) fn because(self, source: impl Error + Send + Sync + 'static) -> Self {
        Self {
            chain: Some(Arc::new(source)),
            ..self
        }
    }

    pub(crate) fn kind(&self) -> Kind {
        self.kind
    }

    /// What the caller is told of this one.
    pub(crate) fn detail(&self) -> &str {
        &self.detail
    }

    /// What is below, for the log.
    pub(crate) fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.chain.as_deref().map(|source| source as &(dyn Error + 'static))
    }

    /// The problem as the caller gets it. What lies below is told in debug mode only.
    pub(crate) fn view(&self, request_id: &str, debug: bool) -> ProblemView {
        let chain = self.source().filter(|_| debug).map(|source| {
            let mut texts = vec![source.to_string()];
            let mut below = source.source();
            while let Some(error) = below {
                texts.push(error.to_string());
                below = error.source();
            }
            texts
        });
        ProblemView {
            kind: format!("urn:kube-node-manager:problem:{}", self.kind.word()),
            title: self.kind.title().to_owned(),
            status: self.kind.status().as_u16(),
            detail: self.detail.clone(),
            request_id: request_id.to_owned(),
            errors: self.errors.iter().map(ParameterErrorView::from).collect(),
            chain,
        }
    }

    /// Writes the problem into its answer.
    pub(crate) fn explain(&self, response: &mut Response, request_id: &str, debug: bool) {
        response.set_body(json(&self.view(request_id, debug)));
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(CONTENT_TYPE));
        headers.remove(header::CONTENT_LENGTH);
    }

    /// The answer without its body, which [`Problem::explain`] writes where the id of the request is known.
    pub(crate) fn into_response(self) -> Response {
        let mut response = Response::builder().status(self.kind.status()).finish();
        if let Some(seconds) = self.retry_after_seconds {
            response
                .headers_mut()
                .insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.kind == Kind::NotSignedIn {
            let challenge = HeaderValue::from_static("Bearer realm=\"kube-node-manager\"");
            response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
        }
        response.extensions_mut().insert(self);
        response
    }
}

impl From<&QueryError> for ParameterErrorView {
    fn from(error: &QueryError) -> Self {
        Self {
            parameter: error.parameter.to_string(),
            position: error.position.and_then(|position| u64::try_from(position).ok()),
            message: error.message.clone(),
        }
    }
}

impl From<InventoryError> for Problem {
    fn from(error: InventoryError) -> Self {
        let refusal = error.refusal();
        match error {
            InventoryError::UnknownCluster { cluster } => {
                let cluster = shortened(&cluster);
                let detail = format!("cluster {cluster:?} is not known: GET /api/v1/clusters lists those that are");
                Self::new(Kind::NotFound, detail)
            }
            InventoryError::UnknownNode { cluster, node } => Self::new(
                Kind::NotFound,
                format!("node {:?} is not known in cluster {cluster}", shortened(&node)),
            ),
            InventoryError::NotSeenYet { cluster, reason } => {
                let why = reason.map_or("it was not asked yet", |reason| reason.sentence());
                Self::new(
                    Kind::Unavailable,
                    format!("the nodes of cluster {cluster} are not known yet: {why}"),
                )
            }
            InventoryError::NotAllowed { .. } => Self::new(Kind::ClusterRefused, refusal.unwrap_or_default()),
            InventoryError::Cluster { cluster, source } => {
                let (kind, detail) = cluster_failure(&source);
                let detail = refusal.unwrap_or_else(|| format!("cluster {cluster}: {detail}"));
                Self::new(kind, detail).because(source)
            }
        }
    }
}

impl From<ChangeError> for Problem {
    fn from(error: ChangeError) -> Self {
        let text = error.to_string();
        match error {
            ChangeError::Inventory(error) => Self::from(error),
            ChangeError::Unanswered { cluster, source } => {
                let mut problem = Self::from(InventoryError::Cluster { cluster, source });
                problem.detail.push_str(": whether the change was made is not known");
                problem
            }
            ChangeError::NotRecorded { source } | ChangeError::Holds { source } => Self {
                detail: text,
                ..Self::from(source)
            },
            ChangeError::GuardedLabel { .. } => Self::new(Kind::Forbidden, text),
            ChangeError::Stale { .. } => Self::new(Kind::Stale, format!("{text}: read it again")),
            ChangeError::Contended { .. } => Self::new(Kind::Conflict, text),
            ChangeError::Refused { message, cluster } => Self::new(
                Kind::Invalid,
                format!("cluster {cluster} refuses the change: {}", shortened(&message)),
            ),
            ChangeError::NeedsConfirmation { .. } => {
                Self::new(Kind::Conflict, format!("{text}; \"confirm_no_execute\": true lets it"))
            }
            ChangeError::HeldByOthers { .. } => Self::new(
                Kind::Conflict,
                format!("{text}: \"hold\" with an id releases one hold, \"force\": true all of them"),
            ),
            ChangeError::Foreign { .. } => Self::new(
                Kind::Conflict,
                format!("{text}: \"force\": true uncordons it all the same"),
            ),
            ChangeError::UnknownHold { .. } => Self::new(Kind::NotFound, text),
            ChangeError::ShuttingDown => Self::new(Kind::Unavailable, text),
        }
    }
}

impl From<OperationError> for Problem {
    fn from(error: OperationError) -> Self {
        let text = error.to_string();
        match error {
            OperationError::Unknown { .. } => Self::new(Kind::NotFound, text),
            OperationError::Invalid { errors } => Self::invalid(errors),
            OperationError::Inventory(error) => error.into(),
            OperationError::NotPermitted { .. } | OperationError::GuardedLabel { .. } => {
                Self::new(Kind::Forbidden, text)
            }
            OperationError::Refused(_)
            | OperationError::NotEnded { .. }
            | OperationError::NothingFailed { .. }
            | OperationError::NothingLeft { .. } => Self::new(Kind::Conflict, text),
            OperationError::Storage(source) => source.into(),
        }
    }
}

impl From<TemplateError> for Problem {
    fn from(error: TemplateError) -> Self {
        let text = error.to_string();
        match error {
            TemplateError::Unknown { .. } | TemplateError::UnknownVersion { .. } => Self::new(Kind::NotFound, text),
            TemplateError::Taken { .. } | TemplateError::Used { .. } | TemplateError::TooMany { .. } => {
                Self::new(Kind::Conflict, text)
            }
            TemplateError::Stale { .. } => Self::new(Kind::Stale, format!("{text}: read it again")),
            TemplateError::Invalid { errors } => Self::invalid(errors),
            TemplateError::Inventory(error) => error.into(),
            TemplateError::Storage(source) => source.into(),
        }
    }
}

impl From<TokenAdminError> for Problem {
    fn from(error: TokenAdminError) -> Self {
        let text = error.to_string();
        match error {
            TokenAdminError::Unknown { .. } | TokenAdminError::NoId => Self::new(Kind::NotFound, text),
            TokenAdminError::Taken { .. } | TokenAdminError::TooMany => Self::new(Kind::Conflict, text),
            TokenAdminError::TooMuch => Self::new(Kind::Forbidden, text),
            TokenAdminError::Text(_) => Self::new(Kind::Invalid, text),
            TokenAdminError::Storage(source) => source.into(),
        }
    }
}

impl From<RegistryError> for Problem {
    fn from(error: RegistryError) -> Self {
        let text = error.to_string();
        match error {
            RegistryError::NoKeys => Self::new(Kind::NotConfigured, text),
            RegistryError::NotBuilt => Self::new(Kind::NotBuilt, text),
            RegistryError::Invalid { errors } => Self::invalid(errors),
            RegistryError::Taken { .. } | RegistryError::Configured { .. } | RegistryError::TooMany { .. } => {
                Self::new(Kind::Conflict, text)
            }
            RegistryError::Busy { .. } => Self::new(
                Kind::Conflict,
                format!("{text}; wait for them, or remove the cluster with cancel_operations=true"),
            ),
            RegistryError::Stale { .. } => Self::new(Kind::Stale, format!("{text}: read it again")),
            RegistryError::Inventory(error) => error.into(),
            RegistryError::Operation(error) => error.into(),
            RegistryError::NotRecorded { source } => Self {
                detail: text,
                ..Self::from(source)
            },
            RegistryError::Vault(source) => Self::new(Kind::Internal, text).because(source),
            RegistryError::Storage(source) => source.into(),
            RegistryError::ShuttingDown => Self::new(Kind::Unavailable, text),
        }
    }
}

impl From<StorageError> for Problem {
    fn from(error: StorageError) -> Self {
        let (kind, detail) = match &error {
            StorageError::Unavailable { .. } => (Kind::Unavailable, "the database cannot be reached"),
            StorageError::TimedOut { .. } => (Kind::TimedOut, "the database did not answer in time"),
            StorageError::Full { .. } => (Kind::Unavailable, "the database has no room left"),
            StorageError::NotFound { .. }
            | StorageError::Conflict { .. }
            | StorageError::Refused { .. }
            | StorageError::Corrupt { .. }
            | StorageError::Internal { .. } => (Kind::Internal, "the database failed"),
        };
        Self::new(kind, detail).because(error)
    }
}

/// As much of a text as an answer repeats.
pub(crate) fn shortened(text: &str) -> String {
    match text.char_indices().nth(MOST_REPEATED) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// What a caller may know of a cluster's failure.
fn cluster_failure(error: &ClusterError) -> (Kind, &'static str) {
    match error {
        ClusterError::Unauthenticated { .. } => (Kind::ClusterRefused, "it does not accept our credentials"),
        ClusterError::Forbidden { .. } => (Kind::ClusterRefused, "it does not let us do this"),
        ClusterError::NotFound { .. }
        | ClusterError::Conflict { .. }
        | ClusterError::Invalid { .. }
        | ClusterError::Unreadable { .. } => (Kind::ClusterRefused, "its answer cannot be used"),
        ClusterError::Locked { .. } => (Kind::ClusterRefused, "its stored credentials cannot be opened"),
        ClusterError::Disallowed { .. } => (Kind::ClusterRefused, "the configuration does not allow to ask it"),
        ClusterError::TooManyRequests { .. } => (Kind::Unavailable, "it is too busy"),
        ClusterError::Unavailable { .. } => (Kind::Unavailable, "it cannot be reached"),
        ClusterError::TimedOut { .. } => (Kind::TimedOut, "it did not answer in time"),
    }
}

/// What any operation can answer with.
const ANYWHERE: &[Kind] = &[
    Kind::Malformed,
    Kind::RequestTimeout,
    Kind::TooLarge,
    Kind::UriTooLong,
    Kind::TooMany,
    Kind::HeadersTooLarge,
    Kind::Internal,
    Kind::TimedOut,
];

/// Which problems an operation can answer with beyond those of any, for the document.
pub(crate) trait Refusals: Send + Sync + 'static {
    const KINDS: &'static [Kind];
}

macro_rules! refusals {
    ($($(#[$doc:meta])* $name:ident: $($kind:ident)*;)+) => {
        $($(#[$doc])* pub(crate) struct $name;

        impl Refusals for $name {
            const KINDS: &'static [Kind] = &[$(Kind::$kind),*];
        })+
    };
}

refusals! {
    /// Nothing but what any operation can answer with.
    Hardly:;
    /// Of operations on a cluster as this service sees it.
    OfCluster: NotFound Invalid;
    /// Of operations on the nodes that are known of a cluster.
    OfNodes: NotFound Invalid Unavailable;
    /// Of lists over all clusters.
    OfFleet: Invalid;
    /// Of operations that ask a cluster.
    OfAsking: NotFound Invalid ClusterRefused Unavailable;
    /// Of plans for a node.
    OfPlanning: NotFound MediaType Invalid ClusterRefused Unavailable;
    /// Of changes of a node.
    OfChanging: NotFound Conflict Stale MediaType Invalid ClusterRefused Unavailable;
    /// Of operations that accept what takes longer.
    OfAccepting: NotFound MediaType Invalid ClusterRefused Unavailable;
    /// Of wishes about what was accepted.
    OfWishing: NotFound Conflict Invalid Unavailable;
    /// Of operations whose failed nodes are tried again.
    OfRetrying: NotFound Conflict Invalid ClusterRefused Unavailable;
    /// Of what is made and told once.
    OfMaking: Conflict MediaType Invalid Unavailable;
    /// Of what is written down under a name for the first time.
    OfDefining: Conflict MediaType Invalid Unavailable;
    /// Of what is written down under a name again.
    OfRedefining: NotFound Conflict Stale MediaType Invalid Unavailable;
    /// Of what is taken away.
    OfRemoving: NotFound Conflict Stale Invalid Unavailable;
    /// Of clusters that are registered.
    OfRegistering: Conflict MediaType Invalid NotConfigured Unavailable;
    /// Of clusters that are registered anew.
    OfReregistering: NotFound Conflict Stale MediaType Invalid NotConfigured Unavailable;
    /// Of clusters that are removed.
    OfUnregistering: NotFound Conflict Stale Invalid Unavailable;
    /// Of comparisons of nodes.
    OfComparing: NotFound MediaType Invalid Unavailable;
    /// Of lists of what is stored.
    OfAudit: Invalid Unavailable;
    /// Of operations on what is stored under a name.
    OfStored: NotFound Invalid Unavailable;
    /// Of the event stream.
    OfWatch: NotFound Invalid Unavailable;
    /// Of single checks.
    OfCheck: NotFound;
    /// Of parts that may be left out of the program.
    OfOptional: NotBuilt;
}

/// A problem of an operation that answers with these kinds only.
pub(crate) struct Failure<R>(Problem, PhantomData<fn() -> R>);

impl<R, P: Into<Problem>> From<P> for Failure<R> {
    fn from(problem: P) -> Self {
        Self(problem.into(), PhantomData)
    }
}

impl<R> From<Failure<R>> for poem::Error {
    fn from(failure: Failure<R>) -> Self {
        failure.0.into()
    }
}

impl From<Problem> for poem::Error {
    fn from(problem: Problem) -> Self {
        let mut error = Self::from_response(problem.clone().into_response());
        // The framework gives the answer the extensions of its error, in place of its own.
        error.set_data(problem);
        error
    }
}

impl<R: Refusals> ApiResponse for Failure<R> {
    fn meta() -> MetaResponses {
        let kinds = R::KINDS.iter().chain(ANYWHERE);
        MetaResponses {
            responses: kinds.copied().map(documented).collect(),
        }
    }

    fn register(registry: &mut Registry) {
        ProblemView::register(registry);
    }
}

fn documented(kind: Kind) -> MetaResponse {
    MetaResponse {
        description: kind.title(),
        status: Some(kind.status().as_u16()),
        status_range: None,
        content: vec![MetaMediaType {
            content_type: CONTENT_TYPE,
            schema: ProblemView::schema_ref(),
        }],
        headers: vec![],
    }
}

//! From `kube::Error` and the API server's refusals to the port's error.
//!
//! A text of `kube` about credentials may hold what a plugin printed or what a kubeconfig holds: such texts are replaced by sentences of
//! our own.

use std::error::Error as StdError;
use std::time::Duration;

use http::{HeaderMap, StatusCode};
use knm_ports::ClusterError;
use kube::Error;

use crate::metric::Call;
use crate::registered::AddressRefused;
use crate::wire::Status;

/// The longest text of an API server that is kept.
const LONGEST_MESSAGE: usize = 300;

const CREDENTIALS: &str = "the token or certificate could not be had from its file or plugin";

/// Why a call failed.
#[derive(Debug)]
pub(crate) struct Failure {
    /// The status of the answer, if there was one.
    pub(crate) code: Option<StatusCode>,
    pub(crate) error: ClusterError,
}

/// What lies below an error, in words without secrets.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Reason(String);

impl Failure {
    /// The place in a list or watch is too old.
    pub(crate) fn is_expired(&self) -> bool {
        self.code == Some(StatusCode::GONE)
    }

    /// Nothing was asked.
    pub(crate) fn from_error(error: ClusterError) -> Self {
        Self { code: None, error }
    }

    pub(crate) fn timed_out(limit: Duration) -> Self {
        Self {
            code: None,
            error: ClusterError::TimedOut { limit },
        }
    }

    pub(crate) fn unreadable(call: Call, error: &serde_json::Error) -> Self {
        // The text of a syntax error tells its place; that of a wrong type could quote the value.
        let kind = match error.classify() {
            serde_json::error::Category::Io | serde_json::error::Category::Eof => "it ends too early",
            serde_json::error::Category::Syntax => "it is not json",
            serde_json::error::Category::Data => "a field is missing or of another type",
        };
        let message = format!(
            "{} of {}: {kind}, at line {} column {}",
            call.verb,
            call.resource,
            error.line(),
            error.column()
        );
        Self::unreadable_because(message)
    }

    pub(crate) fn unreadable_because(message: String) -> Self {
        Self {
            code: None,
            error: ClusterError::Unreadable { message },
        }
    }

    pub(crate) fn unavailable(message: impl Into<String>) -> Self {
        Self {
            code: None,
            error: ClusterError::Unavailable {
                source: Box::new(Reason(message.into())),
            },
        }
    }

    /// The transport broke while an answer arrived.
    pub(crate) fn broken(error: &(dyn StdError + 'static)) -> Self {
        let mut below = Some(error);
        while let Some(error) = below {
            if let Some(refused) = error.downcast_ref::<AddressRefused>() {
                return Self::from_error(ClusterError::Disallowed {
                    message: refused.to_string(),
                });
            }
            below = error.source();
        }
        Self::unavailable(transport(error))
    }

    /// The API server refused.
    pub(crate) fn refused(call: Call, code: StatusCode, headers: &HeaderMap, body: &[u8]) -> Self {
        let status: Status = serde_json::from_slice(body).unwrap_or_default();
        let mut failure = Self::of_status(call, code, &status);
        if let ClusterError::TooManyRequests { retry_after } = &mut failure.error {
            *retry_after = self::retry_after(headers).or(*retry_after);
        }
        failure
    }

    /// The API server ended a watch with this status.
    pub(crate) fn of_status(call: Call, code: StatusCode, status: &Status) -> Self {
        let what = || format!("{} of {}", call.verb, call.resource);
        let message = || format!("{}: {}", what(), shortened(&status.message, code));
        let error = match code.as_u16() {
            401 => ClusterError::Unauthenticated { source: None },
            403 => ClusterError::Forbidden {
                action: call.action().filter(|_| is_forbidden(call, code, status)),
                message: message(),
            },
            404 => ClusterError::NotFound { what: what() },
            409 | 410 => ClusterError::Conflict { what: what() },
            408 | 500..=599 => return Self::unavailable_with(code, message()),
            429 => ClusterError::TooManyRequests {
                retry_after: status
                    .details
                    .as_ref()
                    .and_then(|details| details.retry_after_seconds)
                    .map(Duration::from_secs),
            },
            400..=499 => ClusterError::Invalid { message: message() },
            _ => ClusterError::Unreadable { message: message() },
        };
        Self {
            code: Some(code),
            error,
        }
    }

    fn unavailable_with(code: StatusCode, message: String) -> Self {
        Self {
            code: Some(code),
            ..Self::unavailable(message)
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error {
            Error::Api(status) => {
                let code = StatusCode::from_u16(status.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
                let status = Status {
                    status: "Failure".to_owned(),
                    code: status.code,
                    message: status.message,
                    details: None,
                };
                let call = Call {
                    verb: "call",
                    resource: "the api server",
                };
                Self::of_status(call, code, &status)
            }
            Error::HyperError(error) => Self::broken(&error),
            Error::Service(error) => Self::broken(error.as_ref()),
            Error::ReadEvents(error) => Self::broken(&error),
            Error::RustlsTls(_) => {
                Self::unavailable("tls cannot be set up with the certificates and key that were given")
            }
            Error::Auth(_) => Self {
                code: None,
                error: ClusterError::Unauthenticated {
                    source: Some(Box::new(Reason(CREDENTIALS.to_owned()))),
                },
            },
            Error::InferConfig(_) | Error::InferKubeconfig(_) => Self::unavailable("the kubeconfig cannot be used"),
            Error::SerdeError(_)
            | Error::FromUtf8(_)
            | Error::LinesCodecMaxLineLengthExceeded
            | Error::Discovery(_) => Self::unreadable_because("it is not what was asked for".to_owned()),
            Error::ProxyProtocolUnsupported { .. } | Error::ProxyProtocolDisabled { .. } => {
                Self::unavailable("the kubeconfig asks for a proxy of a kind that this program does not know")
            }
            Error::HttpError(_) | Error::BuildRequest(_) | Error::TlsRequired => {
                Self::unavailable("the request could not be made")
            }
        }
    }
}

/// Whether the rules of the cluster do not let the service do this. Others refuse with the same status, such as webhooks and policies: no role would
/// help there.
pub(crate) fn is_forbidden(call: Call, code: StatusCode, status: &Status) -> bool {
    let refusal = format!("cannot {} resource \"{}\"", call.verb, call.resource);
    code == StatusCode::FORBIDDEN && status.message.contains(&refusal)
}

/// The chain of a transport error, as far as its parts are known to tell only about transport.
fn transport(error: &(dyn StdError + 'static)) -> String {
    let mut parts: Vec<String> = Vec::new();
    let mut next = Some(error);
    while let Some(error) = next {
        if error.is::<kube::client::AuthError>() || error.is::<Error>() {
            return CREDENTIALS.to_owned();
        }
        let text = error.to_string();
        if parts.last().is_none_or(|last| !last.contains(&text)) {
            parts.push(text);
        }
        next = error.source();
    }
    parts.join(": ").chars().take(LONGEST_MESSAGE).collect()
}

/// When a server says that it may be tried again.
pub(crate) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(http::header::RETRY_AFTER)?.to_str().ok()?;
    text.trim().parse().ok().map(Duration::from_secs)
}

pub(crate) fn shortened(message: &str, code: StatusCode) -> String {
    if message.is_empty() {
        return format!("status {}", code.as_u16());
    }
    message.chars().take(LONGEST_MESSAGE).collect()
}

//! Bodies of requests: JSON, read strictly.

use poem::{Request, RequestBody};
use poem_openapi::registry::{MetaMediaType, MetaRequest, Registry};
use poem_openapi::types::Type;
use poem_openapi::{ApiExtractor, ApiExtractorType, ExtractParamOptions};
use serde::de::DeserializeOwned;

use crate::answer::JSON;
use crate::problem::{Kind, Problem, shortened};

/// The body of a request, as JSON in the shape of `T`. No body at all is an empty object: what is missing in it is told like in any other.
pub(crate) struct Written<T>(pub(crate) T);

impl<'a, T: Type + DeserializeOwned> ApiExtractor<'a> for Written<T> {
    const TYPES: &'static [ApiExtractorType] = &[ApiExtractorType::RequestObject];

    type ParamType = ();
    type ParamRawType = ();

    fn register(registry: &mut Registry) {
        T::register(registry);
    }

    fn request_meta() -> Option<MetaRequest> {
        Some(MetaRequest {
            description: None,
            content: vec![MetaMediaType {
                content_type: JSON,
                schema: T::schema_ref(),
            }],
            required: true,
        })
    }

    async fn from_request(
        request: &'a Request,
        body: &mut RequestBody,
        _: ExtractParamOptions<Self::ParamType>,
    ) -> poem::Result<Self> {
        let bytes = body
            .take()?
            .into_bytes()
            .await
            .map_err(|_| Problem::new(Kind::Malformed, "the body could not be read to its end"))?;
        if bytes.is_empty() {
            return Ok(parse(b"{}")?);
        }
        check_media_type(request)?;
        Ok(parse(&bytes)?)
    }
}

/// The body of a request that holds secrets, as JSON in the shape of `T`: of one that cannot be read, nothing is repeated.
pub(crate) struct Confidential<T>(pub(crate) T);

impl<'a, T: Type + DeserializeOwned> ApiExtractor<'a> for Confidential<T> {
    const TYPES: &'static [ApiExtractorType] = &[ApiExtractorType::RequestObject];

    type ParamType = ();
    type ParamRawType = ();

    fn register(registry: &mut Registry) {
        T::register(registry);
    }

    fn request_meta() -> Option<MetaRequest> {
        Written::<T>::request_meta()
    }

    async fn from_request(
        request: &'a Request,
        body: &mut RequestBody,
        _: ExtractParamOptions<Self::ParamType>,
    ) -> poem::Result<Self> {
        let bytes = body
            .take()?
            .into_bytes()
            .await
            .map_err(|_| Problem::new(Kind::Malformed, "the body could not be read to its end"))?;
        if bytes.is_empty() {
            return Ok(parse_silently(b"{}")?);
        }
        check_media_type(request)?;
        Ok(parse_silently(&bytes)?)
    }
}

fn parse_silently<T: DeserializeOwned>(bytes: &[u8]) -> Result<Confidential<T>, Problem> {
    serde_json::from_slice(bytes).map(Confidential).map_err(|error| {
        let (kind, what) = match error.is_data() {
            true => (
                Kind::Invalid,
                "a key is missing, not known, there twice or of another type",
            ),
            false => (Kind::Malformed, "it is not json"),
        };
        let place = format!("line {} column {}", error.line(), error.column());
        Problem::new(
            kind,
            format!("the body: {what}, at {place}; what stands there is not repeated"),
        )
    })
}

fn check_media_type(request: &Request) -> Result<(), Problem> {
    let given = request.content_type().unwrap_or_default();
    let kind = given.split(';').next().unwrap_or_default().trim();
    // Patches of objects say what they are when their senders are careful; ours are read the same.
    if [JSON, "application/merge-patch+json"]
        .iter()
        .any(|known| kind.eq_ignore_ascii_case(known))
    {
        return Ok(());
    }
    let given = match given {
        "" => "the body has no content-type".to_owned(),
        given => format!("the body is {:?}", shortened(given)),
    };
    Err(Problem::new(Kind::MediaType, format!("{given}: {JSON} is expected")))
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<Written<T>, Problem> {
    serde_json::from_slice(bytes).map(Written).map_err(|error| {
        let kind = if error.is_data() {
            Kind::Invalid
        } else {
            Kind::Malformed
        };
        Problem::new(kind, format!("the body: {}", shortened(&error.to_string())))
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn what_is_confidential_is_not_repeated() {
        type Labels = BTreeMap<String, String>;
        assert_eq!(parse_silently::<Labels>(br#"{"a":"b"}"#).unwrap().0["a"], "b");
        for (text, status) in [
            ("{", 400),
            (r#"{"a": 12345}"#, 422),
            (r#""12345""#, 422),
            ("12345", 422),
            ("[12345]", 422),
        ] {
            let problem = parse_silently::<Labels>(text.as_bytes()).err().unwrap();
            assert_eq!(problem.kind().status().as_u16(), status, "{text}");
            assert!(problem.detail().contains("line 1 column"), "{}", problem.detail());
            assert!(!problem.detail().contains("12345"), "{}", problem.detail());
        }
    }

    #[test]
    fn what_cannot_be_read_is_told_with_its_place() {
        type Labels = BTreeMap<String, String>;
        assert_eq!(parse::<Labels>(br#"{"a":"b"}"#).unwrap().0["a"], "b");
        for (text, status, expected) in [
            ("{", 400, "line 1 column 1"),
            ("{}}", 400, "trailing characters at line 1 column 3"),
            (r#"{"a":1}"#, 422, "invalid type: integer `1`, expected a string"),
            ("[]", 422, "invalid type: sequence, expected a map"),
        ] {
            let problem = parse::<Labels>(text.as_bytes()).err().unwrap();
            assert_eq!(problem.kind().status().as_u16(), status, "{text}");
            assert!(problem.detail().contains(expected), "{}", problem.detail());
        }
    }
}

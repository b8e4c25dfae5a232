//! Bodies of requests: JSON, read strictly.

use std::collections::HashSet;
use std::fmt;

use bytes::Bytes;
use knm_model::excerpt;
use poem::{Request, RequestBody};
use poem_openapi::registry::{MetaMediaType, MetaRequest, Registry};
use poem_openapi::types::Type;
use poem_openapi::{ApiExtractor, ApiExtractorType, ExtractParamOptions};
use serde::de::{DeserializeOwned, Error as _, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

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
        Ok(parse(&sent(request, body).await?)?)
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
        let bytes = sent(request, body).await?;
        check_object(&bytes)?;
        Ok(parse_silently(&bytes)?)
    }
}

/// What was sent as JSON; an empty object if nothing was.
async fn sent(request: &Request, body: &mut RequestBody) -> poem::Result<Bytes> {
    let bytes = body
        .take()?
        .into_bytes()
        .await
        .map_err(|_| Problem::new(Kind::Malformed, "the body could not be read to its end"))?;
    if bytes.is_empty() {
        return Ok(Bytes::from_static(b"{}"));
    }
    check_media_type(request)?;
    Ok(bytes)
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

/// Refuses a list: it would be read as the values of an object in the order of its keys.
fn check_object(bytes: &[u8]) -> Result<(), Problem> {
    match bytes.trim_ascii_start().first() {
        Some(b'[') => Err(Problem::new(
            Kind::Invalid,
            "the body: invalid type: sequence, expected a map",
        )),
        Some(_) | None => Ok(()),
    }
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<Written<T>, Problem> {
    // Readers do not agree on which of two values a key has.
    serde_json::from_slice::<Distinct>(bytes)
        .map_err(|error| Problem::new(Kind::Malformed, format!("the body: {}", shortened(&error.to_string()))))?;
    check_object(bytes)?;
    serde_json::from_slice(bytes).map(Written).map_err(|error| {
        let kind = if error.is_data() {
            Kind::Invalid
        } else {
            Kind::Malformed
        };
        Problem::new(kind, format!("the body: {}", shortened(&error.to_string())))
    })
}

/// JSON in which no object has a key twice, at any depth.
struct Distinct;

impl<'de> Deserialize<'de> for Distinct {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(DistinctVisitor)
    }
}

struct DistinctVisitor;

impl<'de> Visitor<'de> for DistinctVisitor {
    type Value = Distinct;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Distinct, E> {
        Ok(Distinct)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Distinct, E> {
        Ok(Distinct)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Distinct, E> {
        Ok(Distinct)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Distinct, E> {
        Ok(Distinct)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Distinct, E> {
        Ok(Distinct)
    }

    fn visit_str<E>(self, _: &str) -> Result<Distinct, E> {
        Ok(Distinct)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Distinct, A::Error> {
        while items.next_element::<Distinct>()?.is_some() {}
        Ok(Distinct)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Distinct, A::Error> {
        let mut known = HashSet::new();
        while let Some(key) = entries.next_key::<String>()? {
            entries.next_value::<Distinct>()?;
            if known.contains(&key) {
                return Err(A::Error::custom(format!("the key \"{}\" comes twice", excerpt(&key))));
            }
            known.insert(key);
        }
        Ok(Distinct)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn refused(bytes: impl AsRef<[u8]>) -> (u16, String) {
        let problem = parse::<serde_json::Value>(bytes.as_ref()).err().unwrap();
        (problem.kind().status().as_u16(), problem.detail().to_owned())
    }

    #[test]
    fn a_list_is_no_object() {
        for list in ["[]", " [1]", "\n[{}]"] {
            assert_eq!(
                check_object(list.as_bytes()).unwrap_err().kind(),
                Kind::Invalid,
                "{list}"
            );
        }
        assert!(check_object(b" {}").is_ok());
    }

    #[test]
    fn a_key_that_comes_twice_is_named_wherever_it_is() {
        for text in [
            r#"{"a":1,"twice":1,"twice":1}"#,
            r#"{"a":{"b":[1,{"twice":1,"c":2,"twice":{}}]}}"#,
            r#"[{"twice":1,"tw\u0069ce":2}]"#,
        ] {
            let (status, detail) = refused(text);
            assert_eq!(status, 400, "{text}");
            assert!(detail.contains("the key \"twice\" comes twice at line 1"), "{detail}");
        }
        let fine = r#"{"a":{"x":null,"y":[true,1.5,-1,18446744073709551615]},"b":{"x":"1"},"":{}}"#;
        assert!(parse::<serde_json::Value>(fine.as_bytes()).is_ok());
    }

    #[test]
    fn what_is_nested_too_deep_is_refused_and_the_stack_survives() {
        for (opening, closing) in [("[", "]"), ("{\"a\":", "}")] {
            for depth in [200, 100_000] {
                let text = format!("{}1{}", opening.repeat(depth), closing.repeat(depth));
                let (status, detail) = refused(text);
                assert_eq!(status, 400);
                assert!(detail.contains("recursion limit exceeded"), "{detail}");
                assert_eq!(refused(opening.repeat(depth)).0, 400);
            }
        }
    }

    #[test]
    fn bytes_that_are_no_utf_8_are_refused() {
        for bytes in [
            &b"{\"a\":\"\xff\"}"[..],
            b"{\"\xc3\x28\":1}",
            b"\xef\xbb\xbf{}",
            b"\"\\ud800\"",
            b"\0",
        ] {
            assert_eq!(refused(bytes).0, 400, "{bytes:?}");
        }
    }

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

//! The parts of a signed token: `<header>.<claims>.<signature>`.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

use crate::algorithm::Algorithm;

/// No longer token is looked at.
const LONGEST_TOKEN: usize = 16 * 1024;

/// A token whose signature and claims nobody has checked.
pub(crate) struct Token<'a> {
    pub(crate) algorithm: Algorithm,
    /// The name of the key that it was signed with.
    pub(crate) key_id: Option<String>,
    pub(crate) claims: Map<String, Value>,
    /// What is signed.
    pub(crate) signed: &'a str,
    pub(crate) signature: Vec<u8>,
}

impl<'a> Token<'a> {
    /// Takes a token apart. Nothing of the header is believed but which of the known keys and of the allowed algorithms are to be tried.
    pub(crate) fn parse(text: &'a str, allowed: &[Algorithm]) -> Result<Self, &'static str> {
        if LONGEST_TOKEN < text.len() {
            return Err("it is too long");
        }
        let (signed, signature) = text.rsplit_once('.').ok_or("it has no parts")?;
        let (header, claims) = signed.split_once('.').ok_or("it has no three parts")?;
        if claims.contains('.') {
            return Err("it has more than three parts");
        }
        let header = object(header).ok_or("its header is no json object in base64")?;
        let algorithm = header
            .get("alg")
            .and_then(Value::as_str)
            .ok_or("it names no algorithm")?;
        let algorithm = Algorithm::parse(algorithm)
            .filter(|one| allowed.contains(one))
            .ok_or("its algorithm is not among those that are allowed")?;
        if header.contains_key("crit") {
            return Err("its header has extensions that must be understood");
        }
        if !header.get("typ").is_none_or(is_a_type_of_ours) {
            return Err("it is of another type");
        }
        let key_id = match header.get("kid") {
            None => None,
            Some(Value::String(id)) => Some(id.clone()),
            Some(_) => return Err("the name of its key is no text"),
        };
        let signature = URL_SAFE_NO_PAD
            .decode(signature)
            .map_err(|_| "its signature is not base64")?;
        if signature.is_empty() {
            return Err("it is not signed");
        }
        Ok(Self {
            algorithm,
            key_id,
            claims: object(claims).ok_or("its claims are no json object in base64")?,
            signed,
            signature,
        })
    }
}

/// The issuer that a token names, whatever else is wrong with it.
pub(crate) fn named_issuer(text: &str) -> Option<String> {
    if LONGEST_TOKEN < text.len() {
        return None;
    }
    match object(text.split('.').nth(1)?)?.remove("iss") {
        Some(Value::String(issuer)) => Some(issuer),
        _ => None,
    }
}

/// An issuer signs other things with the same keys, which were never meant as a proof of who somebody is: messages about a logout, for one.
fn is_a_type_of_ours(value: &Value) -> bool {
    let Some(text) = value.as_str() else {
        return false;
    };
    let lower = text.to_ascii_lowercase();
    matches!(lower.strip_prefix("application/").unwrap_or(&lower), "jwt" | "at+jwt")
}

fn object(part: &str) -> Option<Map<String, Value>> {
    let bytes = URL_SAFE_NO_PAD.decode(part).ok()?;
    serde_json::from_slice(&bytes).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn token(header: &Value, claims: &Value) -> String {
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        format!("{}.{}.c2lnbmVk", part(header), part(claims))
    }

    fn why(text: &str) -> Result<Option<String>, &'static str> {
        Token::parse(text, &[Algorithm::Rs256, Algorithm::EdDsa]).map(|token| token.key_id)
    }

    #[test]
    fn a_token_is_taken_apart() {
        let text = token(&json!({"alg": "EdDSA", "kid": "k", "typ": "JWT"}), &json!({"sub": "s"}));
        let parsed = Token::parse(&text, &Algorithm::ALL).ok().unwrap();
        assert_eq!(
            (parsed.algorithm, parsed.key_id.as_deref()),
            (Algorithm::EdDsa, Some("k"))
        );
        assert_eq!(parsed.signature, b"signed");
        assert_eq!(parsed.claims["sub"], "s");
        assert_eq!(format!("{}.c2lnbmVk", parsed.signed), text);
    }

    #[test]
    fn headers_that_are_odd_are_refused() {
        for header in [
            json!({"alg": "RS256"}),
            json!({"alg": "RS256", "typ": "application/at+JWT"}),
            json!({"alg": "RS256", "jku": "https://evil.example.com", "jwk": {"kty": "oct"}}),
        ] {
            assert_eq!(why(&token(&header, &json!({}))), Ok(None), "{header}");
        }
        for (header, reason) in [
            (json!({}), "it names no algorithm"),
            (json!({"alg": null}), "it names no algorithm"),
            (json!({"alg": ["RS256"]}), "it names no algorithm"),
            (
                json!({"alg": "none"}),
                "its algorithm is not among those that are allowed",
            ),
            (
                json!({"alg": "None"}),
                "its algorithm is not among those that are allowed",
            ),
            (
                json!({"alg": "HS256"}),
                "its algorithm is not among those that are allowed",
            ),
            (
                json!({"alg": "ES256"}),
                "its algorithm is not among those that are allowed",
            ),
            (
                json!({"alg": "RS256", "crit": ["b64"], "b64": false}),
                "its header has extensions that must be understood",
            ),
            (
                json!({"alg": "RS256", "crit": null}),
                "its header has extensions that must be understood",
            ),
            (json!({"alg": "RS256", "typ": "logout+jwt"}), "it is of another type"),
            (json!({"alg": "RS256", "typ": 1}), "it is of another type"),
            (json!({"alg": "RS256", "kid": 1}), "the name of its key is no text"),
            (json!(["alg", "RS256"]), "its header is no json object in base64"),
        ] {
            assert_eq!(why(&token(&header, &json!({}))), Err(reason), "{header}");
        }
    }

    #[test]
    fn texts_that_are_no_tokens_are_refused() {
        let good = token(&json!({"alg": "RS256"}), &json!({}));
        let (signed, _) = good.rsplit_once('.').unwrap();
        for text in [
            String::new(),
            ".".to_owned(),
            "..".to_owned(),
            signed.to_owned(),
            format!("{signed}."),
            format!("{good}.x"),
            format!(".{good}"),
            format!("{good}="),
            format!(" {good}"),
            format!("{good}\n"),
            token(&json!({"alg": "RS256"}), &json!([])),
            token(&json!({"alg": "RS256"}), &json!(null)),
        ] {
            assert!(why(&text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_long_token_is_refused_before_it_is_looked_at() {
        let long = token(&json!({"alg": "RS256"}), &json!({"pad": "x".repeat(LONGEST_TOKEN)}));
        assert_eq!(why(&long), Err("it is too long"));
        assert_eq!(why(&"x".repeat(LONGEST_TOKEN + 1)), Err("it is too long"));
    }

    #[test]
    fn deep_json_is_refused() {
        let deep = "[".repeat(5_000) + &"]".repeat(5_000);
        let part = URL_SAFE_NO_PAD.encode(format!("{{\"alg\":\"RS256\",\"x\":{deep}}}"));
        assert_eq!(
            why(&format!("{part}.e30.c2ln")),
            Err("its header is no json object in base64")
        );
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "\\PC*|[a-zA-Z0-9_-]{0,20}\\.[a-zA-Z0-9_-]{0,20}\\.[a-zA-Z0-9_-]{0,20}") {
            let _ = Token::parse(&text, &Algorithm::ALL);
        }

        #[test]
        fn no_parts_make_it_panic(header in "\\PC*|\\{\"alg\":\"(RS256|none)\"(,\"kid\":\\PC{0,5})?\\}", claims in "\\PC*", signature in any::<Vec<u8>>()) {
            let part = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
            let text = format!("{}.{}.{}", part(header.as_bytes()), part(claims.as_bytes()), part(&signature));
            let _ = Token::parse(&text, &Algorithm::ALL);
        }
    }
}

//! The keys of an issuer, and whether one of them signed a token.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::signature::{self, EcdsaVerificationAlgorithm, RsaParameters, RsaPublicKeyComponents, UnparsedPublicKey};
use serde::Deserialize;
use serde_json::Value;

use crate::algorithm::Algorithm;
use crate::token::Token;

/// Issuers have a few.
const MOST_KEYS: usize = 100;
/// How many keys a token tries, the first ones: whoever leaves out the name of its key, or many keys of one name, must not make each token dear.
const MOST_TRIED: usize = 10;
/// RSA keys of fewer bytes are not believed.
const LEAST_MODULUS: usize = 256;
/// Larger ones cost too much to check.
const MOST_MODULUS: usize = 1_024;

/// What an issuer publishes, before it is known whether a key can be used.
#[derive(Deserialize)]
pub(crate) struct PublishedKeys {
    keys: Vec<Value>,
}

/// The keys that can be used.
#[derive(Debug)]
pub(crate) struct Keys(Vec<Key>);

#[derive(Debug)]
struct Key {
    id: Option<String>,
    /// The only algorithm that it is for, if it says so.
    algorithm: Option<Algorithm>,
    public: Public,
}

#[derive(Debug)]
enum Public {
    Rsa { modulus: Vec<u8>, exponent: Vec<u8> },
    P256(Vec<u8>),
    P384(Vec<u8>),
    Ed25519(Vec<u8>),
}

/// What the keys say of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// One of them signed it.
    Signed,
    /// None of those that it could be did.
    Forged,
    /// There is none that it could be: it may have been made since.
    UnknownKey,
}

/// A key as RFC 7517 and 8037 write it. Whether there is more in it does not matter.
#[derive(Deserialize)]
struct WrittenKey {
    kty: String,
    kid: Option<String>,
    alg: Option<String>,
    #[serde(rename = "use")]
    purpose: Option<String>,
    key_ops: Option<Vec<String>>,
    n: Option<String>,
    e: Option<String>,
    crv: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

impl Keys {
    /// Takes the keys that can be used. Others are passed over, because issuers publish keys for other things, too.
    pub(crate) fn read(published: PublishedKeys) -> Result<Self, &'static str> {
        if MOST_KEYS < published.keys.len() {
            return Err("it has too many keys");
        }
        let read = |value| serde_json::from_value(value).ok().and_then(Key::read);
        Ok(Self(published.keys.into_iter().filter_map(read).collect()))
    }

    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }

    /// Whether one of them signed a token. A key of another kind than the algorithm needs is never tried, and never are its bytes taken for
    /// something else.
    pub(crate) fn verify(&self, token: &Token<'_>) -> Verdict {
        let is_named = |key: &&Key| token.key_id.is_none() || key.id == token.key_id;
        let mut candidates = self
            .0
            .iter()
            .filter(is_named)
            .filter(|key| key.fits(token.algorithm))
            .take(MOST_TRIED)
            .peekable();
        if candidates.peek().is_none() {
            return Verdict::UnknownKey;
        }
        match candidates.any(|key| key.signed(token)) {
            true => Verdict::Signed,
            false if token.key_id.is_none() => Verdict::UnknownKey,
            false => Verdict::Forged,
        }
    }
}

impl Key {
    /// The key, `None` if it is of no kind that is known here, malformed, too weak, or not for signatures.
    fn read(written: WrittenKey) -> Option<Self> {
        if written.purpose.as_deref().is_some_and(|purpose| purpose != "sig") {
            return None;
        }
        if let Some(uses) = &written.key_ops
            && !uses.iter().any(|one| one == "verify")
        {
            return None;
        }
        let algorithm = match written.alg.as_deref() {
            None => None,
            // The newer name of the same, RFC 9864.
            Some("Ed25519") => Some(Algorithm::EdDsa),
            Some(name) => Some(Algorithm::parse(name)?),
        };
        let public = match (written.kty.as_str(), written.crv.as_deref()) {
            ("RSA", _) => rsa(&bytes(written.n)?, &bytes(written.e)?)?,
            ("EC", Some("P-256")) => Public::P256(point(&bytes(written.x)?, &bytes(written.y)?, 32)?),
            ("EC", Some("P-384")) => Public::P384(point(&bytes(written.x)?, &bytes(written.y)?, 48)?),
            ("OKP", Some("Ed25519")) => Public::Ed25519(bytes(written.x).filter(|key| key.len() == 32)?),
            _ => return None,
        };
        let key = Self {
            id: written.kid,
            algorithm,
            public,
        };
        // One that says to be for an algorithm of another kind is for nothing.
        algorithm.is_none_or(|one| key.fits(one)).then_some(key)
    }

    fn fits(&self, algorithm: Algorithm) -> bool {
        use Algorithm::{EdDsa, Es256, Es384, Ps256, Ps384, Ps512, Rs256, Rs384, Rs512};
        let is_its_own = self.algorithm.is_none_or(|own| own == algorithm);
        is_its_own
            && match self.public {
                Public::Rsa { .. } => matches!(algorithm, Rs256 | Rs384 | Rs512 | Ps256 | Ps384 | Ps512),
                Public::P256(_) => algorithm == Es256,
                Public::P384(_) => algorithm == Es384,
                Public::Ed25519(_) => algorithm == EdDsa,
            }
    }

    fn signed(&self, token: &Token<'_>) -> bool {
        let (message, signature) = (token.signed.as_bytes(), token.signature.as_slice());
        let elliptic = |algorithm: &'static EcdsaVerificationAlgorithm, key: &[u8]| {
            UnparsedPublicKey::new(algorithm, key).verify(message, signature)
        };
        let verified = match &self.public {
            Public::Rsa { modulus, exponent } => match rsa_parameters(token.algorithm) {
                Some(parameters) => RsaPublicKeyComponents {
                    n: modulus,
                    e: exponent,
                }
                .verify(parameters, message, signature),
                None => return false,
            },
            Public::P256(key) => elliptic(&signature::ECDSA_P256_SHA256_FIXED, key),
            Public::P384(key) => elliptic(&signature::ECDSA_P384_SHA384_FIXED, key),
            Public::Ed25519(key) => UnparsedPublicKey::new(&signature::ED25519, key).verify(message, signature),
        };
        verified.is_ok()
    }
}

fn rsa_parameters(algorithm: Algorithm) -> Option<&'static RsaParameters> {
    Some(match algorithm {
        Algorithm::Rs256 => &signature::RSA_PKCS1_2048_8192_SHA256,
        Algorithm::Rs384 => &signature::RSA_PKCS1_2048_8192_SHA384,
        Algorithm::Rs512 => &signature::RSA_PKCS1_2048_8192_SHA512,
        Algorithm::Ps256 => &signature::RSA_PSS_2048_8192_SHA256,
        Algorithm::Ps384 => &signature::RSA_PSS_2048_8192_SHA384,
        Algorithm::Ps512 => &signature::RSA_PSS_2048_8192_SHA512,
        Algorithm::Es256 | Algorithm::Es384 | Algorithm::EdDsa => return None,
    })
}

fn rsa(modulus: &[u8], exponent: &[u8]) -> Option<Public> {
    let (modulus, exponent) = (without_leading_zeros(modulus), without_leading_zeros(exponent));
    let is_usable = (LEAST_MODULUS..=MOST_MODULUS).contains(&modulus.len()) && !exponent.is_empty();
    is_usable.then(|| Public::Rsa {
        modulus: modulus.to_vec(),
        exponent: exponent.to_vec(),
    })
}

/// Some issuers write the sign of a number, which RFC 7518 leaves out.
fn without_leading_zeros(number: &[u8]) -> &[u8] {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    &number[zeros..]
}

/// A point on a curve, uncompressed.
fn point(x: &[u8], y: &[u8], length: usize) -> Option<Vec<u8>> {
    (x.len() == length && y.len() == length).then(|| [&[4], x, y].concat())
}

fn bytes(text: Option<String>) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text?).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn text(length: usize) -> String {
        URL_SAFE_NO_PAD.encode(vec![0x81; length])
    }

    fn rsa_key() -> Value {
        json!({"kty": "RSA", "n": text(256), "e": "AQAB"})
    }

    fn usable(keys: Value) -> usize {
        let published = serde_json::from_value(json!({"keys": keys})).expect("a list of keys");
        Keys::read(published).expect("not too many").count()
    }

    fn with(mut key: Value, changes: &Value) -> Value {
        for (name, value) in changes.as_object().expect("changes") {
            key[name] = value.clone();
        }
        key
    }

    #[test]
    fn keys_for_signatures_are_taken() {
        for key in [
            rsa_key(),
            with(
                rsa_key(),
                &json!({"kid": "k", "use": "sig", "key_ops": ["verify"], "alg": "PS512", "x5c": []}),
            ),
            with(
                rsa_key(),
                &json!({"n": URL_SAFE_NO_PAD.encode([&[0][..], &[0x81; 256]].concat())}),
            ),
            json!({"kty": "EC", "crv": "P-256", "x": text(32), "y": text(32), "alg": "ES256"}),
            json!({"kty": "EC", "crv": "P-384", "x": text(48), "y": text(48)}),
            json!({"kty": "OKP", "crv": "Ed25519", "x": text(32)}),
            json!({"kty": "OKP", "crv": "Ed25519", "x": text(32), "alg": "Ed25519"}),
        ] {
            assert_eq!(usable(json!([key])), 1, "{key}");
        }
    }

    #[test]
    fn keys_that_are_weak_malformed_or_for_something_else_are_passed_over() {
        for key in [
            with(rsa_key(), &json!({"use": "enc"})),
            with(rsa_key(), &json!({"key_ops": ["encrypt"]})),
            with(rsa_key(), &json!({"alg": "RSA-OAEP"})),
            with(rsa_key(), &json!({"alg": "ES256"})),
            with(rsa_key(), &json!({"alg": "HS256"})),
            with(rsa_key(), &json!({"n": text(255)})),
            with(rsa_key(), &json!({"n": text(1025)})),
            with(
                rsa_key(),
                &json!({"n": URL_SAFE_NO_PAD.encode([&[0][..], &[0x81; 255]].concat())}),
            ),
            with(rsa_key(), &json!({"n": null})),
            with(rsa_key(), &json!({"e": "AA"})),
            with(rsa_key(), &json!({"e": "AQ=="})),
            with(rsa_key(), &json!({"kid": 7})),
            json!({"kty": "oct", "k": text(32)}),
            json!({"kty": "EC", "crv": "P-521", "x": text(66), "y": text(66)}),
            json!({"kty": "EC", "crv": "P-256", "x": text(31), "y": text(32)}),
            json!({"kty": "EC", "crv": "P-256", "x": text(32)}),
            json!({"kty": "OKP", "crv": "X25519", "x": text(32)}),
            json!({"kty": "OKP", "crv": "Ed25519", "x": text(33)}),
            json!({"kty": "EC", "crv": "P-256", "x": text(32), "y": text(32), "alg": "ES384"}),
            json!({}),
            json!(null),
            json!("key"),
        ] {
            assert_eq!(usable(json!([key, rsa_key()])), 1, "{key}");
        }
    }

    #[test]
    fn a_list_without_end_is_refused() {
        let many = serde_json::from_value(json!({"keys": vec![rsa_key(); MOST_KEYS + 1]})).expect("keys");
        assert!(Keys::read(many).is_err());
        assert_eq!(usable(json!(vec![rsa_key(); MOST_KEYS])), MOST_KEYS);
        assert!(serde_json::from_str::<PublishedKeys>("{}").is_err());
    }

    fn some_text() -> impl Strategy<Value = Value> {
        prop_oneof![
            Just(Value::Null),
            "RSA|EC|OKP|P-256|P-384|Ed25519|RS256|ES256|EdDSA|sig|[A-Za-z0-9_-]{0,90}".prop_map(Value::from),
            Just(json!(["verify"])),
        ]
    }

    proptest! {
        #[test]
        fn no_key_makes_it_panic(values in proptest::collection::vec(some_text(), 10), signature in any::<Vec<u8>>()) {
            let names = ["kty", "kid", "alg", "use", "key_ops", "n", "e", "crv", "x", "y"];
            let key: serde_json::Map<String, Value> = names.iter().map(|name| (*name).to_owned()).zip(values).collect();
            let keys = Keys::read(PublishedKeys { keys: vec![key.into(), rsa_key()] }).expect("two keys");
            for algorithm in Algorithm::ALL {
                let token = Token { algorithm, key_id: None, claims: Default::default(), signed: "x", signature: signature.clone() };
                prop_assert_eq!(keys.verify(&token), Verdict::UnknownKey);
            }
        }
    }
}

//! How identity tokens may be signed.

/// A way to sign a token. There is none without a signature, and none whose signatures can be made by whoever can check them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Algorithm {
    Rs256,
    Rs384,
    Rs512,
    Ps256,
    Ps384,
    Ps512,
    Es256,
    Es384,
    EdDsa,
}

/// Why tokens cannot be signed like that.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AlgorithmError {
    /// `none`.
    #[error("\"none\" is not allowed: a token without a signature can be made by anybody")]
    Unsigned,
    /// An HMAC.
    #[error(
        "{name} is not allowed: whoever can check such a signature can also make it, and the keys of an issuer are public"
    )]
    SharedSecret {
        /// Its name.
        name: String,
    },
    /// Anything else.
    #[error("\"{name}\" is no algorithm that is known here: allowed are {}", names())]
    Unknown {
        /// What it was, shortened.
        name: String,
    },
}

impl Algorithm {
    pub(crate) const ALL: [Self; 9] = [
        Self::Rs256,
        Self::Rs384,
        Self::Rs512,
        Self::Ps256,
        Self::Ps384,
        Self::Ps512,
        Self::Es256,
        Self::Es384,
        Self::EdDsa,
    ];

    /// As tokens and keys name it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Rs256 => "RS256",
            Self::Rs384 => "RS384",
            Self::Rs512 => "RS512",
            Self::Ps256 => "PS256",
            Self::Ps384 => "PS384",
            Self::Ps512 => "PS512",
            Self::Es256 => "ES256",
            Self::Es384 => "ES384",
            Self::EdDsa => "EdDSA",
        }
    }

    /// Reads [`Algorithm::as_str`] back, `None` for any other text.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|one| one.as_str() == text)
    }

    /// Reads one as a configuration names it.
    pub(crate) fn configured(text: &str) -> Result<Self, AlgorithmError> {
        if let Some(algorithm) = Self::parse(text) {
            return Ok(algorithm);
        }
        let name = knm_model::excerpt(text);
        let upper = text.to_ascii_uppercase();
        Err(match upper.as_str() {
            "NONE" => AlgorithmError::Unsigned,
            "HS256" | "HS384" | "HS512" => AlgorithmError::SharedSecret { name },
            _ => AlgorithmError::Unknown { name },
        })
    }
}

fn names() -> String {
    Algorithm::ALL.map(Algorithm::as_str).join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_signatures_that_others_cannot_make_are_configured() {
        for algorithm in Algorithm::ALL {
            assert_eq!(Algorithm::configured(algorithm.as_str()), Ok(algorithm));
        }
        for none in ["none", "None", "nOnE"] {
            assert_eq!(Algorithm::configured(none), Err(AlgorithmError::Unsigned));
        }
        for name in ["HS256", "HS384", "hs512"] {
            let refused = Algorithm::configured(name).unwrap_err();
            assert_eq!(refused, AlgorithmError::SharedSecret { name: name.to_owned() });
        }
        let unknown = Algorithm::configured("rs256").unwrap_err().to_string();
        assert!(
            unknown.contains("\"rs256\"") && unknown.contains("RS256, RS384"),
            "{unknown}"
        );
    }
}

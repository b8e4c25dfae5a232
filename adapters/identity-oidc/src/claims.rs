//! What the claims of a token must say.

use std::time::Duration;

use knm_model::Timestamp;
use serde_json::{Map, Value};

/// How far ahead the clock of an issuer may be when it says when it made a token: that says nothing of whether it is valid.
const FURTHEST_AHEAD: Duration = Duration::from_secs(300);

/// What is expected of claims.
pub(crate) struct Expected {
    /// Exactly this, letter by letter.
    pub(crate) issuer: String,
    /// One of these.
    pub(crate) audiences: Vec<String>,
    /// How far clocks may be apart.
    pub(crate) leeway: Duration,
}

impl Expected {
    /// Checks the claims of a token at `now`.
    pub(crate) fn check(&self, claims: &Map<String, Value>, now: Timestamp) -> Result<(), &'static str> {
        if claims.get("iss").and_then(Value::as_str) != Some(&self.issuer) {
            return Err("it is from another issuer");
        }
        if !self.is_for_us(claims.get("aud")) {
            return Err("it is for somebody else");
        }
        if claims.get("sub").and_then(Value::as_str).is_none_or(str::is_empty) {
            return Err("it names nobody");
        }
        let now = now.unix_seconds();
        let leeway = self.leeway.as_secs_f64();
        match time(claims, "exp")? {
            Some(end) if now < end + leeway => {}
            Some(_) => return Err("it has run out"),
            None => return Err("it does not say when it runs out"),
        }
        if time(claims, "nbf")?.is_some_and(|start| now + leeway < start) {
            return Err("it is not valid yet");
        }
        let ahead = leeway + FURTHEST_AHEAD.as_secs_f64();
        if time(claims, "iat")?.is_some_and(|made| now + ahead < made) {
            return Err("it was made in the future");
        }
        Ok(())
    }

    fn is_for_us(&self, claim: Option<&Value>) -> bool {
        let is_ours = |value: &Value| {
            value
                .as_str()
                .is_some_and(|one| self.audiences.iter().any(|ours| ours == one))
        };
        match claim {
            Some(Value::Array(values)) => values.iter().any(is_ours),
            Some(value) => is_ours(value),
            None => false,
        }
    }
}

/// A time in seconds since 1970. One of another type must not count as one that is not there.
fn time(claims: &Map<String, Value>, name: &str) -> Result<Option<f64>, &'static str> {
    match claims.get(name) {
        None => Ok(None),
        Some(value) => value.as_f64().map(Some).ok_or("one of its times is no number"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    const NOW: i64 = 1_900_000_000;

    fn expected() -> Expected {
        Expected {
            issuer: "https://id.example.com".to_owned(),
            audiences: vec!["ours".to_owned(), "also".to_owned()],
            leeway: Duration::from_secs(30),
        }
    }

    fn check(changes: &Value) -> Result<(), &'static str> {
        let mut claims = json!({"iss": "https://id.example.com", "aud": "ours", "sub": "s", "exp": NOW + 60});
        for (name, value) in changes.as_object().unwrap() {
            match value {
                Value::Null => drop(claims.as_object_mut().unwrap().remove(name)),
                value => claims[name] = value.clone(),
            }
        }
        let now = Timestamp::from_unix_millis(NOW * 1000).unwrap();
        expected().check(claims.as_object().unwrap(), now)
    }

    #[test]
    fn claims_that_say_what_they_must_are_taken() {
        for changes in [
            json!({}),
            json!({"aud": "also"}),
            json!({"aud": ["theirs", "ours"]}),
            json!({"aud": [1, "ours"]}),
            json!({"exp": NOW - 29}),
            json!({"exp": 1e300}),
            json!({"exp": NOW as f64 + 0.5}),
            json!({"nbf": NOW + 30, "iat": NOW + 330}),
            json!({"nbf": 0, "iat": 0}),
        ] {
            assert_eq!(check(&changes), Ok(()), "{changes}");
        }
    }

    #[test]
    fn each_wrong_claim_is_refused() {
        for (changes, why) in [
            (json!({"iss": null}), "it is from another issuer"),
            (json!({"iss": "https://id.example.com/"}), "it is from another issuer"),
            (json!({"iss": "https://ID.example.com"}), "it is from another issuer"),
            (json!({"iss": ["https://id.example.com"]}), "it is from another issuer"),
            (json!({"aud": null}), "it is for somebody else"),
            (json!({"aud": "theirs"}), "it is for somebody else"),
            (json!({"aud": "ours "}), "it is for somebody else"),
            (json!({"aud": []}), "it is for somebody else"),
            (json!({"aud": [["ours"]]}), "it is for somebody else"),
            (json!({"aud": {"ours": true}}), "it is for somebody else"),
            (json!({"sub": null}), "it names nobody"),
            (json!({"sub": ""}), "it names nobody"),
            (json!({"sub": 7}), "it names nobody"),
            (json!({"exp": null}), "it does not say when it runs out"),
            (json!({"exp": NOW - 30}), "it has run out"),
            (json!({"exp": 0}), "it has run out"),
            (json!({"exp": -1}), "it has run out"),
            (json!({"exp": (NOW + 60).to_string()}), "one of its times is no number"),
            (json!({"nbf": NOW + 31}), "it is not valid yet"),
            (json!({"nbf": "0"}), "one of its times is no number"),
            (json!({"nbf": true}), "one of its times is no number"),
            (json!({"iat": NOW + 331}), "it was made in the future"),
            (json!({"iat": []}), "one of its times is no number"),
        ] {
            assert_eq!(check(&changes), Err(why), "{changes}");
        }
    }

    proptest! {
        /// A token is valid from `nbf` to `exp`, with the leeway on both sides.
        #[test]
        fn tokens_are_valid_within_their_times(exp in -100_i64..100, nbf in proptest::option::of(-100_i64..100)) {
            let expected = -30 < exp && nbf.is_none_or(|nbf| nbf <= 30);
            let nbf = nbf.map_or(Value::Null, |nbf| json!(NOW + nbf));
            prop_assert_eq!(check(&json!({"exp": NOW + exp, "nbf": nbf})).is_ok(), expected);
        }
    }
}

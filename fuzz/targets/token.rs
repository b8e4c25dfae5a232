//! API tokens, as strangers send them.

#![no_main]

use knm_model::{TokenId, TokenText};

libfuzzer_sys::fuzz_target!(|text: &str| {
    if let Ok(token) = TokenText::parse(text) {
        assert_eq!(token.reveal(), text);
        assert!(!format!("{token:?}").contains(&text[21..]));
    }
    if let Some(id) = TokenId::parse(text) {
        assert_eq!(id.to_string(), text);
    }
});

//! Rules that make permissions of claims.

#![no_main]

use knm_model::ClaimRule;

libfuzzer_sys::fuzz_target!(|text: &str| {
    if let Ok(rule) = ClaimRule::parse_text(text) {
        assert!(!rule.claim.is_empty() && !rule.value.is_empty());
    }
});

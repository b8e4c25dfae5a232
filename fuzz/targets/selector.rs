//! Label selectors of queries, tokens, bindings and operations.

#![no_main]

use std::collections::BTreeMap;

use knm_model::Selector;

libfuzzer_sys::fuzz_target!(|text: &str| {
    match Selector::parse(text) {
        Ok(selector) => {
            // Whatever it says, it says it of every node.
            let _ = selector.matches(&BTreeMap::new());
        }
        Err(error) => assert!(
            (1..=text.chars().count() + 1).contains(&error.position),
            "the error lies outside of the text"
        ),
    }
});

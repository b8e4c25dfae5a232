//! URLs of API servers of clusters that are registered.

#![no_main]

use knm_model::{AccessRules, ServerUrl};

libfuzzer_sys::fuzz_target!(|text: &str| {
    let rules = AccessRules::default();
    if let Ok(url) = ServerUrl::parse(text, &rules) {
        assert!(url.as_str().starts_with("https://"));
        // What is stored is read again, and is as much allowed as before.
        assert_eq!(
            ServerUrl::parse(url.as_str(), &rules).map(|again| again.as_str().to_owned()),
            Ok(url.as_str().to_owned())
        );
    }
});

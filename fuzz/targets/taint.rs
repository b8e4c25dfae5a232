//! Filters of taints in queries.

#![no_main]

use knm_model::TaintFilter;

libfuzzer_sys::fuzz_target!(|text: &str| {
    match TaintFilter::parse(text) {
        Ok(taint) => {
            let value = taint.value.map(|value| format!("={value}")).unwrap_or_default();
            let effect = taint
                .effect
                .map(|effect| format!(":{}", effect.as_str()))
                .unwrap_or_default();
            assert_eq!(format!("{}{value}{effect}", taint.key), text);
        }
        Err(error) => assert!((1..=text.chars().count() + 1).contains(&error.position)),
    }
});

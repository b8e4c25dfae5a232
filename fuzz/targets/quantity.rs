//! Quantities of Kubernetes, as nodes and pods have them.

#![no_main]

use knm_model::Quantity;

libfuzzer_sys::fuzz_target!(|text: &str| {
    if let Ok(quantity) = Quantity::parse(text) {
        let (units, millis) = (quantity.units(), quantity.millis());
        assert!(units <= millis, "a thousandth is the smaller unit");
    }
});

//! Kubeconfigs of clusters that are registered.

#![no_main]

use knm_model::{AccessRules, ClusterCredentials, RawClusterAccess};
use secrecy::ExposeSecret as _;

libfuzzer_sys::fuzz_target!(|text: &str| {
    let raw = RawClusterAccess {
        kubeconfig: Some(text.into()),
        ..RawClusterAccess::default()
    };
    if let Ok(credentials) = ClusterCredentials::parse(&raw, &AccessRules::default()) {
        let sealed = credentials.to_bytes();
        let opened =
            ClusterCredentials::from_bytes(sealed.expose_secret().as_bytes()).expect("what was written is read");
        assert_eq!(opened.to_bytes().expose_secret(), sealed.expose_secret());
    }
});

//! Amounts of resources.

use std::sync::atomic::{AtomicBool, Ordering};

use knm_model::{PodRequests, Quantity, Resources};

use crate::wire::Amounts;

/// What a node has.
pub(crate) fn resources(amounts: Option<Amounts>) -> Resources {
    let mut resources = Resources::default();
    for (name, text) in amounts.unwrap_or_default() {
        let quantity = read(&name, &text);
        match name.as_str() {
            "cpu" => resources.cpu_millicores = millis(quantity),
            "memory" => resources.memory_bytes = units(quantity),
            "ephemeral-storage" => resources.ephemeral_storage_bytes = units(quantity),
            "pods" => resources.pods = units(quantity),
            _ => drop(resources.extended.insert(name, units(quantity))),
        }
    }
    resources
}

/// What a container asks for.
pub(crate) fn requests(amounts: Option<&Amounts>) -> PodRequests {
    let mut requests = PodRequests::default();
    for (name, text) in amounts.into_iter().flatten() {
        let quantity = read(name, text);
        match name.as_str() {
            "cpu" => requests.cpu_millicores = millis(quantity),
            "memory" => requests.memory_bytes = units(quantity),
            "ephemeral-storage" => requests.ephemeral_storage_bytes = units(quantity),
            _ => drop(requests.extended.insert(name.clone(), units(quantity))),
        }
    }
    requests
}

fn read(resource: &str, text: &str) -> Option<Quantity> {
    /// The same amount comes again with every change of its node; one warning is enough.
    static WARNED: AtomicBool = AtomicBool::new(false);
    match Quantity::parse(text) {
        Ok(quantity) => Some(quantity),
        Err(error) => {
            if !WARNED.swap(true, Ordering::Relaxed) {
                tracing::warn!(resource, %error, "an amount cannot be read and counts as 0; further ones are not logged");
            }
            None
        }
    }
}

fn millis(quantity: Option<Quantity>) -> u64 {
    quantity.map_or(0, Quantity::millis)
}

fn units(quantity: Option<Quantity>) -> u64 {
    quantity.map_or(0, Quantity::units)
}

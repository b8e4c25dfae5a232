//! Why a template or binding cannot be read or written.

use knm_model::{DefinitionKind, DefinitionName, QueryError};
use knm_ports::StorageError;

use crate::inventory::InventoryError;

/// Why a template or binding cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum TemplateError {
    /// There is none of this name.
    #[error("there is no {kind} \"{name}\"")]
    Unknown {
        /// What it would be.
        kind: DefinitionKind,
        /// The name, or its first characters.
        name: String,
    },
    /// There is no such version.
    #[error("{kind} \"{name}\" has no version {version}")]
    UnknownVersion {
        /// What it is.
        kind: DefinitionKind,
        /// The name, or its first characters.
        name: String,
        /// The version, or one with which it was deleted.
        version: u32,
    },
    /// There is one of this name already.
    #[error("there is a {kind} \"{name}\" already")]
    Taken {
        /// What it is.
        kind: DefinitionKind,
        /// The name.
        name: DefinitionName,
    },
    /// Somebody changed it meanwhile.
    #[error("{kind} \"{name}\" is at version {version}")]
    Stale {
        /// What it is.
        kind: DefinitionKind,
        /// The name.
        name: DefinitionName,
        /// Its latest version.
        version: u32,
    },
    /// A template that bindings use cannot be deleted.
    #[error("template \"{template}\" is used by {}", list(bindings))]
    Used {
        /// The template.
        template: String,
        /// The bindings.
        bindings: Vec<DefinitionName>,
    },
    /// There are as many as there may be.
    #[error("there are {most} {kind}s, which is as many as there may be")]
    TooMany {
        /// What they are.
        kind: DefinitionKind,
        /// How many there may be.
        most: usize,
    },
    /// What is written down is wrong in itself.
    #[error("what is written down is wrong: {}", errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Invalid {
        /// Everything that is wrong with it.
        errors: Vec<QueryError>,
    },
    /// There is no such cluster, or nothing is known of it yet.
    #[error(transparent)]
    Inventory(#[from] InventoryError),
    /// The store failed.
    #[error("templates and bindings could not be read or written")]
    Storage(#[from] StorageError),
}

/// How many bindings an error names.
const MOST_NAMED: usize = 10;

fn list(bindings: &[DefinitionName]) -> String {
    let named: Vec<String> = bindings
        .iter()
        .take(MOST_NAMED)
        .map(|name| format!("\"{name}\""))
        .collect();
    let noun = if bindings.len() == 1 { "binding" } else { "bindings" };
    match bindings.len().saturating_sub(MOST_NAMED) {
        0 => format!("{noun} {}", named.join(", ")),
        rest => format!("{noun} {} and {rest} more", named.join(", ")),
    }
}

//! The configuration: environment before file before defaults.

mod cluster_list;
mod convert;
mod dsn;
#[cfg(test)]
mod hostile_tests;
mod nearest;
mod resolve;
mod schema;
mod secret_files;
mod settings;
mod show;
mod sign_in;
#[cfg(test)]
mod tests;
mod traces;
mod value;

pub use cluster_list::{ClusterSetting, DemoSetting, SourceSetting};
pub use convert::{converted, variables_today};
pub use dsn::{kind as kind_of_place, masked};
pub use resolve::{Environment, Resolved};
pub use settings::{KubernetesSettings, ServerSettings, Settings};
pub use show::effective;
pub use sign_in::{OidcSettings, SignInSettings, refuses_open};
pub use value::{Origin, Value};

/// Everything that is wrong with a configuration.
#[derive(Debug, thiserror::Error)]
#[error("{} {} in the configuration:\n  {}", .problems.len(), if .problems.len() == 1 { "problem" } else { "problems" }, .problems.join("\n  "))]
pub struct ConfigurationError {
    /// One sentence each.
    pub problems: Vec<String>,
}

/// The variables that may say something about the configuration.
#[must_use]
pub fn environment() -> Environment {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect()
}

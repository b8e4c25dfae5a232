//! Clusters that are registered while the service runs: wires their registry, and the commands about the keys of their credentials.

use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;

use knm_domain::{ClusterRegistry, ExpiryWatch, Inventory, Operations, RegistryParts, RegistrySettings};
use knm_ports::{Clock, IdSource, Storage, Vault};
use knm_secrets::KeyRing;
use knm_system::SystemClock;
use secrecy::ExposeSecret as _;

use crate::configuration::{ClusterSetting, Environment, Resolved, Settings};
use crate::{Failure, clusters, print, serve, storage, warn};

/// The keys that the configuration names, if it names any.
///
/// # Errors
/// [`Failure::Keys`]: to go on without them would look as if nobody had registered clusters.
pub fn vault(settings: &Settings) -> Result<Option<Arc<dyn Vault>>, Failure> {
    let Some(path) = &settings.key_file else {
        return Ok(None);
    };
    let ring = KeyRing::load(path)?;
    Ok(Some(Arc::new(ring)))
}

/// The registry of clusters. Nothing happens by itself yet.
pub fn registry(
    settings: &Settings,
    vault: Option<Arc<dyn Vault>>,
    inventory: &Arc<Inventory>,
    storage: &Storage,
    operations: &Arc<Operations>,
    (clock, ids): (&Arc<dyn Clock>, &Arc<dyn IdSource>),
) -> Arc<ClusterRegistry> {
    ClusterRegistry::new(RegistryParts {
        inventory: Arc::clone(inventory),
        store: Arc::clone(&storage.registered),
        vault,
        opener: clusters::opener(&settings.kubernetes, settings.registration.rules),
        audit: Arc::clone(&storage.audit),
        operations: Arc::clone(operations),
        clock: Arc::clone(clock),
        ids: Arc::clone(ids),
        settings: RegistrySettings {
            rules: settings.registration.rules,
            max_clusters: settings.registration.max_clusters,
            watch_pods: settings.kubernetes.watch_pods,
        },
    })
}

/// Warns of credentials that end soon.
pub fn expiry_watch(
    configured: Vec<ClusterSetting>,
    inventory: &Arc<Inventory>,
    clock: &Arc<dyn Clock>,
) -> ExpiryWatch {
    ExpiryWatch {
        inventory: Arc::clone(inventory),
        configured: Arc::new(clusters::FileAccess::of(configured)),
        clock: Arc::clone(clock),
    }
}

/// Prints a line for a file of keys.
///
/// # Errors
/// [`Failure::Keys`] if the id is none.
pub fn generate_key(id: Option<&str>) -> Result<(), Failure> {
    let today = SystemClock.now().to_whole_seconds();
    let usual = format!("key-{}", today.get(..10).unwrap_or_default());
    let line = knm_secrets::generate(id.unwrap_or(&usual))?;
    print(&format!("{}\n", line.expose_secret()))
}

/// Seals everything that is stored with the newest key.
///
/// # Errors
/// [`Failure`], such as [`Failure::NotRotated`] if some of it could not be opened.
pub fn rotate(file: Option<&Path>, environment: &Environment) -> Result<(), Failure> {
    let resolved = Resolved::load(file, environment)?;
    warn(&resolved);
    let settings = Settings::from(&resolved);
    let vault = vault(&settings)?.ok_or(Failure::NoKeys)?;
    let rotation = serve::runtime()?.block_on(async {
        let storage = storage::open(&settings.database).await?;
        let rotation = knm_domain::rotate(storage.registered.as_ref(), vault.as_ref()).await;
        storage.admin.close().await;
        rotation.map_err(Failure::Rotation)
    })?;
    print(&format!(
        "{} {}: {} secrets sealed anew with the newest key, {} already were, {} were changed meanwhile\n",
        settings.database.kind.as_str(),
        settings.database.place,
        rotation.resealed,
        rotation.current,
        rotation.changed_meanwhile
    ))?;
    for (cluster, error) in &rotation.unopened {
        // Whoever closed stderr does not want to know.
        let _ = writeln!(std::io::stderr(), "cluster {cluster}: {error}");
    }
    match rotation.unopened.len() {
        0 => Ok(()),
        count => Err(Failure::NotRotated { count }),
    }
}

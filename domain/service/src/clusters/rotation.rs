//! Seals what is stored anew, with the newest key.

use knm_model::{ClusterName, RegisteredCluster};
use knm_ports::{RegisteredClusters, StorageError, Vault, VaultError};
use secrecy::ExposeSecret;

use super::purpose;

/// What came of sealing everything anew.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rotation {
    /// How many secrets are sealed with the newest key now that were not before.
    pub resealed: usize,
    /// How many were already.
    pub current: usize,
    /// How many were changed or removed by others meanwhile: whoever changes one seals it with their newest key.
    pub changed_meanwhile: usize,
    /// Those that no key opens, and why.
    pub unopened: Vec<(ClusterName, VaultError)>,
}

/// Seals the credentials of all registered clusters with the newest key. What it did not get to, or what was changed meanwhile, is left for
/// the next time: it may be repeated at will, while the service runs.
///
/// # Errors
/// [`StorageError`]; what was sealed until then stays so.
pub async fn rotate(store: &dyn RegisteredClusters, vault: &dyn Vault) -> Result<Rotation, StorageError> {
    let mut rotation = Rotation::default();
    for cluster in store.list().await? {
        if vault.is_newest(&cluster.sealed) {
            // That it says so is not that it is: the key may be another one under the same id.
            match vault.open(&purpose(&cluster.name), &cluster.sealed) {
                Ok(_) => rotation.current += 1,
                Err(error) => rotation.unopened.push((cluster.name, error)),
            }
            continue;
        }
        match resealed(&cluster, vault) {
            Ok(sealed) if store.reseal(&cluster, &sealed).await? => rotation.resealed += 1,
            Ok(_) => rotation.changed_meanwhile += 1,
            Err(error) => rotation.unopened.push((cluster.name, error)),
        }
    }
    Ok(rotation)
}

fn resealed(cluster: &RegisteredCluster, vault: &dyn Vault) -> Result<knm_model::SealedSecret, VaultError> {
    let purpose = purpose(&cluster.name);
    let opened = vault.open(&purpose, &cluster.sealed)?;
    vault.seal(&purpose, opened.expose_secret())
}

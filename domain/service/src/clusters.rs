//! Clusters that are registered while the service runs: with their credentials sealed in the store, and watched by all replicas.

mod barred;
mod error;
mod expiry;
mod following;
mod rotation;
mod testing;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use knm_model::{
    Access, AccessRules, AuditAction, AuditCompletion, AuditOutcome, AuditRecord, ClusterCredentials, ClusterName,
    ClusterSource, OperationFilter, OperationState, QueryError, RawClusterAccess, RegisteredCluster, Timestamp, Wish,
};
use knm_ports::{
    AuditLog, Clock, ClusterOpener, IdSource, OpenRefused, RegisteredClusters, StorageError, Vault, chain,
};
use metrics::counter;
use secrecy::ExposeSecret;
use serde_json::{Map, Value, json};
use tokio::sync::Mutex;
use tokio::time::Instant;
use tracing::Instrument;
use uuid::Uuid;

pub use error::RegistryError;
pub use expiry::{ConfiguredAccess, ExpiryWatch};
pub use rotation::{Rotation, rotate};
pub use testing::{AccessCheck, AccessTest};

use crate::audit::complete;
use crate::inventory::{ClusterStatus, Inventory, InventoryError};
use crate::metric;
use crate::operations::{Asker, OperationError, Operations};
use following::Followed;

/// How long the operations of a cluster that goes may take to end when they are cancelled with it.
const CANCELLING: Duration = Duration::from_secs(15);
/// How often it is looked whether they did.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Registers, replaces, removes and tests clusters.
pub struct ClusterRegistry {
    /// What it works with.
    pub(crate) parts: RegistryParts,
    /// What this replica knows of the stored clusters; held while the store is followed.
    followed: Mutex<HashMap<ClusterName, Followed>>,
}

/// What a registry works with.
pub struct RegistryParts {
    /// Where registered clusters are watched.
    pub inventory: Arc<Inventory>,
    /// Where they are stored.
    pub store: Arc<dyn RegisteredClusters>,
    /// Seals their credentials; `None` if no keys are configured, and then none are taken.
    pub vault: Option<Arc<dyn Vault>>,
    /// Makes accesses of credentials.
    pub opener: Arc<dyn ClusterOpener>,
    /// Where it is written who did what.
    pub audit: Arc<dyn AuditLog>,
    /// What is under way on their nodes.
    pub operations: Arc<Operations>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Ids of revisions and records.
    pub ids: Arc<dyn IdSource>,
    /// What may be registered.
    pub settings: RegistrySettings,
}

/// What may be registered.
#[derive(Clone, Copy, Debug)]
pub struct RegistrySettings {
    /// What credentials may be.
    pub rules: AccessRules,
    /// How many clusters at most.
    pub max_clusters: u32,
    /// Whether pods are watched, and not only asked for.
    pub watch_pods: bool,
}

/// What happens to the operations of a cluster that is removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnderWay {
    /// As long as there are any, it is not removed.
    Keep,
    /// They are cancelled with it.
    Cancel,
}

/// Credentials that were looked at as closely as that goes.
struct Checked {
    credentials: ClusterCredentials,
    expires_at: Option<Timestamp>,
}

impl ClusterRegistry {
    /// A registry of these parts. Nothing happens by itself before [`ClusterRegistry::follow`].
    #[must_use]
    pub fn new(parts: RegistryParts) -> Arc<Self> {
        Arc::new(Self {
            parts,
            followed: Mutex::default(),
        })
    }

    /// Registers a cluster. It need not be reachable. This replica watches it from now on, the others a few seconds later.
    ///
    /// # Errors
    /// [`RegistryError`]; then nothing is registered, unless the store did something and could not say so.
    pub async fn register(
        self: &Arc<Self>,
        name: &str,
        access: &RawClusterAccess,
        asker: Asker,
    ) -> Result<ClusterStatus, RegistryError> {
        let (name, checked) = self.checked_registration(name, access).await?;
        let cluster = self.sealed(&name, &checked, None)?;
        let (this, stored) = (Arc::clone(self), cluster);
        self.to_its_end(async move {
            let work = async {
                match this.parts.store.insert(&stored, this.parts.settings.max_clusters).await {
                    Ok(true) => Ok(()),
                    Ok(false) => Err(this.too_many()),
                    Err(StorageError::Conflict { .. }) => Err(RegistryError::Taken {
                        cluster: stored.name.clone(),
                    }),
                    Err(source) => Err(source.into()),
                }
            };
            this.audited(AuditAction::ClusterRegister, (None, Some(&stored)), &asker, work)
                .await
        })
        .await?;
        self.shown(&name).await
    }

    /// Looks at what would be registered, and tries it, without storing anything.
    ///
    /// # Errors
    /// [`RegistryError`], as [`ClusterRegistry::register`]. That the cluster cannot be reached is none.
    pub async fn try_out(&self, name: &str, access: &RawClusterAccess) -> Result<AccessTest, RegistryError> {
        let (_, checked) = self.checked_registration(name, access).await?;
        // Whatever it is to be called: nobody knows that name yet, and it would stay in the metrics.
        let opened = self
            .parts
            .opener
            .open(&ClusterName::from_any("dry-run"), &checked.credentials)
            .map_err(refused)?;
        Ok(testing::test(opened.gateway.as_ref()).await)
    }

    /// Gives a registered cluster other credentials.
    ///
    /// # Errors
    /// [`RegistryError`], such as [`RegistryError::Stale`] if its revision is none of `known`; then it stays as it was.
    pub async fn replace(
        self: &Arc<Self>,
        name: &str,
        access: &RawClusterAccess,
        known: Option<&[String]>,
        asker: Asker,
    ) -> Result<ClusterStatus, RegistryError> {
        let before = self.stored(name).await?;
        check_known(&before, known)?;
        self.vault()?;
        let checked = self.check(access).await?;
        if before.server != checked.credentials.server.as_str() {
            // What is under way would go on in another cluster.
            self.refuse_if_busy(&before.name).await?;
        }
        let after = self.sealed(&before.name, &checked, Some(before.registered_at))?;
        let this = Arc::clone(self);
        let name = before.name.clone();
        self.to_its_end(async move {
            let work = async {
                let replaced = this.parts.store.replace(&after, before.revision).await;
                replaced.map_err(|error| changed_meanwhile(error, &before.name))
            };
            this.audited(AuditAction::ClusterReplace, (Some(&before), Some(&after)), &asker, work)
                .await
        })
        .await?;
        self.shown(&name).await
    }

    /// Removes a registered cluster with its credentials. Its nodes are left as they are, and its audit stays readable. Whoever may do that
    /// may cancel what is under way there, whether or not they see its nodes.
    ///
    /// # Errors
    /// [`RegistryError`], such as [`RegistryError::Busy`]; then it stays. What is cancelled stays so.
    pub async fn remove(
        self: &Arc<Self>,
        name: &str,
        known: Option<&[String]>,
        under_way: UnderWay,
        asker: Asker,
    ) -> Result<(), RegistryError> {
        let before = self.stored(name).await?;
        check_known(&before, known)?;
        match under_way {
            UnderWay::Keep => self.refuse_if_busy(&before.name).await?,
            UnderWay::Cancel => {}
        }
        let this = Arc::clone(self);
        self.to_its_end(async move {
            let work = async {
                match under_way {
                    UnderWay::Keep => this.refuse_if_busy(&before.name).await?,
                    UnderWay::Cancel => this.cancel_operations(&before.name, &asker).await?,
                }
                let removed = this.parts.store.remove(&before.name, before.revision).await;
                removed.map_err(|error| changed_meanwhile(error, &before.name))
            };
            this.audited(AuditAction::ClusterRemove, (Some(&before), None), &asker, work)
                .await
        })
        .await
    }

    /// Asks a cluster, registered or configured, whether the access to it works.
    ///
    /// # Errors
    /// [`RegistryError::Inventory`] if there is no such cluster. That it cannot be reached is none.
    pub async fn test(&self, name: &str) -> Result<AccessTest, RegistryError> {
        let handle = self.parts.inventory.handle(name)?;
        Ok(testing::test(handle.gateway.as_ref()).await)
    }

    /// What is wrong with a registration, as far as that can be told before it is stored.
    async fn checked_registration(
        &self,
        name: &str,
        access: &RawClusterAccess,
    ) -> Result<(ClusterName, Checked), RegistryError> {
        self.vault()?;
        let name = ClusterName::parse(name).map_err(|error| vec![QueryError::new("name", error.to_string())]);
        let parsed = ClusterCredentials::parse(access, &self.parts.settings.rules);
        let (name, credentials) = match (name, parsed) {
            (Ok(name), Ok(credentials)) => (name, credentials),
            (name, parsed) => {
                let errors = [name.err(), parsed.err()].into_iter().flatten().flatten().collect();
                return Err(RegistryError::Invalid { errors });
            }
        };
        if let Ok(known) = self.parts.inventory.cluster(name.as_str()) {
            return Err(match known.source {
                ClusterSource::Registered => RegistryError::Taken { cluster: name },
                ClusterSource::InCluster | ClusterSource::Kubeconfig | ClusterSource::Demo => {
                    RegistryError::Configured { cluster: name }
                }
            });
        }
        let stored = self.parts.store.list().await?;
        if stored.iter().any(|known| known.name == name) {
            return Err(RegistryError::Taken { cluster: name });
        }
        if usize::try_from(self.parts.settings.max_clusters).is_ok_and(|most| most <= stored.len()) {
            return Err(self.too_many());
        }
        let checked = self.looked_at(credentials).await?;
        Ok((name, checked))
    }

    async fn check(&self, access: &RawClusterAccess) -> Result<Checked, RegistryError> {
        let credentials = ClusterCredentials::parse(access, &self.parts.settings.rules)
            .map_err(|errors| RegistryError::Invalid { errors })?;
        self.looked_at(credentials).await
    }

    async fn looked_at(&self, credentials: ClusterCredentials) -> Result<Checked, RegistryError> {
        let expires_at = self.parts.opener.check(&credentials).await.map_err(refused)?;
        if let Some(at) = expires_at
            && at <= self.parts.clock.now()
        {
            let message = format!("its credentials ended at {at}");
            return Err(RegistryError::Invalid {
                errors: vec![QueryError::new("kubeconfig", message)],
            });
        }
        Ok(Checked {
            credentials,
            expires_at,
        })
    }

    fn vault(&self) -> Result<&dyn Vault, RegistryError> {
        self.parts.vault.as_deref().ok_or(RegistryError::NoKeys)
    }

    fn too_many(&self) -> RegistryError {
        RegistryError::TooMany {
            most: self.parts.settings.max_clusters,
        }
    }

    /// Credentials as they are stored, under a new revision.
    fn sealed(
        &self,
        name: &ClusterName,
        checked: &Checked,
        registered_at: Option<Timestamp>,
    ) -> Result<RegisteredCluster, RegistryError> {
        let now = self.parts.clock.now();
        let credentials = &checked.credentials;
        let secret = credentials.to_bytes();
        let sealed = self.vault()?.seal(&purpose(name), secret.expose_secret().as_bytes())?;
        Ok(RegisteredCluster {
            name: name.clone(),
            revision: self.parts.ids.next(now),
            sealed,
            server: credentials.server.as_str().to_owned(),
            user: credentials.user.clone(),
            expires_at: checked.expires_at,
            registered_at: registered_at.unwrap_or(now),
            changed_at: now,
        })
    }

    /// A registered cluster as it is stored.
    async fn stored(&self, name: &str) -> Result<RegisteredCluster, RegistryError> {
        let unknown = || InventoryError::UnknownCluster {
            cluster: name.to_owned(),
        };
        let name = ClusterName::parse(name).map_err(|_| unknown())?;
        match self.parts.inventory.cluster(name.as_str()).map(|known| known.source) {
            Ok(ClusterSource::InCluster | ClusterSource::Kubeconfig | ClusterSource::Demo) => {
                Err(RegistryError::Configured { cluster: name })
            }
            Ok(ClusterSource::Registered) | Err(_) => {
                let stored = self.parts.store.find(&name).await?;
                Ok(stored.ok_or_else(unknown)?)
            }
        }
    }

    async fn shown(&self, name: &ClusterName) -> Result<ClusterStatus, RegistryError> {
        Ok(self.parts.inventory.cluster(name.as_str())?)
    }

    /// The operations on nodes of a cluster that are not over.
    async fn under_way(&self, cluster: &ClusterName) -> Result<Vec<Uuid>, RegistryError> {
        let filter = OperationFilter {
            cluster: Some(cluster.clone()),
            states: OperationState::ALL
                .into_iter()
                .filter(|state| !state.is_ended())
                .collect(),
            ..OperationFilter::default()
        };
        // All of them count, whether or not whoever asks may see them.
        let everything = Access::unlimited();
        let (mut found, mut before) = (Vec::new(), None);
        loop {
            let page = self.parts.operations.page(&filter, before, None, &everything).await?;
            found.extend(page.operations.iter().map(|(operation, _)| operation.id));
            match page.next {
                Some(next) => before = Some(next),
                None => return Ok(found),
            }
        }
    }

    async fn refuse_if_busy(&self, cluster: &ClusterName) -> Result<(), RegistryError> {
        let operations = self.under_way(cluster).await?;
        match operations.is_empty() {
            true => Ok(()),
            false => Err(RegistryError::Busy {
                cluster: cluster.clone(),
                operations,
            }),
        }
    }

    /// Cancels what is under way, and waits a while until it ended: drains give back what they hold. In a cluster that does not answer they
    /// cannot, and it need not stay for that.
    async fn cancel_operations(&self, cluster: &ClusterName, asker: &Asker) -> Result<(), RegistryError> {
        let mut asker = asker.clone();
        // Whoever may remove the cluster was let in for that, and need not see its nodes.
        asker.caller.access = Arc::new(Access::unlimited());
        let mut asked = BTreeSet::new();
        let give_up_at = Instant::now() + CANCELLING;
        loop {
            let left = self.under_way(cluster).await?;
            if left.is_empty() {
                return Ok(());
            }
            // Others may be accepted meanwhile.
            let is_new = |id: &&Uuid| !asked.contains(*id);
            let new: Vec<Uuid> = left.iter().filter(is_new).copied().collect();
            for id in &new {
                match self.parts.operations.wish(*id, Wish::Cancel, &asker).await {
                    // It ended meanwhile.
                    Ok(_) | Err(OperationError::Refused(_) | OperationError::Unknown { .. }) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            asked.extend(new);
            if Instant::now() < give_up_at {
                tokio::time::sleep(LOOK_EVERY).await;
                continue;
            }
            if self.answers(cluster) {
                return Err(RegistryError::Busy {
                    cluster: cluster.clone(),
                    operations: left,
                });
            }
            tracing::warn!(
                %cluster,
                "operations are being cancelled still while their cluster, which does not answer, is removed: they leave its nodes as they are"
            );
            return Ok(());
        }
    }

    /// Whether what is known of a cluster is as it is now.
    fn answers(&self, cluster: &ClusterName) -> bool {
        let snapshot = self.parts.inventory.snapshot(cluster.as_str());
        snapshot.is_ok_and(|snapshot| !snapshot.stale())
    }

    /// Writes the intent, does the work, takes over what is stored now, and writes what came of it.
    async fn audited(
        &self,
        action: AuditAction,
        (before, after): (Option<&RegisteredCluster>, Option<&RegisteredCluster>),
        asker: &Asker,
        work: impl Future<Output = Result<(), RegistryError>> + Send,
    ) -> Result<(), RegistryError> {
        let Some(cluster) = after.or(before) else {
            return work.await;
        };
        let at = self.parts.clock.now();
        let record = AuditRecord {
            id: self.parts.ids.next(at),
            at,
            actor: asker.caller.actor.clone(),
            action,
            cluster: cluster.name.clone(),
            node: None,
            operation: None,
            request_id: asker.request_id.clone(),
            reason: None,
            ticket: None,
            options: after.map(told).unwrap_or_default(),
            completion: None,
        };
        self.parts.audit.open(&record).await.map_err(|source| {
            counter!(metric::AUDIT_FAILURES).increment(1);
            RegistryError::NotRecorded { source }
        })?;
        let outcome = work.await;
        self.follow_once().await;
        let is_uncertain = matches!(&outcome, Err(RegistryError::Storage(error)) if error.is_transient());
        let (before, after) = difference(before, after);
        let completion = AuditCompletion {
            outcome: match &outcome {
                Ok(()) => AuditOutcome::Succeeded,
                Err(_) if is_uncertain => AuditOutcome::Unknown,
                Err(_) => AuditOutcome::Failed,
            },
            at: self.parts.clock.now(),
            error: outcome.as_ref().err().map(|error| chain(error)),
            before: if outcome.is_ok() { before } else { Map::new() },
            after: if outcome.is_ok() { after } else { Map::new() },
        };
        complete(&self.parts.audit, record.id, completion).await;
        if outcome.is_ok() {
            tracing::info!(cluster = %cluster.name, action = action.as_str(), by = asker.caller.actor.label(), "clusters changed");
        }
        outcome
    }

    /// Does `work` even if whoever asked for it leaves.
    async fn to_its_end(
        &self,
        work: impl Future<Output = Result<(), RegistryError>> + Send + 'static,
    ) -> Result<(), RegistryError> {
        match tokio::spawn(work.in_current_span()).await {
            Ok(outcome) => outcome,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_) => Err(RegistryError::ShuttingDown),
            },
        }
    }
}

/// What the credentials of a cluster are sealed for: moved to another cluster, they cannot be opened.
fn purpose(name: &ClusterName) -> String {
    format!("credentials of cluster {name}")
}

/// What the audit log is told of a cluster.
fn told(cluster: &RegisteredCluster) -> Map<String, Value> {
    Map::from_iter([
        ("server".to_owned(), json!(cluster.server)),
        ("user".to_owned(), json!(cluster.user)),
        (
            "credentials_expire_at".to_owned(),
            json!(cluster.expires_at.map(|at| at.to_string())),
        ),
    ])
}

/// What was before and what is now, with the same keys.
fn difference(
    before: Option<&RegisteredCluster>,
    after: Option<&RegisteredCluster>,
) -> (Map<String, Value>, Map<String, Value>) {
    let told = |cluster: Option<&RegisteredCluster>| -> BTreeMap<String, Value> {
        cluster.map(told).unwrap_or_default().into_iter().collect()
    };
    let (before, after) = (told(before), told(after));
    let keys = || before.keys().chain(after.keys());
    let of = |table: &BTreeMap<String, Value>| {
        keys()
            .map(|key| (key.clone(), table.get(key).cloned().unwrap_or_default()))
            .collect()
    };
    (of(&before), of(&after))
}

fn check_known(stored: &RegisteredCluster, known: Option<&[String]>) -> Result<(), RegistryError> {
    match known.is_none_or(|known| known.contains(&stored.revision.to_string())) {
        true => Ok(()),
        false => Err(RegistryError::Stale {
            cluster: stored.name.clone(),
        }),
    }
}

fn changed_meanwhile(error: StorageError, cluster: &ClusterName) -> RegistryError {
    match error {
        StorageError::Conflict { .. } => RegistryError::Stale {
            cluster: cluster.clone(),
        },
        StorageError::NotFound { .. } => InventoryError::UnknownCluster {
            cluster: cluster.to_string(),
        }
        .into(),
        error => error.into(),
    }
}

fn refused(error: OpenRefused) -> RegistryError {
    match error {
        OpenRefused::NotBuilt => RegistryError::NotBuilt,
        OpenRefused::Unusable { field, message } => RegistryError::Invalid {
            errors: vec![QueryError::new(field, message)],
        },
    }
}

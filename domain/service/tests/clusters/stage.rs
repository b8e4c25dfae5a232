//! What the tests work on: a store in memory that several replicas share, and clusters that open for whoever knows a token.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use knm_cluster_memory::{Fleet, FleetOptions};
use knm_domain::{
    Asker, ClusterHandle, ClusterRegistry, ClusterStatus, Inventory, Operations, RegistryParts, RegistrySettings,
};
use knm_model::{
    AccessRules, Actor, ActorKind, AuditFilter, AuditRecord, Caller, ClusterCredentials, ClusterName, ClusterSource,
    RawClusterAccess, SealedSecret, Timestamp,
};
use knm_ports::{
    Clock, ClusterOpener, CountedIds, ManualClock, OpenRefused, OpenedCluster, OpenedSecret, Storage, Vault, VaultError,
};
use tokio_util::sync::CancellationToken;

pub const NOW: &str = "2030-01-01T00:00:00Z";
pub const SECRET: &str = "hunter2";

/// Seals by writing backwards, which is enough to tell what is sealed from what is not.
pub struct ToyVault(pub &'static str);

impl Vault for ToyVault {
    fn seal(&self, purpose: &str, secret: &[u8]) -> Result<SealedSecret, VaultError> {
        let mut ciphertext: Vec<u8> = [purpose.as_bytes(), b"|", secret].concat();
        ciphertext.reverse();
        Ok(SealedSecret {
            key_id: self.0.to_owned(),
            nonce: self.0.as_bytes().to_vec(),
            ciphertext,
        })
    }

    fn open(&self, purpose: &str, sealed: &SealedSecret) -> Result<OpenedSecret, VaultError> {
        let key_id = sealed.key_id.clone();
        // The key `both` opens what any other sealed.
        if sealed.key_id != self.0 && self.0 != "both" {
            return Err(VaultError::UnknownKey { key_id });
        }
        let mut plain = sealed.ciphertext.clone();
        plain.reverse();
        let secret = plain.strip_prefix([purpose.as_bytes(), b"|"].concat().as_slice());
        secret
            .map(|secret| OpenedSecret::from(secret.to_vec()))
            .ok_or(VaultError::Refused { key_id })
    }

    fn is_newest(&self, sealed: &SealedSecret) -> bool {
        sealed.key_id == self.0
    }
}

/// Opens a fleet with as many nodes as the server's port says.
pub struct ToyOpener {
    pub expires_at: Mutex<Option<Timestamp>>,
    pub fleets: Mutex<Vec<Arc<Fleet>>>,
}

#[async_trait]
impl ClusterOpener for ToyOpener {
    async fn check(&self, credentials: &ClusterCredentials) -> Result<Option<Timestamp>, OpenRefused> {
        match credentials.server.host_and_port().0.as_str() {
            "rebinding.example.com" => Err(OpenRefused::Unusable {
                field: "server",
                message: "its name leads astray".to_owned(),
            }),
            _ => Ok(*self.expires_at.lock().unwrap()),
        }
    }

    fn open(&self, _: &ClusterName, credentials: &ClusterCredentials) -> Result<OpenedCluster, OpenRefused> {
        let fleet = fleet(credentials.server.host_and_port().1.into());
        self.fleets.lock().unwrap().push(Arc::clone(&fleet));
        Ok(OpenedCluster {
            gateway: fleet.gateway(),
            reviews: None,
        })
    }
}

pub fn fleet(nodes: usize) -> Arc<Fleet> {
    Fleet::new(FleetOptions {
        nodes,
        seed: 1,
        change_every: None,
        started_at: Timestamp::parse(NOW).unwrap(),
    })
}

pub struct Replica {
    pub inventory: Arc<Inventory>,
    pub registry: Arc<ClusterRegistry>,
    pub operations: Arc<Operations>,
    pub opener: Arc<ToyOpener>,
    pub storage: Storage,
    pub clock: Arc<ManualClock>,
    pub shutdown: CancellationToken,
}

impl Replica {
    pub fn on(storage: &Storage, vault: Option<ToyVault>) -> Self {
        Self::with(storage, vault, |_| ())
    }

    pub fn with(storage: &Storage, vault: Option<ToyVault>, change: impl FnOnce(&mut RegistrySettings)) -> Self {
        let clock = ManualClock::at(NOW);
        let shutdown = CancellationToken::new();
        let configured = ClusterHandle {
            name: ClusterName::from_any("configured"),
            source: ClusterSource::Demo,
            gateway: fleet(1).gateway(),
            reviews: None,
            watch_pods: false,
        };
        let inventory = Inventory::start(clock.clone(), vec![configured], shutdown.clone());
        let ids = Arc::new(CountedIds::default());
        let operations = Operations::new(
            Arc::clone(&inventory),
            Arc::clone(&storage.operations),
            &*storage.wakes,
            clock.clone(),
            ids.clone(),
            Duration::from_secs(1),
        );
        let opener = Arc::new(ToyOpener {
            expires_at: Mutex::new(None),
            fleets: Mutex::default(),
        });
        let mut settings = RegistrySettings {
            rules: AccessRules::default(),
            max_clusters: 3,
            watch_pods: false,
        };
        change(&mut settings);
        let registry = ClusterRegistry::new(RegistryParts {
            inventory: Arc::clone(&inventory),
            store: Arc::clone(&storage.registered),
            vault: vault.map(|vault| Arc::new(vault) as Arc<dyn Vault>),
            opener: opener.clone(),
            audit: Arc::clone(&storage.audit),
            operations: Arc::clone(&operations),
            clock: clock.clone(),
            ids,
            settings,
        });
        Self {
            inventory,
            registry,
            operations,
            opener,
            storage: storage.clone(),
            clock,
            shutdown,
        }
    }

    pub async fn register(&self, name: &str, nodes: u16) -> ClusterStatus {
        let registered = self.registry.register(name, &access(nodes), ann()).await.unwrap();
        self.settled().await;
        registered
    }

    pub async fn settled(&self) {
        self.inventory.settled(Duration::from_secs(5)).await;
    }

    pub fn names(&self) -> Vec<String> {
        let clusters = self.inventory.clusters();
        clusters.iter().map(|cluster| cluster.name.to_string()).collect()
    }

    pub fn nodes(&self, cluster: &str) -> usize {
        self.inventory.snapshot(cluster).unwrap().len()
    }

    /// What was done to clusters, the first one first.
    pub async fn records(&self) -> Vec<AuditRecord> {
        let mut records = self
            .storage
            .audit
            .page(&AuditFilter::default(), None, 100)
            .await
            .unwrap();
        records.reverse();
        records
    }
}

/// Access to a cluster with so many nodes.
pub fn access(nodes: u16) -> RawClusterAccess {
    at(&format!("https://10.0.0.1:{nodes}"))
}

pub fn at(server: &str) -> RawClusterAccess {
    RawClusterAccess {
        server: Some(server.to_owned()),
        token: Some(SECRET.to_owned().into()),
        ..RawClusterAccess::default()
    }
}

pub fn ann() -> Asker {
    Asker {
        caller: Caller::service(Actor::signed_in(ActorKind::Token, "ann".to_owned(), None)),
        request_id: Some("r-1".to_owned()),
    }
}

pub fn clock_at(text: &str) -> Arc<dyn Clock> {
    ManualClock::at(text)
}

//! Tokens of a cluster, and what clusters allow their holders.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use knm_model::{
    Access, Actor, ActorKind, Authority, Caller, ClusterName, Grant, KubernetesIdentity, Permission, Permissions,
};
use knm_ports::{AccessReviews, ClusterError};
use moka::future::Cache;
use sha2::{Digest, Sha256};

use super::silence::Silence;
use super::{Found, UnknowableError, Wanted, is_name};
use crate::inventory::Inventory;

/// How long it is believed what a cluster said of somebody.
const BELIEVED: Duration = Duration::from_secs(10);
/// Of how many tokens it is remembered whose they are.
const MOST_TOKENS: u64 = 10_000;
/// For how long a token that was accepted is asked about whatever others at the same address do: a day's work.
const NO_GUESS_FOR: Duration = Duration::from_secs(12 * 3_600);
/// How many answers about permissions are remembered.
const MOST_ANSWERS: u64 = 100_000;
/// How long it is told to somebody who could see a cluster that it cannot be asked. To others it looks as if it were not there.
const REMEMBERED: Duration = Duration::from_secs(600);
/// How long a cluster may take to say something of somebody.
const DEADLINE: Duration = Duration::from_secs(5);

/// Signs in whoever a cluster knows, and lets them do in each cluster what that cluster lets them do.
pub struct KubernetesSignIn {
    /// The cluster that is asked whose a token is.
    home: ClusterName,
    /// Whom the tokens must be for; empty: for the API server.
    audiences: Vec<String>,
    holders: Cache<[u8; 32], Option<Arc<KubernetesIdentity>>>,
    /// Tokens that were accepted when they were asked about last. They say nothing of whether they still are.
    accepted: Cache<[u8; 32], ()>,
    answers: Cache<(Arc<KubernetesIdentity>, ClusterName, Permission), bool>,
    /// Who could see which cluster when that was asked last.
    seen: Cache<(Arc<KubernetesIdentity>, ClusterName), ()>,
    silence: Silence,
}

impl KubernetesSignIn {
    /// Asks the cluster `home` whose a token is.
    #[must_use]
    pub fn new(home: ClusterName, audiences: Vec<String>) -> Self {
        Self {
            home,
            audiences,
            holders: Cache::builder()
                .max_capacity(MOST_TOKENS)
                .time_to_live(BELIEVED)
                .build(),
            accepted: Cache::builder()
                .max_capacity(MOST_TOKENS)
                .time_to_live(NO_GUESS_FOR)
                .build(),
            answers: Cache::builder()
                .max_capacity(MOST_ANSWERS)
                .time_to_live(BELIEVED)
                .build(),
            seen: Cache::builder()
                .max_capacity(MOST_ANSWERS)
                .time_to_live(REMEMBERED)
                .build(),
            silence: Silence::default(),
        }
    }

    /// The cluster that is asked whose a token is.
    pub(super) fn home(&self) -> &ClusterName {
        &self.home
    }

    /// The same without any belief in what a cluster said before: it is asked each time.
    #[must_use]
    pub fn forgetful(self) -> Self {
        Self {
            holders: Cache::builder().time_to_live(Duration::ZERO).build(),
            answers: Cache::builder().time_to_live(Duration::ZERO).build(),
            ..self
        }
    }

    /// Who holds a token; with `may_ask` false only if it was accepted before: many may be behind one address, and one of them guess.
    pub(super) async fn look(
        &self,
        inventory: &Inventory,
        token: &str,
        address: Option<String>,
        wanted: &Wanted<'_>,
        may_ask: bool,
    ) -> Result<Found, UnknowableError> {
        // The token itself is not kept.
        let key: [u8; 32] = Sha256::digest(token.as_bytes()).into();
        let known = match self.holders.get(&key).await {
            Some(known) => known,
            None if !may_ask && !self.accepted.contains_key(&key) => {
                return Ok(Found::Nobody("too many attempts: the cluster is not asked".to_owned()));
            }
            None => {
                let reviews = reviews(inventory, &self.home).ok_or_else(|| UnknowableError::NoCluster {
                    cluster: self.home.to_string(),
                })?;
                let asking = async {
                    let found = in_time(reviews.identify(token, &self.audiences)).await?;
                    Ok(found.map(Arc::new))
                };
                let found = self.holders.try_get_with(key, asking).await;
                found.map_err(|source| unknowable(&self.home, source))?
            }
        };
        let Some(identity) = known else {
            self.accepted.invalidate(&key).await;
            return Ok(Found::Nobody(format!(
                "cluster {} does not accept the token",
                self.home
            )));
        };
        if !is_name(&identity.user) {
            let why = format!("cluster {} calls them by a name that cannot be written", self.home);
            return Ok(Found::Nobody(why));
        }
        self.accepted.insert(key, ()).await;
        let access = self.access(inventory, &identity, wanted).await?;
        Ok(Found::Caller(Caller {
            actor: Actor::signed_in(ActorKind::Kubernetes, identity.user.clone(), address),
            authority: Authority::Kubernetes(KubernetesIdentity::clone(&identity)),
            access: Arc::new(access),
        }))
    }

    /// What clusters let somebody do of what is wanted.
    async fn access(
        &self,
        inventory: &Inventory,
        identity: &KubernetesIdentity,
        wanted: &Wanted<'_>,
    ) -> Result<Access, UnknowableError> {
        let names = inventory.clusters().into_iter().map(|status| status.name);
        let clusters: Vec<ClusterName> = names
            .filter(|name| wanted.cluster.is_none_or(|wanted| wanted == name.as_str()))
            .collect();
        let asked = clusters.iter().map(|cluster| async move {
            let allowed = self.allowed(inventory, identity, cluster, wanted.permissions).await;
            (cluster, allowed)
        });
        let mut grants = Vec::new();
        for (cluster, allowed) in join_all(asked).await {
            match allowed {
                Ok(permissions) => grants.push(of_cluster(cluster, permissions)),
                // Of one cluster that is asked for alone it is told that it cannot be asked, to those who know of it; among others it allows nothing.
                Err(error) if wanted.cluster.is_some() && self.has_seen(identity, cluster) => return Err(error),
                Err(error) => {
                    tracing::debug!(
                        %cluster,
                        error = &error as &dyn std::error::Error,
                        "a cluster could not be asked what somebody may do"
                    );
                    grants.push(of_cluster(cluster, Permissions::NONE));
                }
            }
        }
        let is_everywhere = |permission: &Permission| match permission {
            // It is about the service as a whole, and its own cluster says who may.
            Permission::Administer => false,
            _ => !grants.is_empty() && grants.iter().all(|grant| grant.permissions.contains(*permission)),
        };
        let mut everywhere: Vec<Permission> = match wanted.cluster {
            None => wanted.permissions.iter().copied().filter(is_everywhere).collect(),
            Some(_) => Vec::new(),
        };
        if wanted.permissions.contains(&Permission::Administer)
            && self
                .allowed(inventory, identity, &self.home, &[Permission::Administer])
                .await?
                .contains(Permission::Administer)
        {
            everywhere.push(Permission::Administer);
        }
        grants.push(Grant {
            permissions: Permissions::of(&everywhere),
            clusters: None,
            nodes: None,
        });
        Ok(Access::new(grants))
    }

    /// What a cluster lets somebody do of `permissions`.
    ///
    /// # Errors
    /// [`UnknowableError`] if it cannot be asked.
    pub(super) async fn allowed(
        &self,
        inventory: &Inventory,
        identity: &KubernetesIdentity,
        cluster: &ClusterName,
        permissions: &[Permission],
    ) -> Result<Permissions, UnknowableError> {
        let (Some(identity), Some(reviews)) = (self.known_as(identity, cluster), reviews(inventory, cluster)) else {
            return Ok(Permissions::NONE);
        };
        let key = |permission: Permission| (Arc::clone(&identity), cluster.clone(), permission);
        let (mut allowed, mut unknown) = (Vec::new(), Vec::new());
        for permission in permissions {
            match self.answers.get(&key(*permission)).await {
                Some(may) => allowed.extend(may.then_some(*permission)),
                None => unknown.push(*permission),
            }
        }
        if unknown.is_empty() {
            return Ok(Permissions::of(&allowed));
        }
        let since = self.silence.ask(cluster, DEADLINE);
        let since = since.map_err(|source| unknowable(cluster, source))?;
        let asked = unknown.into_iter().map(|permission| {
            let asking = in_time(reviews.may(&identity, permission));
            let answer = self.answers.try_get_with(key(permission), asking);
            async move { answer.await.map(|may| may.then_some(permission)) }
        });
        for answer in join_all(asked).await {
            allowed.extend(answer.map_err(|source| {
                self.silence.note(cluster, since, &source);
                unknowable(cluster, source)
            })?);
        }
        self.silence.over(cluster);
        let allowed = Permissions::of(&allowed);
        if permissions.contains(&Permission::View) {
            let key = (Arc::clone(&identity), cluster.clone());
            match allowed.contains(Permission::View) {
                true => self.seen.insert(key, ()).await,
                false => self.seen.invalidate(&key).await,
            }
        }
        Ok(allowed)
    }

    /// Whether somebody could see a cluster when that was asked last.
    fn has_seen(&self, identity: &KubernetesIdentity, cluster: &ClusterName) -> bool {
        let known = self.known_as(identity, cluster);
        known.is_some_and(|identity| self.seen.contains_key(&(identity, cluster.clone())))
    }

    /// Who somebody is in a cluster, `None`: nobody.
    fn known_as(&self, identity: &KubernetesIdentity, cluster: &ClusterName) -> Option<Arc<KubernetesIdentity>> {
        match *cluster == self.home {
            true => Some(Arc::new(identity.clone())),
            false => identity.elsewhere().map(Arc::new),
        }
    }
}

/// What is allowed in one cluster.
pub(super) fn of_cluster(cluster: &ClusterName, permissions: Permissions) -> Grant {
    Grant {
        permissions,
        clusters: Some(BTreeSet::from([cluster.clone()])),
        nodes: None,
    }
}

fn reviews(inventory: &Inventory, cluster: &ClusterName) -> Option<Arc<dyn AccessReviews>> {
    inventory.handle(cluster.as_str()).ok()?.reviews.clone()
}

fn unknowable(cluster: &ClusterName, source: Arc<ClusterError>) -> UnknowableError {
    UnknowableError::Cluster {
        cluster: cluster.to_string(),
        source,
    }
}

async fn in_time<T>(asking: impl Future<Output = Result<T, ClusterError>>) -> Result<T, ClusterError> {
    tokio::time::timeout(DEADLINE, asking)
        .await
        .unwrap_or(Err(ClusterError::TimedOut { limit: DEADLINE }))
}

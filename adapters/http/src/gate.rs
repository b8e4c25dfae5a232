//! Lets a request in, or not: who sent it, and whether they may.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use knm_domain::{Inventory, InventoryError, SignIn, SignInError, Standing, UnknowableError, Wanted};
use knm_model::{Caller, ClusterName, Object, Permission, Ruling};
use percent_encoding::percent_decode_str;
use poem::Request;
use poem::http::header;
use tokio::time::Instant;

use crate::access::{Part, need};
use crate::origin;
use crate::problem::{Kind, Problem};

/// How often it is looked whether those who follow something still may.
const LOOK_AT_FOLLOWERS: Duration = Duration::from_secs(10);

/// Decides about requests before anything else looks at them.
pub(crate) struct Gate {
    pub(crate) sign_in: Arc<SignIn>,
    pub(crate) inventory: Arc<Inventory>,
    /// Whether metrics need a caller.
    pub(crate) metrics_require_auth: bool,
    /// Whether the description of the interface does.
    pub(crate) docs_require_auth: bool,
    /// Origins whose pages may change something also where nobody signs in.
    pub(crate) cors_origins: Vec<String>,
}

impl Gate {
    /// Lets a request to the operation at `route` in, with its caller as `Arc<Caller>` among its data.
    ///
    /// # Errors
    /// Why it is not let in. Its caller is there all the same if they are known.
    pub(crate) async fn admit(
        &self,
        request: &mut Request,
        route: &str,
        address: Option<IpAddr>,
    ) -> Result<(), Problem> {
        let need = need(route, request.method());
        let is_for_all = match need.part {
            Part::Public => true,
            Part::Metrics => !self.metrics_require_auth,
            Part::Docs => !self.docs_require_auth,
            Part::Anything | Part::SomeOfCluster | Part::Node | Part::Everything => false,
        };
        if is_for_all {
            return Ok(());
        }
        if self.sign_in.is_open() {
            origin::check(request, &self.cors_origins)?;
        }
        let uri = request.uri().clone();
        let (cluster, node) = place(uri.path());
        let in_cluster = match need.part {
            Part::SomeOfCluster | Part::Node => cluster.as_deref(),
            Part::Public | Part::Metrics | Part::Docs | Part::Anything | Part::Everything => None,
        };
        let wanted: Vec<Permission> = need.permissions.iter().chain(need.perhaps).copied().collect();
        let wanted = Wanted {
            permissions: &wanted,
            cluster: in_cluster,
        };
        let caller = Arc::new(self.sign_in.caller(bearer(request), address, &wanted).await?);
        request.set_data(Arc::clone(&caller));
        let access = Arc::clone(&caller.access);
        let ruling = match need.part {
            Part::Public | Part::Docs => Ruling::Allowed,
            Part::Metrics | Part::Anything => access.decide(need.permissions, Object::Anything),
            Part::Everything => access.decide(need.permissions, Object::Everything),
            Part::SomeOfCluster => {
                let cluster = cluster.as_deref().unwrap_or_default();
                let ruling = access.decide(need.permissions, Object::SomeOf(cluster));
                // One that is not there looks like one that may not be seen.
                let known = self.inventory.cluster(cluster).map(drop);
                if ruling == Ruling::Hidden || known.is_err() {
                    return Err(unknown_cluster(cluster));
                }
                ruling
            }
            Part::Node => {
                let (cluster, node) = (
                    cluster.as_deref().unwrap_or_default(),
                    node.as_deref().unwrap_or_default(),
                );
                let visible = self.inventory.visible_to(&access);
                let status = visible.cluster(cluster)?;
                let ruling = visible.decide(need.permissions, cluster, Some(node));
                if ruling == Ruling::Hidden {
                    // While nothing is known of the cluster, neither are the labels that decide.
                    visible.snapshot(cluster)?;
                    return Err(InventoryError::UnknownNode {
                        cluster: status.name,
                        node: node.to_owned(),
                    }
                    .into());
                }
                ruling
            }
        };
        permit(&caller, ruling, in_cluster)?;
        Ok(())
    }
}

/// The caller of a request that was let in.
pub(crate) fn caller(request: &Request) -> Arc<Caller> {
    match request.data::<Arc<Caller>>() {
        Some(caller) => Arc::clone(caller),
        // Nothing is let in without one but what is public, and that asks nobody.
        None => Arc::new(Caller::nobody()),
    }
}

/// Somebody who follows something for as long as they may.
pub(crate) struct Follower {
    pub(crate) sign_in: Arc<SignIn>,
    pub(crate) caller: Arc<Caller>,
    /// Where what they follow is.
    pub(crate) clusters: Vec<ClusterName>,
    /// What it takes.
    pub(crate) permissions: &'static [Permission],
}

impl Follower {
    /// Ends when they may not see it any more. While that cannot be told they go on.
    pub(crate) async fn shut_out(self) {
        let since = Instant::now();
        loop {
            tokio::time::sleep(LOOK_AT_FOLLOWERS).await;
            let authority = &self.caller.authority;
            match self
                .sign_in
                .following(authority, since.elapsed(), self.permissions, &self.clusters)
                .await
            {
                Ok(Standing::Access(access)) => {
                    let sees = |cluster: &ClusterName| {
                        access.decide(self.permissions, Object::SomeOf(cluster.as_str())) == Ruling::Allowed
                    };
                    if !self.clusters.iter().all(sees) {
                        return;
                    }
                }
                Ok(Standing::Withdrawn(why)) => {
                    tracing::info!(why, who = self.caller.actor.label(), "a stream ends");
                    return;
                }
                Err(error) => tracing::debug!(
                    error = &error as &dyn std::error::Error,
                    "whether somebody may go on following cannot be told"
                ),
            }
        }
    }
}

/// Tells somebody that they may not do what is decided otherwise.
///
/// # Errors
/// What is missing.
pub(crate) fn permit(caller: &Caller, ruling: Ruling, cluster: Option<&str>) -> Result<(), Problem> {
    match ruling {
        // What may not be seen was answered before anybody got here.
        Ruling::Allowed | Ruling::Hidden => Ok(()),
        Ruling::Refused(permission) => Err(refused(caller, permission, cluster)),
    }
}

fn refused(caller: &Caller, permission: Permission, cluster: Option<&str>) -> Problem {
    let place = match cluster {
        Some(cluster) => format!(" in cluster {cluster}"),
        None => String::new(),
    };
    let limit = match permission {
        Permission::View | Permission::ViewPods => "",
        Permission::Change | Permission::Drain | Permission::Force | Permission::NoExecute | Permission::Administer => {
            match cluster {
                Some(_) => " for what is named",
                None => " without a limit to clusters or nodes",
            }
        }
    };
    Problem::new(
        Kind::Forbidden,
        format!(
            "{} does not have the permission {}{place}{limit}",
            caller.actor.label(),
            permission.as_str()
        ),
    )
}

fn unknown_cluster(cluster: &str) -> Problem {
    InventoryError::UnknownCluster {
        cluster: cluster.to_owned(),
    }
    .into()
}

/// The one bearer token of a request: several, or another kind of credentials, are none.
fn bearer(request: &Request) -> Option<&str> {
    let mut values = request.headers().get_all(header::AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else {
        return None;
    };
    let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

/// The cluster and the node that a path names, as the operations read it.
fn place(path: &str) -> (Option<Cow<'_, str>>, Option<Cow<'_, str>>) {
    let Some(rest) = path.strip_prefix("/api/v1/clusters/") else {
        return (None, None);
    };
    let decoded = |text| percent_decode_str(text).decode_utf8_lossy();
    let mut segments = rest.split('/');
    let cluster = segments.next().map(decoded);
    let node = match (segments.next(), segments.next()) {
        (Some("nodes"), Some(node)) => Some(decoded(node)),
        _ => None,
    };
    (cluster, node)
}

impl From<SignInError> for Problem {
    fn from(error: SignInError) -> Self {
        match error {
            SignInError::Refused { why } => {
                // Anybody can have this said as often as they like: the metric counts it.
                tracing::debug!(why, "not signed in");
                Self::not_signed_in()
            }
            SignInError::Slowed { retry_after_seconds } => {
                Self::too_many("too many attempts to sign in from this address", retry_after_seconds)
            }
            SignInError::Unavailable(error) => error.into(),
        }
    }
}

impl From<UnknowableError> for Problem {
    fn from(error: UnknowableError) -> Self {
        let text = error.to_string();
        match error {
            UnknowableError::Store(source) => source.into(),
            UnknowableError::Cluster { .. } | UnknowableError::NoCluster { .. } | UnknowableError::Provider(_) => {
                Self::new(Kind::Unavailable, text).because(error)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_one_bearer_token_counts() {
        let request = |values: &[&'static str]| {
            let mut builder = Request::builder();
            for value in values {
                builder = builder.header(header::AUTHORIZATION, *value);
            }
            builder.finish()
        };
        assert_eq!(bearer(&request(&["Bearer abc"])), Some("abc"));
        assert_eq!(bearer(&request(&["bearer  abc "])), Some("abc"));
        for values in [
            &[][..],
            &["abc"],
            &["Basic abc"],
            &["Bearer"],
            &["Bearer "],
            &["Bearer a", "Bearer b"],
        ] {
            assert_eq!(bearer(&request(values)), None, "{values:?}");
        }
    }

    #[test]
    fn paths_name_what_the_operations_read() {
        let read = |path| {
            let (cluster, node) = place(path);
            (cluster.map(Cow::into_owned), node.map(Cow::into_owned))
        };
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(read("/api/v1/nodes"), (None, None));
        assert_eq!(read("/api/v1/clusters/a"), (some("a"), None));
        assert_eq!(read("/api/v1/clusters/%61/nodes"), (some("a"), None));
        assert_eq!(read("/api/v1/clusters/a/nodes/n%2F1/pods"), (some("a"), some("n/1")));
        assert_eq!(read("/api/v1/clusters/a/operations"), (some("a"), None));
    }

    proptest! {
        #[test]
        fn no_credentials_make_it_panic(bytes in proptest::collection::vec(prop_oneof![0x20_u8..0x7f, 0x80_u8..=0xff], 0..60), token in "[!-~]{1,60}", path in "/api/v1/clusters/[%/0-9a-zA-Z]{0,40}") {
            let of = |bytes: &[u8]| Request::builder().header(header::AUTHORIZATION, bytes).finish();
            let _ = bearer(&of(&bytes));
            let text = format!("Bearer {token}");
            let request = of(text.as_bytes());
            prop_assert_eq!(bearer(&request), Some(&*token));
            let _ = place(&path);
        }
    }
}

//! Tokens of clusters, which say whose they are and what their holder may do there.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use knm_domain::{SignIn, SignInError, Standing, Wanted, Ways};
use knm_model::{Access, Authority, ClusterName, KubernetesIdentity, Object, Permission, TokenId};
use serde_json::Map;

use crate::stage::{Reviews, Stage, VIEW, address, anything, home};

#[tokio::test(start_paused = true)]
async fn clusters_say_who_somebody_is_and_each_what_they_may_do_there() {
    let here = Reviews::of("ann", &[Permission::View, Permission::Change, Permission::Administer]);
    let there = Reviews::of("ann", &[Permission::View, Permission::Administer]);
    let stage = Stage::with(&[
        ("home", Some(here.clone())),
        ("east", Some(there.clone())),
        ("demo", None),
    ]);
    let sign_in = stage.sign_in(None, Some(home()));
    let wanted = Wanted {
        permissions: &Permission::ALL,
        cluster: None,
    };
    let caller = sign_in.caller(Some("ann"), address(1), &wanted).await.unwrap();
    assert_eq!(caller.actor.label(), "ann");
    let may = |permission, cluster| caller.access.allows(permission, Object::Cluster(cluster));
    assert!(may(Permission::View, "home") && may(Permission::View, "east") && !may(Permission::View, "demo"));
    assert!(may(Permission::Change, "home") && !may(Permission::Change, "east"));
    // Of the service as a whole its own cluster decides.
    assert!(caller.access.allows(Permission::Administer, Object::Everything));
    assert!(
        !caller.access.sees_everything(),
        "there is a cluster that does not know her"
    );

    let asked = here.asked.load(Ordering::Relaxed);
    sign_in.caller(Some("ann"), address(1), &wanted).await.unwrap();
    assert_eq!(
        here.asked.load(Ordering::Relaxed),
        asked,
        "what a cluster said is believed for a moment"
    );
    let stranger = sign_in.caller(Some("bob"), address(1), &wanted).await;
    assert!(matches!(stranger, Err(SignInError::Refused { .. })));
}

#[tokio::test(start_paused = true)]
async fn whoever_follows_with_a_token_of_a_cluster_shows_it_again_after_an_hour() {
    let stage = Stage::with(&[("home", Some(Reviews::of("ann", &VIEW)))]);
    let sign_in = stage.sign_in(None, Some(home()));
    let caller = sign_in.caller(Some("ann"), address(1), &anything()).await.unwrap();
    let clusters = [ClusterName::from_any("home")];
    let following = async |seconds: u64| {
        let time = Duration::from_secs(seconds);
        let standing = sign_in.following(&caller.authority, time, &VIEW, &clusters).await;
        matches!(standing.unwrap(), Standing::Access(access) if access.allows(Permission::View, Object::SomeOf("home")))
    };
    assert!(following(3_599).await);
    assert!(!following(3_600).await);
}

#[tokio::test(start_paused = true)]
async fn a_permission_in_every_cluster_is_one_everywhere() {
    let allowed = [Permission::View, Permission::Change];
    let clusters = [
        ("home", Some(Reviews::of("ann", &allowed))),
        ("east", Some(Reviews::of("ann", &allowed))),
    ];
    let stage = Stage::with(&clusters);
    let sign_in = stage.sign_in(None, Some(home()));
    let wanted = Wanted {
        permissions: &[Permission::View, Permission::Change, Permission::Administer],
        cluster: None,
    };
    let caller = sign_in.caller(Some("ann"), address(1), &wanted).await.unwrap();
    assert!(caller.access.allows(Permission::Change, Object::Everything));
    assert!(!caller.access.allows(Permission::Administer, Object::Everything));
}

#[tokio::test(start_paused = true)]
async fn a_service_account_is_nobody_in_another_cluster() {
    let user = "system:serviceaccount:ops:robot";
    let (here, there) = (Reviews::of(user, &VIEW), Reviews::of(user, &VIEW));
    let stage = Stage::with(&[("home", Some(here)), ("east", Some(there.clone()))]);
    let sign_in = stage.sign_in(None, Some(home()));
    let caller = sign_in.caller(Some("ann"), address(1), &anything()).await.unwrap();
    assert!(caller.access.allows(Permission::View, Object::Cluster("home")));
    assert!(!caller.access.allows(Permission::View, Object::SomeOf("east")));
    assert_eq!(there.asked.load(Ordering::Relaxed), 0);
}

#[tokio::test(start_paused = true)]
async fn a_cluster_that_cannot_be_asked_lets_nobody_do_anything() {
    let stage = Stage::with(&[
        ("home", Some(Reviews::of("ann", &VIEW))),
        ("east", Some(Reviews::away())),
    ]);
    let sign_in = stage.sign_in(None, Some(home()));
    let caller = sign_in.caller(Some("ann"), address(1), &anything()).await.unwrap();
    assert!(!caller.access.allows(Permission::View, Object::SomeOf("east")));
    let wanted = Wanted {
        permissions: &VIEW,
        cluster: Some("east"),
    };
    let alone = sign_in.caller(Some("ann"), address(1), &wanted).await.unwrap();
    assert!(
        !alone.access.allows(Permission::View, Object::SomeOf("east")),
        "it looks as if it were not there"
    );
}

#[tokio::test(start_paused = true)]
async fn a_cluster_that_cannot_be_asked_is_told_to_whom_it_showed_itself() {
    let there = Reviews::of("ann", &VIEW);
    let stage = Stage::with(&[("home", Some(Reviews::of("ann", &VIEW))), ("east", Some(there.clone()))]);
    let sign_in = stage.sign_in(None, Some(home().forgetful()));
    let wanted = Wanted {
        permissions: &VIEW,
        cluster: Some("east"),
    };
    let caller = sign_in.caller(Some("ann"), address(1), &wanted).await.unwrap();
    assert!(caller.access.allows(Permission::View, Object::SomeOf("east")));
    there.hangs.store(true, Ordering::Relaxed);
    let silent = sign_in.caller(Some("ann"), address(1), &wanted).await;
    assert!(matches!(silent, Err(SignInError::Unavailable(_))), "{silent:?}");
}

#[tokio::test(start_paused = true)]
async fn nobody_is_called_what_cannot_be_written() {
    let long: &'static str = "a".repeat(254).leak();
    for user in ["", "ann\n", "ann\u{202e}", long] {
        let stage = Stage::with(&[("home", Some(Reviews::of(user, &VIEW)))]);
        let sign_in = stage.sign_in(None, Some(home()));
        let refused = sign_in.caller(Some("ann"), address(1), &anything()).await;
        assert!(
            matches!(refused, Err(SignInError::Refused { .. })),
            "{user:?}: {refused:?}"
        );
    }
    let stage = Stage::with(&[("home", Some(Reviews::of(&long[1..], &VIEW)))]);
    let sign_in = stage.sign_in(None, Some(home()));
    assert!(sign_in.caller(Some("ann"), address(1), &anything()).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_dead_cluster_makes_one_request_wait_and_not_each() {
    let there = Reviews::of("ann", &VIEW);
    there.hangs.store(true, Ordering::Relaxed);
    let stage = Stage::with(&[("home", Some(Reviews::of("ann", &VIEW))), ("east", Some(there.clone()))]);
    let sign_in = stage.sign_in(None, Some(home()));
    let sees_east = async || {
        let began = tokio::time::Instant::now();
        let caller = sign_in.caller(Some("ann"), address(1), &anything()).await.unwrap();
        assert!(caller.access.allows(Permission::View, Object::Cluster("home")));
        let sees = caller.access.allows(Permission::View, Object::SomeOf("east"));
        (sees, began.elapsed().as_secs())
    };
    assert_eq!(sees_east().await, (false, 5));
    for _ in 0..10 {
        assert_eq!(sees_east().await, (false, 0));
    }
    assert_eq!(there.asked.load(Ordering::Relaxed), 1);
    there.hangs.store(false, Ordering::Relaxed);
    tokio::time::advance(Duration::from_secs(10)).await;
    assert_eq!(sees_east().await, (true, 0), "it is asked again");
}

#[tokio::test(start_paused = true)]
async fn a_guesser_does_not_make_the_service_ask_the_cluster() {
    let here = Reviews::of("ann", &VIEW);
    let stage = Stage::with(&[("home", Some(here.clone()))]);
    let sign_in = stage.sign_in(None, Some(home()));
    for guess in 0..30 {
        sign_in
            .caller(Some(&format!("guess-{guess}")), address(1), &anything())
            .await
            .unwrap_err();
    }
    assert_eq!(here.asked.load(Ordering::Relaxed), 20);
    assert!(sign_in.caller(Some("ann"), address(2), &anything()).await.is_ok());
    assert!(
        sign_in.caller(Some("ann"), address(1), &anything()).await.is_ok(),
        "she is known by now"
    );
}

#[tokio::test(start_paused = true)]
async fn what_was_withdrawn_allows_nothing_later() {
    let stage = Stage::with(&[("home", Some(Reviews::of("ann", &VIEW)))]);
    let sign_in = stage.sign_in(None, None);
    let (id, _) = stage.token("ci", "operator").await;
    let standing = async |authority| sign_in.standing(&authority, &VIEW, &[]).await.unwrap();
    assert!(matches!(standing(Authority::Token(id)).await, Standing::Access(_)));
    stage.tokens.revoke(&id.to_string(), "ann").await.unwrap();
    let Standing::Withdrawn(why) = standing(Authority::Token(id)).await else {
        panic!("a revoked token stands for nothing");
    };
    assert!(why.contains("\"ci\" was revoked"), "{why}");
    for authority in [
        Authority::Open,
        Authority::Token(TokenId::new([9; 8])),
        Authority::Kubernetes(KubernetesIdentity::default()),
        Authority::Oidc {
            subject: "s".to_owned(),
            claims: Map::new(),
            exp: None,
        },
    ] {
        assert!(matches!(standing(authority).await, Standing::Withdrawn(_)));
    }
    assert!(matches!(standing(Authority::Service).await, Standing::Access(_)));
    let open = SignIn::new(Ways::Open, Arc::clone(&stage.inventory), stage.clock.clone());
    let allowed = open.standing(&Authority::Token(id), &VIEW, &[]).await.unwrap();
    assert_eq!(allowed, Standing::Access(Arc::new(Access::unlimited())));
}

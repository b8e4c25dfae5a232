use knm_domain::RegistryError;
use knm_model::{AuditAction, AuditOutcome, ClusterSource, Timestamp};

use crate::stage::{Replica, SECRET, ToyVault, access, ann, at};

fn keyed() -> Replica {
    Replica::on(&knm_storage_memory::open(), Some(ToyVault("a")))
}

#[tokio::test]
async fn a_registered_cluster_is_watched_and_shown_without_its_secret() {
    let replica = keyed();
    let status = replica.register("prod", 7).await;
    assert_eq!(
        (status.name.as_str(), status.source),
        ("prod", ClusterSource::Registered)
    );
    let access = status.access.unwrap();
    assert_eq!(
        (access.server.as_str(), access.user.as_str()),
        ("https://10.0.0.1:7/", "token")
    );
    assert_eq!(replica.nodes("prod"), 7);
    assert_eq!(replica.names(), ["configured", "prod"]);
    let stored = replica.storage.registered.list().await.unwrap();
    assert!(!format!("{stored:?}").contains(SECRET));
    assert_eq!(Some(stored[0].revision), status.revision);
    assert_eq!(Some(stored[0].registered_at), status.registered_at);
}

#[tokio::test]
async fn what_is_done_to_clusters_is_recorded_without_any_secret() {
    let replica = keyed();
    replica.register("prod", 7).await;
    replica.registry.replace("prod", &access(8), None, ann()).await.unwrap();
    replica
        .registry
        .remove("prod", None, knm_domain::UnderWay::Keep, ann())
        .await
        .unwrap();

    let records = replica.records().await;
    let told: Vec<_> = records.iter().map(|record| (record.action, record.outcome())).collect();
    let done = Some(AuditOutcome::Succeeded);
    let expected = [
        (AuditAction::ClusterRegister, done),
        (AuditAction::ClusterReplace, done),
        (AuditAction::ClusterRemove, done),
    ];
    assert_eq!(told, expected);
    assert!(
        records
            .iter()
            .all(|record| record.cluster.as_str() == "prod" && record.node.is_none())
    );
    assert!(records.iter().all(|record| record.actor.label() == "ann"));
    let replaced = records[1].completion.as_ref().unwrap();
    assert_eq!(replaced.before["server"], "https://10.0.0.1:7/");
    assert_eq!(replaced.after["server"], "https://10.0.0.1:8/");
    assert!(!format!("{records:?}").contains(SECRET));
}

#[tokio::test]
async fn without_keys_nothing_is_taken_and_it_is_told_what_to_configure() {
    let replica = Replica::on(&knm_storage_memory::open(), None);
    for refused in [
        replica.registry.register("prod", &access(7), ann()).await.map(drop),
        replica.registry.try_out("prod", &access(7)).await.map(drop),
    ] {
        let error = refused.unwrap_err();
        assert!(matches!(error, RegistryError::NoKeys), "{error:?}");
        assert!(error.to_string().contains("secrets.key_file"), "{error}");
    }
    assert_eq!(replica.storage.registered.list().await.unwrap(), []);
    assert_eq!(replica.records().await, []);
}

#[tokio::test]
async fn a_name_is_given_once_and_never_that_of_a_configured_cluster() {
    let replica = keyed();
    replica.register("prod", 7).await;
    let taken = replica.registry.register("prod", &access(8), ann()).await.unwrap_err();
    assert!(matches!(taken, RegistryError::Taken { .. }), "{taken:?}");
    // Another replica may not have seen it yet.
    let other = Replica::on(&replica.storage, Some(ToyVault("a")));
    let taken = other.registry.register("prod", &access(8), ann()).await.unwrap_err();
    assert!(matches!(taken, RegistryError::Taken { .. }), "{taken:?}");

    let registry = &replica.registry;
    for refused in [
        registry.register("configured", &access(8), ann()).await.map(drop),
        registry.replace("configured", &access(8), None, ann()).await.map(drop),
        registry
            .remove("configured", None, knm_domain::UnderWay::Cancel, ann())
            .await,
    ] {
        let error = refused.unwrap_err();
        assert!(matches!(error, RegistryError::Configured { .. }), "{error:?}");
        assert!(error.to_string().contains("comes from the configuration"), "{error}");
    }
    assert_eq!(replica.nodes("prod"), 7);
}

#[tokio::test]
async fn there_are_no_more_clusters_than_may_be() {
    let replica = keyed();
    for name in ["a", "b", "c"] {
        replica.register(name, 1).await;
    }
    let refused = replica.registry.register("d", &access(1), ann()).await.unwrap_err();
    assert!(matches!(refused, RegistryError::TooMany { most: 3 }), "{refused:?}");
    assert_eq!(replica.storage.registered.list().await.unwrap().len(), 3);
}

#[tokio::test]
async fn what_is_wrong_is_told_at_once_and_nothing_is_stored() {
    let replica = keyed();
    let wrong = at("http://10.0.0.1");
    let RegistryError::Invalid { errors } = replica.registry.register("Prod", &wrong, ann()).await.unwrap_err() else {
        unreachable!("it is refused as invalid")
    };
    let parameters: Vec<_> = errors.iter().map(|error| error.parameter.as_ref()).collect();
    assert_eq!(parameters, ["name", "server"]);
    // What only a look at the certificates or names shows.
    let astray = at("https://rebinding.example.com");
    let refused = replica.registry.register("prod", &astray, ann()).await.unwrap_err();
    assert!(refused.to_string().contains("leads astray"), "{refused}");
    // It would be of no use for a moment.
    *replica.opener.expires_at.lock().unwrap() = Timestamp::parse("2029-12-31T00:00:00Z").ok();
    let refused = replica.registry.register("prod", &access(1), ann()).await.unwrap_err();
    assert!(refused.to_string().contains("ended at 2029-12-31"), "{refused}");
    assert_eq!(replica.storage.registered.list().await.unwrap(), []);
    assert_eq!(replica.records().await, []);
}

#[tokio::test]
async fn a_revision_that_is_not_the_stored_one_changes_nothing() {
    let replica = keyed();
    let first = replica.register("prod", 7).await.revision.unwrap().to_string();
    let second = replica
        .registry
        .replace("prod", &access(8), Some(std::slice::from_ref(&first)), ann())
        .await
        .unwrap();
    replica.settled().await;
    assert_eq!(replica.nodes("prod"), 8);
    assert_ne!(second.revision.unwrap().to_string(), first);

    let known = Some(std::slice::from_ref(&first));
    let registry = &replica.registry;
    for refused in [
        registry.replace("prod", &access(9), known, ann()).await.map(drop),
        registry.remove("prod", known, knm_domain::UnderWay::Keep, ann()).await,
    ] {
        assert!(matches!(refused, Err(RegistryError::Stale { .. })), "{refused:?}");
    }
    assert_eq!(replica.nodes("prod"), 8);
}

#[tokio::test]
async fn a_test_tells_what_works_and_a_dry_run_stores_nothing() {
    let replica = keyed();
    let test = replica.registry.try_out("prod", &access(5)).await.unwrap();
    assert!(test.is_good(), "{test:?}");
    assert_eq!(test.nodes.answer.as_deref(), Ok("5"));
    assert_eq!(replica.storage.registered.list().await.unwrap(), []);
    assert_eq!(replica.names(), ["configured"]);
    assert_eq!(replica.records().await, []);

    replica.register("prod", 6).await;
    assert_eq!(
        replica.registry.test("prod").await.unwrap().nodes.answer.as_deref(),
        Ok("6")
    );
    assert!(replica.registry.test("configured").await.unwrap().is_good());
    let unknown = replica.registry.test("nobody").await;
    assert!(matches!(unknown, Err(RegistryError::Inventory(_))), "{unknown:?}");
}

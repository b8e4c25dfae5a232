use std::time::Duration;

use knm_domain::{ClusterState, InventoryError, UnderWay, UnseenReason, rotate};
use knm_model::{AccessRules, OperationKind, RawClusterAccess, RawStrategy};
use serde_json::{Map, json};

use crate::stage::{Replica, ToyVault, access, ann, at};

#[tokio::test(start_paused = true)]
async fn another_replica_follows_within_five_seconds() {
    let one = Replica::on(&knm_storage_memory::open(), Some(ToyVault("a")));
    let other = Replica::on(&one.storage, Some(ToyVault("a")));
    tokio::spawn(std::sync::Arc::clone(&other.registry).follow(other.shutdown.clone()));
    tokio::time::sleep(Duration::from_millis(100)).await;

    one.register("prod", 7).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(other.nodes("prod"), 7);

    one.registry.replace("prod", &access(8), None, ann()).await.unwrap();
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(other.nodes("prod"), 8);
    // A cluster that did not change is not opened again and again.
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(other.opener.fleets.lock().unwrap().len(), 2);

    one.registry.remove("prod", None, UnderWay::Keep, ann()).await.unwrap();
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(other.names(), ["configured"]);
}

#[tokio::test]
async fn while_the_store_is_away_everything_stays_as_it_is() {
    let replica = Replica::on(&knm_storage_memory::open(), Some(ToyVault("a")));
    replica.register("prod", 7).await;
    replica.storage.admin.close().await;
    replica.registry.follow_once().await;
    assert_eq!(replica.nodes("prod"), 7);
}

#[tokio::test]
async fn a_cluster_whose_key_is_another_one_says_so_and_the_others_go_on() {
    let one = Replica::on(&knm_storage_memory::open(), Some(ToyVault("a")));
    one.register("prod", 7).await;
    for vault in [Some(ToyVault("b")), None] {
        let other = Replica::on(&one.storage, vault);
        other.registry.follow_once().await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        let status = other.inventory.cluster("prod").unwrap();
        assert_eq!(
            (status.state, status.reason),
            (ClusterState::Degraded, Some(UnseenReason::Locked))
        );
        assert!(status.reason.unwrap().sentence().contains("secrets.key_file"));
        assert_eq!(status.access.unwrap().user, "token");
        assert!(matches!(
            other.inventory.snapshot("prod"),
            Err(InventoryError::NotSeenYet { .. })
        ));
        let test = other.registry.test("prod").await.unwrap();
        assert_eq!(test.version.answer, Err(UnseenReason::Locked.sentence()));
        assert_eq!(other.nodes("configured"), 1);
    }
}

#[tokio::test]
async fn a_cluster_that_is_sealed_anew_with_a_known_key_opens() {
    let one = Replica::on(&knm_storage_memory::open(), Some(ToyVault("a")));
    one.register("prod", 7).await;
    let other = Replica::on(&one.storage, Some(ToyVault("both")));
    let stranger = Replica::on(&one.storage, Some(ToyVault("b")));
    stranger.registry.follow_once().await;
    assert_eq!(stranger.opener.fleets.lock().unwrap().len(), 0);

    let rotation = rotate(&*one.storage.registered, &ToyVault("both")).await.unwrap();
    assert_eq!(
        (rotation.resealed, rotation.current, rotation.changed_meanwhile),
        (1, 0, 0)
    );
    let again = rotate(&*one.storage.registered, &ToyVault("both")).await.unwrap();
    assert_eq!((again.resealed, again.current), (0, 1));
    let refused = rotate(&*one.storage.registered, &ToyVault("b")).await.unwrap();
    assert_eq!(refused.unopened.len(), 1);
    assert_eq!(refused.unopened[0].0.as_str(), "prod");

    other.registry.follow_once().await;
    other.settled().await;
    assert_eq!(other.nodes("prod"), 7);
    // Whoever had it open has no reason to open it again.
    one.registry.follow_once().await;
    assert_eq!(one.opener.fleets.lock().unwrap().len(), 1);
    assert_eq!(one.nodes("prod"), 7);
}

#[tokio::test]
async fn a_row_that_was_moved_to_another_name_opens_nothing() {
    let one = Replica::on(&knm_storage_memory::open(), Some(ToyVault("a")));
    one.register("prod", 7).await;
    let mut stored = one.storage.registered.list().await.unwrap().remove(0);
    stored.name = knm_model::ClusterName::from_any("staging");
    stored.revision = uuid::Uuid::from_u128(9);
    one.storage.registered.insert(&stored, 100).await.unwrap();
    one.registry.follow_once().await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(
        one.inventory.cluster("staging").unwrap().reason,
        Some(UnseenReason::Locked)
    );
    assert_eq!(one.nodes("prod"), 7);
}

#[tokio::test]
async fn what_the_configuration_does_not_allow_any_more_is_not_asked() {
    let loopback = at("https://127.0.0.1:7");
    let one = Replica::with(&knm_storage_memory::open(), Some(ToyVault("a")), |settings| {
        settings.rules = AccessRules {
            allow_loopback: true,
            allow_insecure_tls: false,
        };
    });
    one.registry.register("prod", &loopback, ann()).await.unwrap();
    let other = Replica::on(&one.storage, Some(ToyVault("a")));
    other.registry.follow_once().await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(
        other.inventory.cluster("prod").unwrap().reason,
        Some(UnseenReason::Disallowed)
    );
    assert_eq!(other.opener.fleets.lock().unwrap().len(), 0);
}

#[tokio::test]
async fn a_configured_cluster_goes_before_a_registered_one_of_its_name() {
    let one = Replica::on(&knm_storage_memory::open(), Some(ToyVault("a")));
    one.register("prod", 7).await;
    let mut stored = one.storage.registered.list().await.unwrap().remove(0);
    stored.name = knm_model::ClusterName::from_any("configured");
    one.storage.registered.insert(&stored, 100).await.unwrap();
    one.registry.follow_once().await;
    one.settled().await;
    assert_eq!(one.nodes("configured"), 1);
    one.storage
        .registered
        .remove(&stored.name, stored.revision)
        .await
        .unwrap();
    one.registry.follow_once().await;
    assert_eq!(one.names(), ["configured", "prod"]);
}

/// An operation may be taken by a replica that has not heard of its cluster yet.
#[tokio::test(start_paused = true)]
async fn an_operation_waits_a_moment_for_its_cluster_to_be_known() {
    use knm_domain::{
        Inventory, NodeChanges, OperationRequest, OperationRunner, RunnerSettings, SignIn, TargetRequest, Ways,
    };
    use knm_ports::CountedIds;
    use std::sync::Arc;

    let one = Replica::on(&knm_storage_memory::open(), Some(ToyVault("a")));
    one.register("prod", 3).await;
    let node = one
        .inventory
        .snapshot("prod")
        .unwrap()
        .entries()
        .next()
        .unwrap()
        .node()
        .name
        .to_string();
    let other = Replica::on(&one.storage, Some(ToyVault("a")));
    let changes = |inventory: &Arc<Inventory>| {
        NodeChanges::new(
            Arc::clone(inventory),
            Arc::clone(&one.storage.audit),
            Arc::clone(&one.storage.holds),
            other.clock.clone(),
            Arc::new(CountedIds::default()),
        )
    };
    let runner = OperationRunner::new(
        Arc::clone(&other.operations),
        changes(&other.inventory),
        Arc::clone(&one.storage.work),
        RunnerSettings {
            owner: "other".to_owned(),
            lease: Duration::from_secs(30),
            max_concurrent_evictions: None,
            own_pod: None,
            sign_in: SignIn::new(Ways::Open, Arc::clone(&other.inventory), other.clock.clone()),
        },
    );
    tokio::spawn(runner.run(other.shutdown.clone()));
    let request = OperationRequest {
        kind: OperationKind::Label,
        targets: vec![TargetRequest {
            cluster: "prod".to_owned(),
            nodes: vec![node],
            label_selector: None,
        }],
        reason: None,
        ticket: None,
        options: Map::from_iter([("set".to_owned(), json!({"a": "b"}))]),
        strategy: RawStrategy::default(),
        dry_run: false,
        retry_of: None,
    };
    let accepted = one.operations.accept(request, ann()).await.unwrap();
    // It is taken at once, and its cluster is followed with the next look.
    tokio::time::sleep(Duration::from_secs(1)).await;
    tokio::spawn(Arc::clone(&other.registry).follow(other.shutdown.clone()));
    tokio::time::sleep(Duration::from_secs(20)).await;
    let shown = one.operations.find(accepted.operation.id).await.unwrap();
    assert_eq!(shown.operation.state.as_str(), "succeeded", "{shown:?}");
}

#[test]
fn what_is_sent_is_not_shown_by_accident() {
    let raw: RawClusterAccess = access(1);
    assert!(!format!("{raw:?}").contains(crate::stage::SECRET));
}

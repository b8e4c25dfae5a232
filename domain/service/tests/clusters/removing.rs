use std::sync::Arc;
use std::time::Duration;

use knm_domain::{
    Inventory, InventoryError, NodeChanges, OperationRequest, OperationRunner, RegistryError, RunnerSettings, SignIn,
    TargetRequest, UnderWay, Ways,
};
use knm_model::{AuditFilter, ClusterName, OperationKind, OperationState, RawStrategy};
use knm_ports::CountedIds;
use serde_json::{Map, json};
use uuid::Uuid;

use crate::stage::{Replica, ToyVault, access, ann, at};

/// Begins an operation that nobody works on.
async fn operation(replica: &Replica) -> Uuid {
    let snapshot = replica.inventory.snapshot("prod").unwrap();
    let node = snapshot.entries().next().unwrap().node().name.to_string();
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
    replica.operations.accept(request, ann()).await.unwrap().operation.id
}

fn runner(replica: &Replica, inventory: &Arc<Inventory>) -> OperationRunner {
    let changes = NodeChanges::new(
        Arc::clone(inventory),
        Arc::clone(&replica.storage.audit),
        Arc::clone(&replica.storage.holds),
        replica.clock.clone(),
        Arc::new(CountedIds::default()),
    );
    OperationRunner::new(
        Arc::clone(&replica.operations),
        changes,
        Arc::clone(&replica.storage.work),
        RunnerSettings {
            owner: "one".to_owned(),
            lease: Duration::from_secs(10),
            max_concurrent_evictions: None,
            own_pod: None,
            sign_in: SignIn::new(Ways::Open, Arc::clone(&replica.inventory), replica.clock.clone()),
        },
    )
}

#[tokio::test]
async fn a_cluster_with_operations_under_way_stays_and_they_are_named() {
    let replica = Replica::on(&knm_storage_memory::open(), Some(ToyVault("a")));
    replica.register("prod", 3).await;
    let id = operation(&replica).await;

    let refused = replica
        .registry
        .remove("prod", None, UnderWay::Keep, ann())
        .await
        .unwrap_err();
    assert!(matches!(refused, RegistryError::Busy { .. }), "{refused:?}");
    assert!(refused.to_string().contains(&id.to_string()), "{refused}");
    assert_eq!(replica.nodes("prod"), 3);
    // Nor is it moved, while other credentials for it are welcome.
    let elsewhere = replica
        .registry
        .replace("prod", &at("https://10.0.0.2:3"), None, ann())
        .await;
    assert!(matches!(elsewhere, Err(RegistryError::Busy { .. })), "{elsewhere:?}");
    replica.registry.replace("prod", &access(3), None, ann()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_cluster_goes_with_its_operations_when_they_are_to_be_cancelled() {
    let replica = Replica::on(&knm_storage_memory::open(), Some(ToyVault("a")));
    replica.register("prod", 3).await;
    let id = operation(&replica).await;
    tokio::spawn(runner(&replica, &replica.inventory).run(replica.shutdown.clone()));

    replica
        .registry
        .remove("prod", None, UnderWay::Cancel, ann())
        .await
        .unwrap();

    let ended = replica.operations.find(id).await.unwrap().operation.state;
    assert!(ended.is_ended(), "{ended:?}");
    assert_eq!(replica.names(), ["configured"]);
    let unknown = replica.inventory.snapshot("prod");
    assert!(
        matches!(unknown, Err(InventoryError::UnknownCluster { .. })),
        "{unknown:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_cluster_goes_though_nobody_works_on_what_is_cancelled() {
    let replica = Replica::on(&knm_storage_memory::open(), Some(ToyVault("a")));
    replica.register("prod", 3).await;
    let id = operation(&replica).await;
    replica
        .registry
        .remove("prod", None, UnderWay::Cancel, ann())
        .await
        .unwrap();
    assert_eq!(replica.names(), ["configured"]);
    let left = replica.operations.find(id).await.unwrap().operation.state;
    assert_eq!(left, OperationState::Cancelling);
    // Whoever takes it up finds its cluster gone, and ends it.
    tokio::spawn(runner(&replica, &replica.inventory).run(replica.shutdown.clone()));
    tokio::time::sleep(Duration::from_secs(30)).await;
    let ended = replica.operations.find(id).await.unwrap().operation.state;
    assert_eq!(ended, OperationState::Cancelled);
}

#[tokio::test]
async fn the_audit_of_a_cluster_that_is_gone_stays() {
    let replica = Replica::on(&knm_storage_memory::open(), Some(ToyVault("a")));
    replica.register("prod", 3).await;
    replica
        .registry
        .remove("prod", None, UnderWay::Keep, ann())
        .await
        .unwrap();
    let filter = AuditFilter {
        cluster: Some(ClusterName::from_any("prod")),
        ..AuditFilter::default()
    };
    assert_eq!(replica.storage.audit.page(&filter, None, 10).await.unwrap().len(), 2);
    let again = replica.registry.remove("prod", None, UnderWay::Keep, ann()).await;
    assert!(matches!(again, Err(RegistryError::Inventory(_))), "{again:?}");
    // The name is free again.
    replica.register("prod", 4).await;
    assert_eq!(replica.nodes("prod"), 4);
}

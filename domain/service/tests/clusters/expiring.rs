use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use knm_domain::{ConfiguredAccess, ExpiryWatch};
use knm_model::{ClusterAccess, ClusterName, Timestamp};
use metrics_exporter_prometheus::PrometheusBuilder;
use tokio_util::sync::CancellationToken;

use crate::stage::{Replica, ToyVault, access, ann, clock_at};

struct Files(Mutex<Option<Timestamp>>);

#[async_trait]
impl ConfiguredAccess for Files {
    async fn look(&self) -> Vec<(ClusterName, Option<ClusterAccess>)> {
        let access = ClusterAccess {
            server: "https://10.0.0.9/".to_owned(),
            user: "admin".to_owned(),
            expires_at: *self.0.lock().unwrap(),
        };
        vec![(ClusterName::from_any("configured"), Some(access))]
    }
}

fn time(text: &str) -> Option<Timestamp> {
    Some(Timestamp::parse(text).unwrap())
}

#[tokio::test(start_paused = true)]
async fn what_files_tell_of_configured_clusters_is_followed() {
    let replica = Replica::on(&knm_storage_memory::open(), None);
    let files = Arc::new(Files(Mutex::new(time("2030-01-05T00:00:00Z"))));
    let watch = ExpiryWatch {
        inventory: Arc::clone(&replica.inventory),
        configured: files.clone(),
        clock: clock_at(crate::stage::NOW),
    };
    tokio::spawn(watch.keep(CancellationToken::new()));
    tokio::time::sleep(Duration::from_secs(1)).await;
    let expiring = replica.inventory.expiring();
    assert_eq!(expiring.len(), 1);
    assert_eq!(
        (expiring[0].cluster.as_str(), Some(expiring[0].at)),
        ("configured", time("2030-01-05T00:00:00Z"))
    );

    *files.0.lock().unwrap() = time("2031-01-01T00:00:00Z");
    tokio::time::sleep(Duration::from_secs(61)).await;
    assert_eq!(replica.inventory.expiring(), []);
    assert_eq!(
        replica.inventory.cluster("configured").unwrap().access.unwrap().user,
        "admin"
    );
}

#[tokio::test]
async fn credentials_that_end_within_two_weeks_are_told_and_the_metric_tells_when() {
    let replica = Replica::on(&knm_storage_memory::open(), Some(ToyVault("a")));
    for (name, at) in [("soon", "2030-01-14T23:00:00Z"), ("later", "2030-01-15T01:00:00Z")] {
        *replica.opener.expires_at.lock().unwrap() = time(at);
        replica.register(name, 1).await;
    }
    *replica.opener.expires_at.lock().unwrap() = None;
    replica.register("silent", 1).await;
    let expiring = replica.inventory.expiring();
    assert_eq!(
        expiring.iter().map(|one| one.cluster.as_str()).collect::<Vec<_>>(),
        ["soon"]
    );

    let recorder = PrometheusBuilder::new().build_recorder();
    metrics::with_local_recorder(&recorder, || replica.inventory.observe());
    let text = recorder.handle().render();
    let name = "kube_node_manager_cluster_credentials_expire_timestamp_seconds";
    for line in [
        format!("{name}{{cluster=\"soon\"}} 1894662000\n"),
        format!("{name}{{cluster=\"silent\"}} inf\n"),
    ] {
        assert!(text.to_lowercase().contains(&line), "{line} is not in\n{text}");
    }
    assert!(!text.contains(&format!("{name}{{cluster=\"configured\"")), "{text}");

    // Renewed, it is no reason to look.
    *replica.opener.expires_at.lock().unwrap() = time("2031-01-01T00:00:00Z");
    replica.registry.replace("soon", &access(1), None, ann()).await.unwrap();
    assert_eq!(replica.inventory.expiring(), []);
}

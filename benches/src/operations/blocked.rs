//! Many drains that wait for a disruption budget.

use std::sync::atomic::Ordering;
use std::time::Duration;

use http::Method;
use knm_test_support::cluster::pod;
use serde_json::{Value, json};
use tokio::runtime::Handle;
use tokio::time::Instant;

use super::Operations;
use super::ground::{Ground, Service, patient};
use crate::Failure;
use crate::table::{Bar, Row};

const NODES: usize = 300;
const PODS: usize = 10_000;
const PATH_OF_PODS: &str = "/api/v1/namespaces/default/pods";
/// How long a pod takes to end.
const FAREWELL: Duration = Duration::from_millis(250);
/// How long the budget blocks.
const BLOCKED_FOR: Duration = Duration::from_secs(60);
/// What the start leaves is done by then.
const SETTLING: Duration = Duration::from_secs(10);

impl Operations {
    pub(super) async fn blocked(&self) -> Result<Vec<Row>, Failure> {
        let ground = Ground::with_nodes(NODES).await?;
        let kubelets = ground.server.kubelets(&Handle::current(), FAREWELL);
        let budget = create_budget(&ground).await?;
        let pods = (0..PODS).map(|number| {
            // One of each kind onto a node, then the next node.
            let app = ["free", "guarded"][number % 2];
            let pod = pod(&format!("{app}-{number}"), &ground.nodes[number / 2 % NODES], app);
            (Method::POST, PATH_OF_PODS.to_owned(), Some(pod))
        });
        ground.each(pods.collect()).await?;
        ground.wait_for_pods(PODS).await?;
        let guarded = ground.pods(is_guarded).await?;

        let service = ground
            .serve(&self.binary, self.folder.path(), "blocked", &[], PODS)
            .await?;
        tokio::time::sleep(SETTLING).await;
        let before = service.process.memory()?.resident;
        let drains = async {
            for node in &ground.nodes {
                let options = json!({"ignore_daemonsets": true, "delete_emptydir_data": true, "force": true, "reason": "measuring"});
                service.begin(&format!("/nodes/{node}/drain"), &options).await?;
            }
            let start = Instant::now();
            while ground.pods(|_| true).await? != guarded {
                patient("the free pods to go", start)?;
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            let emptied = start.elapsed();
            tokio::time::sleep(SETTLING).await;
            let on_core = service.process.on_core()?;
            tokio::time::sleep(BLOCKED_FOR).await;
            let on_core = service.process.on_core()?.saturating_sub(on_core);
            if ground.pods(|_| true).await? != guarded {
                return Err("the budget did not keep its pods".into());
            }
            ground.asked(Method::DELETE, &budget, None).await?;
            let start = Instant::now();
            while !is_over(&service).await? {
                patient("the drains to end", start)?;
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            Ok((emptied, on_core, start.elapsed()))
        };
        let ((emptied, on_core, freed), most) = service.process.watched(drains).await?;
        if 0 < ground.pods(|_| true).await? {
            return Err("pods are left on drained nodes".into());
        }
        let put_off = service.put_off.load(Ordering::Relaxed);
        service.process.end().await?;
        drop(kubelets);
        Ok(vec![
            Row {
                what: "300 drains, 10,000 pods: memory more than before, in MiB",
                measured: most - before,
                bar: Bar::AtMost(60.0),
                detail: format!(
                    "{before:.1} before, {most:.1} at most; {} pods gone after {:.0} s, the others {:.0} s after the budget was; {put_off} \
                     requests put off",
                    PODS - guarded,
                    emptied.as_secs_f64(),
                    freed.as_secs_f64()
                ),
            },
            Row {
                what: "the same: time on a core while blocked, in %",
                measured: 100.0 * on_core.as_secs_f64() / BLOCKED_FOR.as_secs_f64(),
                bar: Bar::AtMost(5.0),
                detail: format!("{guarded} pods blocked for {} s", BLOCKED_FOR.as_secs()),
            },
        ])
    }
}

/// A budget that allows nothing, as the disruption controller would tell it; its path.
async fn create_budget(ground: &Ground) -> Result<String, Failure> {
    let budget = json!({"metadata": {"name": "guarded"},
        "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "guarded"}}}});
    let status = json!({"status": {"observedGeneration": 1, "disruptionsAllowed": 0, "currentHealthy": 1, "desiredHealthy": 1,
        "expectedPods": 1}});
    // Old servers know the second version only, new ones the first.
    for version in ["v1", "v1beta1"] {
        let budgets = format!("/apis/policy/{version}/namespaces/default/poddisruptionbudgets");
        if ground.asked(Method::POST, &budgets, Some(&budget)).await.is_ok() {
            let path = format!("{budgets}/guarded");
            ground
                .asked(Method::PATCH, &format!("{path}/status"), Some(&status))
                .await?;
            return Ok(path);
        }
    }
    Err("the API server takes no disruption budget".into())
}

fn is_guarded(pod: &Value) -> bool {
    pod["metadata"]["labels"]["app"] == "guarded"
}

/// Whether all drains succeeded; a failure if one did not.
async fn is_over(service: &Service) -> Result<bool, Failure> {
    let list = service.get("/api/v1/operations?limit=1000").await?;
    let mut left = NODES;
    for operation in list["items"].as_array().into_iter().flatten() {
        match operation["state"].as_str().unwrap_or_default() {
            "succeeded" => left -= 1,
            "queued" | "running" => {}
            _ => return Err(format!("a drain did not succeed: {operation}").into()),
        }
    }
    Ok(left == 0)
}

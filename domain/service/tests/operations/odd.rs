//! Drains whose cluster answers oddly, whose time runs out, or whom somebody gets in the way of.

use std::sync::Arc;
use std::time::Duration;

use knm_model::{Controller, DrainProgress, ObjectName, OperationState, Pod, Wish};
use knm_ports::{ClusterError, Eviction};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::nodes::settle;
use crate::scripted::{Removed, Script};
use crate::stage::{Stage, budget, node_name, own_pod, pod, pods_of};

/// What a cluster says to an eviction.
type Answer = fn() -> Result<Eviction, ClusterError>;

async fn stage(names: &[&str]) -> (Stage, Arc<Script>) {
    let script = Arc::new(Script::default());
    let stage = Stage::seen_through(names, false, |inner| script.around(inner)).await;
    (stage, script)
}

/// A drain of a node whose only pod is blocked by a budget.
async fn blocked(stage: &Stage, options: Value) -> Uuid {
    stage.fleet.put_pod(pod("web-1", "a"));
    stage.fleet.put_budget(budget(0));
    let id = stage.drain(options).await;
    stage.until(id, |shown| !pods_of(&shown.targets[0]).is_empty()).await;
    id
}

/// Why the operation failed for its node.
async fn failure(stage: &Stage, id: Uuid) -> String {
    let shown = stage.end(id).await;
    assert_eq!(shown.operation.state, OperationState::Failed, "{shown:?}");
    shown.targets[0].message.clone().unwrap()
}

/// What the audit log says after the only change.
async fn after(stage: &Stage) -> Value {
    let audit = stage.audit().await;
    assert_eq!(audit.len(), 1, "{audit:?}");
    json!(audit[0].completion.as_ref().unwrap().after)
}

#[tokio::test(start_paused = true)]
async fn a_cordon_that_fails_stops_the_drain_of_that_node() {
    let (stage, script) = stage(&["a"]).await;
    stage.fleet.put_pod(pod("web-1", "a"));
    script.forbid_patches();
    let _replica = stage.replica("one");
    let id = stage.drain(json!({})).await;

    let shown = stage.end(id).await;

    assert_eq!(shown.operation.state, OperationState::Failed);
    assert_eq!(script.removals(), []);
    assert_eq!(stage.pods("a").await, ["web-1"]);
    assert_eq!(stage.holds().await, []);
}

/// The table of drain.md, and what is done about each answer.
#[tokio::test(start_paused = true)]
async fn each_answer_to_an_eviction_is_passing_or_fails_that_pod_only() {
    let message = || "the cluster's own words".to_owned();
    let passing: [(&str, Answer); 8] = [
        ("blocked by a budget", || {
            Ok(Eviction::Blocked {
                budget: Some("web".to_owned()),
                message: "no room".to_owned(),
                retry_after: Some(Duration::from_secs(7)),
            })
        }),
        ("busy", || Ok(Eviction::Busy { retry_after: None })),
        ("busy for long", || {
            Ok(Eviction::Busy {
                retry_after: Some(Duration::from_secs(90)),
            })
        }),
        ("namespace terminating", || Ok(Eviction::NamespaceTerminating)),
        ("passing", || {
            Ok(Eviction::Passing {
                message: "couldn't update PodDisruptionBudget due to conflicts".to_owned(),
            })
        }),
        ("too many requests", || {
            Err(ClusterError::TooManyRequests { retry_after: None })
        }),
        ("timed out", || {
            Err(ClusterError::TimedOut {
                limit: Duration::from_secs(10),
            })
        }),
        ("credentials refused", || {
            Err(ClusterError::Unauthenticated { source: None })
        }),
    ];
    for (name, answer) in passing {
        let (stage, script) = stage(&["a"]).await;
        stage.fleet.put_pod(pod("web-1", "a"));
        script.answer("web-1", answer);
        let _replica = stage.replica("one");
        let id = stage.drain(json!({})).await;
        assert_eq!(stage.end(id).await.operation.state, OperationState::Succeeded, "{name}");
        assert_eq!(script.asked(), ["web-1", "web-1"], "{name}");
    }
    let gone: [fn() -> Eviction; 2] = [|| Eviction::Gone, || Eviction::Replaced];
    for answer in gone {
        let (stage, script) = stage(&["a"]).await;
        stage.fleet.put_pod(pod("web-1", "a"));
        script.answer("web-1", move || Ok(answer()));
        let _replica = stage.replica("one");
        let id = stage.drain(json!({})).await;
        stage.until(id, |shown| !pods_of(&shown.targets[0]).is_empty()).await;
        stage.fleet.remove_pod("team", "web-1");
        assert_eq!(stage.end(id).await.operation.state, OperationState::Succeeded);
        assert_eq!(script.asked(), ["web-1"]);
    }
    let permanent: [fn(String) -> Eviction; 2] = [
        |message| Eviction::Refused { message },
        |message| Eviction::SeveralBudgets { message },
    ];
    for answer in permanent {
        let (stage, script) = stage(&["a"]).await;
        for name in ["web-1", "web-2"] {
            stage.fleet.put_pod(pod(name, "a"));
        }
        script.answer("web-1", move || Ok(answer(message())));
        let _replica = stage.replica("one");
        let id = stage.drain(json!({})).await;
        let told = failure(&stage, id).await;
        assert!(told.contains("team/web-1: the cluster's own words"), "{told}");
        assert_eq!(stage.pods("a").await, ["web-1"], "the other one went");
    }
}

#[tokio::test(start_paused = true)]
async fn a_busy_cluster_is_asked_again_when_it_said() {
    let (stage, script) = stage(&["a"]).await;
    stage.fleet.put_pod(pod("web-1", "a"));
    script.answer("web-1", || {
        Ok(Eviction::Busy {
            retry_after: Some(Duration::from_secs(90)),
        })
    });
    let _replica = stage.replica("one");
    let id = stage.drain(json!({})).await;
    tokio::time::sleep(Duration::from_secs(88)).await;
    assert_eq!(script.asked().len(), 1);
    stage.end(id).await;
    assert_eq!(script.asked().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn the_grace_period_is_asked_for_and_without_one_the_pods_have_their_own() {
    for (options, grace) in [
        (json!({"grace_period_seconds": 7}), Some(7)),
        (json!({"grace_period_seconds": 0}), Some(0)),
        (json!({"grace_period_seconds": -1}), None),
        (json!({}), None),
    ] {
        let (stage, script) = stage(&["a"]).await;
        stage.fleet.put_pod(pod("web-1", "a"));
        let _replica = stage.replica("one");
        let id = stage.drain(options).await;
        stage.end(id).await;
        let expected = Removed {
            name: "web-1".to_owned(),
            is_deletion: false,
            grace,
        };
        assert_eq!(script.removals(), [expected]);
    }
}

#[tokio::test(start_paused = true)]
async fn each_pod_is_evicted_once_although_that_is_seen_late() {
    let (stage, script) = stage(&["a"]).await;
    for name in ["web-1", "web-2"] {
        stage.fleet.put_pod(pod(name, "a"));
    }
    stage.fleet.put_budget(budget(1));
    script.be_late(Duration::from_secs(5));
    let _replica = stage.replica("one");
    let id = stage.drain(json!({"grace_period_seconds": 20})).await;
    tokio::time::sleep(Duration::from_secs(10)).await;
    // Nobody replaces the first pod, so its absence counts on.
    stage.fleet.put_budget(budget(2));
    assert_eq!(stage.end(id).await.operation.state, OperationState::Succeeded);
    let asked = script.asked();
    assert_eq!(asked.iter().filter(|name| *name == "web-1").count(), 1, "{asked:?}");
    assert_eq!(asked.last().map(String::as_str), Some("web-2"), "{asked:?}");
    let told = stage.events(id).await.into_iter().filter(|event| {
        let data = &event.event.data;
        data.get("pod") == Some(&json!("web-1")) && data["state"] == "terminating"
    });
    assert_eq!(told.count(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_daemon_set_that_is_younger_than_what_is_known_is_asked_for() {
    for force in [false, true] {
        let (stage, script) = stage(&["a"]).await;
        stage.fleet.put_pod(pod("web-1", "a"));
        stage.fleet.put_budget(budget(0));
        let _replica = stage.replica("one");
        let id = stage.drain(json!({"ignore_daemonsets": true, "force": force})).await;
        stage.until(id, |shown| !pods_of(&shown.targets[0]).is_empty()).await;

        stage.fleet.put_daemon_set(ObjectName {
            namespace: "team".to_owned(),
            name: "agent".to_owned(),
        });
        stage.fleet.put_pod(Pod {
            controller: Some(Controller {
                api_version: "apps/v1".to_owned(),
                kind: "DaemonSet".to_owned(),
                name: "agent".to_owned(),
            }),
            ..pod("agent-1", "a")
        });
        tokio::time::sleep(Duration::from_secs(30)).await;
        assert_eq!(stage.state(id).await, OperationState::Running);
        stage.fleet.put_budget(budget(1));

        assert_eq!(
            stage.end(id).await.operation.state,
            OperationState::Succeeded,
            "{force}"
        );
        assert_eq!(stage.pods("a").await, ["agent-1"]);
        assert_eq!(script.asked(), ["web-1"]);
    }
}

#[tokio::test(start_paused = true)]
async fn at_the_deadline_pods_are_deleted_as_the_options_allow_and_the_others_are_named() {
    let (stage, script) = stage(&["a"]).await;
    let mut bare = pod("job-1", "a");
    (bare.controller, bare.has_empty_dir) = (None, true);
    stage.fleet.put_pod(bare);
    stage.fleet.put_pod(pod("job-2", "a"));
    let _replica = stage.replica("one");
    let options = json!({"wait_for_completion": "app=job", "timeout_seconds": 30, "after_deadline": "force"});
    let id = stage.drain(options).await;

    let message = failure(&stage, id).await;
    assert!(
        message.contains("team/job-1") && message.contains("delete_emptydir_data"),
        "{message}"
    );
    assert_eq!(stage.pods("a").await, ["job-1"]);
    let asked = script.removals();
    assert_eq!(asked.len(), 1, "one that goes is not asked again: {asked:?}");
    assert!(asked[0].is_deletion && asked[0].name == "job-2");
}

#[tokio::test(start_paused = true)]
async fn at_the_deadline_pods_that_no_eviction_removes_are_deleted_a_few_at_once() {
    let (stage, script) = stage(&["a"]).await;
    for name in ["web-1", "web-2", "web-3"] {
        stage.fleet.put_pod(pod(name, "a"));
    }
    let mut all = budget(5);
    all.name = "all".to_owned();
    stage.fleet.put_budget(all);
    stage.fleet.put_budget(budget(5));
    let _replica = stage.replica("one");
    let options = json!({"timeout_seconds": 30, "after_deadline": "force", "max_concurrent_evictions": 1});
    let id = stage.drain(options).await;
    tokio::time::sleep(Duration::from_secs(20)).await;
    let waiting = stage.shown(id).await;
    assert_eq!(
        waiting.operation.state,
        OperationState::Running,
        "the deadline is waited for"
    );
    assert!(
        waiting.targets[0].message.as_ref().unwrap().contains("are deleted at"),
        "{waiting:?}"
    );

    let shown = stage.end(id).await;

    assert_eq!(shown.operation.state, OperationState::Succeeded, "{shown:?}");
    assert!(script.removals().iter().all(|removed| removed.is_deletion));
    let deleted = after(&stage).await["deleted_after_deadline"].clone();
    let names: Vec<_> = deleted
        .as_array()
        .unwrap()
        .iter()
        .map(|one| &one.as_str().unwrap()[..10])
        .collect();
    assert_eq!(names, ["team/web-1", "team/web-2", "team/web-3"], "{deleted}");
}

#[tokio::test(start_paused = true)]
async fn what_was_deleted_stays_in_the_audit_log_when_the_drain_is_cancelled() {
    let (stage, script) = stage(&["a"]).await;
    for name in ["web-1", "web-2"] {
        stage.fleet.put_pod(pod(name, "a"));
    }
    stage.fleet.put_budget(budget(0));
    script.answer("web-2", || {
        Ok(Eviction::Passing {
            message: "later".to_owned(),
        })
    });
    let _replica = stage.replica("one");
    let options = json!({"timeout_seconds": 30, "after_deadline": "force", "on_cancel": "restore"});
    let id = stage.drain(options).await;
    stage
        .until(id, |shown| {
            pods_of(&shown.targets[0]).contains(&("web-1".to_owned(), "gone"))
        })
        .await;
    stage.wish(id, Wish::Cancel).await;
    assert_eq!(stage.end(id).await.operation.state, OperationState::Cancelled);
    assert!(stage.node("a").await.schedulable);
    let after = after(&stage).await;
    assert!(
        after["deleted_after_deadline"][0]
            .as_str()
            .unwrap()
            .starts_with("team/web-1"),
        "{after}"
    );
    assert_eq!(after["schedulable"], Value::Null);
}

#[tokio::test(start_paused = true)]
async fn pods_that_are_deleted_without_asking_budgets_stand_in_the_audit_log() {
    let (stage, script) = stage(&["a"]).await;
    for name in ["web-1", "web-2"] {
        stage.fleet.put_pod(pod(name, "a"));
    }
    let _replica = stage.replica("one");
    let id = stage.drain(json!({"disable_eviction": true})).await;
    stage.end(id).await;
    assert!(script.removals().iter().all(|removed| removed.is_deletion));
    assert_eq!(after(&stage).await["deleted"], json!(["team/web-1", "team/web-2"]));
}

#[tokio::test(start_paused = true)]
async fn the_time_of_a_pause_is_not_held_against_the_pods() {
    let (stage, script) = stage(&["a"]).await;
    let _replica = stage.replica("one");
    let id = blocked(&stage, json!({"timeout_seconds": 300, "after_deadline": "force"})).await;
    stage.wish(id, Wish::Pause).await;
    tokio::time::sleep(Duration::from_secs(3600)).await;
    stage.fleet.put_budget(budget(1));
    stage.wish(id, Wish::Resume).await;
    assert_eq!(stage.end(id).await.operation.state, OperationState::Succeeded);
    assert!(
        script.removals().iter().all(|removed| !removed.is_deletion),
        "it was evicted"
    );
}

#[tokio::test(start_paused = true)]
async fn the_time_of_a_drain_runs_out_although_its_cluster_cannot_be_asked() {
    let (stage, script) = stage(&["a"]).await;
    let _replica = stage.replica("one");
    let id = blocked(&stage, json!({"timeout_seconds": 60})).await;
    script.forbid_budgets(true);
    let message = failure(&stage, id).await;
    assert!(
        message.contains("the time is up") && message.contains("the role says no"),
        "{message}"
    );
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_asked_at_all_is_told_before_anything_is_changed() {
    let (stage, script) = stage(&["a"]).await;
    stage.fleet.put_pod(pod("web-1", "a"));
    script.forbid_budgets(true);
    let _replica = stage.replica("one");
    let id = stage.drain(json!({})).await;
    let message = failure(&stage, id).await;
    assert!(message.contains("the role says no"), "{message}");
    assert!(stage.node("a").await.schedulable);
}

#[tokio::test(start_paused = true)]
async fn a_person_who_uncordons_is_obeyed_although_nodes_are_not_watched() {
    let (stage, script) = stage(&["a"]).await;
    let _replica = stage.replica("one");
    let id = blocked(&stage, json!({})).await;
    script.blind.cancel();
    settle().await;
    stage.set_schedulable("a", true).await;
    let message = failure(&stage, id).await;
    assert!(message.contains("uncordoned"), "{message}");
}

#[tokio::test(start_paused = true)]
async fn a_person_who_uncordons_is_obeyed_while_volumes_are_waited_for() {
    let (stage, _script) = stage(&["a"]).await;
    stage.fleet.put_pod(pod("web-1", "a"));
    stage.fleet.attach_volume(node_name("a"), "disk-1");
    let _replica = stage.replica("one");
    let id = stage.drain(json!({"wait_for_volume_detach": true})).await;
    stage
        .until(id, |shown| {
            let message = shown.targets[0].message.as_ref();
            message.is_some_and(|message| message.contains("disk-1"))
        })
        .await;
    stage.set_schedulable("a", true).await;
    let message = failure(&stage, id).await;
    assert!(message.contains("uncordoned"), "{message}");
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_drain_asks_no_more_pods_of_a_long_list() {
    let (stage, script) = stage(&["a"]).await;
    for number in 0..80 {
        stage.fleet.put_pod(pod(&format!("web-{number:02}"), "a"));
    }
    script.take(Duration::from_secs(5));
    let _replica = stage.replica("one");
    let id = stage.drain(json!({})).await;
    tokio::time::sleep(Duration::from_secs(7)).await;
    assert!(!script.asked().is_empty());
    stage.wish(id, Wish::Cancel).await;
    assert_eq!(stage.end(id).await.operation.state, OperationState::Cancelled);
    assert!(script.asked().len() < 30, "{}", script.asked().len());
    assert!(50 < stage.pods("a").await.len());
}

#[tokio::test(start_paused = true)]
async fn no_more_pods_of_an_operation_or_a_cluster_leave_at_once_than_allowed_nor_after_a_takeover() {
    for of_cluster in [false, true] {
        let (stage, _script) = stage(&["a", "b"]).await;
        for (name, node) in [("web-1", "a"), ("web-2", "a"), ("web-3", "b"), ("web-4", "b")] {
            let mut pod = pod(name, node);
            pod.deletion_grace = Some(Duration::from_secs(30));
            stage.fleet.put_pod(pod);
        }
        let options = match of_cluster {
            true => json!({"grace_period_seconds": 30}),
            false => json!({"grace_period_seconds": 30, "max_concurrent_evictions": 1}),
        };
        let limited = |settings: &mut knm_domain::RunnerSettings| {
            settings.max_concurrent_evictions = of_cluster.then_some(1);
        };
        let first = stage.replica_with("one", limited);
        let mut request = crate::stage::request(knm_model::OperationKind::Drain, &["a", "b"], options);
        request.strategy.max_concurrent = Some(2);
        let id = stage.accept(request).await.unwrap().operation.id;
        let mut second = None;
        loop {
            let shown = stage.shown(id).await;
            if shown.operation.state.is_ended() {
                assert_eq!(shown.operation.state, OperationState::Succeeded, "{shown:?}");
                break;
            }
            let leaving = |progress: DrainProgress| progress.leaving();
            let all: usize = shown
                .targets
                .iter()
                .filter_map(|target| target.detail.read().map(leaving))
                .sum();
            assert!(all <= 1, "{shown:?}");
            if all == 1 && second.is_none() {
                first.kill();
                second = Some(stage.replica_with("two", limited));
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        assert!(second.is_some());
    }
}

#[tokio::test(start_paused = true)]
async fn pods_go_in_their_order_and_those_that_are_not_selected_stay() {
    let (stage, script) = stage(&["a"]).await;
    for name in ["db-1", "web-1", "cache-1", "tool-1"] {
        stage.fleet.put_pod(pod(name, "a"));
    }
    let _replica = stage.replica("one");
    let order = json!([{"pod_selector": "app=web"}, {"pod_selector": "app=cache"}]);
    let id = stage.drain(json!({"order": order, "pod_selector": "app!=tool"})).await;
    assert_eq!(stage.end(id).await.operation.state, OperationState::Succeeded);
    assert_eq!(script.asked(), ["web-1", "cache-1", "db-1"]);
    assert_eq!(stage.pods("a").await, ["tool-1"]);
}

#[tokio::test(start_paused = true)]
async fn a_pod_of_another_cluster_is_not_the_own_one() {
    let (stage, script) = stage(&["a"]).await;
    for name in ["knm-1", "web-1"] {
        stage.fleet.put_pod(pod(name, "a"));
    }
    stage.fleet.put_budget(budget(0));
    let replica = stage.replica_with("one", |settings| settings.own_pod = Some(own_pod("elsewhere", "knm-1")));
    let id = stage.drain(json!({})).await;
    stage
        .until(id, |shown| {
            pods_of(&shown.targets[0]).contains(&("knm-1".to_owned(), "gone"))
        })
        .await;
    assert_eq!(script.asked(), ["knm-1"], "it goes before the one that is blocked");
    stage.fleet.put_budget(budget(1));
    assert_eq!(stage.end(id).await.operation.state, OperationState::Succeeded);
    replica.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_replica_whose_own_pod_stays_takes_operations_again() {
    let (stage, script) = stage(&["a", "b"]).await;
    stage.fleet.put_pod(pod("knm-1", "a"));
    script.answer("knm-1", || {
        Ok(Eviction::Refused {
            message: "a webhook says no".to_owned(),
        })
    });
    let _replica = stage.replica_with("one", |settings| settings.own_pod = Some(own_pod("test", "knm-1")));
    let id = stage.drain(json!({})).await;
    assert_eq!(stage.end(id).await.operation.state, OperationState::Failed);
    let next = crate::stage::request(knm_model::OperationKind::Drain, &["b"], json!({}));
    let next = stage.accept(next).await.unwrap().operation.id;
    assert_eq!(stage.end(next).await.operation.state, OperationState::Succeeded);
}

#[tokio::test(start_paused = true)]
async fn what_a_drain_loses_is_told_with_it() {
    let (stage, _script) = stage(&["a"]).await;
    let mut local = pod("web-1", "a");
    (local.has_empty_dir, local.controller) = (true, None);
    stage.fleet.put_pod(local);
    let _replica = stage.replica("one");
    let id = stage
        .drain(json!({"delete_emptydir_data": true, "force": true, "grace_period_seconds": 0}))
        .await;
    let shown = stage.end(id).await;
    let progress: DrainProgress = shown.targets[0].detail.read().unwrap();
    assert_eq!(progress.warnings.len(), 3, "{progress:?}");
    assert!(
        progress
            .warnings
            .iter()
            .any(|warning| warning.contains("team/web-1: the content of its emptyDir"))
    );
}

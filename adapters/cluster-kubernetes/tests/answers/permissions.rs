//! What the requests of this adapter need of a cluster's rules.

use std::collections::BTreeSet;
use std::time::Duration;

use futures::StreamExt;
use knm_model::{ClusterFeature, KubernetesAction, KubernetesIdentity, NodePatch, Permission};
use knm_ports::{ClusterError, EvictOptions, Eviction, PodRef};
use serde_json::json;

use crate::scripted::{Answer, Scripted};
use crate::{a, cluster, open, page};

/// Everything that can be asked of a cluster is asked, once.
#[tokio::test]
async fn the_features_need_what_is_asked_for_and_nothing_else() {
    let listed = || {
        Answer::Is(
            200,
            "",
            json!({"metadata": {"resourceVersion": "1"}, "items": []}).to_string(),
        )
    };
    let server = Scripted::start([
        ("GET /api/v1/nodes?watch", Answer::Begins(String::new())),
        ("GET /api/v1/nodes?limit", page(&["a"], "1", "")),
        ("&watch=true", Answer::Begins(String::new())),
        ("GET /api/v1/pods?", listed()),
    ])
    .await;
    let both = cluster(&server).await;
    let (gateway, reviews) = (&both.gateway, &both.reviews);
    let mut watches = [
        gateway.watch_nodes().map(|_| ()).boxed(),
        gateway.watch_pods().map(|_| ()).boxed(),
    ];
    for watch in &mut watches {
        watch.next().await;
    }
    let pod = PodRef {
        namespace: "team".to_owned(),
        name: "web-1".to_owned(),
        uid: "u".to_owned(),
    };
    let (options, identity) = (
        EvictOptions::default(),
        KubernetesIdentity {
            user: "alice".to_owned(),
            ..KubernetesIdentity::default()
        },
    );
    // What is answered does not matter here.
    drop(gateway.pods_on_node(&a()).await);
    drop(gateway.recent_pods_on_node(&a()).await);
    drop(gateway.disruption_budgets().await);
    drop(gateway.daemon_sets().await);
    drop(gateway.evict(&pod, &options).await);
    drop(gateway.delete_pod(&pod, &options).await);
    drop(gateway.attached_volumes(&a()).await);
    drop(gateway.node(&a()).await);
    drop(gateway.patch_node(&a(), &NodePatch::default(), false).await);
    drop(gateway.may(&ClusterFeature::EvictPods.needs()[0]).await);
    drop(gateway.server_version().await);
    drop(reviews.identify("token", &[]).await);
    drop(reviews.may(&identity, Permission::View).await);

    let needed: BTreeSet<String> = ClusterFeature::ALL
        .into_iter()
        .flat_map(ClusterFeature::needs)
        .map(ToString::to_string)
        .collect();
    let all_were_asked = async {
        loop {
            let asked: BTreeSet<String> = server.seen().iter().filter_map(|request| needs(request)).collect();
            if asked == needed {
                return;
            }
            assert!(asked.is_subset(&needed), "{asked:?} is more than {needed:?}");
            // Watches are opened by tasks of their own.
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), all_were_asked)
        .await
        .expect("everything that features need is asked for");
}

/// What rules must allow for a request, as a need is written; `None` for what every account may do.
fn needs(request: &str) -> Option<String> {
    let line = request.lines().next()?;
    let mut words = line.split(' ');
    let (method, target) = (words.next()?, words.next()?);
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    let (group, rest) = match parts.as_slice() {
        ["api", _, rest @ ..] => ("", rest),
        ["apis", group, _, rest @ ..] => (*group, rest),
        _ => return None,
    };
    let rest = match rest {
        ["namespaces", _, rest @ ..] => rest,
        rest => rest,
    };
    let (resource, is_named) = match rest {
        [resource] => ((*resource).to_owned(), false),
        [resource, _] => ((*resource).to_owned(), true),
        [resource, _, part] => (format!("{resource}/{part}"), true),
        _ => unreachable!("{line}"),
    };
    let verb = match (method, is_named) {
        ("GET", true) => "get",
        ("GET", false) if query.contains("watch=true") => "watch",
        ("GET", false) => "list",
        ("PATCH", _) => "patch",
        ("POST", _) => "create",
        ("DELETE", _) => "delete",
        _ => unreachable!("{line}"),
    };
    if resource == "selfsubjectaccessreviews" {
        return None;
    }
    let dot = if group.is_empty() { "" } else { "." };
    Some(format!("{verb} {resource}{dot}{group}"))
}

#[tokio::test]
async fn what_the_service_may_do_is_asked_of_the_whole_cluster_and_believed_only_if_it_is_said() {
    const ASKED: &str = "POST /apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
    let told = |status: serde_json::Value| Answer::Is(201, "", json!({"status": status}).to_string());
    let server = Scripted::start([
        (ASKED, told(json!({"allowed": true}))),
        (ASKED, told(json!({"allowed": false, "reason": "no"}))),
        (ASKED, told(json!({"allowed": true, "denied": true}))),
        (ASKED, told(json!({}))),
        // Denied is denied, whatever else could not be looked at.
        (
            ASKED,
            told(json!({"allowed": false, "denied": true, "evaluationError": "a webhook did not answer"})),
        ),
        (
            ASKED,
            told(json!({"allowed": true, "evaluationError": "a webhook did not answer"})),
        ),
        (
            ASKED,
            told(json!({"allowed": false, "evaluationError": "a webhook did not answer"})),
        ),
        (
            ASKED,
            Answer::Is(403, "", json!({"message": "you may not ask"}).to_string()),
        ),
    ])
    .await;
    let gateway = open(&server).await;
    let action: &KubernetesAction = &ClusterFeature::EvictPods.needs()[0];
    for expected in [true, false, false, false, false, true] {
        assert_eq!(gateway.may(action).await.expect("an answer"), expected);
    }
    let unknown = gateway.may(action).await.expect_err("it could not be told");
    assert!(
        matches!(&unknown, ClusterError::Unreadable { message } if message.contains("a webhook did not answer")),
        "{unknown:?}"
    );
    let refused = gateway.may(action).await.expect_err("it may not ask");
    assert!(
        matches!(&refused, ClusterError::Forbidden { action: None, message } if message.contains("system:basic-user")),
        "{refused:?}"
    );
    let seen = server.seen();
    let (_, body) = seen[0].split_once("\r\n\r\n").expect("a head");
    let body: serde_json::Value = serde_json::from_str(body).expect("json");
    assert_eq!(
        body["spec"],
        json!({"resourceAttributes": {"verb": "create", "group": "", "resource": "pods", "subresource": "eviction"}})
    );
}

#[tokio::test]
async fn a_change_names_the_rules_only_if_they_forbid_it() {
    let refusal = |message: &str| {
        let body = json!({"kind": "Status", "status": "Failure", "code": 403, "message": message});
        ("PATCH", Answer::Is(403, "", body.to_string()))
    };
    let policy = "admission webhook \"validation.gatekeeper.sh\" denied the request: [cordons] not today";
    let restricted = "nodes \"a\" is forbidden: node \"b\" is not allowed to modify node \"a\"";
    let rules =
        "nodes \"a\" is forbidden: User \"knm\" cannot patch resource \"nodes\" in API group \"\" at the cluster scope";
    let server = Scripted::start([policy, restricted, rules].map(refusal)).await;
    let gateway = open(&server).await;
    for (words, feature) in [
        (policy, None),
        (restricted, None),
        (rules, Some(ClusterFeature::ChangeNodes)),
    ] {
        let refused = gateway.patch_node(&a(), &NodePatch::default(), false).await;
        let Err(ClusterError::Forbidden { action, message }) = refused else {
            panic!("{refused:?}");
        };
        assert_eq!(action.and_then(ClusterFeature::that_needs), feature, "{words}");
        assert!(message.contains(words), "{message}");
    }
}

#[tokio::test]
async fn an_eviction_that_rules_forbid_is_no_refusal_of_the_pod() {
    let refusal = |message: &str| {
        let body = json!({"kind": "Status", "status": "Failure", "code": 403, "message": message});
        Answer::Is(403, "", body.to_string())
    };
    let evict = "/pods/web%2D1/eviction";
    let server = Scripted::start([
        (
            evict,
            refusal("pods \"web-1\" is forbidden: User \"knm\" cannot create resource \"pods/eviction\" in API group \"\" in the namespace \"team\""),
        ),
        (evict, refusal("admission webhook \"guard\" denied the request: not today")),
        (
            "DELETE",
            refusal("pods \"web-1\" is forbidden: User \"knm\" cannot delete resource \"pods\" in API group \"\" in the namespace \"team\""),
        ),
    ])
    .await;
    let gateway = open(&server).await;
    let pod = PodRef {
        namespace: "team".to_owned(),
        name: "web-1".to_owned(),
        uid: "u".to_owned(),
    };
    let options = EvictOptions::default();
    let feature = |error: ClusterError| match error {
        ClusterError::Forbidden { action, .. } => action.and_then(ClusterFeature::that_needs),
        other => panic!("{other:?}"),
    };
    let forbidden = gateway.evict(&pod, &options).await.expect_err("it is forbidden");
    assert_eq!(feature(forbidden), Some(ClusterFeature::EvictPods));
    let refused = gateway.evict(&pod, &options).await.expect("an answer");
    assert!(
        matches!(&refused, Eviction::Refused { message } if message.contains("not today")),
        "{refused:?}"
    );
    let forbidden = gateway.delete_pod(&pod, &options).await.expect_err("it is forbidden");
    assert_eq!(feature(forbidden), Some(ClusterFeature::DeletePods));
}

use std::collections::HashSet;

use super::*;

fn words(feature: ClusterFeature) -> Vec<String> {
    feature.needs().iter().map(ToString::to_string).collect()
}

#[test]
fn each_feature_needs_what_its_requests_are_and_comes_with_a_role() {
    let read = "kube-node-manager-read";
    for (feature, needs, role) in [
        (
            ClusterFeature::ViewNodes,
            &["get nodes", "list nodes", "watch nodes"][..],
            read,
        ),
        (ClusterFeature::ViewPods, &["list pods"], read),
        (ClusterFeature::WatchPods, &["watch pods"], read),
        (ClusterFeature::ViewBudgets, &["list poddisruptionbudgets.policy"], read),
        (ClusterFeature::ViewDaemonSets, &["list daemonsets.apps"], read),
        (
            ClusterFeature::ChangeNodes,
            &["patch nodes"],
            "kube-node-manager-change-nodes",
        ),
        (
            ClusterFeature::EvictPods,
            &["create pods/eviction"],
            "kube-node-manager-evict-pods",
        ),
        (
            ClusterFeature::DeletePods,
            &["delete pods"],
            "kube-node-manager-delete-pods",
        ),
        (
            ClusterFeature::ReviewTokens,
            &["create tokenreviews.authentication.k8s.io"],
            "kube-node-manager-review-access",
        ),
        (
            ClusterFeature::ReviewAccess,
            &["create subjectaccessreviews.authorization.k8s.io"],
            "kube-node-manager-review-access",
        ),
    ] {
        assert_eq!(words(feature), needs, "{feature:?}");
        assert_eq!(feature.role(), role, "{feature:?}");
    }
}

#[test]
fn no_two_features_need_the_same_and_none_needs_nothing() {
    let (mut needs, mut names) = (HashSet::new(), HashSet::new());
    for feature in ClusterFeature::ALL {
        assert!(!feature.needs().is_empty(), "{feature:?}");
        assert!(feature.needs().iter().all(|need| needs.insert(*need)), "{feature:?}");
        assert!(names.insert(feature.as_str()), "{feature:?}");
    }
}

#[test]
fn a_refusal_names_what_is_missing_where_the_feature_and_the_role() {
    let cluster = ClusterName::parse("east").expect("a name");
    let feature = ClusterFeature::EvictPods;
    assert_eq!(
        feature.refusal(&cluster, feature.needs()),
        "the service may not create pods/eviction in cluster east, so it cannot drain nodes there: \
         bind the ClusterRole kube-node-manager-evict-pods to its account"
    );
    let feature = ClusterFeature::ViewNodes;
    let refusal = feature.refusal(&cluster, &feature.needs()[1..]);
    assert!(
        refusal.starts_with("the service may not list nodes, watch nodes in cluster east, so it sees"),
        "{refusal}"
    );
}

#[test]
fn the_configuration_decides_which_features_are_used() {
    let used = |used: ClusterUse| -> Vec<&str> {
        let all = ClusterFeature::ALL.into_iter();
        all.filter(|feature| feature.is_used(used))
            .map(ClusterFeature::as_str)
            .collect()
    };
    let always = [
        "view_nodes",
        "view_pods",
        "view_disruption_budgets",
        "view_daemon_sets",
        "change_nodes",
        "evict_pods",
        "delete_pods",
    ];
    assert_eq!(used(ClusterUse::default()), always);
    let everything = ClusterUse {
        watches_pods: true,
        reviews_tokens: true,
        reviews_access: true,
    };
    assert_eq!(used(everything).len(), ClusterFeature::ALL.len());
    for (one, name) in [
        (
            ClusterUse {
                watches_pods: true,
                ..ClusterUse::default()
            },
            "watch_pods",
        ),
        (
            ClusterUse {
                reviews_tokens: true,
                ..ClusterUse::default()
            },
            "review_tokens",
        ),
        (
            ClusterUse {
                reviews_access: true,
                ..ClusterUse::default()
            },
            "review_access",
        ),
    ] {
        let more: Vec<_> = used(one).into_iter().filter(|word| !always.contains(word)).collect();
        assert_eq!(more, [name]);
    }
}

#[test]
fn a_request_is_found_by_its_verb_and_resource() {
    for (verb, resource, expected) in [
        ("get", "nodes", Some(ClusterFeature::ViewNodes)),
        ("watch", "pods", Some(ClusterFeature::WatchPods)),
        ("list", "poddisruptionbudgets", Some(ClusterFeature::ViewBudgets)),
        ("create", "pods/eviction", Some(ClusterFeature::EvictPods)),
        ("create", "pods", None),
        ("get", "version", None),
        ("create", "selfsubjectaccessreviews", None),
    ] {
        let found = KubernetesAction::of_request(verb, resource);
        assert_eq!(
            found.and_then(ClusterFeature::that_needs),
            expected,
            "{verb} {resource}"
        );
        if let Some(need) = found {
            assert_eq!((need.verb, need.path().as_str()), (verb, resource));
        }
    }
}

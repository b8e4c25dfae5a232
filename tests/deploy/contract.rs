//! The numbers that users rely on, in what is rendered.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::manifests::{Manifests, NAMESPACE, OVERLAYS, components};

/// The overlays with their names.
fn overlays() -> Vec<(&'static str, Manifests)> {
    OVERLAYS
        .into_iter()
        .filter_map(|overlay| Some((overlay, Manifests::of(&format!("overlays/{overlay}"))?)))
        .collect()
}

#[test]
fn the_probes_the_grace_period_and_the_sleep_are_as_promised() {
    for (overlay, manifests) in overlays() {
        let container = manifests.container();
        let probe = |path: &str, delay: u32, period: u32, timeout: u32| {
            json!({"httpGet": {"path": path, "port": 8080}, "initialDelaySeconds": delay, "periodSeconds": period,
                "timeoutSeconds": timeout, "failureThreshold": 3})
        };
        assert_eq!(
            container["livenessProbe"],
            probe("/health/live", 30, 10, 5),
            "{overlay}"
        );
        assert_eq!(
            container["readinessProbe"],
            probe("/health/ready", 5, 5, 3),
            "{overlay}"
        );
        assert_eq!(
            container["lifecycle"],
            json!({"preStop": {"sleep": {"seconds": 5}}}),
            "{overlay}"
        );
        assert_eq!(manifests.pod()["terminationGracePeriodSeconds"], 60, "{overlay}");
    }
}

#[test]
fn the_resources_are_as_promised() {
    for (overlay, manifests) in overlays() {
        let expected = json!({
            "requests": {"cpu": "100m", "memory": "128Mi"},
            "limits": {"cpu": "500m", "memory": "512Mi"},
        });
        assert_eq!(manifests.container()["resources"], expected, "{overlay}");
    }
}

#[test]
fn the_service_is_found_by_prometheus_and_leads_to_the_port_of_the_pod() {
    for (overlay, manifests) in overlays() {
        let service = manifests.the("Service");
        let annotations = json!({
            "prometheus.io/scrape": "true", "prometheus.io/path": "/metrics", "prometheus.io/port": "8080"});
        assert_eq!(service["metadata"]["annotations"], annotations, "{overlay}");
        let spec = &service["spec"];
        assert_eq!(
            spec["ports"],
            json!([{"name": "http", "port": 80, "targetPort": 8080, "protocol": "TCP"}]),
            "{overlay}"
        );
        assert_eq!(
            (&spec["type"], &spec["sessionAffinity"]),
            (&json!("ClusterIP"), &json!("None")),
            "{overlay}"
        );
        let ports = json!([{"name": "http", "containerPort": 8080, "protocol": "TCP"}]);
        assert_eq!(manifests.container()["ports"], ports, "{overlay}");
        let labels = &manifests.the("Deployment")["spec"]["template"]["metadata"]["labels"];
        assert!(
            selects(&spec["selector"], labels),
            "{overlay}: the service finds no pod"
        );
    }
}

#[test]
fn replicas_are_replaced_a_quarter_at_a_time_but_for_sqlite_which_has_one() {
    for (overlay, manifests) in overlays() {
        let spec = &manifests.the("Deployment")["spec"];
        let rolling = json!({"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "25%", "maxSurge": "25%"}});
        let (strategy, replicas) = match overlay {
            "sqlite" => (json!({"type": "Recreate"}), json!(1)),
            // How many there are is up to the autoscaler.
            _ => (rolling, Value::Null),
        };
        assert_eq!(
            (&spec["strategy"], &spec["replicas"]),
            (&strategy, &replicas),
            "{overlay}"
        );
    }
}

#[test]
fn postgres_has_two_to_ten_replicas_and_sqlite_no_autoscaler() {
    for (overlay, manifests) in overlays() {
        let autoscalers = manifests.all("HorizontalPodAutoscaler");
        if overlay == "sqlite" {
            assert!(autoscalers.is_empty(), "a file has one writer");
            continue;
        }
        let spec = &autoscalers[0]["spec"];
        let target = |name: &str, percent: u32| {
            json!({"type": "Resource", "resource": {"name": name,
                "target": {"type": "Utilization", "averageUtilization": percent}}})
        };
        assert_eq!((&spec["minReplicas"], &spec["maxReplicas"]), (&json!(2), &json!(10)));
        assert_eq!(spec["metrics"], json!([target("cpu", 70), target("memory", 80)]));
        assert_eq!(
            spec["scaleTargetRef"],
            json!({"apiVersion": "apps/v1", "kind": "Deployment",
                "name": manifests.the("Deployment")["metadata"]["name"]})
        );
    }
}

#[test]
fn the_pools_of_all_replicas_even_in_an_update_fit_what_postgresql_allows_by_default() {
    let Some(manifests) = Manifests::of("overlays/postgres") else {
        return;
    };
    let most = manifests.the("HorizontalPodAutoscaler")["spec"]["maxReplicas"]
        .as_u64()
        .unwrap();
    let surge = &manifests.the("Deployment")["spec"]["strategy"]["rollingUpdate"]["maxSurge"];
    let percent: u64 = surge.as_str().unwrap().strip_suffix('%').unwrap().parse().unwrap();
    let replicas = most + (most * percent).div_ceil(100);
    let pool = &variable(&manifests, "KNM__DATABASE__MAX_OPEN_CONNS")["value"];
    let pool: u64 = pool.as_str().unwrap().parse().unwrap();
    // One beside the pool hears of the other replicas, and three of a hundred are reserved.
    assert!(
        replicas * (pool + 1) <= 97,
        "{replicas} replicas with {pool} connections and one more"
    );
}

#[test]
fn every_object_has_the_label_that_the_runbooks_look_for() {
    for overlay in OVERLAYS {
        for component in components() {
            let Some(manifests) = Manifests::with(overlay, &component) else {
                return;
            };
            for object in &manifests.0 {
                let label = &object["metadata"]["labels"]["app.kubernetes.io/name"];
                assert_eq!(label, "kube-node-manager", "{overlay} with {component}: {object}");
            }
        }
    }
}

#[test]
fn the_ingress_leads_to_the_api_and_its_documentation_and_not_to_metrics_or_health() {
    let Some(manifests) = Manifests::with("postgres", "ingress") else {
        return;
    };
    let rule = &manifests.the("Ingress")["spec"]["rules"][0];
    let leads = |path: &str| {
        rule["http"]["paths"].as_array().unwrap().iter().any(|one| {
            let rest = path.strip_prefix(one["path"].as_str().unwrap());
            match one["pathType"].as_str().unwrap() {
                "Exact" => rest == Some(""),
                "Prefix" => rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/')),
                other => panic!("{path}: {other} means what the controller likes"),
            }
        })
    };
    let document = Path::new(env!("CARGO_MANIFEST_DIR")).join("openapi/kube-node-manager.yaml");
    let document: Value = serde_yaml::from_str(&fs::read_to_string(document).unwrap()).unwrap();
    for path in document["paths"].as_object().unwrap().keys() {
        let is_for_callers = ["/api/", "/docs", "/openapi."]
            .iter()
            .any(|start| path.starts_with(start));
        assert_eq!(leads(path), is_for_callers, "{path}");
    }
    assert!(!leads("/"), "it leads to everything");
}

#[test]
fn the_service_monitor_reads_the_port_by_its_name_every_half_minute() {
    for overlay in OVERLAYS {
        let Some(manifests) = Manifests::with(overlay, "service-monitor") else {
            return;
        };
        let monitor = manifests.the("ServiceMonitor");
        assert_eq!(monitor["apiVersion"], "monitoring.coreos.com/v1");
        assert_eq!(
            monitor["spec"]["endpoints"],
            json!([{"port": "http", "path": "/metrics", "interval": "30s"}])
        );
        let labels = &manifests.the("Service")["metadata"]["labels"];
        assert!(
            selects(&monitor["spec"]["selector"]["matchLabels"], labels),
            "it finds no service"
        );
    }
}

#[test]
fn the_pod_keeps_to_the_restricted_standard_which_the_namespace_asks_for() {
    for overlay in OVERLAYS {
        for component in components() {
            let Some(manifests) = Manifests::with(overlay, &component) else {
                return;
            };
            restricted(&manifests, &format!("{overlay} with {component}"));
        }
    }
}

#[test]
fn a_replica_is_told_who_it_is() {
    for (overlay, manifests) in overlays() {
        let expected = [
            ("POD_NAME", "metadata.name"),
            ("POD_NAMESPACE", "metadata.namespace"),
            ("INSTANCE_ID", "metadata.name"),
        ];
        for (name, path) in expected {
            let value = variable(&manifests, name);
            assert_eq!(value["valueFrom"]["fieldRef"]["fieldPath"], path, "{overlay}: {name}");
        }
    }
}

#[test]
fn secrets_are_only_referred_to() {
    for overlay in OVERLAYS {
        for component in components() {
            let Some(manifests) = Manifests::with(overlay, &component) else {
                return;
            };
            let rendered = format!("{overlay} with {component}");
            assert!(manifests.all("Secret").is_empty(), "{rendered}");
            let text = serde_json::to_string(&manifests.0).unwrap();
            for secret in ["postgres://", "knm_", "password\":"] {
                assert!(!text.contains(secret), "{rendered} has {secret}");
            }
        }
    }
    let Some(manifests) = Manifests::of("overlays/postgres") else {
        return;
    };
    let url = &variable(&manifests, "DATABASE_URL")["valueFrom"]["secretKeyRef"];
    assert_eq!(url, &json!({"name": "kube-node-manager-database", "key": "url"}));
}

#[test]
fn the_image_is_named_once_and_its_tag_is_the_version() {
    for (overlay, manifests) in overlays() {
        let expected = format!("kube-node-manager:{}", env!("CARGO_PKG_VERSION"));
        assert_eq!(manifests.container()["image"], expected, "{overlay}");
    }
    let image =
        json!({"images": [{"name": "kube-node-manager", "newName": "registry.example.com/knm", "newTag": "9"}]});
    let Some(manifests) = Manifests::changed("postgres", &image) else {
        return;
    };
    assert_eq!(manifests.container()["image"], "registry.example.com/knm:9");
}

#[test]
fn what_may_be_evicted_is_bound_so_that_a_single_replica_and_those_that_are_not_ready_can_go() {
    for overlay in OVERLAYS {
        let Some(manifests) = Manifests::with(overlay, "network-policy") else {
            return;
        };
        let labels = &manifests.the("Deployment")["spec"]["template"]["metadata"]["labels"];
        let policy = &manifests.the("NetworkPolicy")["spec"];
        assert!(
            selects(&policy["podSelector"]["matchLabels"], labels),
            "it covers no pod"
        );
        assert_eq!(
            policy["ingress"],
            json!([{"ports": [{"port": 8080, "protocol": "TCP"}]}])
        );
        for budget in manifests.all("PodDisruptionBudget") {
            assert_eq!(budget["spec"]["maxUnavailable"], 1);
            // An outage of the database makes every replica unready: with the usual policy nobody could drain their nodes then.
            assert_eq!(budget["spec"]["unhealthyPodEvictionPolicy"], "AlwaysAllow");
            assert!(
                selects(&budget["spec"]["selector"]["matchLabels"], labels),
                "it covers no pod"
            );
        }
    }
}

/// The variable of this name in the environment of the container.
pub fn variable<'a>(manifests: &'a Manifests, name: &str) -> &'a Value {
    let variables = manifests.container()["env"].as_array().unwrap();
    let named: Vec<&Value> = variables.iter().filter(|one| one["name"] == name).collect();
    assert_eq!(named.len(), 1, "{name}: {variables:?}");
    named[0]
}

fn selects(selector: &Value, labels: &Value) -> bool {
    let selector = selector.as_object().unwrap();
    !selector.is_empty() && selector.iter().all(|(key, value)| labels[key] == *value)
}

/// Fails if the pod would be refused in a namespace of the restricted standard, or may do more than it needs.
fn restricted(manifests: &Manifests, rendered: &str) {
    let namespace = manifests.the("Namespace");
    assert_eq!(namespace["metadata"]["name"], NAMESPACE, "{rendered}");
    assert_eq!(
        namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"], "restricted",
        "{rendered}"
    );
    let pod = manifests.pod();
    assert_eq!(pod["securityContext"]["runAsNonRoot"], true, "{rendered}");
    assert_eq!(
        pod["securityContext"]["seccompProfile"],
        json!({"type": "RuntimeDefault"}),
        "{rendered}"
    );
    for field in ["hostNetwork", "hostPID", "hostIPC", "initContainers"] {
        assert_eq!(pod[field], Value::Null, "{rendered}: {field}");
    }
    for volume in pod["volumes"].as_array().unwrap() {
        let kinds: Vec<&String> = volume
            .as_object()
            .unwrap()
            .keys()
            .filter(|key| *key != "name")
            .collect();
        let allowed = ["configMap", "secret", "persistentVolumeClaim"];
        assert!(
            kinds.len() == 1 && allowed.contains(&kinds[0].as_str()),
            "{rendered}: {volume}"
        );
    }
    assert_eq!(
        manifests.container()["securityContext"],
        json!({"allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "capabilities": {"drop": ["ALL"]}}),
        "{rendered}"
    );
}

//! Plays kubelets, controllers and administrators at a real API server.

use async_trait::async_trait;
use http::Method;
use knm_contract::cluster::ClusterDriver;
use knm_model::{
    ClusterFeature, DisruptionBudget, KubernetesAction, Node, NodeName, NodeTerm, ObjectName, Operator, Pod, PodPhase,
    Requirement, Resources, Toleration, TolerationOperator, UnhealthyPods,
};
use knm_test_support::api_server::ApiServer;
use serde_json::{Map, Value, json};
use tokio::sync::Mutex;

use crate::proxy::Proxy;

/// The service account of the gateway.
pub const SERVICE: &str = "service";

pub struct ApiDriver {
    server: ApiServer,
    proxy: Proxy,
    withheld: Mutex<Vec<ClusterFeature>>,
}

/// The rules of a ClusterRole for all features but some.
pub fn rules(withheld: &[ClusterFeature]) -> Vec<Value> {
    let granted = ClusterFeature::ALL
        .into_iter()
        .filter(|feature| !withheld.contains(feature));
    granted.flat_map(ClusterFeature::needs).map(rule_of).collect()
}

/// A rule of a ClusterRole that allows this.
pub fn rule_of(action: &KubernetesAction) -> Value {
    json!({"apiGroups": [action.group], "resources": [action.path()], "verbs": [action.verb]})
}

impl ApiDriver {
    pub fn new(server: ApiServer, proxy: Proxy) -> Self {
        Self {
            server,
            proxy,
            withheld: Mutex::default(),
        }
    }

    async fn must(&self, method: Method, path: &str, body: Option<&Value>) -> Value {
        let (status, answer) = self.server.request(method, path, body).await;
        assert!((200..300).contains(&status), "{path}: {status} {answer}");
        answer
    }

    async fn namespace(&self, name: &str) {
        let body = json!({"metadata": {"name": name}});
        let (status, answer) = self
            .server
            .request(Method::POST, "/api/v1/namespaces", Some(&body))
            .await;
        assert!([201, 409].contains(&status), "{status} {answer}");
    }

    /// Adds a pod, or changes the labels of the one under its name.
    async fn create_pod(&self, pod: &Pod, node: Option<&str>) {
        self.namespace(&pod.namespace).await;
        let owners: Vec<Value> = pod
            .controller
            .iter()
            .map(|owner| {
                json!({"apiVersion": owner.api_version, "kind": owner.kind, "name": owner.name, "uid": "11111111-2222-3333-4444-555555555555",
                    "controller": true})
            })
            .collect();
        let requests = json!({
            "cpu": format!("{}m", pod.requests.cpu_millicores),
            "memory": pod.requests.memory_bytes.to_string(),
            "ephemeral-storage": pod.requests.ephemeral_storage_bytes.to_string(),
        });
        let mut spec = json!({
            "nodeName": node, "nodeSelector": pod.node_selector, "priorityClassName": pod.priority_class,
            "tolerations": pod.tolerations.iter().map(toleration).collect::<Vec<_>>(),
            "containers": [{"name": "main", "image": "example.com/main", "resources": {"requests": requests}}]});
        if let Some(terms) = &pod.node_terms {
            let terms: Vec<Value> = terms.iter().map(term).collect();
            spec["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"] =
                json!({"nodeSelectorTerms": terms});
        }
        if pod.has_empty_dir {
            spec["volumes"] = json!([{"name": "scratch", "emptyDir": {}}]);
        }
        let mut body =
            json!({"metadata": {"name": pod.name, "labels": pod.labels, "ownerReferences": owners}, "spec": spec});
        if pod.is_mirror {
            body["metadata"]["annotations"] = json!({"kubernetes.io/config.mirror": "1"});
        }
        let path = pods(&pod.namespace);
        let (status, answer) = self.server.request(Method::POST, &path, Some(&body)).await;
        if status == 409 {
            let labels = json!({"metadata": {"labels": pod.labels}});
            self.must(Method::PATCH, &format!("{path}/{}", pod.name), Some(&labels))
                .await;
        } else {
            assert_eq!(status, 201, "{answer}");
        }
    }
}

#[async_trait]
impl ClusterDriver for ApiDriver {
    async fn put_node(&self, node: Node) {
        let path = format!("/api/v1/nodes/{}", node.name);
        let taints: Vec<Value> = node
            .taints
            .iter()
            .map(|taint| json!({"key": taint.key, "value": taint.value, "effect": taint.effect.as_str()}))
            .collect();
        let (status, mut object) = self.server.request(Method::GET, &path, None).await;
        if status == 404 {
            object = json!({"metadata": {"name": node.name.as_str()}, "spec": {}});
        }
        object["metadata"]["labels"] = json!(node.labels);
        object["spec"]["taints"] = json!(taints);
        object["spec"]["unschedulable"] = json!(!node.schedulable);
        if status == 404 {
            self.must(Method::POST, "/api/v1/nodes", Some(&object)).await;
        } else {
            self.must(Method::PUT, &path, Some(&object)).await;
        }
        let conditions: Vec<Value> = node
            .conditions
            .iter()
            .map(|one| json!({"type": one.kind, "status": one.status, "reason": one.reason, "message": one.message}))
            .collect();
        let status = json!({"status": {
            "conditions": conditions, "capacity": amounts(&node.capacity), "allocatable": amounts(&node.allocatable)}});
        self.must(Method::PATCH, &format!("{path}/status"), Some(&status)).await;
    }

    async fn delete_node(&self, name: &NodeName) {
        self.must(Method::DELETE, &format!("/api/v1/nodes/{name}"), None).await;
    }

    async fn put_pod(&self, pod: Pod) {
        self.create_pod(&pod, Some(pod.node.as_str())).await;
        if pod.phase != PodPhase::Pending {
            let phase = match pod.phase {
                PodPhase::Pending => "Pending",
                PodPhase::Running => "Running",
                PodPhase::Succeeded => "Succeeded",
                PodPhase::Failed => "Failed",
                PodPhase::Unknown => "Unknown",
            };
            let ready = if pod.ready { "True" } else { "False" };
            let status = json!({"status": {"phase": phase, "conditions": [{"type": "Ready", "status": ready}]}});
            self.must(
                Method::PATCH,
                &format!("{}/{}/status", pods(&pod.namespace), pod.name),
                Some(&status),
            )
            .await;
        }
    }

    async fn put_unscheduled_pod(&self, pod: Pod) {
        self.create_pod(&pod, None).await;
    }

    async fn bind_pod(&self, pod: Pod) {
        let target = json!({"apiVersion": "v1", "kind": "Node", "name": pod.node.as_str()});
        let body = json!({"metadata": {"name": pod.name}, "target": target});
        let path = format!("{}/{}/binding", pods(&pod.namespace), pod.name);
        self.must(Method::POST, &path, Some(&body)).await;
    }

    async fn remove_pod(&self, namespace: &str, name: &str) {
        let path = format!("{}/{name}?gracePeriodSeconds=0", pods(namespace));
        self.must(Method::DELETE, &path, None).await;
    }

    async fn put_budget(&self, budget: DisruptionBudget) {
        self.namespace(&budget.namespace).await;
        let mut spec = Map::from_iter([("minAvailable".to_owned(), json!(2))]);
        if budget.unhealthy_pods == UnhealthyPods::AlwaysAllow {
            spec.insert("unhealthyPodEvictionPolicy".to_owned(), json!("AlwaysAllow"));
        }
        if let Some(selector) = &budget.selector {
            let expressions: Vec<Value> = selector.requirements().iter().map(expression).collect();
            spec.insert("selector".to_owned(), json!({"matchExpressions": expressions}));
        }
        let body = json!({"metadata": {"name": budget.name}, "spec": spec});
        let at = |version: &str| {
            format!(
                "/apis/policy/{version}/namespaces/{}/poddisruptionbudgets",
                budget.namespace
            )
        };
        let mut path = at("v1");
        let (status, answer) = self.server.request(Method::POST, &path, Some(&body)).await;
        if status == 404 {
            path = at("v1beta1");
            self.must(Method::POST, &path, Some(&body)).await;
        } else {
            assert_eq!(status, 201, "{answer}");
        }
        let status = json!({"status": {"observedGeneration": 1,
            "disruptionsAllowed": budget.disruptions_allowed, "currentHealthy": budget.current_healthy,
            "desiredHealthy": budget.desired_healthy, "expectedPods": budget.expected_pods}});
        self.must(Method::PATCH, &format!("{path}/{}/status", budget.name), Some(&status))
            .await;
    }

    async fn put_daemon_set(&self, name: ObjectName) {
        self.namespace(&name.namespace).await;
        let labels = json!({"app": name.name});
        let body = json!({"metadata": {"name": name.name}, "spec": {"selector": {"matchLabels": labels}, "template": {
            "metadata": {"labels": labels}, "spec": {"containers": [{"name": "main", "image": "example.com/main"}]}}}});
        let path = format!("/apis/apps/v1/namespaces/{}/daemonsets", name.namespace);
        self.must(Method::POST, &path, Some(&body)).await;
    }

    async fn attach_volume(&self, node: &NodeName, volume: &str) {
        let status = json!({"status": {"volumesAttached": [{"name": volume, "devicePath": ""}]}});
        self.must(Method::PATCH, &format!("/api/v1/nodes/{node}/status"), Some(&status))
            .await;
    }

    async fn withhold(&self, feature: ClusterFeature) {
        let mut withheld = self.withheld.lock().await;
        withheld.push(feature);
        self.server.change_rules(SERVICE, &rules(&withheld)).await;
    }

    async fn lose(&self) {
        self.proxy.cut().await;
    }

    async fn recover(&self) {
        self.proxy.mend().await;
    }
}

fn pods(namespace: &str) -> String {
    format!("/api/v1/namespaces/{namespace}/pods")
}

fn amounts(resources: &Resources) -> Value {
    json!({
        "cpu": format!("{}m", resources.cpu_millicores),
        "memory": resources.memory_bytes.to_string(),
        "ephemeral-storage": resources.ephemeral_storage_bytes.to_string(),
        "pods": resources.pods.to_string(),
    })
}

fn term(term: &NodeTerm) -> Value {
    let all = |requirements: &[Requirement]| requirements.iter().map(expression).collect::<Vec<_>>();
    json!({"matchExpressions": all(&term.labels), "matchFields": all(&term.fields)})
}

fn toleration(toleration: &Toleration) -> Value {
    let (operator, value) = match &toleration.operator {
        TolerationOperator::Exists => ("Exists", None),
        TolerationOperator::Equal(value) => ("Equal", Some(value)),
    };
    let effect = toleration.effect.map(|effect| effect.as_str());
    json!({"key": toleration.key, "operator": operator, "value": value, "effect": effect})
}

fn expression(requirement: &Requirement) -> Value {
    let (operator, values) = match &requirement.operator {
        Operator::In(values) => ("In", json!(values)),
        Operator::NotIn(values) => ("NotIn", json!(values)),
        Operator::Exists => ("Exists", Value::Null),
        Operator::DoesNotExist => ("DoesNotExist", Value::Null),
        Operator::GreaterThan(limit) => ("Gt", json!([limit.to_string()])),
        Operator::LessThan(limit) => ("Lt", json!([limit.to_string()])),
    };
    json!({"key": requirement.key, "operator": operator, "values": values})
}

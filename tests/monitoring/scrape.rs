//! The scrape configuration that the README shows, for a Prometheus that finds Services by their annotations.

use knm_test_support::prometheus::promtool;
use serde_json::{Map, Value, json};

use crate::{read, read_yaml};

const META: &str = "__meta_kubernetes_";

#[test]
fn the_scrape_configuration_of_the_readme_takes_the_job_and_the_namespace_from_the_service() {
    let readme = read("README.md");
    let (_, block) = readme.split_once("```yaml\n# prometheus.yml\n").expect("it is shown");
    let (block, _) = block.split_once("```").expect("it ends");
    let mut configuration: Value = serde_yaml::from_str(block).unwrap();
    let job = configuration["scrape_configs"][0].as_object_mut().unwrap();
    let name = job["job_name"].as_str().unwrap().to_owned();
    let discovery = job.remove("kubernetes_sd_configs");
    assert_eq!(discovery, Some(json!([{"role": "endpoints"}])));
    let service = read_yaml("deploy/kubernetes/base/service.yaml");
    let annotated = meta_labels(service["metadata"]["annotations"].as_object().unwrap());
    let plain = meta_labels(&Map::new());
    // As Kubernetes finds them: by the port of the endpoint, which need not be that of the metrics.
    let found = json!([
        {"targets": ["10.0.0.1:9999", "[fd00::1]:8080"], "labels": annotated},
        {"targets": ["10.0.0.2:8080"], "labels": plain},
    ]);
    job.insert("static_configs".to_owned(), found);
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("prometheus.yml"), configuration.to_string()).unwrap();
    let arguments = ["check", "service-discovery", "--timeout=2s", "prometheus.yml", &name];
    let Some(output) = promtool(folder.path(), &arguments) else {
        return;
    };
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{output:?}");
    let targets: Value = serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}: {said}"));
    let labels = targets.as_array().unwrap().iter().map(|one| &one["labels"]);
    let kept: Vec<&Value> = labels.filter(|labels| labels["job"].is_string()).collect();
    let mut addresses: Vec<&str> = kept
        .iter()
        .map(|labels| labels["__address__"].as_str().unwrap())
        .collect();
    addresses.sort_unstable();
    assert_eq!(addresses, ["10.0.0.1:8080", "[fd00::1]:8080"]);
    for labels in kept {
        let told = ["job", "namespace", "__metrics_path__"].map(|name| labels[name].as_str().unwrap());
        assert_eq!(told, ["kube-node-manager-west", "nodes-west", "/metrics"]);
    }
}

/// What Prometheus is told of a Service with these annotations.
fn meta_labels(annotations: &Map<String, Value>) -> Value {
    let mut labels = Map::new();
    for (name, value) in annotations {
        let name = name.replace(|one: char| !one.is_ascii_alphanumeric(), "_");
        labels.insert(format!("{META}service_annotation_{name}"), value.clone());
    }
    labels.insert(format!("{META}namespace"), json!("nodes-west"));
    labels.insert(format!("{META}service_name"), json!("kube-node-manager-west"));
    Value::Object(labels)
}

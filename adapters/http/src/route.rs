//! Which paths there are: for metrics, logs, `Allow` and the answers to unknown ones.

/// What paths with an operation that reads understand.
const READ: &str = "GET, HEAD, OPTIONS";
/// Every method that some path understands.
const ANY: &str = "DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT";
/// The label of requests to paths that there are not.
pub(crate) const UNMATCHED: &str = "unmatched";

/// The template of `path` as the document writes it, `None` if there is no such path. There are few templates, so they are safe as labels.
pub(crate) fn template(path: &str) -> Option<&'static str> {
    let mut segments = [""; 8];
    let mut count = 0;
    for segment in path.strip_prefix('/')?.split('/') {
        *segments.get_mut(count)? = segment;
        count += 1;
    }
    Some(match &segments[..count] {
        ["health"] | ["health", ""] => "/health",
        ["health", "live"] => "/health/live",
        ["health", "ready"] => "/health/ready",
        ["health", "detailed"] => "/health/detailed",
        ["livez"] => "/livez",
        ["livez", check] if !check.is_empty() => "/livez/{check}",
        ["readyz"] => "/readyz",
        ["readyz", check] if !check.is_empty() => "/readyz/{check}",
        ["metrics"] => "/metrics",
        ["openapi.json"] => "/openapi.json",
        ["openapi.yaml"] => "/openapi.yaml",
        ["docs"] => "/docs",
        ["api", "v1", "clusters"] => "/api/v1/clusters",
        ["api", "v1", "nodes"] => "/api/v1/nodes",
        ["api", "v1", "operations"] => "/api/v1/operations",
        ["api", "v1", "operations", id, rest @ ..] if !id.is_empty() => match rest {
            [] => "/api/v1/operations/{id}",
            ["events"] => "/api/v1/operations/{id}/events",
            ["cancel"] => "/api/v1/operations/{id}/cancel",
            ["pause"] => "/api/v1/operations/{id}/pause",
            ["resume"] => "/api/v1/operations/{id}/resume",
            ["retry"] => "/api/v1/operations/{id}/retry",
            _ => return None,
        },
        ["api", "v1", "templates"] => "/api/v1/templates",
        ["api", "v1", "templates", name, rest @ ..] if !name.is_empty() => match rest {
            [] => "/api/v1/templates/{template}",
            ["versions"] => "/api/v1/templates/{template}/versions",
            ["preview"] => "/api/v1/templates/{template}/preview",
            _ => return None,
        },
        ["api", "v1", "bindings"] => "/api/v1/bindings",
        ["api", "v1", "bindings", name, rest @ ..] if !name.is_empty() => match rest {
            [] => "/api/v1/bindings/{binding}",
            ["versions"] => "/api/v1/bindings/{binding}/versions",
            ["drift"] => "/api/v1/bindings/{binding}/drift",
            _ => return None,
        },
        ["api", "v1", "tokens"] => "/api/v1/tokens",
        ["api", "v1", "tokens", id] if !id.is_empty() => "/api/v1/tokens/{id}",
        ["api", "v1", "audit"] => "/api/v1/audit",
        ["api", "v1", "audit", id] if !id.is_empty() => "/api/v1/audit/{id}",
        ["api", "v1", "clusters", cluster, rest @ ..] if !cluster.is_empty() => match rest {
            [] => "/api/v1/clusters/{cluster}",
            ["summary"] => "/api/v1/clusters/{cluster}/summary",
            ["operations"] => "/api/v1/clusters/{cluster}/operations",
            ["watch"] => "/api/v1/clusters/{cluster}/watch",
            ["nodes"] => "/api/v1/clusters/{cluster}/nodes",
            ["nodes", node] if !node.is_empty() => "/api/v1/clusters/{cluster}/nodes/{node}",
            ["nodes", node, part @ ..] if !node.is_empty() => match part {
                ["pods"] => "/api/v1/clusters/{cluster}/nodes/{node}/pods",
                ["history"] => "/api/v1/clusters/{cluster}/nodes/{node}/history",
                ["labels"] => "/api/v1/clusters/{cluster}/nodes/{node}/labels",
                ["taints"] => "/api/v1/clusters/{cluster}/nodes/{node}/taints",
                ["cordon"] => "/api/v1/clusters/{cluster}/nodes/{node}/cordon",
                ["drain"] => "/api/v1/clusters/{cluster}/nodes/{node}/drain",
                ["drain", "plan"] => "/api/v1/clusters/{cluster}/nodes/{node}/drain/plan",
                ["uncordon"] => "/api/v1/clusters/{cluster}/nodes/{node}/uncordon",
                _ => return None,
            },
            _ => return None,
        },
        _ => return None,
    })
}

/// The methods that it understands, as `Allow` tells them.
pub(crate) fn allowed(template: &str) -> &'static str {
    match template.rsplit('/').next() {
        Some("labels" | "taints") => "OPTIONS, PATCH",
        Some("cordon" | "uncordon" | "plan" | "drain" | "cancel" | "pause" | "resume" | "retry" | "preview") => {
            "OPTIONS, POST"
        }
        Some("{template}" | "{binding}") => "DELETE, GET, HEAD, OPTIONS, PUT",
        Some("templates" | "bindings" | "tokens") => "GET, HEAD, OPTIONS, POST",
        _ if template == "/api/v1/clusters/{cluster}/operations" => "OPTIONS, POST",
        _ if template == "/api/v1/tokens/{id}" => "DELETE, OPTIONS",
        _ if template == "/api/v1/operations" => "GET, HEAD, OPTIONS, POST",
        _ if template == UNMATCHED => ANY,
        _ => READ,
    }
}

/// Whether it understands the method.
pub(crate) fn allows(template: &str, method: &str) -> bool {
    allowed(template).split(", ").any(|known| known == method)
}

/// Whether requests to it come from machines that ask all the time, so that they are logged at debug only.
pub(crate) fn is_routine(template: &str) -> bool {
    template.starts_with("/health")
        || template.starts_with("/livez")
        || template.starts_with("/readyz")
        || template == "/metrics"
}

/// Whether a query parameter that it does not know is refused. Probes and scrapes may carry what their senders like.
pub(crate) fn is_strict(template: &str) -> bool {
    template.starts_with("/api/")
}

/// Whether answers to it end only when the caller leaves.
pub(crate) fn is_stream(template: &str) -> bool {
    template.ends_with("/watch") || template.ends_with("/events")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_have_the_template_that_the_document_has() {
        let document: serde_json::Value = serde_json::from_str(&crate::openapi_json()).unwrap();
        for path in document["paths"].as_object().unwrap().keys() {
            let filled = path
                .replace("{cluster}", "c")
                .replace("{node}", "n")
                .replace("{id}", "7")
                .replace("{template}", "t")
                .replace("{binding}", "b")
                .replace("{check}", "ping");
            assert_eq!(template(&filled), Some(path.as_str()));
        }
    }

    #[test]
    fn paths_allow_the_methods_that_the_document_has() {
        let document: serde_json::Value = serde_json::from_str(&crate::openapi_json()).unwrap();
        for (path, operations) in document["paths"].as_object().unwrap() {
            let mut methods: Vec<String> = operations.as_object().unwrap().keys().cloned().collect();
            if methods.iter().any(|method| method == "get") {
                methods.push("head".to_owned());
            }
            methods.push("options".to_owned());
            methods.sort();
            assert_eq!(allowed(path).to_lowercase(), methods.join(", "), "{path}");
        }
        assert!(allows("/docs", "GET") && !allows("/docs", "G") && !allows("/docs", "POST"));
    }

    #[test]
    fn unknown_paths_have_none() {
        for path in [
            "",
            "/",
            "/healthy",
            "/health//",
            "/livez/",
            "/api",
            "/api/v1",
            "/api/v1/clusters/",
            "/api/v1/clusters/a/b",
            "*",
            "/api/v1/clusters/a/nodes/",
            "/api/v1/clusters/a/nodes/b/pods/c",
            "/api/v1/clusters//nodes",
            "/api/v1/clusters/a/nodes/b/drains",
            "/api/v1/audit/",
            "/api/v1/operations/",
            "/api/v1/operations/1/explode",
            "/api/v1/audit/1/2",
            "/api/v1/templates/",
            "/api/v1/templates/a/b",
            "/api/v1/bindings//drift",
            "/a/b/c/d/e/f/g/h/i",
        ] {
            assert_eq!(template(path), None, "{path}");
        }
    }

    #[test]
    fn probes_and_scrapes_are_routine() {
        assert!(["/health", "/livez/{check}", "/metrics"].into_iter().all(is_routine));
        assert!(!is_routine("/api/v1/nodes"));
    }
}

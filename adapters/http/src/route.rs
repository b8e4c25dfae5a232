//! Which paths there are: for metrics, logs, `Allow` and the answers to unknown ones.

/// What every operation understands; all of them read.
pub(crate) const ALLOWED: &str = "GET, HEAD, OPTIONS";
/// The label of requests to paths that there are not.
pub(crate) const UNMATCHED: &str = "unmatched";

/// The template of `path` as the document writes it, `None` if there is no such path. There are few templates, so they are safe as labels.
pub(crate) fn template(path: &str) -> Option<&'static str> {
    let mut segments = [""; 7];
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
        ["api", "v1", "audit"] => "/api/v1/audit",
        ["api", "v1", "audit", id] if !id.is_empty() => "/api/v1/audit/{id}",
        ["api", "v1", "clusters", cluster, rest @ ..] if !cluster.is_empty() => match rest {
            [] => "/api/v1/clusters/{cluster}",
            ["summary"] => "/api/v1/clusters/{cluster}/summary",
            ["watch"] => "/api/v1/clusters/{cluster}/watch",
            ["nodes"] => "/api/v1/clusters/{cluster}/nodes",
            ["nodes", node] if !node.is_empty() => "/api/v1/clusters/{cluster}/nodes/{node}",
            ["nodes", node, "pods"] if !node.is_empty() => "/api/v1/clusters/{cluster}/nodes/{node}/pods",
            ["nodes", node, "history"] if !node.is_empty() => "/api/v1/clusters/{cluster}/nodes/{node}/history",
            _ => return None,
        },
        _ => return None,
    })
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
    template.ends_with("/watch")
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
                .replace("{check}", "ping");
            assert_eq!(template(&filled), Some(path.as_str()));
        }
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
            "/api/v1/audit/",
            "/api/v1/audit/1/2",
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

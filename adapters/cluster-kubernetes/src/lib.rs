//! Clusters through the Kubernetes API.

//! A real Kubernetes API server, from `KUBEBUILDER_ASSETS`.

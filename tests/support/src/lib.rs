//! Real PostgreSQL, Kubernetes API and Prometheus servers for tests, and the built binary as a black box.

pub mod api_server;
pub mod balancer;
pub mod cluster;
pub mod collector;
pub mod issuer;
pub mod kubelet;
pub mod patience;
pub mod postgres;
pub mod prometheus;
pub mod proxy;
pub mod rollout;
pub mod service;
mod skip;
pub mod tls;
pub mod wire;

pub use skip::skip;

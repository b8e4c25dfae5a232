//! The manifests of `deploy/kubernetes`, as kubectl renders them.

#![cfg(test)]

mod contract;
mod dry_run;
mod maintenance;
mod manifests;
mod memory;
mod readme;
mod requests;
mod roles;
mod schema;
mod second;
mod strict;

//! One contract suite per family of ports, run by every adapter.

pub mod cluster;
pub mod storage;
pub mod transfer;

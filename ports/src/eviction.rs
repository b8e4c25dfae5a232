//! Evictions of pods.

use std::time::Duration;

/// One pod, and no other under its name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PodRef {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The cluster's own id of it.
    pub uid: String,
}

/// How a pod is evicted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EvictOptions {
    /// How many seconds it gets to end; `None`: its own.
    pub grace_period_seconds: Option<u32>,
    /// Nothing happens, the cluster only says whether it would. It does not use up any room in a budget.
    pub dry_run: bool,
}

/// What a cluster says to an eviction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Eviction {
    /// The pod is on its way out.
    Accepted,
    /// There is no pod under this name.
    Gone,
    /// The pod under this name is another one.
    Replaced,
    /// A budget has no room for it now.
    Blocked {
        /// The budget's name, if it was told.
        budget: Option<String>,
        /// The cluster's own words.
        message: String,
        /// When it may be tried again, if that was told.
        retry_after: Option<Duration>,
    },
    /// The cluster is busy.
    Busy {
        /// When it may be tried again, if that was told.
        retry_after: Option<Duration>,
    },
    /// Several budgets match the pod. The cluster evicts no such pod, however often it is asked.
    SeveralBudgets {
        /// The cluster's own words.
        message: String,
    },
    /// The pod's whole namespace is going away.
    NamespaceTerminating,
    /// It may work a little later without anybody doing anything.
    Passing {
        /// The cluster's own words.
        message: String,
    },
    /// The cluster does not evict this pod.
    Refused {
        /// The cluster's own words.
        message: String,
    },
}

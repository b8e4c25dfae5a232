//! Draining a node: which of its pods are removed, in which order, and where they could go.

mod fit;
mod options;
mod plan;
mod progress;
mod turns;
mod verdict;

pub use fit::{Fit, NOT_CONSIDERED, Obstacle, Placement};
pub use options::{AfterDeadline, DrainOptions, OnCancel, RawDrainOptions, RawTier, Removal, Tier};
pub use plan::{DrainPlan, DrainTotals, PlannedBudget, PlannedPod};
pub use progress::{DrainPhase, DrainProgress, DrainedPod, Farewell, PodProgress, Sight, Standing};
pub use turns::{Barrier, Turn};
pub use verdict::{Decision, ObjectName, Rule, Verdict, Warning, daemon_set};

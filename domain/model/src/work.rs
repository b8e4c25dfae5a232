//! What an operation does to each of its nodes.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::hold::check_ticket;
use crate::{
    ClusterFeature, DrainOptions, HoldRequest, LabelChange, OperationKind, Permission, QueryError, RawDrainOptions,
    RawTaint, RawTemplate, TaintChange, Template, Timestamp, check_reason,
};

/// Why a drained node is held if nobody says anything.
const DRAIN_REASON: &str = "drain";

/// What an operation does to each of its nodes.
#[derive(Clone, Debug, PartialEq)]
pub enum Work {
    /// It is held.
    Cordon(HoldRequest),
    /// Holds are released.
    Uncordon {
        /// All holds, also those of others, and a cordon that is not ours.
        force: bool,
    },
    /// It is drained, and held for that.
    Drain {
        /// How.
        options: Box<DrainOptions>,
        /// The hold.
        hold: HoldRequest,
    },
    /// Its labels are changed.
    Label(LabelChange),
    /// Its taints are changed.
    Taint {
        /// How.
        change: TaintChange,
        /// Whether pods may be evicted without looking at budgets.
        confirm_no_execute: bool,
    },
    /// It gets what a template says.
    ApplyTemplate {
        /// What.
        template: Template,
        /// Whether pods may be evicted without looking at budgets.
        confirm_no_execute: bool,
    },
}

/// Options of a cordon.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct CordonOptions {
    until: Option<String>,
}

/// Options of an uncordon.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct UncordonOptions {
    force: bool,
}

/// Options of a change of labels.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct LabelOptions {
    set: BTreeMap<String, String>,
    remove: Vec<String>,
}

/// Options of a change of taints.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct TaintOptions {
    add: Vec<RawTaint>,
    remove: Vec<RawTaint>,
    confirm_no_execute: bool,
}

/// Options of an application of a template, as they are accepted: with all that the template says, so that the work does not depend on what
/// becomes of the template.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AppliedTemplate {
    /// The template's name.
    pub template: String,
    /// Its version.
    pub version: u32,
    /// What it says.
    pub content: RawTemplate,
    /// Whether pods may be evicted without looking at budgets.
    pub confirm_no_execute: bool,
}

impl Work {
    /// What somebody must be allowed to do to have it done.
    #[must_use]
    pub fn needs(&self) -> &'static [Permission] {
        use Permission::{Change, Drain, Force, NoExecute, View};
        match self {
            Self::Taint {
                confirm_no_execute: true,
                ..
            }
            | Self::ApplyTemplate {
                confirm_no_execute: true,
                ..
            } => &[View, Change, NoExecute],
            Self::Cordon(_)
            | Self::Uncordon { .. }
            | Self::Label(_)
            | Self::Taint { .. }
            | Self::ApplyTemplate { .. } => &[View, Change],
            Self::Drain { options, .. } if options.is_forced() => &[View, Change, Drain, Force],
            Self::Drain { .. } => &[View, Change, Drain],
        }
    }

    /// What the service does with a cluster to do it to nodes there.
    #[must_use]
    pub fn features(&self) -> &'static [ClusterFeature] {
        match self {
            Self::Cordon(_)
            | Self::Uncordon { .. }
            | Self::Label(_)
            | Self::Taint { .. }
            | Self::ApplyTemplate { .. } => &[ClusterFeature::ViewNodes, ClusterFeature::ChangeNodes],
            Self::Drain { options, .. } => options.features(),
        }
    }

    /// The keys of the labels that it changes.
    #[must_use]
    pub fn label_keys(&self) -> Vec<&str> {
        match self {
            Self::Label(change) => change.keys().collect(),
            Self::ApplyTemplate { template, .. } => template.label_keys().collect(),
            Self::Cordon(_) | Self::Uncordon { .. } | Self::Taint { .. } | Self::Drain { .. } => Vec::new(),
        }
    }

    /// Checks what a caller wants to be done at the time `now`. `options` are those of the same change of a single node.
    ///
    /// # Errors
    /// Everything that is wrong with it, at once.
    pub fn parse(
        kind: OperationKind,
        reason: Option<&str>,
        ticket: Option<&str>,
        options: &Map<String, Value>,
        now: Timestamp,
    ) -> Result<Self, Vec<QueryError>> {
        let mut errors = Vec::new();
        if kind != OperationKind::Cordon {
            errors.extend(reason.and_then(|reason| check_reason(reason).err()));
            errors.extend(ticket.and_then(|ticket| check_ticket(ticket).err()));
        }
        let parsed = match kind {
            OperationKind::Cordon => read::<CordonOptions>(options).and_then(|options| {
                let reason = reason.unwrap_or_default();
                HoldRequest::parse(reason, ticket, options.until.as_deref(), now).map(Self::Cordon)
            }),
            OperationKind::Uncordon => {
                read::<UncordonOptions>(options).map(|options| Self::Uncordon { force: options.force })
            }
            OperationKind::Drain => read::<RawDrainOptions>(options)
                .and_then(|raw| DrainOptions::parse(&raw))
                .map(|options| Self::Drain {
                    options: Box::new(options),
                    hold: HoldRequest {
                        reason: reason.unwrap_or(DRAIN_REASON).to_owned(),
                        ticket: ticket.map(str::to_owned),
                        until: None,
                    },
                }),
            OperationKind::Label => read::<LabelOptions>(options)
                .and_then(|options| LabelChange::parse(&options.set, &options.remove))
                .map(Self::Label),
            OperationKind::Taint => read::<TaintOptions>(options).and_then(|options| {
                Ok(Self::Taint {
                    change: TaintChange::parse(&options.add, &options.remove)?,
                    confirm_no_execute: options.confirm_no_execute,
                })
            }),
            OperationKind::ApplyTemplate => read::<AppliedTemplate>(options).and_then(|applied| {
                Ok(Self::ApplyTemplate {
                    template: Template::parse(&applied.content)?,
                    confirm_no_execute: applied.confirm_no_execute,
                })
            }),
        };
        match parsed {
            Ok(work) if errors.is_empty() => Ok(work),
            Ok(_) => Err(errors),
            Err(others) => {
                errors.extend(others);
                Err(errors)
            }
        }
    }
}

fn read<T: DeserializeOwned>(options: &Map<String, Value>) -> Result<T, Vec<QueryError>> {
    serde_json::from_value(Value::Object(options.clone()))
        .map_err(|error| vec![QueryError::new("options", error.to_string())])
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn parse(kind: OperationKind, reason: Option<&str>, options: Value) -> Result<Work, Vec<QueryError>> {
        let now = Timestamp::parse("2030-01-01T00:00:00Z").unwrap();
        let Value::Object(options) = options else {
            unreachable!("options are an object");
        };
        Work::parse(kind, reason, Some("OPS-1"), &options, now)
    }

    #[test]
    fn each_kind_has_the_options_of_the_change_of_one_node() {
        let cordon = parse(
            OperationKind::Cordon,
            Some("disk"),
            json!({"until": "2030-01-02T00:00:00Z"}),
        );
        assert!(matches!(cordon, Ok(Work::Cordon(request)) if request.until.is_some()));
        let uncordon = parse(OperationKind::Uncordon, None, json!({"force": true}));
        assert_eq!(uncordon, Ok(Work::Uncordon { force: true }));
        let drain = parse(
            OperationKind::Drain,
            None,
            json!({"ignore_daemonsets": true, "order": [{"priority_class": "low"}]}),
        );
        assert!(matches!(
            drain,
            Ok(Work::Drain { options, hold })
                if options.ignore_daemonsets && options.order.len() == 1
                    && hold.reason == "drain" && hold.ticket.as_deref() == Some("OPS-1")
        ));
        let label = parse(OperationKind::Label, None, json!({"set": {"a": "b"}, "remove": ["c"]}));
        assert!(matches!(label, Ok(Work::Label(_))));
        let taint = parse(
            OperationKind::Taint,
            None,
            json!({"add": [{"key": "a", "effect": "NoSchedule"}], "remove": [{"key": "b"}]}),
        );
        assert!(matches!(
            taint,
            Ok(Work::Taint {
                confirm_no_execute: false,
                ..
            })
        ));
    }

    #[test]
    fn what_is_done_needs_what_the_cluster_must_let_the_service_do() {
        let before = [
            "view_nodes",
            "view_pods",
            "view_disruption_budgets",
            "view_daemon_sets",
            "change_nodes",
        ];
        let deleting = json!({"disable_eviction": true});
        let forcing = json!({"after_deadline": "force", "timeout_seconds": 60});
        for (kind, options, more) in [
            (OperationKind::Drain, json!({}), &["evict_pods"][..]),
            // It may be forced, and asks no budget only if it must.
            (OperationKind::Drain, json!({"force": true}), &["evict_pods"]),
            (OperationKind::Drain, forcing, &["evict_pods", "delete_pods"]),
            (OperationKind::Drain, deleting, &["delete_pods"]),
        ] {
            let work = parse(kind, None, options.clone()).unwrap();
            let words: Vec<&str> = work.features().iter().map(|feature| feature.as_str()).collect();
            assert_eq!(words, [&before[..], more].concat(), "{options}");
        }
        for (kind, options) in [
            (OperationKind::Cordon, json!({})),
            (OperationKind::Uncordon, json!({})),
            (OperationKind::Label, json!({"set": {"a": "b"}})),
            (OperationKind::Taint, json!({"remove": [{"key": "b"}]})),
        ] {
            let work = parse(kind, Some("disk"), options).unwrap();
            assert_eq!(
                work.features(),
                [ClusterFeature::ViewNodes, ClusterFeature::ChangeNodes],
                "{kind:?}"
            );
        }
    }

    #[test]
    fn a_template_is_applied_as_it_was_when_it_was_accepted() {
        let options = json!({
            "template": "gpu", "version": 3, "confirm_no_execute": true, "content": {"labels": {"pool": "gpu"}},
        });
        let applied = parse(OperationKind::ApplyTemplate, None, options);
        assert!(
            matches!(
                applied,
                Ok(Work::ApplyTemplate {
                    confirm_no_execute: true,
                    ..
                })
            ),
            "{applied:?}"
        );
    }

    #[test]
    fn what_is_wrong_is_told_with_what_is_allowed() {
        for (kind, reason, options, expected) in [
            (OperationKind::Cordon, None, json!({}), "reason"),
            (OperationKind::Uncordon, Some(" "), json!({}), "reason"),
            (OperationKind::Uncordon, None, json!({"forced": true}), "`forced`"),
            (OperationKind::Drain, None, json!({"grace_period_seconds": -2}), "-2"),
            (OperationKind::Drain, None, json!({"forse": true}), "`force`"),
            (OperationKind::Label, None, json!({}), "set"),
            (OperationKind::Taint, None, json!({"add": [{"key": "a"}]}), "no effect"),
            (OperationKind::Taint, None, json!({"add": "a"}), "options"),
            (
                OperationKind::Taint,
                None,
                json!({"remove": [{"key": "a", "value": "b"}]}),
                "has the value",
            ),
        ] {
            let errors = parse(kind, reason, options).unwrap_err();
            let told = format!("{errors:?}");
            assert!(told.contains(expected), "{kind:?}: {told}");
        }
        let errors = parse(OperationKind::Drain, Some("\n"), json!({"timeout_seconds": -1})).unwrap_err();
        assert_eq!(errors.len(), 2, "{errors:?}");
    }
}

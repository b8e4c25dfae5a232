//! Who keeps a node unschedulable, and why.

use std::collections::BTreeMap;

use serde_json::Value;
use uuid::Uuid;

use crate::Timestamp;

/// The annotation under which this service writes its cordons: a JSON array of holds, the oldest first, each
/// `{"id", "by", "reason", "ticket"?, "since", "until"?, "over_foreign"?}`.
pub const HOLDS_ANNOTATION: &str = "kube-node-manager.io/holds";
/// The annotation under which the first version wrote the reason of a cordon.
pub const FIRST_VERSION_REASON_ANNOTATION: &str = "deeproute.cn/kube-node-mgr";
/// The annotation under which the first version wrote the time of a cordon, RFC 3339.
pub const FIRST_VERSION_TIMESTAMP_ANNOTATION: &str = "deeproute.cn/kube-node-mgr-timestamp";

/// Why a node is unschedulable, as far as anybody wrote it down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cordon {
    /// The reason that was given.
    pub reason: Option<String>,
    /// Since when.
    pub since: Option<Timestamp>,
    /// Who did it. Never invented: `None` if it was not written down.
    pub by: Option<String>,
    /// Whose record this is.
    pub source: CordonSource,
    /// Our holds, the oldest first; none if the record is not ours.
    pub holds: Vec<NotedHold>,
}

/// A hold as it is noted on a node. What was not noted, or cannot be read, is `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NotedHold {
    /// Its id.
    pub id: Option<Uuid>,
    /// Who holds the node.
    pub by: Option<String>,
    /// Why.
    pub reason: Option<String>,
    /// The holder's ticket.
    pub ticket: Option<String>,
    /// Since when.
    pub since: Option<Timestamp>,
    /// When it ends by itself.
    pub until: Option<Timestamp>,
    /// Whether the node was cordoned by somebody else before.
    pub over_foreign: bool,
}

/// Whose record of a cordon was found on a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CordonSource {
    /// Ours, see [`HOLDS_ANNOTATION`].
    KubeNodeManager,
    /// The first version's, see [`FIRST_VERSION_REASON_ANNOTATION`].
    FirstVersion,
    /// None: somebody else cordoned it (kubectl, an autoscaler).
    Foreign,
}

impl Cordon {
    /// Reads the record of a node that is unschedulable off its annotations; ours wins over the first version's, and a record that
    /// cannot be read is no record. `tainted_at` is the time of the taint `node.kubernetes.io/unschedulable`, if it has one.
    #[must_use]
    pub fn read(annotations: &BTreeMap<String, String>, tainted_at: Option<Timestamp>) -> Self {
        let holds = annotations.get(HOLDS_ANNOTATION).map(|text| noted_holds(text));
        if let Some(holds) = holds.filter(|holds| !holds.is_empty()) {
            let oldest = holds[0].clone();
            return Self {
                reason: oldest.reason,
                since: oldest.since,
                by: oldest.by,
                source: CordonSource::KubeNodeManager,
                holds,
            };
        }
        if let Some(reason) = annotations.get(FIRST_VERSION_REASON_ANNOTATION) {
            let since = annotations.get(FIRST_VERSION_TIMESTAMP_ANNOTATION);
            return Self {
                reason: Some(reason.clone()),
                since: since.and_then(|text| Timestamp::parse(text).ok()).or(tainted_at),
                by: None,
                source: CordonSource::FirstVersion,
                holds: Vec::new(),
            };
        }
        Self {
            reason: None,
            since: tainted_at,
            by: None,
            source: CordonSource::Foreign,
            holds: Vec::new(),
        }
    }

    /// Whether it stays, also without our holds, because somebody else cordoned the node.
    #[must_use]
    pub fn is_over_foreign(&self) -> bool {
        match self.source {
            CordonSource::KubeNodeManager => self.holds.iter().any(|hold| hold.over_foreign),
            CordonSource::FirstVersion | CordonSource::Foreign => true,
        }
    }
}

impl CordonSource {
    /// `kube_node_manager`, `first_version` or `foreign`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::KubeNodeManager => "kube_node_manager",
            Self::FirstVersion => "first_version",
            Self::Foreign => "foreign",
        }
    }
}

/// The holds of the annotation; none if it is not an array that begins with an object.
fn noted_holds(text: &str) -> Vec<NotedHold> {
    let Ok(Value::Array(entries)) = serde_json::from_str(text) else {
        return Vec::new();
    };
    entries.iter().map_while(noted_hold).collect()
}

fn noted_hold(entry: &Value) -> Option<NotedHold> {
    let entry = entry.as_object()?;
    let word = |key: &str| entry.get(key).and_then(Value::as_str).map(str::to_owned);
    let time = |key: &str| word(key).and_then(|text| Timestamp::parse(&text).ok());
    Some(NotedHold {
        id: word("id").and_then(|text| Uuid::parse_str(&text).ok()),
        by: word("by"),
        reason: word("reason"),
        ticket: word("ticket"),
        since: time("since"),
        until: time("until"),
        over_foreign: entry.get("over_foreign").and_then(Value::as_bool).unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Cordon {
        let annotations = pairs
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect();
        Cordon::read(&annotations, Timestamp::from_unix_millis(1_000))
    }

    #[test]
    fn our_oldest_hold_is_the_record() {
        let holds = r#"[{"by":"ann","reason":"disk","since":"2030-01-01T00:00:00Z","ticket":"OPS-1"},{"by":"bob"}]"#;
        let cordon = read(&[(HOLDS_ANNOTATION, holds), (FIRST_VERSION_REASON_ANNOTATION, "old")]);
        assert_eq!(
            (cordon.by.as_deref(), cordon.reason.as_deref()),
            (Some("ann"), Some("disk"))
        );
        assert_eq!(cordon.since, Timestamp::parse("2030-01-01T00:00:00Z").ok());
        assert_eq!(cordon.source, CordonSource::KubeNodeManager);
    }

    #[test]
    fn a_record_of_the_first_version_is_read() {
        let cordon = read(&[
            (FIRST_VERSION_REASON_ANNOTATION, "disk"),
            (FIRST_VERSION_TIMESTAMP_ANNOTATION, "2024-05-06T07:08:09+08:00"),
        ]);
        assert_eq!((cordon.by, cordon.reason.as_deref()), (None, Some("disk")));
        assert_eq!(cordon.since, Timestamp::parse("2024-05-05T23:08:09Z").ok());
        assert_eq!(cordon.source, CordonSource::FirstVersion);
    }

    #[test]
    fn nobody_is_invented_for_a_foreign_cordon() {
        for text in ["", "[]", "{}", "[1]", "not json", "null"] {
            let cordon = read(&[(HOLDS_ANNOTATION, text)]);
            let since = Timestamp::from_unix_millis(1_000);
            assert_eq!(
                cordon,
                Cordon {
                    reason: None,
                    since,
                    by: None,
                    source: CordonSource::Foreign,
                    holds: Vec::new()
                },
                "{text}"
            );
        }
    }

    #[test]
    fn a_time_that_cannot_be_read_is_that_of_the_taint() {
        let cordon = read(&[
            (FIRST_VERSION_REASON_ANNOTATION, "x"),
            (FIRST_VERSION_TIMESTAMP_ANNOTATION, "yesterday"),
        ]);
        assert_eq!(cordon.since, Timestamp::from_unix_millis(1_000));
    }
}

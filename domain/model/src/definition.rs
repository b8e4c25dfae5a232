//! What platform teams write down under a name and apply to nodes later: templates and their bindings, version by version.

use std::fmt;

use serde_json::{Map, Value};

use crate::{DefinitionName, Timestamp};

/// A version of something that is written down under a name. Versions are never changed and never removed: what a definition said when
/// it was applied stays readable, and so does who wrote it.
#[derive(Clone, Debug, PartialEq)]
pub struct Definition {
    /// What it defines.
    pub kind: DefinitionKind,
    /// Its name, its own among those of its kind.
    pub name: DefinitionName,
    /// Counted from 1; it goes on where a deleted definition of the same name ended.
    pub version: u32,
    /// What it says, a JSON object; `None`: it was deleted.
    pub content: Option<Map<String, Value>>,
    /// When this version was written.
    pub changed_at: Timestamp,
    /// Who wrote it, see [`Actor::label`](crate::Actor::label).
    pub changed_by: String,
}

/// What a definition defines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DefinitionKind {
    /// Labels and taints that belong together.
    Template,
    /// The nodes that are to be as a template says.
    Binding,
}

impl DefinitionKind {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Template, Self::Binding];

    /// `template` or `binding`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Template => "template",
            Self::Binding => "binding",
        }
    }

    /// Reads [`DefinitionKind::as_str`] back, `None` for any other text.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text)
    }
}

impl fmt::Display for DefinitionKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_read_back() {
        for kind in DefinitionKind::ALL {
            assert_eq!(DefinitionKind::parse(kind.as_str()), Some(kind));
        }
        assert_eq!(DefinitionKind::parse("Template"), None);
    }
}

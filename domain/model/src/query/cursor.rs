//! Where a page of a list starts.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::{NodeSort, SortKey};
use crate::Node;

/// The form in which cursors are written; another one is refused instead of misread.
const FORM: u8 = 1;
/// A cursor holds two names and a zone; none is longer.
const LONGEST: usize = 2_048;

/// Where a page starts: right behind the node with this sort value, cluster and name. It stays right while nodes come and go.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Cursor {
    sort: NodeSort,
    value: OwnedValue,
    cluster: String,
    name: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum OwnedValue {
    Number(i128),
    Text(String),
}

/// What a node is compared by, in one order.
pub(super) struct SortPoint<'a> {
    pub(super) value: SortValue<'a>,
    pub(super) cluster: &'a str,
    pub(super) name: &'a str,
}

/// The value of what nodes are sorted by; in one list, all are of one kind.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum SortValue<'a> {
    Number(i128),
    Text(&'a str),
}

impl<'a> SortPoint<'a> {
    pub(super) fn of(key: SortKey, cluster: &'a str, node: &'a Node) -> Self {
        let value = match key {
            SortKey::Name => SortValue::Number(0),
            // The youngest has the smallest age, and the largest time of creation.
            SortKey::Age => SortValue::Number(-i128::from(node.created_at.unix_millis())),
            SortKey::Cpu => SortValue::Number(i128::from(node.allocatable.cpu_millicores)),
            SortKey::Memory => SortValue::Number(i128::from(node.allocatable.memory_bytes)),
            SortKey::Zone => SortValue::Text(node.zone.as_deref().unwrap_or_default()),
            SortKey::Status => SortValue::Number(node.status as i128),
        };
        Self {
            value,
            cluster,
            name: node.name.as_str(),
        }
    }

    pub(super) fn cursor(&self, sort: NodeSort) -> Cursor {
        let value = match self.value {
            SortValue::Number(number) => OwnedValue::Number(number),
            SortValue::Text(text) => OwnedValue::Text(text.to_owned()),
        };
        Cursor {
            sort,
            value,
            cluster: self.cluster.to_owned(),
            name: self.name.to_owned(),
        }
    }
}

impl Cursor {
    /// The order that it belongs to: it is worth nothing in another one.
    #[must_use]
    pub fn sort(&self) -> NodeSort {
        self.sort
    }

    pub(super) fn point(&self) -> SortPoint<'_> {
        let value = match &self.value {
            OwnedValue::Number(number) => SortValue::Number(*number),
            OwnedValue::Text(text) => SortValue::Text(text),
        };
        SortPoint {
            value,
            cluster: &self.cluster,
            name: &self.name,
        }
    }

    /// Writes it as opaque text for URLs (letters, digits, `-` and `_` only).
    #[must_use]
    pub fn encode(&self) -> String {
        let value = match &self.value {
            OwnedValue::Number(number) => number.to_string(),
            OwnedValue::Text(text) => text.clone(),
        };
        let parts = (
            FORM,
            self.sort.key.as_str(),
            self.sort.descending,
            value,
            &self.cluster,
            &self.name,
        );
        let parts = serde_json::json!([parts.0, parts.1, parts.2, parts.3, parts.4, parts.5]);
        URL_SAFE_NO_PAD.encode(parts.to_string())
    }

    /// Reads [`Cursor::encode`] back.
    ///
    /// # Errors
    /// A message for people if `text` was not made by this service.
    pub fn decode(text: &str) -> Result<Self, String> {
        Self::read(text).ok_or_else(|| {
            let text = super::excerpt(text);
            format!("\"{text}\" is not a cursor: the next_cursor of an earlier answer is expected")
        })
    }

    fn read(text: &str) -> Option<Self> {
        if LONGEST < text.len() {
            return None;
        }
        let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
        let (form, key, descending, value, cluster, name): (u8, String, bool, String, String, String) =
            serde_json::from_slice(&bytes).ok()?;
        let key = SortKey::ALL.into_iter().find(|known| known.as_str() == key)?;
        if form != FORM {
            return None;
        }
        let value = match key {
            SortKey::Zone => OwnedValue::Text(value),
            SortKey::Name | SortKey::Age | SortKey::Cpu | SortKey::Memory | SortKey::Status => {
                OwnedValue::Number(value.parse().ok()?)
            }
        };
        Some(Self {
            sort: NodeSort { key, descending },
            value,
            cluster,
            name,
        })
    }
}

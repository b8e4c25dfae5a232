//! Names, as Kubernetes accepts them.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use serde::{Serialize, Serializer};

/// A node's name: a DNS subdomain of at most 253 characters (RFC 1123).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeName(Arc<str>);

/// A cluster's name in this service: a DNS label of at most 63 characters (RFC 1123).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClusterName(Arc<str>);

/// A template's or binding's name: a DNS label of at most 63 characters (RFC 1123).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DefinitionName(Arc<str>);

/// Why a text is not a name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing was given.
    #[error("a name must not be empty")]
    Empty,
    /// More than the `limit` characters that are allowed.
    #[error("a name has at most {limit} characters, this one has {length}")]
    TooLong {
        /// How many bytes were given.
        length: usize,
        /// How many are allowed.
        limit: usize,
    },
    /// A character that is not allowed at its place.
    #[error(
        "\"{text}\" is not a name: '{character}' at position {position} is not allowed there; lower case letters, digits and '-'{also} are, starting and ending with a letter or digit"
    )]
    Character {
        /// The text, at most its first 253 characters.
        text: String,
        /// The character.
        character: char,
        /// Where it stands, counted in characters from 1.
        position: usize,
        /// What else is allowed in this kind of name.
        also: &'static str,
    },
}

impl NodeName {
    /// Parses a node's name.
    ///
    /// # Errors
    /// [`NameError`] if `text` is not a DNS subdomain.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        check_length(text, 253)?;
        let mut start = 1;
        for part in text.split('.') {
            check_label(text, part, start, " and '.'")?;
            start += part.chars().count() + 1;
        }
        Ok(Self(text.into()))
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl ClusterName {
    /// Parses a cluster's name.
    ///
    /// # Errors
    /// [`NameError`] if `text` is not a DNS label.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        check_length(text, 63)?;
        check_label(text, text, 1, "")?;
        Ok(Self(text.into()))
    }

    /// Writes any text (a kubeconfig context, say) as a DNS label: lower case, `-` for what is not allowed, at most 63
    /// characters; `cluster` if nothing is left.
    #[must_use]
    pub fn from_any(text: &str) -> Self {
        let mut label = String::with_capacity(text.len().min(63));
        for character in text.chars() {
            let character = character.to_ascii_lowercase();
            let allowed = character.is_ascii_lowercase() || character.is_ascii_digit();
            if allowed {
                label.push(character);
            } else if !label.is_empty() && !label.ends_with('-') {
                label.push('-');
            }
            if label.len() == 63 {
                break;
            }
        }
        match label.trim_end_matches('-') {
            "" => Self("cluster".into()),
            label => Self(label.into()),
        }
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl DefinitionName {
    /// Parses a name.
    ///
    /// # Errors
    /// [`NameError`] if `text` is not a DNS label.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        check_length(text, 63)?;
        check_label(text, text, 1, "")?;
        Ok(Self(text.into()))
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn check_length(text: &str, limit: usize) -> Result<(), NameError> {
    if text.is_empty() {
        return Err(NameError::Empty);
    }
    if limit < text.len() {
        return Err(NameError::TooLong {
            length: text.len(),
            limit,
        });
    }
    Ok(())
}

/// Checks one label of a name; `start` is the position of its first character in `text`.
fn check_label(text: &str, label: &str, start: usize, also: &'static str) -> Result<(), NameError> {
    let wrong = |character, position| NameError::Character {
        text: text.to_owned(),
        character,
        position,
        also,
    };
    let last = label.chars().count();
    if last == 0 {
        return Err(wrong('.', start.min(text.chars().count())));
    }
    for (index, character) in label.chars().enumerate() {
        let inside = 0 < index && index + 1 < last;
        let allowed = character.is_ascii_lowercase() || character.is_ascii_digit() || (inside && character == '-');
        if !allowed {
            return Err(wrong(character, start + index));
        }
    }
    Ok(())
}

macro_rules! name_traits {
    ($name:ident) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }
    };
}

name_traits!(NodeName);
name_traits!(ClusterName);
name_traits!(DefinitionName);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dns_subdomains_are_node_names() {
        for text in [
            "a",
            "worker-1",
            "ip-10-0-0-1.eu-west-1.compute.internal",
            "1.2.3",
            &"a".repeat(253),
        ] {
            assert_eq!(NodeName::parse(text).unwrap().as_str(), text);
        }
    }

    #[test]
    fn what_is_not_a_node_name_is_refused_at_its_place() {
        assert_eq!(NodeName::parse(""), Err(NameError::Empty));
        assert_eq!(
            NodeName::parse(&"a".repeat(254)),
            Err(NameError::TooLong {
                length: 254,
                limit: 253
            })
        );
        for (text, place) in [
            ("Worker", 1),
            ("a_b", 2),
            ("-a", 1),
            ("a-", 2),
            ("a..b", 3),
            (".a", 1),
            ("a.", 2),
            ("a.-b", 3),
            ("ä", 1),
        ] {
            match NodeName::parse(text) {
                Err(NameError::Character { position, .. }) => assert_eq!(position, place, "{text}"),
                other => panic!("{text}: {other:?}"),
            }
        }
    }

    #[test]
    fn a_cluster_name_is_one_label() {
        assert!(ClusterName::parse("prod-eu").is_ok());
        assert!(ClusterName::parse("prod.eu").is_err());
        assert!(ClusterName::parse(&"a".repeat(64)).is_err());
    }

    #[test]
    fn any_context_name_becomes_a_label() {
        let long = "x".repeat(100);
        let arn = "arn:aws:eks:eu-west-1:123456789012:cluster/Prod";
        let cases = [
            ("kind-kind", "kind-kind"),
            (arn, "arn-aws-eks-eu-west-1-123456789012-cluster-prod"),
            ("admin@Home Lab!", "admin-home-lab"),
            ("---", "cluster"),
            ("", "cluster"),
            (&long, &long[..63]),
        ];
        for (text, label) in cases {
            let name = ClusterName::from_any(text);
            assert_eq!(name.as_str(), label);
            assert!(ClusterName::parse(name.as_str()).is_ok());
        }
    }
}

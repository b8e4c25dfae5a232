//! Values and where they come from.

use std::fmt;
use std::path::PathBuf;

use config::ValueKind;

use super::dsn;
use super::schema::{Key, Kind, Preset};

/// The value of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// A number.
    Number(i64),
    /// A switch.
    Flag(bool),
    /// A text.
    Text(String),
    /// A list of texts.
    Texts(Vec<String>),
    /// Nothing.
    Nothing,
}

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Nobody said anything.
    Default,
    /// A file.
    File(PathBuf),
    /// A variable of the environment.
    Variable(String),
    /// An option of the command line.
    Option(&'static str),
    /// Another setting leaves no choice; the reason.
    Forced(&'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(path) => write!(f, "file {}", dsn::masked(&path.display().to_string())),
            Self::Variable(name) => write!(f, "variable {name}"),
            Self::Option(name) => write!(f, "option {name}"),
            Self::Forced(why) => write!(f, "forced: {why}"),
        }
    }
}

impl From<Preset> for Value {
    fn from(preset: Preset) -> Self {
        match preset {
            Preset::Number(number) => Self::Number(number),
            Preset::Flag(flag) => Self::Flag(flag),
            Preset::Text(text) => Self::Text(text.to_owned()),
            Preset::NoTexts => Self::Texts(Vec::new()),
            Preset::Nothing => Self::Nothing,
        }
    }
}

impl Value {
    /// Reads what a variable holds as the value of `key`.
    ///
    /// # Errors
    /// A sentence about the problem.
    pub fn from_variable(key: &Key, text: &str, origin: &Origin) -> Result<Self, String> {
        let wrong = || problem(key, text, origin);
        match key.kind {
            Kind::Number { least, most } => match text.trim().parse() {
                Ok(number) if (least..=most).contains(&number) => Ok(Self::Number(number)),
                _ => Err(wrong()),
            },
            Kind::Flag => match text.trim().to_ascii_lowercase().as_str() {
                "true" | "1" | "yes" | "on" => Ok(Self::Flag(true)),
                "false" | "0" | "no" | "off" => Ok(Self::Flag(false)),
                _ => Err(wrong()),
            },
            Kind::Word(words) => {
                let word = text.trim().to_ascii_lowercase();
                words
                    .contains(&word.as_str())
                    .then_some(Self::Text(word))
                    .ok_or_else(wrong)
            }
            Kind::Words(known) => {
                let words: Vec<String> = text.split(',').map(|word| word.trim().to_ascii_lowercase()).collect();
                let are_known = words.iter().all(|word| known.contains(&word.as_str()));
                are_known.then_some(Self::Text(words.join(","))).ok_or_else(wrong)
            }
            Kind::Level => match knm_telemetry::check_level(text.trim()) {
                Ok(()) => Ok(Self::Text(text.trim().to_owned())),
                Err(_) => Err(wrong()),
            },
            Kind::Texts => Ok(Self::Texts(parts(text).map(str::to_owned).collect())),
            Kind::Networks => networks(key, parts(text).map(str::to_owned), origin),
            Kind::Dsn => match dsn::check(text) {
                Ok(()) => Ok(Self::Text(text.to_owned())),
                Err(why) => Err(format!("{}: {why}", wrong())),
            },
            Kind::Text | Kind::Secret => Ok(Self::Text(text.to_owned())),
        }
    }

    /// Reads what a file holds as the value of `key`. An empty value is as good as none.
    ///
    /// # Errors
    /// A sentence about the problem.
    pub fn from_file(key: &Key, value: &config::Value, origin: &Origin) -> Result<Self, String> {
        let text = match &value.kind {
            ValueKind::Nil => return Ok(key.default.into()),
            ValueKind::Boolean(flag) if key.kind == Kind::Flag => return Ok(Self::Flag(*flag)),
            ValueKind::Array(items) if matches!(key.kind, Kind::Texts | Kind::Networks) => {
                let texts: Vec<String> = items
                    .iter()
                    .map(|item| plain(item).ok_or_else(|| problem(key, "a nested list", origin)))
                    .collect::<Result<_, _>>()?;
                return match key.kind {
                    Kind::Networks => networks(key, texts.into_iter(), origin),
                    _ => Ok(Self::Texts(texts)),
                };
            }
            // YAML reads these words as switches, and none of these keys means one.
            ValueKind::Boolean(_)
                if matches!(
                    key.kind,
                    Kind::Text | Kind::Secret | Kind::Dsn | Kind::Level | Kind::Word(_) | Kind::Words(_)
                ) =>
            {
                return Err(problem(key, &value.to_string(), origin));
            }
            ValueKind::Table(_) => return Err(problem(key, "a section", origin)),
            ValueKind::Array(_) => return Err(problem(key, "a list", origin)),
            _ => value.to_string(),
        };
        if matches!(key.kind, Kind::Texts | Kind::Networks) {
            return Err(problem(key, &text, origin));
        }
        if text.is_empty() && !matches!(key.kind, Kind::Text | Kind::Secret) {
            return Ok(key.default.into());
        }
        Self::from_variable(key, &text, origin)
    }
}

/// The parts of a list in a variable.
fn parts(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|part| !part.is_empty())
}

/// These texts, if each of them names addresses.
fn networks(key: &Key, texts: impl Iterator<Item = String>, origin: &Origin) -> Result<Value, String> {
    let checked = texts.map(|text| match text.parse::<knm_http::Network>() {
        Ok(_) => Ok(text),
        Err(_) => Err(problem(key, &text, origin)),
    });
    checked.collect::<Result<_, _>>().map(Value::Texts)
}

/// A text or number of a file as text.
pub fn plain(value: &config::Value) -> Option<String> {
    match &value.kind {
        ValueKind::Nil | ValueKind::Table(_) | ValueKind::Array(_) => None,
        _ => Some(value.to_string()),
    }
}

/// What stands in for a secret.
pub const MASKED: &str = "***";

/// The text of a value as anybody may see it.
pub fn shown(key: &Key, text: &str) -> String {
    match key.kind {
        Kind::Secret if text.is_empty() => String::new(),
        Kind::Secret => MASKED.to_owned(),
        // Also where no connection string belongs: somebody may have put one there.
        _ => dsn::masked(text),
    }
}

fn problem(key: &Key, text: &str, origin: &Origin) -> String {
    format!(
        "{}: \"{}\" ({origin}) is not allowed: {} is",
        key.path,
        shown(key, text),
        key.kind.allowed()
    )
}

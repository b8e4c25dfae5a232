//! Connection strings, as far as the configuration must understand them.

use std::path::PathBuf;

use knm_ports::StorageKind;

use super::value::MASKED;

/// What a connection string leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// An SQLite file.
    Sqlite(PathBuf),
    /// A PostgreSQL server; the whole text.
    Postgres(String),
}

/// Reads a connection string: `postgres://…`, the words of libpq (`host=db user=nodes`), `sqlite://path`, or a path.
///
/// # Errors
/// A sentence about the problem, without the text.
pub fn parse(text: &str) -> Result<Place, String> {
    if let Some((scheme, rest)) = text.split_once("://") {
        return match scheme {
            "postgres" | "postgresql" => Ok(Place::Postgres(text.to_owned())),
            "sqlite" => file(rest),
            _ => Err("it must start with postgres://, postgresql:// or sqlite://".to_owned()),
        };
    }
    if is_words(text) {
        return Ok(Place::Postgres(text.to_owned()));
    }
    if credentials(text).is_some() {
        return Err("it looks like one of PostgreSQL that does not start with postgres://".to_owned());
    }
    file(
        text.strip_prefix("sqlite:")
            .or_else(|| text.strip_prefix("file:"))
            .unwrap_or(text),
    )
}

fn file(path: &str) -> Result<Place, String> {
    let path = path.split_once('?').map_or(path, |(path, _)| path);
    if path.is_empty() || path == ":memory:" {
        return Err("it names no file; the type memory keeps everything in memory".to_owned());
    }
    Ok(Place::Sqlite(PathBuf::from(path)))
}

/// Whether a text is a PostgreSQL connection string of words, such as `host=db user=nodes`, and not the path of a file.
fn is_words(text: &str) -> bool {
    let first = text.split_once('=').map_or("", |(name, _)| name.trim());
    ["host", "port", "user", "password", "dbname", "sslmode"].contains(&first)
}

/// What comes before the password and after it, if a text without `://` has one nevertheless: a part of a connection string, or one with
/// a slip. Nobody's file is called like that, and its name would be shown.
fn credentials(text: &str) -> Option<(&str, &str)> {
    if ["/", "./", "../", "sqlite:", "file:"]
        .iter()
        .any(|start| text.starts_with(start))
    {
        return None;
    }
    let (user, place) = text.rsplit_once('@')?;
    Some((user.split_once(':')?.0, place))
}

/// Says whether a text is a connection string that this build can use.
///
/// # Errors
/// A sentence about the problem, without the text.
pub fn check(text: &str) -> Result<(), String> {
    match parse(text)? {
        Place::Sqlite(_) => Ok(()),
        Place::Postgres(url) => crate::storage::check_postgres_url(&url),
    }
}

/// Which kind of database a connection string that this build can use leads to.
///
/// # Errors
/// A sentence about the problem, without the text.
pub fn kind(text: &str) -> Result<StorageKind, String> {
    check(text)?;
    Ok(match parse(text)? {
        Place::Sqlite(_) => StorageKind::Sqlite,
        Place::Postgres(_) => StorageKind::Postgres,
    })
}

/// The text without its password.
#[must_use]
pub fn masked(text: &str) -> String {
    // Words may have spaces around the sign.
    let mark = if is_words(text) { "password" } else { "password=" };
    let text = match text.to_ascii_lowercase().find(mark) {
        Some(at) => format!("{}password={MASKED}", &text[..at]),
        None => text.to_owned(),
    };
    let Some((scheme, rest)) = text.split_once("://") else {
        return match credentials(&text) {
            Some((user, place)) => format!("{user}:{MASKED}@{place}"),
            None => text,
        };
    };
    // The last @ and not the first: a password may hold one although it should not.
    let Some((user, place)) = rest.rsplit_once('@') else {
        return text;
    };
    match user.split_once(':') {
        Some((name, _)) => format!("{scheme}://{name}:{MASKED}@{place}"),
        None => format!("{scheme}://{user}@{place}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_and_paths_lead_somewhere() {
        let sqlite = |path: &str| Ok(Place::Sqlite(PathBuf::from(path)));
        assert_eq!(parse("sqlite://data/x.db"), sqlite("data/x.db"));
        assert_eq!(parse("sqlite:///var/x.db"), sqlite("/var/x.db"));
        assert_eq!(parse("sqlite:///var/x.db?mode=rwc"), sqlite("/var/x.db"));
        assert_eq!(parse("./data/x.db"), sqlite("./data/x.db"));
        let url = "postgres://user:pass@host:5432/db?sslmode=disable";
        assert_eq!(parse(url), Ok(Place::Postgres(url.to_owned())));
        let words = "host=a password=b dbname=c";
        assert_eq!(parse(words), Ok(Place::Postgres(words.to_owned())));
        assert_eq!(parse("./data/host=a.db"), sqlite("./data/host=a.db"));
        assert_eq!(parse("/data/a:b@c.db"), sqlite("/data/a:b@c.db"));
        for text in [
            "mysql://x",
            "",
            "sqlite://",
            ":memory:",
            "postgres:/user:pass@host/db",
            "postgres:user:pass@host/db",
            "user:pass@host/db",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn no_form_shows_its_password() {
        let cases = [
            ("postgres://user:hunter2@host/db", "postgres://user:***@host/db"),
            ("postgres://user:hunter2@evil@host/db", "postgres://user:***@host/db"),
            ("postgres://user:hunter2/#%@host/db", "postgres://user:***@host/db"),
            ("postgres://user@host/db", "postgres://user@host/db"),
            (
                "postgres://host/db?user=a&password=hunter2",
                "postgres://host/db?user=a&password=***",
            ),
            ("host=a password=hunter2 dbname=c", "host=a password=***"),
            ("host = a password = hunter2", "host = a password=***"),
            ("./data/x.db", "./data/x.db"),
            ("./data/a:b@x.db", "./data/a:b@x.db"),
            ("user:hunter2@host/db", "user:***@host/db"),
            ("postgres:/user:hunter2@host/db", "postgres:***@host/db"),
        ];
        for (text, expected) in cases {
            assert_eq!(masked(text), expected);
        }
    }
}

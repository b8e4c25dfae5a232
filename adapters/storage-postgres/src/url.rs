//! Connection strings.

use std::path::PathBuf;
use std::time::Duration;

use percent_encoding::percent_decode_str;
use secrecy::SecretString;
use url::Url;

use crate::{PostgresOptions, SslMode};

/// Why a text is not a connection string. It never shows the text, where the password is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the connection string is not usable: {message}")]
pub struct UrlError {
    message: String,
}

impl PostgresOptions {
    /// Parses `postgres://user:password@host:port/database?sslmode=…`, or the same as words: `host=… user=… password=… dbname=…`. What
    /// is left out has its default. Parameters are `sslmode`, `sslrootcert`, `connect_timeout` (in seconds) and `TimeZone`, which
    /// changes nothing: times are stored as numbers.
    ///
    /// # Errors
    /// [`UrlError`] that says what is wrong and what is allowed, without showing the text.
    pub fn from_url(text: &str) -> Result<Self, UrlError> {
        match text.split_once("://") {
            Some(("postgres" | "postgresql", _)) => Self::from_real_url(text),
            None if text.contains('=') => Self::from_words(text),
            Some(_) | None => {
                wrong("it must start with postgres:// or postgresql://, or be words such as host=db user=nodes")
            }
        }
    }

    fn from_words(text: &str) -> Result<Self, UrlError> {
        let mut options = Self::default();
        for (name, value) in words(text)? {
            match name.as_str() {
                "host" if value.is_empty() => return wrong("the host is empty; a name or an address is expected"),
                "host" => options.host = value,
                "port" => match value.parse() {
                    Ok(port) if 0 < port => options.port = port,
                    Ok(_) | Err(_) => return wrong("the port is not a number from 1 to 65535"),
                },
                "user" => options.username = value,
                "password" => options.password = SecretString::from(value),
                "dbname" => options.database = value,
                _ => options.set_parameter(&name, &value)?,
            }
        }
        Ok(options)
    }

    fn from_real_url(text: &str) -> Result<Self, UrlError> {
        let url = Url::parse(text).map_err(|error| UrlError {
            message: format!(
                "{error}; characters such as @ : / ? # % in the user's name or password must be percent-encoded"
            ),
        })?;
        // Otherwise the end of a password would pass for a database or a parameter, which errors name.
        if [url.path(), url.query().unwrap_or("")]
            .iter()
            .any(|part| part.contains('@'))
        {
            return wrong(
                "it has an @ behind the host; : / ? # in the user's name or password are percent-encoded, and so is an @",
            );
        }
        let mut options = Self::default();
        if let Some(host) = url.host_str().filter(|host| !host.is_empty()) {
            options.host = decoded("host", host.trim_start_matches('[').trim_end_matches(']'))?;
        }
        if let Some(port) = url.port() {
            if port == 0 {
                return wrong("the port is 0; 1 to 65535 are allowed");
            }
            options.port = port;
        }
        if !url.username().is_empty() {
            options.username = decoded("user's name", url.username())?;
        }
        if let Some(password) = url.password() {
            options.password = SecretString::from(decoded("password", password)?);
        }
        let database = url.path().strip_prefix('/').unwrap_or("");
        if database.contains('/') {
            return wrong("it names more than one database; one / after the host is allowed");
        }
        if !database.is_empty() {
            options.database = decoded("database", database)?;
        }
        if url.fragment().is_some() {
            return wrong("it has a part after #; a # in the password is written %23");
        }
        for (name, value) in url.query_pairs() {
            options.set_parameter(&name, &value)?;
        }
        Ok(options)
    }

    fn set_parameter(&mut self, name: &str, value: &str) -> Result<(), UrlError> {
        match name {
            "sslmode" => match SslMode::parse(value) {
                Some(mode) => self.ssl_mode = mode,
                None => {
                    let known = SslMode::ALL.map(SslMode::as_str).join(", ");
                    return wrong(format!("sslmode is \"{value}\"; allowed are {known}"));
                }
            },
            "sslrootcert" if value.is_empty() => return wrong("sslrootcert is empty; the path of a file is expected"),
            "sslrootcert" => self.ssl_root_cert = Some(PathBuf::from(value)),
            "connect_timeout" => match value.parse() {
                Ok(seconds) if (1..=3600).contains(&seconds) => self.acquire_timeout = Duration::from_secs(seconds),
                Ok(_) | Err(_) => {
                    return wrong(format!(
                        "connect_timeout is \"{value}\"; whole seconds from 1 to 3600 are allowed"
                    ));
                }
            },
            "TimeZone" | "timezone" => {}
            _ => {
                return wrong(format!(
                    "the parameter \"{name}\" is not known; known are sslmode, sslrootcert, connect_timeout, TimeZone"
                ));
            }
        }
        Ok(())
    }
}

/// Splits `name=value name='a value'`; in values a backslash makes the next character an ordinary one.
fn words(text: &str) -> Result<Vec<(String, String)>, UrlError> {
    let mut words = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let Some((name, after)) = rest.split_once('=') else {
            return wrong("a word at its end has no =; words are written name=value");
        };
        let name = name.trim_end();
        if name.is_empty() || name.contains(char::is_whitespace) {
            return wrong("a word has no =, or a value with spaces has no quotes; words are written name='a value'");
        }
        let (value, end) = value(after.trim_start())?;
        words.push((name.to_owned(), value));
        rest = end.trim_start();
    }
    Ok(words)
}

/// Reads the value at the start of `text`; returns it and what stands behind it.
fn value(text: &str) -> Result<(String, &str), UrlError> {
    let (quoted, start) = match text.strip_prefix('\'') {
        Some(inner) => (true, inner),
        None => (false, text),
    };
    let mut value = String::new();
    let mut characters = start.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '\\' => value.extend(characters.next().map(|(_, next)| next)),
            '\'' if quoted => return Ok((value, &start[at + 1..])),
            _ if !quoted && character.is_whitespace() => return Ok((value, &start[at..])),
            _ => value.push(character),
        }
    }
    if quoted {
        return wrong("a quoted value has no end");
    }
    Ok((value, ""))
}

fn decoded(what: &str, text: &str) -> Result<String, UrlError> {
    match percent_decode_str(text).decode_utf8() {
        Ok(text) => Ok(text.into_owned()),
        Err(_) => wrong(format!("the {what} is not UTF-8 after percent-decoding")),
    }
}

fn wrong<T>(message: impl Into<String>) -> Result<T, UrlError> {
    Err(UrlError {
        message: message.into(),
    })
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;

    #[test]
    fn every_part_is_read() {
        let options = PostgresOptions::from_url(
            "postgres://node%40manager:p%2Fss%23%25@db.example.com:6432/nodes?sslmode=verify-full&sslrootcert=/etc/ca.pem&connect_timeout=7",
        )
        .unwrap();
        assert_eq!(options.host, "db.example.com");
        assert_eq!(options.port, 6432);
        assert_eq!(options.username, "node@manager");
        assert_eq!(options.password.expose_secret(), "p/ss#%");
        assert_eq!(options.database, "nodes");
        assert_eq!(options.ssl_mode, SslMode::VerifyFull);
        assert_eq!(options.ssl_root_cert, Some(PathBuf::from("/etc/ca.pem")));
        assert_eq!(options.acquire_timeout, Duration::from_secs(7));
    }

    #[test]
    fn what_is_left_out_has_its_default() {
        for text in [
            "postgresql://",
            "postgresql:///",
            "postgres://localhost",
            "postgres://postgres@localhost/",
        ] {
            let options = PostgresOptions::from_url(text).unwrap();
            assert_eq!((options.host.as_str(), options.port), ("localhost", 5432), "{text}");
            assert_eq!(options.database, "kube_node_manager", "{text}");
            assert_eq!(options.username, "postgres", "{text}");
            assert_eq!(options.password.expose_secret(), "", "{text}");
            assert_eq!(options.ssl_mode, SslMode::Disable, "{text}");
        }
    }

    #[test]
    fn words_say_the_same() {
        let options = PostgresOptions::from_url(
            r"host=db.example.com port = 6432 user=nodes password='it\'s a \\ secret' dbname=nodes sslmode=require TimeZone=Asia/Shanghai",
        )
        .unwrap();
        assert_eq!((options.host.as_str(), options.port), ("db.example.com", 6432));
        assert_eq!(
            (options.username.as_str(), options.database.as_str()),
            ("nodes", "nodes")
        );
        assert_eq!(options.password.expose_secret(), r"it's a \ secret");
        assert_eq!(options.ssl_mode, SslMode::Require);
        let empty = PostgresOptions::from_url("password= user=nodes").unwrap();
        assert_eq!(empty.password.expose_secret(), "user=nodes", "as libpq reads it");
    }

    #[test]
    fn addresses_and_sockets_are_hosts() {
        let host = |text| PostgresOptions::from_url(text).unwrap().host;
        assert_eq!(host("postgres://[::1]:5433/nodes"), "::1");
        assert_eq!(host("postgres://10.0.0.7/nodes"), "10.0.0.7");
        assert_eq!(host("postgres://%2Frun%2Fpostgresql/nodes"), "/run/postgresql");
    }

    #[test]
    fn what_is_wrong_is_named_without_the_password() {
        let cases = [
            ("mysql://u:s3cret@h/d", "must start with postgres://"),
            ("s3cret", "must start with postgres://"),
            ("postgres://u:s3cret@h:99999/d", "port"),
            ("postgres://u:s3cret@h:0/d", "1 to 65535"),
            ("postgres://u:s3#cret@h/d", "percent-encoded"),
            ("postgres://u:s3cret@h/d#x", "%23"),
            ("postgres://u:s3cret@h/d/e", "more than one database"),
            ("postgres://u:12/s3cret@h/d", "an @ behind the host"),
            ("postgres://u:12?s3cret@h/d", "an @ behind the host"),
            ("postgres://u:s3cret%FF@h/d", "password is not UTF-8"),
            (
                "postgres://u:s3cret@h/d?sslmode=allow",
                "\"allow\"; allowed are disable, prefer, require, verify-ca, verify-full",
            ),
            ("postgres://u:s3cret@h/d?pool_mode=1", "\"pool_mode\" is not known"),
            ("postgres://u:s3cret@h/d?sslrootcert=", "sslrootcert is empty"),
            ("postgres://u:s3cret@h/d?connect_timeout=soon", "\"soon\""),
            ("host=h password=s3cret pool_mode=1", "\"pool_mode\" is not known"),
            ("host=h password=s3cret and more", "no ="),
            ("host=h password=s3cret is it=1", "has no quotes"),
            ("host=h password='s3cret", "no end"),
            ("host=h password=s3cret port=0", "1 to 65535"),
        ];
        for (text, expected) in cases {
            let error = PostgresOptions::from_url(text).unwrap_err();
            assert!(error.to_string().contains(expected), "{text}: {error}");
            assert!(!format!("{error} {error:?}").contains("cret"), "{text}: {error:?}");
        }
    }

    #[test]
    fn the_password_is_not_in_the_debug_text() {
        let options = PostgresOptions::from_url("postgres://u:s3cret@h/d").unwrap();
        assert!(!format!("{options:?}").contains("s3cret"));
    }

    #[test]
    fn every_ssl_mode_reads_back() {
        for mode in SslMode::ALL {
            assert_eq!(SslMode::parse(mode.as_str()), Some(mode));
        }
        assert_eq!(SslMode::parse("allow"), None);
    }
}

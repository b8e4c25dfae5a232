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
    /// Parses `postgres://user:password@host:port/database?sslmode=…`. What is left out has its default. Parameters are `sslmode`,
    /// `sslrootcert` and `connect_timeout` (in seconds).
    ///
    /// # Errors
    /// [`UrlError`] that says what is wrong and what is allowed, without showing the text.
    pub fn from_url(text: &str) -> Result<Self, UrlError> {
        let scheme = text.split_once("://").map(|(scheme, _)| scheme);
        if !matches!(scheme, Some("postgres" | "postgresql")) {
            return wrong("it must start with postgres:// or postgresql://");
        }
        let url = Url::parse(text).map_err(|error| UrlError {
            message: format!(
                "{error}; characters such as @ : / ? # % in the user's name or password must be percent-encoded"
            ),
        })?;
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
            _ => {
                return wrong(format!(
                    "the parameter \"{name}\" is not known; known are sslmode, sslrootcert, connect_timeout"
                ));
            }
        }
        Ok(())
    }
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
            ("postgres://u:s3cret%FF@h/d", "password is not UTF-8"),
            (
                "postgres://u:s3cret@h/d?sslmode=allow",
                "\"allow\"; allowed are disable, prefer, require, verify-ca, verify-full",
            ),
            ("postgres://u:s3cret@h/d?pool_mode=1", "\"pool_mode\" is not known"),
            ("postgres://u:s3cret@h/d?sslrootcert=", "sslrootcert is empty"),
            ("postgres://u:s3cret@h/d?connect_timeout=soon", "\"soon\""),
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

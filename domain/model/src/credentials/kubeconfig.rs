//! Reads a kubeconfig that somebody sent. Its errors are sentences of our own, because those of a parser quote what they did not like.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

use super::{ClusterIdentity, Given, Places};
use crate::QueryError;

/// The largest kubeconfig.
const LARGEST: usize = 512 * 1024;
/// How many pieces of it may be there by reference only.
const MOST_REPEATED: usize = 10_000;

const PLUGIN: &str =
    "plugins are not run for registered clusters: a token or client-certificate-data with client-key-data is expected";
const FILE: &str =
    "files are not read for registered clusters: the content is expected, in the field whose name ends in -data";
const PASSWORD: &str = "kubernetes dropped basic authentication: a token or a client certificate is expected";
const IMPERSONATION: &str = "impersonation is not allowed: credentials of that user are expected";
const PROXY: &str = "proxies are not used for registered clusters";

const PLACES: Places = Places {
    server: "kubeconfig.clusters[].cluster.server",
    certificate_authority: "kubeconfig.clusters[].cluster.certificate-authority-data",
    tls_server_name: "kubeconfig.clusters[].cluster.tls-server-name",
    insecure_skip_tls_verify: "kubeconfig.clusters[].cluster.insecure-skip-tls-verify",
    user: "kubeconfig.users[].name",
    token: "kubeconfig.users[].user.token",
    certificate: "kubeconfig.users[].user.client-certificate-data",
    key: "kubeconfig.users[].user.client-key-data",
};

/// What may stand in a cluster, with the reason where it may not.
const OF_CLUSTER: &[(&str, Option<&str>)] = &[
    ("server", None),
    ("certificate-authority-data", None),
    ("certificate-authority", Some(FILE)),
    ("tls-server-name", None),
    ("insecure-skip-tls-verify", None),
    ("disable-compression", None),
    ("proxy-url", Some(PROXY)),
    ("extensions", None),
];

/// The same in a user.
const OF_USER: &[(&str, Option<&str>)] = &[
    ("token", None),
    ("tokenFile", Some(FILE)),
    ("client-certificate-data", None),
    ("client-certificate", Some(FILE)),
    ("client-key-data", None),
    ("client-key", Some(FILE)),
    ("exec", Some(PLUGIN)),
    ("auth-provider", Some(PLUGIN)),
    ("username", Some(PASSWORD)),
    ("password", Some(PASSWORD)),
    ("as", Some(IMPERSONATION)),
    ("as-uid", Some(IMPERSONATION)),
    ("as-groups", Some(IMPERSONATION)),
    ("as-user-extra", Some(IMPERSONATION)),
    ("extensions", None),
];

type Table = Map<String, Value>;

/// What a context of a kubeconfig says.
pub(super) fn read(text: &str, context: Option<&str>) -> Result<Given, Vec<QueryError>> {
    read_context(text, context).map_err(|error| match error {
        Wrong::One(place, message) => vec![QueryError::new(place, message)],
        Wrong::All(errors) => errors,
    })
}

enum Wrong {
    One(&'static str, String),
    All(Vec<QueryError>),
}

fn read_context(text: &str, context: Option<&str>) -> Result<Given, Wrong> {
    if LARGEST < text.len() {
        return Err(one(
            "kubeconfig",
            &format!("it has {} bytes, at most {LARGEST} are allowed", text.len()),
        ));
    }
    let no_kubeconfig = "it is not a kubeconfig: yaml or json with clusters, users and contexts is expected";
    let Ok(Value::Object(file)) = read_yaml(text) else {
        return Err(one("kubeconfig", no_kubeconfig));
    };
    let context = match context {
        Some(context) => context,
        None => file
            .get("current-context")
            .and_then(Value::as_str)
            .filter(|name| !name.is_empty())
            .ok_or_else(|| {
                one(
                    "context",
                    "the kubeconfig names no current-context: context is expected",
                )
            })?,
    };
    let context = named(&file, "contexts", context)
        .ok_or_else(|| one("context", "the kubeconfig has no such context"))?
        .get("context")
        .and_then(Value::as_object)
        .ok_or_else(|| one("kubeconfig.contexts[].context", "a cluster and a user are expected"))?;
    let (cluster, _) = entry(
        &file,
        context,
        "cluster",
        [
            "clusters",
            "kubeconfig.contexts[].context.cluster",
            "kubeconfig.clusters[].cluster",
        ],
    )?;
    let (user, user_name) = entry(
        &file,
        context,
        "user",
        ["users", "kubeconfig.contexts[].context.user", "kubeconfig.users[].user"],
    )?;

    let mut errors = Vec::new();
    check_keys(cluster, OF_CLUSTER, "kubeconfig.clusters[].cluster", &mut errors);
    check_keys(user, OF_USER, "kubeconfig.users[].user", &mut errors);
    if !errors.is_empty() {
        return Err(Wrong::All(errors));
    }
    let token = text_of(user, "token", PLACES.token)?;
    let certificate = data_of(user, "client-certificate-data", PLACES.certificate)?;
    let key = data_of(user, "client-key-data", PLACES.key)?;
    let identity = match (token, certificate, key) {
        (Some(token), None, None) => ClusterIdentity::Token(token.into()),
        (None, Some(certificate), Some(key)) => ClusterIdentity::Certificate {
            certificate,
            key: key.into(),
        },
        (None, Some(_), None) => return Err(one(PLACES.key, "it is expected beside the certificate")),
        (None, None, Some(_)) => return Err(one(PLACES.certificate, "it is expected beside the key")),
        (None, None, None) => {
            let message = "a token, or client-certificate-data with client-key-data is expected";
            return Err(one("kubeconfig.users[].user", message));
        }
        (Some(_), _, _) => {
            let message = "either a token or a client certificate is expected, not both";
            return Err(one("kubeconfig.users[].user", message));
        }
    };
    let insecure = match cluster.get("insecure-skip-tls-verify") {
        None | Some(Value::Null) => false,
        Some(Value::Bool(flag)) => *flag,
        Some(_) => return Err(one(PLACES.insecure_skip_tls_verify, "true or false is expected")),
    };
    Ok(Given {
        server: text_of(cluster, "server", PLACES.server)?
            .ok_or_else(|| one(PLACES.server, "it is expected: https://host:port"))?,
        certificate_authority: data_of(cluster, "certificate-authority-data", PLACES.certificate_authority)?,
        tls_server_name: text_of(cluster, "tls-server-name", PLACES.tls_server_name)?,
        insecure_skip_tls_verify: insecure,
        user: user_name.to_owned(),
        identity,
        places: PLACES,
    })
}

/// YAML in which references stand for little: nobody's kubeconfig has many, and a few lines of them can mean gigabytes.
fn read_yaml(text: &str) -> Result<Value, serde_saphyr::Error> {
    let limits = serde_saphyr::alias_limits! { max_total_replayed_events: MOST_REPEATED };
    serde_saphyr::from_str_with_options(text, serde_saphyr::options! { alias_limits: limits })
}

/// The cluster or user that a context names, and its name.
fn entry<'a>(
    file: &'a Table,
    context: &'a Table,
    kind: &str,
    [list, place, content]: [&'static str; 3],
) -> Result<(&'a Table, &'a str), Wrong> {
    let name = context.get(kind).and_then(Value::as_str).unwrap_or_default();
    let found = named(file, list, name).ok_or_else(|| one(place, "the kubeconfig has none of that name"))?;
    let table = found.get(kind).and_then(Value::as_object);
    Ok((
        table.ok_or_else(|| one(content, "a section with keys is expected"))?,
        name,
    ))
}

/// The entry of this name in a list; of several the first, as kubectl takes them.
fn named<'a>(file: &'a Table, list: &str, name: &str) -> Option<&'a Table> {
    let entries = file.get(list)?.as_array()?;
    let mut tables = entries.iter().filter_map(Value::as_object);
    tables.find(|entry| entry.get("name").and_then(Value::as_str) == Some(name))
}

fn check_keys(
    table: &Table,
    known: &[(&'static str, Option<&'static str>)],
    place: &'static str,
    errors: &mut Vec<QueryError>,
) {
    // An empty value is as good as none: kubectl writes some of those.
    let is_said = |value: &Value| match value {
        Value::Null => false,
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(table) => !table.is_empty(),
        Value::Bool(_) | Value::Number(_) => true,
    };
    for (key, value) in table {
        match known.iter().find(|(name, _)| name == key) {
            Some((_, None)) => {}
            Some((name, Some(reason))) if is_said(value) => {
                errors.push(QueryError::new(format!("{place}.{name}"), *reason));
            }
            Some((_, Some(_))) => {}
            None => errors.push(QueryError::new(place, "it has a key that this program does not know")),
        }
    }
}

fn text_of(table: &Table, key: &str, place: &'static str) -> Result<Option<String>, Wrong> {
    match table.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone()).filter(|text| !text.is_empty())),
        Some(_) => Err(one(place, "a text is expected: quotation marks make one")),
    }
}

/// What a field holds in base64.
fn data_of(table: &Table, key: &str, place: &'static str) -> Result<Option<String>, Wrong> {
    let Some(text) = text_of(table, key, place)? else {
        return Ok(None);
    };
    let text: String = text.split_ascii_whitespace().collect();
    let decoded = STANDARD
        .decode(text)
        .ok()
        .and_then(|bytes| String::from_utf8(bytes).ok());
    decoded.map(Some).ok_or_else(|| one(place, "it is not pem in base64"))
}

fn one(place: &'static str, message: &str) -> Wrong {
    Wrong::One(place, message.to_owned())
}

//! Environment before file before defaults.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use config::{File, FileFormat, Map, Source as _, ValueKind};

use super::ConfigurationError;
use super::cluster_list::{self, ClusterSetting};
use super::dsn::{self, Place};
use super::nearest::nearest;
use super::schema::{CLUSTERS, DATABASE_URL, KEYS, Key, RETIRED};
use super::value::{Origin, Value};
use super::{secret_files, sign_in, traces};

/// Where a file is looked for when nobody names one.
const PLACES: [&str; 3] = ["./config.yaml", "./config/config.yaml", "./configs/config.yaml"];

/// The variables of the environment.
pub type Environment = BTreeMap<String, String>;

/// Every key with its value and where that comes from.
#[derive(Clone, Debug)]
pub struct Resolved {
    /// The file that was read.
    pub file: Option<PathBuf>,
    values: BTreeMap<&'static str, (Value, Origin)>,
    /// The clusters, if they are configured.
    pub clusters: Option<(Vec<ClusterSetting>, Origin)>,
    /// What is allowed but worth a look.
    pub warnings: Vec<String>,
    /// Every key with a value in the file, also those that mean nothing today.
    pub stated: Vec<String>,
}

impl Resolved {
    /// Reads `file` (or the first one at the usual places) and `environment`.
    ///
    /// # Errors
    /// All problems that were found.
    pub fn load(file: Option<&Path>, environment: &Environment) -> Result<Self, ConfigurationError> {
        let file = match file {
            Some(file) => Some(file.to_owned()),
            None => PLACES.iter().map(PathBuf::from).find(|place| place.is_file()),
        };
        let mut problems = Vec::new();
        let mut resolved = Self::defaults();
        if let Some(path) = &file {
            resolved.read_file(path, &mut problems);
        }
        resolved.file = file;
        resolved.read_environment(environment, &mut problems);
        resolved.settle_connection(&mut problems);
        resolved.settle_log_format();
        secret_files::check(&resolved, &mut problems);
        sign_in::read(&resolved, &mut problems);
        traces::read(&resolved, &mut problems);
        resolved.settle_tls(&mut problems);
        resolved.settle_ports(&mut problems);
        if problems.is_empty() {
            return Ok(resolved);
        }
        Err(ConfigurationError { problems })
    }

    /// Reads `environment` and no file, wherever one may lie: what the two say together is not looked at.
    ///
    /// # Errors
    /// All problems that were found.
    pub fn of_variables(environment: &Environment) -> Result<Self, ConfigurationError> {
        let (mut resolved, mut problems) = (Self::defaults(), Vec::new());
        resolved.read_environment(environment, &mut problems);
        resolved.settle_connection(&mut problems);
        resolved.settle_log_format();
        secret_files::check(&resolved, &mut problems);
        if problems.is_empty() {
            return Ok(resolved);
        }
        Err(ConfigurationError { problems })
    }

    fn defaults() -> Self {
        let values = KEYS.iter().map(|key| (key.path, (key.default.into(), Origin::Default)));
        Self {
            file: None,
            values: values.collect(),
            clusters: None,
            warnings: Vec::new(),
            stated: Vec::new(),
        }
    }

    /// The value of `path` and where it comes from.
    #[must_use]
    pub fn get(&self, path: &str) -> (&Value, &Origin) {
        self.values
            .get(path)
            .map_or((&Value::Nothing, &Origin::Default), |(value, origin)| (value, origin))
    }

    /// Sets the value of `path`.
    pub fn set(&mut self, path: &'static str, value: Value, origin: Origin) {
        self.values.insert(path, (value, origin));
    }

    fn read_file(&mut self, path: &Path, problems: &mut Vec<String>) {
        let origin = Origin::File(path.to_owned());
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) => {
                problems.push(format!("{origin} cannot be read: {error}"));
                return;
            }
        };
        let table = match File::from_str(&text, FileFormat::Yaml).collect() {
            Ok(table) => table,
            Err(_)
                if text
                    .lines()
                    .all(|line| line.trim().is_empty() || line.trim_start().starts_with('#')) =>
            {
                return;
            }
            Err(error) => {
                problems.push(format!("{origin} is not YAML with sections: {error}"));
                return;
            }
        };
        let retired: Vec<&str> = RETIRED
            .iter()
            .map(|retired| retired.section)
            .filter(|section| table.contains_key(*section))
            .collect();
        if !retired.is_empty() {
            self.warnings.push(format!(
                "{origin}: {} no longer mean anything and are ignored; `config convert` prints the file without them",
                retired.join(", ")
            ));
        }
        let mut sections: Vec<_> = table.into_iter().collect();
        sections.sort_by(|one, other| one.0.cmp(&other.0));
        for (section, value) in sections {
            if section == CLUSTERS {
                // Written down without a value it is as good as absent.
                if !matches!(value.kind, ValueKind::Nil) {
                    self.clusters = Some((cluster_list::read(&value, &origin, problems), origin.clone()));
                }
            } else if is_retired(&section) {
                note_keys(&section, &value, &mut self.stated);
            } else {
                self.read_section(&section, &value, &origin, problems);
            }
        }
    }

    fn read_section(&mut self, section: &str, value: &config::Value, origin: &Origin, problems: &mut Vec<String>) {
        let known = KEYS.iter().any(|key| key.section() == section);
        if !known {
            let sections = KEYS.iter().map(Key::section).chain([CLUSTERS]);
            problems.push(unknown(section, origin, nearest(section, sections)));
            return;
        }
        self.read_table(section, value, origin, problems);
    }

    /// Reads what is below `place`, a section or a group within one.
    fn read_table(&mut self, place: &str, value: &config::Value, origin: &Origin, problems: &mut Vec<String>) {
        let table: &Map<String, config::Value> = match &value.kind {
            ValueKind::Table(table) => table,
            ValueKind::Nil => return,
            _ => {
                // What stands there is not repeated: it may be a connection string with its password.
                problems.push(format!(
                    "{place} ({origin}) is not a section with keys, which is allowed"
                ));
                return;
            }
        };
        let mut entries: Vec<_> = table.iter().collect();
        entries.sort_by(|one, other| one.0.cmp(other.0));
        for (name, value) in entries {
            let path = format!("{place}.{name}");
            if is_group(&path) {
                self.read_table(&path, value, origin, problems);
                continue;
            }
            let Some(key) = find(&path) else {
                problems.push(unknown(&path, origin, nearest(&path, KEYS.iter().map(|key| key.path))));
                continue;
            };
            let stated = !matches!(value.kind, ValueKind::Nil);
            match Value::from_file(key, value, origin) {
                Ok(value) if stated => {
                    self.stated.push(path);
                    self.set(key.path, value, origin.clone());
                }
                Ok(_) => {}
                Err(problem) => problems.push(problem),
            }
        }
    }

    fn read_environment(&mut self, environment: &Environment, problems: &mut Vec<String>) {
        for key in KEYS {
            let long = key.long_variable();
            let set = key
                .variables
                .iter()
                .copied()
                .chain([long.as_str()])
                .find_map(|name| set_variable(environment, name).map(|text| (name, text)));
            let Some((name, text)) = set else {
                continue;
            };
            let origin = Origin::Variable(name.to_owned());
            match Value::from_variable(key, text, &origin) {
                Ok(value) => self.set(key.path, value, origin),
                Err(problem) => problems.push(problem),
            }
        }
        let clusters = "KNM__CLUSTERS";
        if let Some(text) = set_variable(environment, clusters) {
            let origin = Origin::Variable(clusters.to_owned());
            match File::from_str(&format!("clusters: {text}"), FileFormat::Yaml).collect() {
                Ok(table) => {
                    let value = table.get(CLUSTERS).cloned().unwrap_or_default();
                    self.clusters = Some((cluster_list::read(&value, &origin, problems), origin));
                }
                Err(error) => problems.push(format!("clusters ({origin}) is not a list in YAML: {error}")),
            }
        }
        let known: Vec<String> = KEYS
            .iter()
            .map(Key::long_variable)
            .chain([clusters.to_owned()])
            .collect();
        for name in environment
            .keys()
            .filter(|name| name.starts_with("KNM__") && !known.contains(name))
        {
            let meant = nearest(name, known.iter().map(String::as_str)).unwrap_or_default();
            problems.push(format!("the variable {name} sets no key; the nearest is {meant}"));
        }
        self.read_database_url(environment, problems);
    }

    /// `DATABASE_URL` says everything about the connection, whatever else is said about it.
    fn read_database_url(&mut self, environment: &Environment, problems: &mut Vec<String>) {
        let url = DATABASE_URL
            .into_iter()
            .find_map(|name| set_variable(environment, name).map(|text| (name, text)));
        let (Some((name, text)), Some(key)) = (url, find("database.dsn")) else {
            return;
        };
        let origin = Origin::Variable(name.to_owned());
        match Value::from_variable(key, text, &origin) {
            Err(problem) => problems.push(problem),
            Ok(value) => {
                let said = |key: &&Key| key.path == "database.type" || ADDRESS.contains(&key.path);
                for key in KEYS.iter().filter(said) {
                    self.set(key.path, key.default.into(), Origin::Default);
                }
                self.set("database.dsn", value, origin);
            }
        }
    }

    /// The first version had two keys for one thing.
    fn settle_log_format(&mut self) {
        let is = |path: &str, value: Value| self.get(path).0 == &value;
        if is("logging.structured", Value::Flag(true)) && is("logging.format", Value::Text("text".to_owned())) {
            let json = Value::Text("json".to_owned());
            self.set("logging.format", json, Origin::Forced("logging.structured says it"));
        }
    }

    /// A certificate is of no use without its key, nor the other way round.
    fn settle_tls(&self, problems: &mut Vec<String>) {
        let pair = ["server.tls.cert_file", "server.tls.key_file"];
        let is_set = |path: &&str| matches!(self.get(path).0, Value::Text(text) if !text.is_empty());
        let (set, missing): (Vec<&str>, Vec<&str>) = pair.into_iter().partition(is_set);
        if let ([set], [missing]) = (&*set, &*missing) {
            let origin = self.get(set).1;
            problems.push(format!(
                "{missing} is missing: {set} ({origin}) needs it, TLS is served with both or with neither"
            ));
        }
    }

    /// Two servers have two ports.
    fn settle_ports(&self, problems: &mut Vec<String>) {
        let ((main, main_origin), (management, origin)) = (self.get("server.port"), self.get("server.management_port"));
        if let (Value::Number(main), Value::Number(management)) = (main, management)
            && main == management
            && *main != 0
        {
            problems.push(format!(
                "server.management_port: \"{management}\" ({origin}) is not allowed: another port than server.port ({main_origin}) is"
            ));
        }
    }

    /// Makes the type fit the connection string, and SQLite's pool one connection.
    fn settle_connection(&mut self, problems: &mut Vec<String>) {
        let (dsn, dsn_origin) = self.get("database.dsn");
        let (kind, kind_origin) = self.get("database.type");
        if let Value::Text(text) = dsn {
            let (text, dsn_origin, kind_origin) = (text.clone(), dsn_origin.clone(), kind_origin.clone());
            let told = match dsn::parse(&text) {
                Ok(Place::Sqlite(_)) => "sqlite",
                Ok(Place::Postgres(_)) => "postgres",
                Err(_) => return,
            };
            let kind = match kind {
                Value::Text(kind) => kind.clone(),
                _ => String::new(),
            };
            let fits = kind == told || (told == "postgres" && kind == "postgresql");
            if !fits && kind_origin != Origin::Default {
                problems.push(format!(
                    "database.type: \"{kind}\" ({kind_origin}) does not fit database.dsn ({dsn_origin}), which is for {told}"
                ));
            }
            if kind_origin == Origin::Default {
                self.set("database.type", Value::Text(told.to_owned()), dsn_origin.clone());
            }
            if told == "postgres" {
                self.leave_the_address_to_the_dsn(&dsn_origin);
            }
        }
        if self.get("database.type").0 == &Value::Text("postgresql".to_owned()) {
            let origin = self.get("database.type").1.clone();
            self.set("database.type", Value::Text("postgres".to_owned()), origin);
        }
        if self.get("database.type").0 == &Value::Text("sqlite".to_owned()) {
            self.force_one_connection();
        }
    }

    /// A variable wins over a file, except here: a connection string says everything. Whoever set one hears that it did nothing.
    fn leave_the_address_to_the_dsn(&mut self, dsn: &Origin) {
        for path in ADDRESS {
            let (_, origin) = self.get(path);
            if matches!(origin, Origin::Variable(_)) {
                self.warnings.push(format!(
                    "{path} ({origin}) has no effect: database.dsn ({dsn}) says everything about the connection"
                ));
            }
            self.set(path, Value::Nothing, Origin::Forced("database.dsn says it"));
        }
    }

    fn force_one_connection(&mut self) {
        let mut overridden = Vec::new();
        for path in ["database.max_open_conns", "database.max_idle_conns"] {
            let (value, origin) = self.get(path);
            if let (Value::Number(number), true) = (value, *origin != Origin::Default && *value != Value::Number(1)) {
                overridden.push(format!("{path} is {number} ({origin})"));
            }
            self.set(path, Value::Number(1), Origin::Forced("sqlite has one connection"));
        }
        if !overridden.is_empty() {
            let overridden = overridden.join(" and ");
            self.warnings
                .push(format!("{overridden}, but sqlite always has one connection: 1 is used"));
        }
    }
}

/// What a connection string says at once, besides the type.
pub(super) const ADDRESS: [&str; 7] = [
    "database.host",
    "database.port",
    "database.database",
    "database.username",
    "database.password",
    "database.ssl_mode",
    "database.ssl_root_cert",
];

/// Whether `section` is one of the first version that means nothing today.
fn is_retired(section: &str) -> bool {
    RETIRED.iter().any(|retired| retired.section == section)
}

/// Notes the keys below `path`, or `path` itself where it has none.
fn note_keys(path: &str, value: &config::Value, keys: &mut Vec<String>) {
    match &value.kind {
        ValueKind::Table(table) if !table.is_empty() => {
            let mut entries: Vec<_> = table.iter().collect();
            entries.sort_by(|one, other| one.0.cmp(other.0));
            for (name, value) in entries {
                note_keys(&format!("{path}.{name}"), value, keys);
            }
        }
        _ => keys.push(path.to_owned()),
    }
}

/// The key at `path`.
pub fn find(path: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.path == path)
}

/// Whether keys are below `path`.
fn is_group(path: &str) -> bool {
    let mut below = KEYS.iter().filter_map(|key| key.path.strip_prefix(path));
    below.any(|rest| rest.starts_with('.'))
}

/// An empty variable is as good as none: compose files and charts leave many of those.
pub(super) fn set_variable<'e>(environment: &'e Environment, name: &str) -> Option<&'e str> {
    environment
        .get(name)
        .map(String::as_str)
        .filter(|text| !text.is_empty())
}

fn unknown(path: &str, origin: &Origin, meant: Option<&str>) -> String {
    let meant = meant
        .map(|meant| format!("; the nearest is \"{meant}\""))
        .unwrap_or_default();
    format!("the key \"{path}\" ({origin}) is not known{meant}")
}

//! What the first version was told, in today's form.

use super::resolve::{ADDRESS, Environment, Resolved, set_variable};
use super::schema::{DATABASE_URL, KEYS, Key, RETIRED};
use super::show::{add, write_clusters, write_sections, yaml};
use super::value::{Origin, Value, shown};
use super::{ConfigurationError, dsn};

/// What a file of the first version says, in today's form; comments say where the rest went. It holds the file's secrets: somebody is to
/// use it.
#[must_use]
pub fn converted(resolved: &Resolved) -> String {
    let mut text = String::new();
    write_sections(&mut text, |key| {
        let (value, origin) = resolved.get(key.path);
        let comment = match origin {
            Origin::File(_) => key.meaning.to_owned(),
            // What was forced is what the file means, though another key of it says so.
            Origin::Forced(why) if key.path == "logging.format" => format!("{}; {why}", key.meaning),
            Origin::Default | Origin::Variable(_) | Origin::Option(_) | Origin::Forced(_) => return None,
        };
        Some((yaml(value), comment))
    });
    if let Some((clusters, _)) = &resolved.clusters {
        write_clusters(&mut text, clusters, "the clusters");
    }
    if text.is_empty() {
        text.push_str("{}\n");
    }
    write_overridden(&mut text, resolved);
    write_gone(&mut text, resolved);
    text
}

/// Keys that another one leaves no choice.
fn write_overridden(text: &mut String, resolved: &Resolved) {
    for path in &resolved.stated {
        let (value, origin) = resolved.get(path);
        if let (Origin::Forced(why), false) = (origin, path == "logging.format") {
            let today = match value {
                Value::Nothing => String::new(),
                value => format!(", {} is used", yaml(value)),
            };
            add(text, &format!("# {path} is left out: {why}{today}\n"));
        }
    }
}

/// Keys that mean nothing today. Their values are left out: some are secrets.
fn write_gone(text: &mut String, resolved: &Resolved) {
    for retired in &RETIRED {
        let is_of_it = |path: &&String| {
            let rest = path.strip_prefix(retired.section);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        let gone: Vec<&str> = resolved.stated.iter().filter(is_of_it).map(String::as_str).collect();
        if !gone.is_empty() {
            add(text, &format!("# gone: {}\n#   {}\n", gone.join(", "), retired.instead));
        }
    }
}

/// What the variables mean today that are set in `environment`, one line each; secrets are masked.
///
/// # Errors
/// What is wrong with their values.
pub fn variables_today(environment: &Environment) -> Result<String, ConfigurationError> {
    let resolved = Resolved::of_variables(environment)?;
    let mut lines = Vec::new();
    for name in DATABASE_URL {
        if let Some(value) = set_variable(environment, name) {
            lines.push((name.to_owned(), url_today(environment, name, value)));
        }
    }
    for key in KEYS {
        let long = key.long_variable();
        for name in key.variables.iter().copied().chain([long.as_str()]) {
            if let Some(value) = set_variable(environment, name) {
                lines.push((name.to_owned(), key_today(&resolved, environment, key, (name, value))));
            }
        }
    }
    for name in environment.keys() {
        let of_it = |section: &str| {
            let rest = name.strip_prefix(&section.to_ascii_uppercase());
            rest.is_some_and(|rest| rest.starts_with('_'))
        };
        if let Some(retired) = RETIRED.iter().find(|retired| of_it(retired.section)) {
            lines.push((name.clone(), format!("gone: {}", retired.instead)));
        }
    }
    if lines.is_empty() {
        return Ok("none of the variables that set a key is set\n".to_owned());
    }
    let width = lines.iter().map(|(name, _)| name.len()).max().unwrap_or_default();
    let lines = lines
        .iter()
        .map(|(name, meaning)| format!("{name:width$}  {meaning}\n"));
    Ok(lines.collect())
}

fn url_today(environment: &Environment, name: &str, value: &str) -> String {
    match DATABASE_URL
        .into_iter()
        .find(|name| set_variable(environment, name).is_some())
    {
        Some(stronger) if stronger != name => format!("no effect: {stronger} is stronger"),
        _ => format!(
            "the whole connection, {}: database.type, database.dsn and all that they replace",
            dsn::masked(value)
        ),
    }
}

fn key_today(resolved: &Resolved, environment: &Environment, key: &Key, (name, value): (&str, &str)) -> String {
    let url = DATABASE_URL
        .into_iter()
        .find(|name| set_variable(environment, name).is_some());
    if let Some(url) = url
        && (ADDRESS.contains(&key.path) || ["database.type", "database.dsn"].contains(&key.path))
    {
        return format!("no effect: {url} says everything about the connection");
    }
    match resolved.get(key.path) {
        (_, Origin::Variable(stronger)) if stronger != name => format!("no effect: {stronger} is stronger"),
        (now, Origin::Forced(why)) => format!("{}, but {} is used: {why}", key.path, yaml(now)),
        _ => format!("{} = {}", key.path, shown(key, value)),
    }
}

#[cfg(test)]
#[path = "convert_tests.rs"]
mod tests;

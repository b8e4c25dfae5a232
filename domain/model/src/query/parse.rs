//! Reads the parameters of a list; everything in them is hostile until it was read.

use super::{Cursor, NodeField, NodeFilter, NodeQuery, NodeSort, QueryError, RawNodeQuery, SortKey};
use crate::{NodeStatus, Selector, TaintFilter};

/// A page is never larger.
const LARGEST_PAGE: usize = 10_000;
/// No role, zone, name or address is longer.
const LONGEST_WORD: usize = 253;

/// Collects what is wrong, so that all of it is told at once.
struct Errors(Vec<QueryError>);

/// Why one value was refused: where in it, if that can be told, and what was wrong and is allowed.
type Refusal = (Option<usize>, String);

pub(super) fn parse(raw: &RawNodeQuery) -> Result<NodeQuery, Vec<QueryError>> {
    let mut errors = Errors(Vec::new());
    let filter = NodeFilter {
        labels: errors.read("label_selector", &raw.label_selector, |text| {
            Selector::parse(text).map_err(|error| (Some(error.position), error.message))
        }),
        status: errors.read("status", &raw.status, statuses).unwrap_or_default(),
        schedulable: errors.read("schedulable", &raw.schedulable, truth),
        role: errors.read("role", &raw.role, word),
        zone: errors.read("zone", &raw.zone, word),
        taint: errors.read("taint", &raw.taint, |text| {
            TaintFilter::parse(text).map_err(|error| (Some(error.position), error.message))
        }),
        search: errors.read("search", &raw.search, |text| {
            word(text).map(|word| word.to_ascii_lowercase())
        }),
    };
    let sort = errors.read("sort", &raw.sort, sort);
    let limit = errors.read("limit", &raw.limit, limit);
    let cursor = errors.read("cursor", &raw.cursor, |text| {
        let cursor = Cursor::decode(text).map_err(|message| (None, message))?;
        match raw.sort.is_some() && sort.is_none() || cursor.sort() == sort.unwrap_or_default() {
            true => Ok(cursor),
            false => Err((
                None,
                "the cursor belongs to another sort: keep the sort of the page before".to_owned(),
            )),
        }
    });
    let fields = errors.read("fields", &raw.fields, fields);
    if !errors.0.is_empty() {
        return Err(errors.0);
    }
    // All labels is no filter, so that it is served as fast as none.
    let filter = NodeFilter {
        labels: filter.labels.filter(|labels| !labels.requirements().is_empty()),
        ..filter
    };
    Ok(NodeQuery {
        filter,
        sort: sort.unwrap_or_default(),
        limit,
        cursor,
        fields,
    })
}

impl Errors {
    fn read<T>(
        &mut self,
        parameter: &'static str,
        text: &Option<String>,
        read: impl FnOnce(&str) -> Result<T, Refusal>,
    ) -> Option<T> {
        match read(text.as_deref()?) {
            Ok(value) => Some(value),
            Err((position, message)) => {
                self.0.push(QueryError {
                    parameter: parameter.into(),
                    position,
                    message,
                });
                None
            }
        }
    }
}

fn statuses(text: &str) -> Result<Vec<NodeStatus>, Refusal> {
    let mut statuses = each(text, |word| {
        NodeStatus::ALL
            .into_iter()
            .find(|status| status.as_str() == word)
            .ok_or_else(|| {
                format!(
                    "{} is not a status: ready, not_ready or unknown is expected",
                    quoted(word)
                )
            })
    })?;
    // The same question is cached once, however it was written.
    statuses.sort_unstable();
    statuses.dedup();
    Ok(statuses)
}

fn fields(text: &str) -> Result<Vec<NodeField>, Refusal> {
    let mut fields = each(text, |word| {
        NodeField::ALL
            .iter()
            .copied()
            .find(|field| field.as_str() == word)
            .ok_or_else(|| {
                let known: Vec<&str> = NodeField::ALL.iter().map(|field| field.as_str()).collect();
                format!("{} is not a field of a node: {} are", quoted(word), known.join(", "))
            })
    })?;
    fields.sort_unstable();
    fields.dedup();
    Ok(fields)
}

/// Reads each of several words between commas.
fn each<T>(text: &str, read: impl Fn(&str) -> Result<T, String>) -> Result<Vec<T>, Refusal> {
    let mut position = 1;
    let mut values = Vec::new();
    for word in text.split(',') {
        values.push(read(word).map_err(|message| (Some(position), message))?);
        position += word.chars().count() + 1;
    }
    Ok(values)
}

fn truth(text: &str) -> Result<bool, Refusal> {
    match text {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err((None, format!("{} is neither true nor false", quoted(text)))),
    }
}

fn word(text: &str) -> Result<String, Refusal> {
    if text.is_empty() {
        return Err((
            None,
            "an empty text matches nothing: leave the parameter out".to_owned(),
        ));
    }
    if LONGEST_WORD < text.len() {
        return Err((
            None,
            format!("it has {} bytes, at most {LONGEST_WORD} are allowed", text.len()),
        ));
    }
    match text.chars().position(char::is_control) {
        Some(index) => Err((Some(index + 1), "control characters are not allowed".to_owned())),
        None => Ok(text.to_owned()),
    }
}

fn sort(text: &str) -> Result<NodeSort, Refusal> {
    let (descending, word) = match text.strip_prefix('-') {
        Some(word) => (true, word),
        None => (false, text),
    };
    let key = SortKey::ALL
        .into_iter()
        .find(|key| key.as_str() == word)
        .ok_or_else(|| {
            let known = SortKey::ALL.map(SortKey::as_str).join(", ");
            (
                None,
                format!(
                    "{} is not an order: one of {known} is expected, with '-' in front to reverse it",
                    quoted(text)
                ),
            )
        })?;
    Ok(NodeSort { key, descending })
}

fn limit(text: &str) -> Result<usize, Refusal> {
    match text.parse() {
        Ok(limit) if (1..=LARGEST_PAGE).contains(&limit) && text.bytes().all(|byte| byte.is_ascii_digit()) => Ok(limit),
        _ => Err((
            None,
            format!("{} is not a whole number from 1 to {LARGEST_PAGE}", quoted(text)),
        )),
    }
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", super::excerpt(text))
}

//! Reads the parameters of a list; everything in them is hostile until it was read.

use super::{Cursor, NodeField, NodeFilter, NodeQuery, NodeSort, QueryError, RawNodeQuery, SortKey};
use crate::parameter::{Errors, Refusal, quoted, whole_number, word};
use crate::{NodeStatus, Selector, TaintFilter};

/// A page is never larger.
const LARGEST_PAGE: usize = 10_000;

pub(super) fn parse(raw: &RawNodeQuery) -> Result<NodeQuery, Vec<QueryError>> {
    let mut errors = Errors::default();
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
    let limit = errors.read("limit", &raw.limit, |text| whole_number(text, LARGEST_PAGE));
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
    errors.none()?;
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

//! Which query parameters there are. Others are refused: a filter with a misspelt name would keep everything.

use std::collections::HashMap;
use std::sync::OnceLock;

use knm_model::{QueryError, excerpt};
use poem::Request;
use poem::http::Method;

use crate::document::document;
use crate::problem::{Kind, Problem};
use crate::route;

/// Whether the operation at `route` knows every query parameter, each given once.
pub(crate) fn check(route: &'static str, request: &Request) -> Result<(), Problem> {
    if !route::is_strict(route) || request.uri().query().is_none_or(str::is_empty) {
        return Ok(());
    }
    let pairs: Vec<(String, String)> = request
        .params()
        .map_err(|_| Problem::new(Kind::Malformed, "the query cannot be read"))?;
    let known = known(request.method(), route);
    let mut errors: Vec<QueryError> = Vec::new();
    for (index, (name, _)) in pairs.iter().enumerate() {
        let message = if !known.contains(&name.as_str()) {
            unknown(known)
        } else if pairs[..index].iter().any(|(earlier, _)| earlier == name) {
            "given more than once: once is allowed".to_owned()
        } else {
            continue;
        };
        let error = QueryError::new(excerpt(name), message);
        if !errors.iter().any(|known| known.parameter == error.parameter) {
            errors.push(error);
        }
    }
    if errors.is_empty() {
        return Ok(());
    }
    Err(Problem::invalid(errors))
}

fn unknown(known: &[&str]) -> String {
    if known.is_empty() {
        return "there is no such parameter: this operation has none".to_owned();
    }
    format!("there is no such parameter: there are {}", known.join(", "))
}

/// The query parameters of the operation at `route`, as the document tells them.
fn known(method: &Method, route: &'static str) -> &'static [&'static str] {
    type Names = HashMap<(&'static str, String), Vec<&'static str>>;
    static KNOWN: OnceLock<Names> = OnceLock::new();
    let known = KNOWN.get_or_init(|| {
        let mut known = Names::new();
        for (path, operations) in document()["paths"].as_object().into_iter().flatten() {
            for (method, operation) in operations.as_object().into_iter().flatten() {
                let parameters = operation["parameters"].as_array().into_iter().flatten();
                let names = parameters
                    .filter(|parameter| parameter["in"] == "query")
                    .filter_map(|parameter| parameter["name"].as_str());
                known.insert((path.as_str(), method.to_uppercase()), names.collect());
            }
        }
        known
    });
    known
        .get(&(route, method.as_str().to_owned()))
        .map(Vec::as_slice)
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use poem::http::Uri;

    use super::*;

    const NODES: &str = "/api/v1/clusters/{cluster}/nodes";

    fn checked(route: &'static str, uri: &'static str) -> Result<(), Vec<String>> {
        let request = Request::builder().uri(Uri::from_static(uri)).finish();
        check(route, &request).map_err(|problem| {
            let view = problem.view("id", false);
            let view = serde_json::to_value(view).unwrap();
            let errors = view["errors"].as_array().unwrap().iter();
            errors
                .map(|error| format!("{}: {}", error["parameter"], error["message"]))
                .collect()
        })
    }

    #[test]
    fn known_parameters_pass() {
        for uri in ["/", "/?", "/?zone=a", "/?zone=a&status=ready&limit=1", "/?zone"] {
            assert_eq!(checked(NODES, uri), Ok(()), "{uri}");
        }
        assert_eq!(checked("/livez", "/livez?verbose&nonsense=1"), Ok(()));
    }

    #[test]
    fn unknown_and_repeated_ones_are_all_named() {
        let errors = checked(NODES, "/?lable_selector=a&zone=a&zone=b&zone=c&%0a=1").unwrap_err();
        assert_eq!(errors.len(), 3, "{errors:?}");
        assert!(errors[0].contains("lable_selector") && errors[0].contains("there are label_selector, "));
        assert!(errors[1].contains("zone") && errors[1].contains("more than once"));
        assert!(errors[2].starts_with(r#""\\n""#), "{}", errors[2]);
        let errors = checked("/api/v1/clusters", "/?limit=1").unwrap_err();
        assert!(errors[0].contains("has none"), "{errors:?}");
    }
}

//! What is logged.

use tracing_subscriber::EnvFilter;

/// The words that the configuration promises, with what they mean for crates that are not ours: their `debug` is for their authors.
const LEVELS: [(&str, &str); 4] = [
    ("debug", "info"),
    ("info", "info"),
    ("warn", "warn"),
    ("error", "error"),
];

/// The target of spans that are there for traces only, with the same name in every crate that has some.
pub(crate) const TRACED: &str = "otel";

/// Says whether `text` is a level or a filter.
///
/// # Errors
/// A sentence that says what is wrong and what is allowed.
pub fn check_level(text: &str) -> Result<(), String> {
    parse(text).map(drop)
}

pub(crate) fn parse(text: &str) -> Result<EnvFilter, String> {
    let filter = parse_as_written(text)?;
    // Whatever somebody wants to see: these are no part of the log, and cost nothing where nobody traces.
    let directive = format!("{TRACED}=off").parse();
    Ok(match directive {
        Ok(untraced) => filter.add_directive(untraced),
        Err(_) => filter,
    })
}

fn parse_as_written(text: &str) -> Result<EnvFilter, String> {
    let word = text.to_ascii_lowercase();
    if let Some((ours, others)) = LEVELS.iter().find(|(level, _)| *level == word) {
        let filter = format!("{others},knm={ours},kube_node_manager={ours}");
        return EnvFilter::builder().parse(filter).map_err(|error| error.to_string());
    }
    if let Some(part) = text.split(',').map(str::trim).find(|part| !is_directive(part)) {
        return Err(format!(
            "\"{part}\" is neither debug, info, warn or error nor a filter such as info,knm_http=debug"
        ));
    }
    EnvFilter::builder().parse(text).map_err(|error| {
        format!("{error}; debug, info, warn, error or a filter such as info,knm_http=debug is allowed")
    })
}

/// A word alone would be taken for the name of a module, although it is a misspelt level more often.
fn is_directive(part: &str) -> bool {
    let levels = ["trace", "debug", "info", "warn", "error", "off"];
    part.contains(['=', '[']) || levels.contains(&part.to_ascii_lowercase().as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_and_filters_are_accepted() {
        for text in [
            "debug",
            "info",
            "WARN",
            "error",
            "trace",
            "off",
            "info,knm_http=debug",
            "warn,[request]=trace",
        ] {
            assert_eq!(check_level(text), Ok(()), "{text}");
        }
    }

    #[test]
    fn what_is_neither_is_named() {
        for text in ["verbose", "inof", "info,chatty", "", "knm_http=loud"] {
            let error = check_level(text).unwrap_err();
            assert!(error.contains("knm_http=debug"), "{text}: {error}");
        }
    }

    #[test]
    fn a_level_is_about_our_crates_and_keeps_others_quiet() {
        let filter = parse("debug").unwrap().to_string();
        for part in ["info", "knm=debug", "kube_node_manager=debug"] {
            assert!(filter.split(',').any(|directive| directive == part), "{filter}");
        }
    }
}

//! The runbooks: a section for each alert, and what they say exists.

use std::collections::BTreeSet;
use std::path::Path;

use crate::figures::{assert_known, listed};
use crate::rules::{alerts, recorded};
use crate::{read, read_yaml, root, text};

const RUNBOOKS: &str = "docs/runbooks.md";
/// What each section answers, in this order.
const PARTS: [&str; 6] = ["Means", "Users notice", "Check", "Do", "Do not", "Escalate"];

/// The sections about alerts: heading and text.
fn sections() -> Vec<(String, String)> {
    let page = read(RUNBOOKS);
    let sections = page
        .split("\n## ")
        .skip(1)
        .filter_map(|section| section.split_once('\n'));
    let about_alerts = sections.filter(|(heading, _)| heading.starts_with("KubeNodeManager"));
    about_alerts
        .map(|(heading, text)| (heading.to_owned(), text.to_owned()))
        .collect()
}

/// The queries for Prometheus, with the heading that they stand below.
pub fn queries() -> Vec<(String, String)> {
    let page = read(RUNBOOKS);
    let mut heading = "";
    let mut is_query = false;
    let mut found = Vec::new();
    for line in page.lines() {
        match line {
            "```promql" => is_query = true,
            "```" => is_query = false,
            _ if is_query => found.push((heading.to_owned(), line.to_owned())),
            _ => heading = line.strip_prefix("## ").unwrap_or(heading),
        }
    }
    found
}

/// The words of the page that begin with one of these.
fn words(beginnings: &[&str]) -> BTreeSet<String> {
    let page = read(RUNBOOKS);
    let words = page.split(|one: char| one.is_whitespace() || "`\"'(),;".contains(one));
    let words = words.map(|word| word.trim_end_matches(['.', ':']));
    let found = words.filter(|word| beginnings.iter().any(|beginning| word.starts_with(beginning)));
    found.map(str::to_owned).collect()
}

#[test]
fn each_alert_has_a_section_and_each_section_an_alert() {
    let alerts: BTreeSet<String> = alerts().iter().map(|alert| text(alert, "alert").to_owned()).collect();
    let sections: Vec<String> = sections().into_iter().map(|(heading, _)| heading).collect();
    assert_eq!(sections.iter().cloned().collect::<BTreeSet<_>>(), alerts);
    assert_eq!(sections.len(), alerts.len(), "a section is there twice");
}

#[test]
fn each_section_answers_the_same_questions_in_the_same_order() {
    for (heading, section) in sections() {
        let asked = section
            .lines()
            .filter_map(|line| line.strip_prefix("**")?.split_once(".**"));
        let asked: Vec<&str> = asked.map(|(part, _)| part).collect();
        assert_eq!(asked, PARTS, "{heading}");
    }
}

#[test]
fn logs_of_all_replicas_are_read_whole() {
    let page = read(RUNBOOKS);
    let of_all = page
        .lines()
        .filter(|line| line.contains("kubectl ") && line.contains(" logs ") && line.contains(" -l "));
    let of_all: Vec<&str> = of_all.collect();
    assert!(5 < of_all.len(), "only {of_all:?} were found");
    for line in of_all {
        assert!(
            line.contains(" --tail=-1 "),
            "with a selector kubectl shows ten lines of each pod: {line}"
        );
    }
}

#[test]
fn paths_in_the_runbooks_are_in_the_document() {
    let document = read_yaml("openapi/kube-node-manager.yaml");
    let known: Vec<&String> = document["paths"].as_object().unwrap().keys().collect();
    let mut named = words(&["/api/", "/health", "/livez", "/readyz", "/metrics", "$knm/"]);
    // In queries stand patterns of routes.
    named.retain(|path| !path.contains('*'));
    assert!(10 < named.len(), "only {named:?} were found");
    for path in named {
        let path = path.strip_prefix("$knm").unwrap_or(&path);
        let path = path.split('?').next().unwrap();
        let fits = |template: &&&String| {
            let (template, path) = (template.split('/'), path.split('/'));
            template.clone().count() == path.clone().count()
                && template
                    .zip(path)
                    .all(|(wanted, part)| wanted == part || wanted.starts_with('{') && part.starts_with('$'))
        };
        assert!(known.iter().find(fits).is_some(), "there is no path {path}");
    }
}

#[test]
fn keys_of_the_configuration_in_the_runbooks_are_in_the_readme() {
    let readme = read("README.md");
    let sections = [
        "server.",
        "limits.",
        "database.",
        "logging.",
        "kubernetes.",
        "registration.",
        "secrets.",
        "operations.",
        "auth.",
        "metrics.",
        "audit.",
    ];
    let keys = words(&sections);
    assert!(5 < keys.len(), "only {keys:?} were found");
    for key in keys {
        assert!(readme.contains(&format!("| `{key}` |")), "there is no key {key}");
    }
}

#[test]
fn queries_and_metrics_in_the_runbooks_are_those_of_the_service() {
    let (listed, recorded) = (listed(), recorded());
    for (_, query) in queries() {
        assert_known(&query, &listed, &recorded);
    }
    for metric in words(&["kube_node_manager_", "process_"]) {
        let name = metric.split(['{', '[']).next().unwrap();
        let base = name.trim_end_matches("_bucket");
        assert!(listed.contains(base), "there is no metric {name}");
    }
}

#[test]
fn lines_of_the_log_that_the_runbooks_quote_or_look_for_are_written_by_the_program_as_it_is_configured() {
    let page = read(RUNBOOKS);
    // Quoted in sentences, not in commands and queries.
    let sentences: String = page.split("\n```").step_by(2).collect();
    let quoted = sentences
        .split('"')
        .skip(1)
        .step_by(2)
        .map(|line| format!("\"{line}\""));
    let searched = page.lines().filter(|line| line.contains(" logs "));
    let searched = searched.flat_map(|line| line.split("| grep ").skip(1));
    let searched = searched.filter_map(|command| command.split('"').nth(1));
    // A word alone is a level or a subject.
    let searched = searched.flat_map(|pattern| pattern.split('|').filter(|one| one.contains(' ')));
    let lines: BTreeSet<String> = quoted.chain(searched.map(str::to_owned)).collect();
    assert!(9 < lines.len(), "only {lines:?} were found");
    let code: String = ["src", "domain/service/src", "adapters"]
        .iter()
        .map(|folder| code_below(&root().join(folder)))
        .collect();
    for line in lines {
        let levels = levels(&code, &line);
        assert!(!levels.is_empty(), "the program never logs {line}");
        let usual = ["error", "warn", "info"].map(str::to_owned).into();
        assert!(levels.is_subset(&usual), "{line} is logged as {levels:?}");
    }
}

/// The levels of the log at which this text is told.
fn levels(code: &str, text: &str) -> BTreeSet<String> {
    let calls = code.match_indices(text).filter_map(|(at, _)| {
        let (_, call) = code[..at].rsplit_once("tracing::")?;
        let (level, values) = call.split_once("!(")?;
        (!values.contains(';')).then(|| level.to_owned())
    });
    calls.collect()
}

#[test]
fn what_is_run_in_a_pod_is_the_program_which_is_all_that_there_is() {
    let page = read(RUNBOOKS);
    let run: Vec<&str> = page.split(" exec ").skip(1).collect();
    assert!(3 < run.len(), "only {} commands were found", run.len());
    for command in run {
        let (_, inside) = command.split_once(" -- ").expect("a command follows");
        let mut words = inside.split([' ', '`', ')', '\n']);
        assert_eq!(words.next(), Some("kube-node-manager"), "{inside}");
        assert!(["token", "migrate"].contains(&words.next().unwrap()), "{inside}");
    }
    for command in ["token", "migrate", "config", "secrets", "backup", "restore"] {
        for (at, _) in page.match_indices(&format!("kube-node-manager {command}")) {
            assert!(
                page[..at].ends_with(" -- "),
                "this is run in no pod: {}",
                &page[at..at + 60]
            );
        }
    }
}

#[test]
fn tokens_get_names_that_no_other_token_has() {
    let page = read(RUNBOOKS);
    let made: Vec<&str> = page.split("token create --name ").skip(1).collect();
    assert_eq!(made.len(), 2);
    for arguments in made {
        let (name, _) = arguments.split_once(" --").unwrap();
        assert!(
            name.ends_with("-$(date +%s)"),
            "a name is taken until its token is revoked: {name}"
        );
    }
}

#[test]
fn sections_of_the_readme_that_the_runbooks_name_are_there() {
    let (page, readme) = (read(RUNBOOKS), read("README.md"));
    let named: BTreeSet<&str> = page
        .split("README.md, *")
        .skip(1)
        .filter_map(|rest| rest.split('*').next())
        .collect();
    assert!(3 < named.len(), "only {named:?} were found");
    for section in named {
        assert!(
            readme.contains(&format!("# {section}\n")),
            "the README has no section {section}"
        );
    }
}

/// All Rust files in a folder, as one text.
fn code_below(folder: &Path) -> String {
    let entries = std::fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let read = |path: &Path| match path.is_dir() {
        true => code_below(path),
        false if path.extension().is_some_and(|extension| extension == "rs") => std::fs::read_to_string(path).unwrap(),
        false => String::new(),
    };
    entries.map(|entry| read(&entry.unwrap().path())).collect()
}

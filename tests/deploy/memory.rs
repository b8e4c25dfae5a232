//! What the documents say of memory, against their own formula and the autoscaler.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::manifests::Manifests;

/// The formula of docs/reliability.md, which stands there in these words.
const FORMULA: &str = "28 MiB + 11 KiB × nodes + 0.25 KiB × pods + 64 MiB for callers and operations";
/// How much larger than that the request must be for the autoscaler.
const ROOM: f64 = 1.4;

fn formula(nodes: f64, pods: f64) -> f64 {
    28.0 + 11.0 * nodes / 1024.0 + 0.25 * pods / 1024.0 + 64.0
}

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

/// The whole numbers in a text, with commas between thousands.
fn numbers(text: &str) -> Vec<f64> {
    let words = text.split(|one: char| !one.is_ascii_digit() && one != ',');
    let words = words.map(|word| word.replace(',', ""));
    words.filter_map(|word| word.parse().ok()).collect()
}

#[test]
fn the_table_of_fleets_is_what_the_formula_says_with_room_for_the_autoscaler() {
    let page = read("docs/reliability.md");
    assert!(
        page.contains(&format!("```\n{FORMULA}\n```")),
        "the formula is another one"
    );
    let (_, table) = page.split_once("| fleet | formula |").expect("the table");
    let rows = table.lines().skip(2).take_while(|line| line.starts_with('|'));
    let mut count = 0;
    for row in rows {
        let cells: Vec<&str> = row.trim_matches('|').split('|').collect();
        let fleet = numbers(cells[0]);
        let expected = formula(fleet[0] * fleet[1], fleet[2]);
        let [told, limit, request] = [1, 2, 3].map(|column| numbers(cells[column])[0]);
        assert!((told - expected).abs() <= 0.5, "{row}: {expected}");
        assert!(expected <= limit, "{row}");
        assert!(ROOM * expected <= request, "{row}: {}", ROOM * expected);
        count += 1;
    }
    assert_eq!(count, 3);
}

#[test]
fn the_request_that_the_readme_shows_is_one_at_which_the_autoscaler_adds_nothing_for_memory() {
    let readme = read("README.md");
    let (before, block) = readme
        .split_once("```yaml\n# more lines of kustomization.yaml\n")
        .expect("it is shown");
    let (block, _) = block.split_once("```").expect("it ends");
    let (_, fleet) = before.rsplit_once("; for ").expect("it says for what");
    let fleet = numbers(fleet);
    let lines: Value = serde_yaml::from_str(block).unwrap();
    let (Some(plain), Some(changed)) = (
        Manifests::of("overlays/postgres"),
        Manifests::changed("postgres", &lines),
    ) else {
        return;
    };
    let resources = &changed.container()["resources"];
    let mut expected = plain.container()["resources"].clone();
    expected["requests"]["memory"] = resources["requests"]["memory"].clone();
    assert_eq!(resources, &expected);
    let [request, limit] = ["requests", "limits"].map(|of| numbers(resources[of]["memory"].as_str().unwrap())[0]);
    let use_at_most = formula(fleet[0], fleet[1]);
    assert!(
        ROOM * use_at_most <= request && request <= limit,
        "{use_at_most}: {resources}"
    );
    let autoscaler = &changed.the("HorizontalPodAutoscaler")["spec"]["metrics"][1]["resource"];
    assert_eq!(autoscaler["name"], "memory");
    let percent = autoscaler["target"]["averageUtilization"].as_f64().unwrap();
    assert!(use_at_most <= request * percent / 100.0, "{use_at_most}: {resources}");
}

//! What the program may ask clusters for, as its source says it.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// The verb and resource of each request that the adapter for Kubernetes has a name for.
pub fn named() -> BTreeSet<(String, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("adapters/cluster-kubernetes/src");
    let files = fs::read_dir(folder).unwrap().map(|file| file.unwrap().path());
    let sources: Vec<String> = files
        .filter(|path| path.is_file())
        .map(|path| fs::read_to_string(path).unwrap())
        .collect();
    let watched: Vec<String> = sources
        .iter()
        .flat_map(|source| source.lines())
        .filter_map(|line| quoted(line.trim().strip_prefix("const RESOURCE: &'static str = ")?))
        .collect();
    let mut requests = BTreeSet::new();
    for source in &sources {
        for call in source.split(": Call = Call {").skip(1) {
            let field = |name: &str| call.split_once(name).unwrap().1.lines().next().unwrap();
            let verb = quoted(field("verb: ")).unwrap();
            match quoted(field("resource: ")) {
                Some(resource) => drop(requests.insert((verb, resource))),
                // The same code asks for all that is watched.
                None => requests.extend(watched.iter().map(|resource| (verb.clone(), resource.clone()))),
            }
        }
    }
    requests
}

/// The text between quotes that `source` begins with.
fn quoted(source: &str) -> Option<String> {
    let (text, _) = source.strip_prefix('"')?.split_once('"')?;
    Some(text.to_owned())
}

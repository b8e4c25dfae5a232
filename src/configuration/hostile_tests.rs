//! Files and variables that nobody writes who means well.

use proptest::prelude::*;

use super::schema::{KEYS, Kind};
use super::value::MASKED;
use super::*;

fn load(text: &str, variables: &[(&str, &str)]) -> Result<Resolved, ConfigurationError> {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    std::io::Write::write_all(&mut file, text.as_bytes()).unwrap();
    let variables = variables
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    Resolved::load(Some(file.path()), &variables.collect())
}

proptest! {
    // Each case writes files.
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_file_and_no_variable_make_it_panic(
        text in "\\PC{0,80}|([a-z]{1,8}:[ \n]{1,3}|[-\\[\\]{}&*!|>'\"#%@,?~ \n]|[0-9]{1,20}|(true|null|1e999|0x1f|\\.inf)[ \n]){0,40}",
        which in 0..KEYS.len(),
        value in "\\PC{0,60}|-?[0-9]{0,25}|[a-z:/@?=,\\[\\]{} -]{0,60}",
    ) {
        let key = &KEYS[which];
        let below = key.path.split_once('.').map_or("", |(_, below)| below);
        let long = key.long_variable();
        let variables = [(long.as_str(), value.as_str()), ("KNM__CLUSTERS", text.as_str())];
        for (text, variables) in [
            (text.clone(), &[][..]),
            (format!("{}:\n  {below}: {value}\n", key.section()), &[]),
            (format!("{}: {text}\nclusters: {text}\n", key.section()), &[]),
            (String::new(), &variables),
        ] {
            match load(&text, variables) {
                Ok(resolved) => drop((effective(&resolved), Settings::from(&resolved))),
                Err(error) => prop_assert!(!error.problems.is_empty()),
            }
        }
    }

    #[test]
    fn a_text_is_shown_as_it_is_read_again(which in 0..KEYS.len(), value in "[ -~]{1,30}|\\PC{1,30}") {
        let texts: Vec<_> = KEYS.iter().filter(|key| key.kind == Kind::Text && key.group().is_none()).collect();
        let key = texts[which % texts.len()];
        let Ok(first) = load("", &[(&key.long_variable(), &value)]) else {
            return Ok(());
        };
        let shown = effective(&first);
        let again = load(&shown, &[]).unwrap();
        prop_assert!(shown.contains(MASKED) || first.get(key.path).0 == again.get(key.path).0, "{}", shown);
    }
}

#[test]
fn files_that_go_deep_or_grow_are_problems() {
    let mut laughs = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..5 {
        let aliases = vec![format!("*a{}", level - 1); 10].join(", ");
        laughs.push_str(&format!("a{level}: &a{level} [{aliases}]\n"));
    }
    assert!(load(&laughs, &[]).is_err());
    for text in ["[", "{a: ", "- ", "? "].map(|part| part.repeat(500)) {
        for text in [
            text.clone(),
            format!("clusters: {text}"),
            format!("server:\n  cors_origins: {text}"),
        ] {
            assert!(load(&text, &[]).is_err(), "{text}");
        }
    }
}

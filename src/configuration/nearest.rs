//! What somebody may have meant.

/// The candidate that needs the fewest changes to become `text`.
#[must_use]
pub fn nearest<'a>(text: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    candidates.into_iter().min_by_key(|candidate| distance(text, candidate))
}

/// How many characters must be added, removed or replaced.
fn distance(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (line, letter) in from.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = line + 1;
        for column in 0..to.len() {
            let replaced = diagonal + usize::from(to[column] != letter);
            diagonal = row[column + 1];
            row[column + 1] = replaced.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_counted() {
        for (from, to, changes) in [
            ("", "", 0),
            ("port", "port", 0),
            ("prot", "port", 2),
            ("por", "port", 1),
            ("kitten", "sitting", 3),
        ] {
            assert_eq!(distance(from, to), changes, "{from} {to}");
        }
    }

    #[test]
    fn a_slip_finds_what_was_meant() {
        assert_eq!(
            nearest("server.prt", ["database.port", "server.port", "server.host"]),
            Some("server.port")
        );
    }
}

//! Texts that people write, and that go into logs, annotations and terminals.

/// The first character of `text` that does not stand there as what it is: control characters end lines and colour terminals, separators of
/// lines do so for some readers, and others turn the direction of what follows, so that it is read as something else.
#[must_use]
pub fn unprintable(text: &str) -> Option<char> {
    text.chars().find(|character| is_unprintable(*character))
}

pub(crate) fn is_unprintable(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{fff9}'..='\u{fffb}' | '\u{feff}'
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_in_any_language_is_printable() {
        for text in [
            "",
            "a disk",
            "Platte kaputt: groß",
            "磁盘",
            "قرص",
            "דיסק",
            "👩‍🔧 🇩🇪",
            "a\u{a0}b",
            "\u{200f}",
        ] {
            assert_eq!(unprintable(text), None, "{text}");
        }
    }

    #[test]
    fn what_ends_lines_or_turns_them_round_is_not() {
        for character in [
            '\0', '\t', '\n', '\r', '\u{1b}', '\u{7f}', '\u{85}', '\u{9b}', '\u{2028}', '\u{2029}', '\u{202a}',
            '\u{202e}', '\u{2066}', '\u{2069}', '\u{feff}', '\u{fffb}',
        ] {
            assert_eq!(unprintable(&format!("a{character}b")), Some(character), "{character:?}");
        }
    }
}

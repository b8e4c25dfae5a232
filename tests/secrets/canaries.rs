//! What must be seen nowhere, and everything that was seen.

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;

/// So many characters of a secret are enough to call it seen.
const PIECE: usize = 16;

/// Secrets that are planted, and what was seen meanwhile.
#[derive(Default)]
pub struct Canaries {
    planted: Vec<Planted>,
    seen: Vec<(String, String)>,
}

struct Planted {
    what: String,
    /// Pieces of it and of the ways to write it down, each long enough to be no accident.
    pieces: BTreeSet<String>,
}

impl Canaries {
    /// A new secret that is like no other one.
    pub fn secret(&mut self, what: &str) -> String {
        let number = self.planted.len();
        // Differs from all others in each piece of it.
        let text: String = (0..5)
            .map(|part| format!("c{part}n{number:02}ry{}", number * 7 + part))
            .collect();
        self.hide(what, &text);
        text
    }

    /// Of `text` nothing may be seen: neither its lines nor their beginnings and ends, nor any of that in Base64 or as digits.
    pub fn hide(&mut self, what: &str, text: &str) {
        let mut pieces = BTreeSet::new();
        let words = text.split(|character: char| !(character.is_ascii_alphanumeric() || "+/=._-".contains(character)));
        for word in words.filter(|word| PIECE <= word.len()) {
            let written = [word.to_owned(), hexadecimal(word)];
            for word in written
                .into_iter()
                .chain((0..3).map(|offset| inside_base64(word, offset)))
            {
                pieces.extend([word[..PIECE].to_owned(), word[word.len() - PIECE..].to_owned()]);
            }
        }
        assert!(!pieces.is_empty(), "{what} is too short to be found");
        let what = what.to_owned();
        self.planted.push(Planted { what, pieces });
    }

    /// Notes what somebody got to see.
    pub fn see(&mut self, place: &str, text: impl Into<String>) {
        self.seen.push((place.to_owned(), text.into()));
    }

    /// How much was seen.
    pub fn seen(&self) -> usize {
        self.seen.len()
    }

    /// The secrets that were seen, and where.
    pub fn leaks(&self) -> Vec<String> {
        let mut leaks = Vec::new();
        for (place, text) in &self.seen {
            for planted in &self.planted {
                if let Some(at) = planted.pieces.iter().find_map(|piece| text.find(piece.as_str())) {
                    let from = (at.saturating_sub(200)..=at)
                        .find(|from| text.is_char_boundary(*from))
                        .unwrap_or(at);
                    let around: String = text[from..].chars().take(300).collect();
                    leaks.push(format!("{} in {place}: {around}", planted.what));
                }
            }
        }
        leaks
    }
}

fn hexadecimal(text: &str) -> String {
    text.bytes().map(|byte| format!("{byte:02x}")).collect()
}

/// What is always the same of `text` in Base64, if it begins this many bytes after the beginning of a group of three.
fn inside_base64(text: &str, offset: usize) -> String {
    let encoded = STANDARD_NO_PAD.encode(format!("{}{text}", &"..."[..offset]));
    let (begin, end) = (if offset == 0 { 0 } else { 4 }, encoded.len() / 4 * 4 - 4);
    encoded[begin..end.max(begin + PIECE)].to_owned()
}

#[test]
fn a_secret_is_found_in_whatever_it_is_wrapped() {
    let mut canaries = Canaries::default();
    let secret = canaries.secret("a secret");
    let other = canaries.secret("another one");
    canaries.see("nothing", "c0n99ry and so on");
    assert_eq!(canaries.leaks(), [""; 0]);
    for offset in 0..4 {
        let wrapped = STANDARD_NO_PAD.encode(format!("{}{secret}.", "user:"[..offset].to_owned()));
        canaries.see("base64", wrapped);
    }
    canaries.see("digits", format!("\\x00{}", hexadecimal(&secret)));
    canaries.see("a part", format!("\u{e4}\"{}…\"", &secret[..20]));
    let leaks = canaries.leaks();
    assert_eq!(leaks.len(), 6, "{leaks:?}");
    assert!(leaks.iter().all(|leak| leak.starts_with("a secret in")), "{leaks:?}");
    canaries.see("the other", &other[10..]);
    assert_eq!(canaries.leaks().len(), 7);
}

//! The grammar of label selectors, that of `k8s.io/apimachinery/pkg/labels.Parse`.

use std::collections::BTreeSet;

use super::{Operator, Requirement, SelectorError};
use crate::label::{check_label_key, check_label_value};

/// No selector that anybody writes is longer.
const LONGEST: usize = 4_096;
/// Nor has it more requirements, or more values in all of them together.
const MOST_REQUIREMENTS: usize = 100;
const MOST_VALUES: usize = 1_000;

/// A piece of a selector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token<'a> {
    Word(&'a str),
    Symbol(&'static str),
    End,
}

/// Reads a selector from left to right, each character once.
struct Reader<'a> {
    rest: &'a str,
    /// Of the first character of `rest`, counted from 1.
    position: usize,
    /// How many values there were in brackets.
    values: usize,
}

pub(super) fn parse(text: &str) -> Result<Vec<Requirement>, SelectorError> {
    if LONGEST < text.len() {
        let message = format!("a selector has at most {LONGEST} bytes, this one has {}", text.len());
        return Err(SelectorError { position: 1, message });
    }
    let mut reader = Reader {
        rest: text,
        position: 1,
        values: 0,
    };
    let mut requirements = Vec::new();
    if reader.peek() == Token::End {
        return Ok(requirements);
    }
    loop {
        if requirements.len() == MOST_REQUIREMENTS {
            let message = format!("a selector has at most {MOST_REQUIREMENTS} requirements, this one has more");
            return Err(SelectorError {
                position: reader.here(),
                message,
            });
        }
        requirements.push(reader.requirement()?);
        let at = reader.here();
        match reader.next() {
            Token::End => return Ok(requirements),
            Token::Symbol(",") => {}
            found => return Err(unexpected(at, found, "',' or the end")),
        }
    }
}

fn unexpected(position: usize, found: Token<'_>, expected: &str) -> SelectorError {
    let found = match found {
        Token::Word(word) => {
            let word: String = word.chars().take(100).flat_map(char::escape_debug).collect();
            format!("\"{word}\"")
        }
        Token::Symbol(symbol) => format!("'{symbol}'"),
        Token::End => "the end".to_owned(),
    };
    SelectorError {
        position,
        message: format!("{found} was found where {expected} is expected"),
    }
}

impl<'a> Reader<'a> {
    fn requirement(&mut self) -> Result<Requirement, SelectorError> {
        let at = self.here();
        let negated = self.peek() == Token::Symbol("!");
        if negated {
            self.next();
        }
        let at_key = if negated { self.here() } else { at };
        let key = match self.next() {
            Token::Word(word) => word,
            found => {
                return Err(unexpected(
                    at_key,
                    found,
                    if negated { "a key" } else { "a key or '!'" },
                ));
            }
        };
        check_label_key(key).map_err(|error| SelectorError {
            position: at_key,
            message: error.to_string(),
        })?;
        let operator = if negated {
            Operator::DoesNotExist
        } else {
            self.operator()?
        };
        Ok(Requirement {
            key: key.to_owned(),
            operator,
        })
    }

    fn operator(&mut self) -> Result<Operator, SelectorError> {
        if matches!(self.peek(), Token::End | Token::Symbol(",")) {
            return Ok(Operator::Exists);
        }
        let at = self.here();
        match self.next() {
            Token::Symbol("=" | "==") => Ok(Operator::In(BTreeSet::from([self.value()?]))),
            Token::Symbol("!=") => Ok(Operator::NotIn(BTreeSet::from([self.value()?]))),
            Token::Symbol(">") => Ok(Operator::GreaterThan(self.integer()?)),
            Token::Symbol("<") => Ok(Operator::LessThan(self.integer()?)),
            Token::Word("in") => Ok(Operator::In(self.values()?)),
            Token::Word("notin") => Ok(Operator::NotIn(self.values()?)),
            found => Err(unexpected(
                at,
                found,
                "'=', '==', '!=', 'in', 'notin', '>', '<', ',' or the end",
            )),
        }
    }

    /// One value; nothing, before a comma or the end, is the empty value.
    fn value(&mut self) -> Result<String, SelectorError> {
        if matches!(self.peek(), Token::End | Token::Symbol(",")) {
            return Ok(String::new());
        }
        let at = self.here();
        match self.next() {
            Token::Word(word) => checked_value(at, word),
            found => Err(unexpected(at, found, "a value")),
        }
    }

    fn integer(&mut self) -> Result<i64, SelectorError> {
        let at = self.here();
        match self.next() {
            Token::Word(word) => word
                .parse()
                .map_err(|_| unexpected(at, Token::Word(word), "a whole number")),
            found => Err(unexpected(at, found, "a whole number")),
        }
    }

    /// `(a,b)`; nothing between two commas or brackets is the empty value.
    fn values(&mut self) -> Result<BTreeSet<String>, SelectorError> {
        let at = self.here();
        match self.next() {
            Token::Symbol("(") => {}
            found => return Err(unexpected(at, found, "'('")),
        }
        let mut values = BTreeSet::new();
        loop {
            let at = self.here();
            if self.values == MOST_VALUES {
                let message = format!("a selector has at most {MOST_VALUES} values, this one has more");
                return Err(SelectorError { position: at, message });
            }
            self.values += 1;
            let value = match self.peek() {
                Token::Word(word) => {
                    self.next();
                    checked_value(at, word)?
                }
                _ => String::new(),
            };
            values.insert(value);
            let at = self.here();
            match self.next() {
                Token::Symbol(",") => {}
                Token::Symbol(")") => return Ok(values),
                found => return Err(unexpected(at, found, "',' or ')'")),
            }
        }
    }

    /// Where the next token starts.
    fn here(&mut self) -> usize {
        self.skip_space();
        self.position
    }

    fn peek(&mut self) -> Token<'a> {
        self.skip_space();
        self.token().0
    }

    fn next(&mut self) -> Token<'a> {
        self.skip_space();
        let (token, length) = self.token();
        self.advance(length);
        token
    }

    /// The next token and its length in bytes.
    fn token(&self) -> (Token<'a>, usize) {
        for symbol in ["==", "!=", "=", "!", ",", "(", ")", ">", "<"] {
            if self.rest.starts_with(symbol) {
                return (Token::Symbol(symbol), symbol.len());
            }
        }
        let length = self
            .rest
            .find(|c: char| is_space(c) || matches!(c, '=' | '!' | ',' | '(' | ')' | '>' | '<'))
            .unwrap_or(self.rest.len());
        match &self.rest[..length] {
            "" => (Token::End, 0),
            word => (Token::Word(word), length),
        }
    }

    fn skip_space(&mut self) {
        let length = self.rest.find(|c: char| !is_space(c)).unwrap_or(self.rest.len());
        self.advance(length);
    }

    fn advance(&mut self, length: usize) {
        let (passed, rest) = self.rest.split_at(length);
        self.position += passed.chars().count();
        self.rest = rest;
    }
}

fn is_space(character: char) -> bool {
    matches!(character, ' ' | '\t' | '\r' | '\n')
}

fn checked_value(position: usize, word: &str) -> Result<String, SelectorError> {
    check_label_value(word).map_err(|error| SelectorError {
        position,
        message: error.to_string(),
    })?;
    Ok(word.to_owned())
}

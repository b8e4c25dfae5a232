//! What tells whether two stores hold the same.

use std::fmt::Write as _;

use knm_ports::Cell;
use sha2::{Digest, Sha256};

/// The SHA-256 of rows. Each value counts with its kind and its length, so no two different tables are the same text.
#[derive(Default)]
pub(super) struct Checksum {
    hash: Sha256,
    /// One row, as it is hashed.
    row: Vec<u8>,
}

impl Checksum {
    pub(super) fn add(&mut self, row: &[Cell]) {
        self.row.clear();
        for cell in row {
            match cell {
                Cell::Nothing => self.row.push(0),
                Cell::Text(text) => self.value(1, text.as_bytes()),
                Cell::Integer(number) => self.value(2, &number.to_be_bytes()),
                Cell::Flag(flag) => self.value(3, &[u8::from(*flag)]),
                Cell::Bytes(bytes) => self.value(4, bytes),
                Cell::Id(id) => self.value(5, id.as_bytes()),
            }
        }
        self.hash.update(&self.row);
    }

    pub(super) fn finish(self) -> String {
        hexadecimal(&self.hash.finalize())
    }

    fn value(&mut self, kind: u8, bytes: &[u8]) {
        self.row.push(kind);
        self.row.extend_from_slice(&(bytes.len() as u64).to_be_bytes());
        self.row.extend_from_slice(bytes);
    }
}

/// Bytes as people read them.
pub(super) fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a text does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

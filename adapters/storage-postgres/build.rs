//! Builds the crate again when a migration is added: the compiler only knows those that it read.

fn main() {
    println!("cargo::rerun-if-changed=../../migrations/postgres");
}

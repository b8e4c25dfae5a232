//! Holds the tree against its own rules: who may use whom, what a feature leaves out, the house rules, and what the documents promise.

#![cfg(test)]

mod dependencies;
mod documents;
mod features;
mod house_rules;
mod migrations;
mod tree;

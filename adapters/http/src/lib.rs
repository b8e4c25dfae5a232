//! The HTTP interface: it translates and nothing else.

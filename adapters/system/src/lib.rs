//! The real clock and the figures of the process and its machine.

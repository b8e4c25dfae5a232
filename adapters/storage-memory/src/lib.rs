//! Storage in the memory of the process.

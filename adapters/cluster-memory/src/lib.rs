//! A simulated fleet of nodes, for tests and for the demo.

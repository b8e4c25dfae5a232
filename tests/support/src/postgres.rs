//! A real PostgreSQL server, from its programs on this machine.

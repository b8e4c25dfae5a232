//! Storage in PostgreSQL.

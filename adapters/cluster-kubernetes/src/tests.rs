//! Conversions and errors without a server.

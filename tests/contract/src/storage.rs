//! What every storage adapter must do.

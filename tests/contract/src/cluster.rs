//! What every cluster adapter must do.

//! Dropping root.

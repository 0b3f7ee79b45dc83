//! The Sender Rewriting Scheme.

//! Networks and lists of them.

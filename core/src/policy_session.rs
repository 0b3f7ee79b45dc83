//! The connection loop of a policy server.

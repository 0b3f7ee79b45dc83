//! The time, passed in so that tests and simulations can set it.

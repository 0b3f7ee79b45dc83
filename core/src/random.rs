//! Randomness, passed in so that simulations are reproducible.

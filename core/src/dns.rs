//! DNS look-ups behind one trait.

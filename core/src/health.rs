//! State of the dependencies, and its HTTP listener.

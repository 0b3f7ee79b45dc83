//! Listeners, connections, limits and shutdown.

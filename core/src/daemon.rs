//! The life of a daemon: settings, listeners, privileges, reload and stop.

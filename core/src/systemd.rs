//! Service manager notification and watchdog.

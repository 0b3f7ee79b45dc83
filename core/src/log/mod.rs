//! Log lines: key=value, JSON, syslog.

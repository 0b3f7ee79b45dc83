//! What stands beside a running daemon: ban filters, alert rules and the dashboard in `packaging/`, held against what the
//! daemons really write and print. The daemons are real processes on free ports with databases in their state directories.

mod ban_filters;
mod failregex;
mod monitoring;

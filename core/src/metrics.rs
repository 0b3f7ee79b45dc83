//! Counters, gauges and histograms of one daemon.

//! Keys under which policy tables are asked: wildcard forms of addresses and networks.

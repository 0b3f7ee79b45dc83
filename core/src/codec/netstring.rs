//! Netstrings, the frame of the socketmap protocol.

//! DKIM signing and verification, Authentication-Results.

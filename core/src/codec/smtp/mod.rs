//! SMTP and LMTP: commands, replies, message data, XFORWARD.

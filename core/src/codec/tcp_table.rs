//! Postfix `tcp_table(5)`.

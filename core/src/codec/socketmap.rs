//! Postfix `socketmap_table(5)`.

//! Postfix policy delegation (`SMTPD_POLICY_README`).

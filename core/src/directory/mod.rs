//! Accounts: domains, mailboxes, aliases and lists.

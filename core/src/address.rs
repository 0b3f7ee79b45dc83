//! Mail addresses: local part, domain and extension.

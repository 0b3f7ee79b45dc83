//! MySQL, PostgreSQL and SQLite behind one interface.

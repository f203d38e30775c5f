"""The store: one interface, an in-memory reference, SQLite and PostgreSQL."""

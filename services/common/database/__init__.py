"""Databases of two kinds, SQLite and PostgreSQL, and statements that both take."""

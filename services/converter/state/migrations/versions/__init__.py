"""The versions of the tables, one module for each."""

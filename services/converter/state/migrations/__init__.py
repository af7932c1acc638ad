"""How the tables of an earlier version of the state become those of a later one; Alembic runs it."""

"""How the tables of earlier publishers become those of this one, by Alembic."""

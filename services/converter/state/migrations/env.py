"""What Alembic runs: it brings the tables to the newest version in the transaction that the caller has begun."""

from alembic import context

from services.converter.state.tables import metadata

# SQLite's changes of tables are part of a transaction as well, which Alembic does not believe.
context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    transactional_ddl=True,
)
with context.begin_transaction():
    context.run_migrations()

"""What Alembic runs: it brings the tables to the newest version, on the caller's connection.

Where the caller has begun a transaction, all of it is part of that. Otherwise each version is a transaction of its own.
"""

from alembic import context

from services.common.database.versions import record_oldest
from services.publisher.journal.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    # SQLite's changes of tables are part of a transaction as well, which Alembic does not believe.
    transactional_ddl=True,
    transaction_per_migration=True,
    on_version_apply=record_oldest,
)
with context.begin_transaction():
    context.run_migrations()

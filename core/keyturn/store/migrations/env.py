"""Alembic's entry: the caller hands its connection over, with the guarding lock held and its transaction begun."""

from alembic import context

from keyturn.store.schema import VERSION_TABLE, metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    version_table=VERSION_TABLE,
    transactional_ddl=True,
)
with context.begin_transaction():
    context.run_migrations()

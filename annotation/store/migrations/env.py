"""Alembic's entry: runs the migrations on the engine that `open_store` hands over."""

from alembic import context

from annotation.store.tables import metadata

engine = context.config.attributes["engine"]
with engine.connect() as connection:
    context.configure(connection=connection, target_metadata=metadata, render_as_batch=True)
    with context.begin_transaction():
        context.run_migrations()

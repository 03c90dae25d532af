"""Alembic's entry point: it runs on the connection that `storage/sqlite/schema.py` hands over, never on its own."""

from __future__ import annotations

from alembic import context

from whiteboard.storage.sql.metadata import metadata
from whiteboard.storage.sql.tables import VERSION_TABLE

connection = context.config.attributes.get("connection")
if connection is None:
    message = "migrations run through `whiteboard db upgrade --store PATH`, which hands over a connection"
    raise RuntimeError(message)

# The caller holds one BEGIN IMMEDIATE around all revisions: an upgrade happens whole or not at all.
context.configure(
    connection=connection,
    target_metadata=metadata,
    version_table=VERSION_TABLE,
    render_as_batch=True,
    transactional_ddl=False,
)
context.run_migrations()

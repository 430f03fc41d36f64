"""Run by Alembic. The connection comes from the store, already inside the transaction that will hold it all."""

from __future__ import annotations

from alembic import context

from server.tables import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata, transactional_ddl=True)
context.run_migrations()

"""Alembic runs this file: it migrates on the connection in which ``service.storage.migrate`` holds its lock."""

from __future__ import annotations

from alembic import context

from service.storage.tables import Base

connection = context.config.attributes["connection"]
context.configure(
    connection=connection,
    target_metadata=Base.metadata,
    transactional_ddl=True,
    render_as_batch=connection.dialect.name == "sqlite",
)
context.run_migrations()

"""Alembic's entry: migrate over the connection that ``service.migrate`` holds its lock and its transaction on."""

from __future__ import annotations

from alembic import context

from service.tables import Base

connection = context.config.attributes["connection"]
context.configure(
    connection=connection,
    target_metadata=Base.metadata,
    transactional_ddl=True,
    render_as_batch=connection.dialect.name == "sqlite",
)
context.run_migrations()

"""Processes and databases are made as those of the service's own tests are."""

from tests.service.conftest import new_process, own_postgres, postgres, s3

__all__ = ["new_process", "own_postgres", "postgres", "s3"]

"""What most of the service needs: settings, database, store and its room, keys, metrics, the table of next steps."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from data_specs.next_steps.table import Table, read_table
from service.keys import Keys
from service.metrics import Metrics
from service.settings import Settings
from service.storage.database import Database
from service.storage.room import Room
from service.storage.store import Store, open_store


@dataclass
class Parts:
    """The parts of the service that only read and write; ``service.state.Service`` adds those that run.

    Parameters
    ----------
    room
        Whether the disks have room for something new.
    next_steps
        The screening programme's table of what to do next.
    """

    settings: Settings
    database: Database
    store: Store
    room: Room
    keys: Keys
    metrics: Metrics
    next_steps: Table

    @classmethod
    def open(cls, settings: Settings) -> Parts:
        """The parts for ``settings``; the data folder is made where it is missing."""
        settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        database = Database(settings.database)
        store = open_store(settings.store, settings.data_dir)
        folders = {"data": settings.data_dir, "store": store.drafts}
        if (file := database.sqlite_file) is not None:
            folders["database"] = file.parent
        return Parts(
            settings=settings,
            database=database,
            store=store,
            room=Room(folders, settings.min_free_bytes),
            keys=Keys(database, settings.bootstrap_key),
            metrics=Metrics(),
            next_steps=read_table(settings.next_steps),
        )

    async def read_file(self, sha256: str) -> bytes:
        """The content of a stored file, read in a thread.

        Raises
        ------
        StoredFileMissing, StoredFileDamaged
        """
        return await asyncio.to_thread(self.store.read, sha256)

"""What most of the service needs: settings, database, store and its room, keys, sessions, metrics, next steps."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from data_specs.next_steps.table import Table
from inference.readers.job import Job, Read
from inference.readers.pool import Readers, ReadersFailed
from inference.readers.worker import FileChanged
from service.errors import StoredFileDamaged, Unavailable
from service.keys import Keys
from service.metrics import Metrics
from service.release.tables import Tables
from service.sessions import Sessions
from service.settings import Settings
from service.storage.database import Database
from service.storage.pieces import Pieces, open_pieces
from service.storage.room import Room
from service.storage.store import Store, open_store
from service.wrong_keys import WrongKeys

T = TypeVar("T")


@dataclass
class Parts:
    """The parts of the service that only read and write; ``service.state.Service`` adds those that run.

    Parameters
    ----------
    readers
        Read what was posted, in processes that may die.
    pieces
        The bytes of unfinished uploads.
    room
        Whether the disks have room for something new.
    tables
        The screening programme's tables.
    """

    settings: Settings
    database: Database
    store: Store
    pieces: Pieces
    room: Room
    keys: Keys
    sessions: Sessions
    readers: Readers
    metrics: Metrics
    tables: Tables

    @property
    def next_steps(self) -> Table:
        """The programme's table of what to do next."""
        return self.tables.next_steps

    @classmethod
    def open(cls, settings: Settings, readers: Readers | None = None) -> Parts:
        """The parts for ``settings``; the data folder is made where it is missing, and so are readers."""
        settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        database = Database(settings.database)
        store = open_store(settings.store, settings.data_dir)
        folders = {"data": settings.data_dir, "store": store.drafts}
        if (file := database.sqlite_file) is not None:
            folders["database"] = file.parent
        metrics = Metrics()
        keys = Keys(database, settings.bootstrap_key, WrongKeys(metrics))
        return Parts(
            settings=settings,
            database=database,
            store=store,
            pieces=open_pieces(store, settings.data_dir, database),
            room=Room(folders, settings.min_free_bytes),
            keys=keys,
            sessions=Sessions(database, keys, settings.session_hours),
            readers=readers or Readers(),
            metrics=metrics,
            tables=Tables(settings),
        )

    async def read_file(self, sha256: str) -> bytes:
        """The content of a stored file, read in a thread.

        Raises
        ------
        StoredFileMissing, StoredFileDamaged
        """
        return await asyncio.to_thread(self.store.read, sha256)

    async def read_stored(self, job: Job[..., T], sha256: Sequence[str], *arguments: Any) -> Read[T]:
        """What a reader makes of stored files.

        Raises
        ------
        Refused
            As the job says, and :meth:`inference.readers.pool.Readers.submit`.
        StoredFileMissing, StoredFileDamaged
        Unavailable
            No reader could be kept running.
        """
        files = [partial(self.store.open, each) for each in sha256]
        try:
            return await self.readers.run(job, files, *arguments)
        except FileChanged:
            raise StoredFileDamaged from None
        except ReadersFailed:
            raise Unavailable from None

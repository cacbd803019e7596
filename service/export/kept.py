"""What the commands of exports and of cases to learn from do alike: they open what is kept, and say why they refuse."""

from __future__ import annotations

from collections.abc import Callable

from data_specs.problems import Refused
from inference.readers.pool import ReadersFailed
from service.errors import Unavailable
from service.settings import Settings, read_settings
from service.storage.commands import NotDone, open_existing
from service.storage.database import Database
from service.storage.store import Store

Work = Callable[[Settings, Database, Store], int]


def on_what_is_kept(work: Work) -> int:
    """Carry out ``work`` on database and store of the environment; its exit code.

    Raises
    ------
    NotDone
        It was refused, in the language of the settings, or no reader could be kept running.
    """
    settings = read_settings()
    database, store = open_existing(settings)
    try:
        return work(settings, database, store)
    except Refused as refusal:
        problem = refusal.problem
        raise NotDone(f"{problem.code}: {problem.message(settings.language)}") from None
    except (ReadersFailed, Unavailable):
        raise NotDone("no process that reads files could be kept running") from None
    finally:
        database.close()

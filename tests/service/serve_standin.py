"""``server.py`` with the stand-in engine: a process that tests can kill."""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))


def main():
    from service.run import serve
    from service.settings import read_settings
    from tests.service.standin import StandIn

    return serve(read_settings(), StandIn(Path(os.environ["JOURNAL"]), float(os.environ["SECONDS"])))


if __name__ == "__main__":
    raise SystemExit(main())

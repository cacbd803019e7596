"""The same scoring by Ray Data: a pool of actors, each with an engine, a reader and a core or a share of a GPU."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from inference.archive.cases import BadSource, Case, Source
from inference.archive.scoring import Options, Scored, Scorer

BATCH = 64
"""Cases that an actor is given at a time: it waits for the last of them, so fewer would leave it idle too often."""
LOCAL = "local"
ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}
"""Nothing is reported to anybody, and an actor without a share of a GPU keeps what the machine's owner set."""
OBJECT_STORE_BYTES = 200_000_000
"""Places of files and rows pass through it, never films: each actor reads its own."""
ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Cluster:
    """Where the actors run.

    Parameters
    ----------
    address
        :data:`LOCAL`: started for this run on loopback. Else that of a cluster, whose machines have this checkout, the
        bundles and the sources at the same paths.
    actors
        How many.
    gpus
        Share of a GPU that each has; 0: a core.
    """

    address: str = LOCAL
    actors: int = 1
    gpus: float = 0.0


class Actor:
    """A scorer in a process of its own. What passes is pickled, since both sides are this program."""

    def __init__(self, sources: Sequence[Source], options: Options, known: frozenset[str]) -> None:
        self._scorer = Scorer(sources, options, known)

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[bytes]]:
        cases = (pickle.loads(case) for case in batch["case"])  # noqa: S301  our own
        return {"scored": [pickle.dumps(scored) for scored in self._scorer.scored(cases)]}


@contextmanager
def scoring_by_ray(
    sources: Sequence[Source], options: Options, known: Collection[str], cluster: Cluster
) -> Iterator[Callable[[Sequence[Case]], Iterator[Scored]]]:
    """A function that scores cases in the cluster.

    Raises
    ------
    BadSource
        Ray is not installed.
    """
    os.environ.update(ENVIRONMENT)
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    try:
        import ray  # type: ignore[import-not-found, unused-ignore]  # noqa: PLC0415
        import ray.data  # type: ignore[import-not-found, unused-ignore]  # noqa: PLC0415
    except ImportError as error:
        raise BadSource(f"--ray needs the package ray[data] (the extra 'archive'): {error}") from None
    if cluster.address == LOCAL:
        ray.init(
            num_cpus=max(os.cpu_count() or 1, cluster.actors + 1),
            include_dashboard=False,
            log_to_driver=False,
            object_store_memory=OBJECT_STORE_BYTES,
            _node_ip_address="127.0.0.1",
        )
    else:
        ray.init(address=cluster.address, log_to_driver=False)
    try:
        yield lambda cases: _scored(cases, sources, options, known, cluster)
    finally:
        ray.shutdown()


def _scored(
    cases: Sequence[Case], sources: Sequence[Source], options: Options, known: Collection[str], cluster: Cluster
) -> Iterator[Scored]:
    import ray  # noqa: PLC0415
    import ray.data  # noqa: PLC0415

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    blocks = max(cluster.actors, -(-len(cases) // BATCH))
    listed = ray.data.from_items([{"case": pickle.dumps(case)} for case in cases], override_num_blocks=blocks)
    of_actor = replace(options, workers=1)
    found = listed.map_batches(
        Actor,
        fn_constructor_args=(sources, of_actor, frozenset(known)),
        batch_size=BATCH,
        batch_format="numpy",
        compute=ray.data.ActorPoolStrategy(size=cluster.actors),
        num_cpus=0 if cluster.gpus else 1,
        num_gpus=cluster.gpus or None,
    )
    for batch in found.iter_batches(batch_size=None, batch_format="numpy"):
        for scored in batch["scored"]:
            yield pickle.loads(scored)  # noqa: S301  our own

"""``python -m training COMMAND``: make bundles, from the shipped cohorts or a hospital's own.

``lung``, ``cardiac``, ``kidney``: train on ``--cohort`` manifests, or without one on the cohorts that the shipped
bundle was made from. ``gate``: the shipped gate again. ``check``: look a cohort over before anything trains.
``pretrain``: learn from cases without labels. ``recalibrate``: fit a bundle to local cases, its network untouched.
``agree``: how far fp16 and bf16 are from fp32, for a bundle that does not say.
``plan``: from prevalence and recalls per thousand to a threshold and what it costs. ``import``: a bundle from weights
that were trained elsewhere.
"""

from __future__ import annotations

import argparse
import importlib
import re
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

NETWORKS = ("lung", "cardiac")
COMMANDS = {
    "check": "training.cohorts.checks",
    "pretrain": "training.learning.pretrain",
    "recalibrate": "training.bundle.recalibrate",
    "agree": "training.bundle.agreement",
    "plan": "training.figures.planner",
    "import": "training.imported.command",
}


def main(argv: Sequence[str]) -> int:
    # Imported by name: the commands that need no network start without torch.
    if argv and argv[0] in COMMANDS:
        return int(importlib.import_module(COMMANDS[argv[0]]).main(list(argv[1:])) or 0)
    arguments = parse(argv)
    try:
        folder = train_network(arguments) if arguments.bundle in NETWORKS else train_other(arguments)
    except (ValueError, FileExistsError, FileNotFoundError, FloatingPointError) as error:
        # What the cohort, the start or the settings do not allow, in words for the person who asked.
        print(error, file=sys.stderr)
        return 2
    if folder is not None:
        print((folder / "docs" / "README.md").read_text(encoding="utf-8"))
        print(f"written: {folder}")
    return 0


def parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m training", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bundle", choices=(*NETWORKS, "kidney", "gate"), help=f"or one of {', '.join(COMMANDS)}")
    cohort = parser.add_argument_group("what to learn from")
    cohort.add_argument("--cohort", type=Path, action="append", help="manifest (YAML); may be given again")
    cohort.add_argument("--data", type=Path, default=Path("../shared/data"), help="the shipped cohorts' folder")
    cohort.add_argument(
        "--persons", type=float, default=1.0, help="share of the training persons, for a learning curve"
    )
    start = parser.add_argument_group("where the weights begin")
    start.add_argument("--init", default=None, help="imagenet, none, or a file of weights")
    start.add_argument("--from-bundle", type=Path, help="folder of a bundle to fine-tune")
    start.add_argument("--freeze", action="store_true", help="learn the last layer only")
    result = parser.add_argument_group("where it goes")
    result.add_argument("--out", type=Path, default=Path("runs"), help="runs, and bundles unless --bundles is given")
    result.add_argument("--bundles", type=Path, help="where the bundle is written")
    result.add_argument("--version", default="1.0.0", help="version of the bundle; one that exists is not replaced")
    how = parser.add_argument_group("how")
    how.add_argument("--epochs", type=int)
    how.add_argument("--batch-size", type=int)
    how.add_argument("--learning-rate", type=float)
    how.add_argument("--seed", type=int)
    how.add_argument("--precision", choices=("bf16", "fp32"))
    how.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    how.add_argument("--threads", type=int, help="of the processor")
    arguments = parser.parse_args(argv)
    # What would only be found out when the training is over.
    if not re.fullmatch(r"\d+\.\d+\.\d+", arguments.version):
        parser.error(f"--version {arguments.version}: three numbers, such as 1.0.1")
    if arguments.init and arguments.from_bundle:
        parser.error("--init and --from-bundle: weights begin at one place")
    if arguments.epochs is not None and arguments.epochs < 1:
        parser.error("--epochs: at least 1")
    return arguments


def train_network(arguments: argparse.Namespace) -> Path | None:
    """One of the networks; ``None`` on a process that only helped to train."""
    import torch  # noqa: PLC0415

    from training.cohorts.cohort import keep_share_of_persons  # noqa: PLC0415
    from training.cohorts.local import local_cohort  # noqa: PLC0415
    from training.learning.processes import Processes  # noqa: PLC0415
    from training.learning.task import Start  # noqa: PLC0415
    from training.learning.workflow import make_bundle  # noqa: PLC0415

    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    organ = importlib.import_module(f"training.organs.{arguments.bundle}")
    run = arguments.out / f"{arguments.bundle}-{arguments.version}.run"
    with Processes.joined(arguments.device):
        if arguments.cohort:
            cohorts = [local_cohort(path, organ.INPUT, cache=run / "cache") for path in arguments.cohort]
        else:
            cohorts = list(organ.shipped(arguments.data))
        cohorts = [keep_share_of_persons(cohort, arguments.persons) for cohort in cohorts]
        task = organ.task(cohorts, arguments.data)
        given = {"epochs": arguments.epochs, "batch_size": arguments.batch_size, "seed": arguments.seed}
        given |= {"learning_rate": arguments.learning_rate, "precision": arguments.precision}
        task = replace(task, recipe=replace(task.recipe, **{k: v for k, v in given.items() if v is not None}))
        return make_bundle(
            task,
            cohorts,
            run=run,
            bundles=arguments.bundles or arguments.out,
            version=arguments.version,
            start=Start(arguments.init or organ.INIT, arguments.from_bundle, arguments.freeze),
            device=arguments.device,
        )


def train_other(arguments: argparse.Namespace) -> Path:
    """``kidney`` and ``gate``, which have workflows of their own."""
    module = importlib.import_module(f"training.organs.{arguments.bundle}")
    own = {"cohorts": arguments.cohort} if arguments.cohort else {}
    if own and arguments.bundle == "gate":
        raise ValueError("the gate learns from the shipped cohorts and made-up pictures only; it takes no --cohort")
    folder: Path = module.run(
        data=arguments.data,
        out=arguments.out / f"{arguments.bundle}-{arguments.version}.run",
        bundles=arguments.bundles or arguments.out,
        version=arguments.version,
        epochs=arguments.epochs,
        **own,
    )
    return folder


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

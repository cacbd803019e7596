"""``python -m training COMMAND``: make bundles from the shipped cohorts or from a hospital's own.

lung, cardiac, kidney: train on --cohort manifests, or on the cohorts of the shipped bundle if none is given.
gate: train the gate on the shipped cohorts.
check: check a cohort before training.
pretrain: train a network's backbone without labels.
evaluate: a bundle on labelled cases, as it serves, with the tables of a card.
accept: judge by a site's own cases what it may use each finding of a bundle for, and log it.
recalibrate: fit calibration and thresholds of a bundle to local cases; the network does not change.
agree: measure the difference of fp16 and bf16 from fp32 for a bundle.
resolution: measure what reading larger films at a lower resolution changes, and allow it.
measure: measure a bundle beyond its evaluation (cardiac: short recordings), and put the tables into its card.
normals: how often certificates of normals are refused and broken, tried on real films.
plan: what thresholds find, miss and cost, by a programme's table or by recalls per thousand.
import: make a bundle from weights that were trained elsewhere.
"""

from __future__ import annotations

import argparse
import importlib
import re
import shlex
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

NETWORKS = ("lung", "cardiac")
COMMANDS = {
    "check": "training.figures.prospects",
    "pretrain": "training.learning.pretrain",
    "evaluate": "training.bundle.evaluate_bundle",
    "accept": "training.bundle.accept",
    "recalibrate": "training.bundle.recalibrate",
    "agree": "training.bundle.agreement",
    "resolution": "training.bundle.resolution",
    "measure": "training.bundle.measure",
    "normals": "training.bundle.normals",
    "plan": "training.figures.planner",
    "import": "training.imported.command",
}


def main(argv: Sequence[str]) -> int:
    # Imported by name, so that commands without a network start without torch.
    if argv and argv[0] in COMMANDS:
        return int(importlib.import_module(COMMANDS[argv[0]]).main(list(argv[1:])) or 0)
    arguments = parse(argv)
    try:
        folder = train_network(arguments) if arguments.bundle in NETWORKS else train_other(arguments)
    except KeyboardInterrupt:
        print(stopped(arguments, argv), file=sys.stderr)
        return 130
    except (ValueError, FileExistsError, FileNotFoundError, FloatingPointError) as error:
        print(error, file=sys.stderr)
        return 2
    if folder is not None:
        print((folder / "docs" / "README.md").read_text(encoding="utf-8"))
        print(f"written: {folder}")
    return 0


def stopped(arguments: argparse.Namespace, argv: Sequence[str]) -> str:
    """What to do after Ctrl-C."""
    run = run_folder(arguments)
    kept = sorted(run.rglob("checkpoint.pt"))
    again = f"  python -m training {shlex.join(argv)}"
    if not kept:
        return f"\nStopped before an epoch was finished: nothing is kept but what was read. To begin again:\n{again}"
    return (
        f"\nStopped. {run} holds all finished epochs ({len(kept)} checkpoint{'s' * (len(kept) > 1)}). The same command "
        f"goes on from there and ends with the same weights:\n{again}"
    )


def run_folder(arguments: argparse.Namespace) -> Path:
    """Folder of the run: checkpoint, curves and the cache of read files."""
    return Path(arguments.out) / f"{arguments.bundle}-{arguments.version}.run"


def parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m training", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bundle", choices=(*NETWORKS, "kidney", "gate"), help=f"or one of {', '.join(COMMANDS)}")
    cohort = parser.add_argument_group("training data")
    cohort.add_argument("--cohort", type=Path, action="append", help="manifest (YAML); may be given several times")
    cohort.add_argument("--data", type=Path, default=Path("../shared/data"), help="the shipped cohorts' folder")
    cohort.add_argument(
        "--persons", type=float, default=1.0, help="share of the training persons, for a learning curve"
    )
    start = parser.add_argument_group("first weights")
    start.add_argument("--init", default=None, help="imagenet, none, or a file of weights")
    start.add_argument("--from-bundle", type=Path, help="folder of a bundle to fine-tune")
    start.add_argument("--freeze", action="store_true", help="train the last layer only")
    result = parser.add_argument_group("output")
    result.add_argument(
        "--out", type=Path, default=Path("runs"), help="folder of runs, and of bundles unless --bundles is given"
    )
    result.add_argument("--bundles", type=Path, help="folder of bundles")
    result.add_argument("--version", default="1.0.0", help="version of the bundle; one that exists is not replaced")
    how = parser.add_argument_group("training")
    how.add_argument("--epochs", type=int)
    how.add_argument("--batch-size", type=int)
    how.add_argument("--learning-rate", type=float)
    how.add_argument("--seed", type=int)
    how.add_argument("--precision", choices=("bf16", "fp32"))
    how.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    how.add_argument("--patience", type=int, default=0, help="stop after so many epochs without a better one; 0: never")
    how.add_argument("--folds", type=int, default=0, help="cross-validate over persons, and export the folds' mean")
    how.add_argument("--search", action="store_true", help="try learning rates and freezing; the best on validation")
    how.add_argument(
        "--leave-sites-out",
        action="store_true",
        help="train once more without each smaller site, for figures of a site that was never seen",
    )
    how.add_argument(
        "--triage-rule",
        type=Path,
        help="TOML: what the programme asks of a finding that decides",
    )
    how.add_argument("--mlflow", metavar="URI", help="track the curves there too, beside TensorBoard")
    how.add_argument("--threads", type=int, help="number of CPU threads")
    arguments = parser.parse_args(argv)
    # Checked here, because otherwise they would fail only after the training.
    if not re.fullmatch(r"\d+\.\d+\.\d+", arguments.version):
        parser.error(f"--version {arguments.version}: three numbers, such as 1.0.1")
    if arguments.init and arguments.from_bundle:
        parser.error("give --init or --from-bundle, not both")
    if arguments.epochs is not None and arguments.epochs < 1:
        parser.error("--epochs: at least 1")
    return arguments


def train_network(arguments: argparse.Namespace) -> Path | None:
    """Train ``lung`` or ``cardiac``; ``None`` on all processes but the first."""
    import torch  # noqa: PLC0415

    from data_specs.bundle import CxrInput, EcgInput  # noqa: PLC0415
    from training.bundle.evaluate_bundle import in_service  # noqa: PLC0415
    from training.cohorts.cohort import Cohort, keep_share_of_persons  # noqa: PLC0415
    from training.cohorts.gates import bundles_folder  # noqa: PLC0415
    from training.cohorts.local import local_cohort  # noqa: PLC0415
    from training.figures.triage import read_rule  # noqa: PLC0415
    from training.learning.from_bundle import input_of  # noqa: PLC0415
    from training.learning.processes import Processes  # noqa: PLC0415
    from training.learning.task import Start  # noqa: PLC0415
    from training.learning.workflow import Choices, make_bundle  # noqa: PLC0415

    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    organ = importlib.import_module(f"training.organs.{arguments.bundle}")
    run = run_folder(arguments)
    serves = in_service(bundles_folder(), arguments.bundle) if arguments.cohort else None
    served = serves.manifest.input if serves else organ.INPUT
    with Processes.joined(arguments.device):
        takes = input_of(arguments.from_bundle, otherwise=organ.INPUT)

        def read(takes: CxrInput | EcgInput) -> list[Cohort]:
            if arguments.cohort:
                cohorts = [local_cohort(path, takes, cache=run / "cache") for path in arguments.cohort]
            else:
                cohorts = list(organ.shipped(arguments.data, takes))
            return [keep_share_of_persons(cohort, arguments.persons) for cohort in cohorts]

        cohorts = read(takes)
        task = organ.task(cohorts, arguments.data, takes)
        options = {"epochs": arguments.epochs, "batch_size": arguments.batch_size, "seed": arguments.seed}
        options |= {"learning_rate": arguments.learning_rate, "precision": arguments.precision}
        task = replace(task, triage=read_rule(arguments.triage_rule))
        task = replace(task, recipe=replace(task.recipe, **{k: v for k, v in options.items() if v is not None}))
        return make_bundle(
            task,
            cohorts,
            run=run,
            bundles=arguments.bundles or arguments.out,
            version=arguments.version,
            start=Start(arguments.init or organ.INIT, arguments.from_bundle, arguments.freeze),
            device=arguments.device,
            choices=Choices(
                arguments.patience, arguments.folds, arguments.search, arguments.leave_sites_out, arguments.mlflow
            ),
            serves=serves,
            as_served=() if serves is None else cohorts if served == takes else read(served),
        )


def train_other(arguments: argparse.Namespace) -> Path:
    """Train ``kidney`` or ``gate``, which do not use :mod:`training.learning.workflow`."""
    module = importlib.import_module(f"training.organs.{arguments.bundle}")
    more = {"cohorts": arguments.cohort} if arguments.cohort else {}
    if more and arguments.bundle == "gate":
        raise ValueError("the gate is trained on the shipped cohorts and synthetic pictures only; it takes no --cohort")
    folder: Path = module.run(
        data=arguments.data,
        out=arguments.out / f"{arguments.bundle}-{arguments.version}.run",
        bundles=arguments.bundles or arguments.out,
        version=arguments.version,
        epochs=arguments.epochs,
        **more,
    )
    return folder


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

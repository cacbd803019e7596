"""``python -m benchmarks COMMAND``: prints a table and, as the last line, JSON; some commands draw a plot."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Callable
from pathlib import Path

from benchmarks.files import SYNTAXES
from benchmarks.report import Report

COMMANDS = {
    "raw": "the sessions alone, by runtime, precision and batch",
    "engine": "MLPerf LoadGen over the engine: SingleStream, Offline, Server, accuracy",
    "http": "closed and open loop over HTTP, with real files",
    "decode": "each kind of file from bytes to tensor",
    "formats": "what a 2048² film costs in each transfer syntax, stage by stage",
    "stages": "cost of each stage of a visit, compared with the whole service",
    "archive": "films per second of python -m inference.archive, beside the bare sessions",
    "train": "cases per second of the training loop",
    "profile": "where the server's time goes at full load",
    "table": "all figures with a goal (make bench)",
}
WITH_OWN_OPTIONS = {
    "peers": "other serving frameworks with the same weights (make bench-peers)",
    "kit": "your own server with the files and clients of this project",
    "capacity": "from core-milliseconds to a national programme",
    "audit": "what the audit log costs a visit, how many entries a second it takes, and its proof",
    "database": "what a PostgreSQL with a million visits costs, and what harms its queues",
    "processes": "1, 2 and 4 server processes on one PostgreSQL and one S3, behind the proxy",
    "burned_in": "films that an export withholds, and texts that it finds in them",
    "drift": "how soon a scanner whose films change is noticed, simulated on real films",
    "chaos": "tries to take the service down (make chaos)",
}
"""Commands with their own options: ``benchmarks.NAME.main(arguments)``."""
OUT = Path(__file__).parent / "out"


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    by_name = {}
    for name, text in COMMANDS.items():
        by_name[name] = commands.add_parser(name, help=text, description=text)
        by_name[name].add_argument(
            "--out", type=Path, default=OUT, help="folder of plots and JSON (default: %(default)s)"
        )
    for name, text in WITH_OWN_OPTIONS.items():
        commands.add_parser(name, help=text, add_help=False)
    for name in ("engine", "http", "stages", "profile"):
        by_name[name].add_argument("--network", "--bundle", choices=["lung", "densenet121"], default="lung")
    by_name["engine"].add_argument("--duration-s", type=float, default=10.0, help="of each LoadGen run")
    for name, seconds in (
        ("raw", 0.7),
        ("http", 5.0),
        ("decode", 2.0),
        ("formats", 1.0),
        ("stages", 1.0),
        ("profile", 15.0),
        ("archive", 3.0),
        ("table", 3.0),
    ):
        by_name[name].add_argument("--seconds", type=float, default=seconds, help="of each measurement (%(default)s)")
    for name in ("engine", "formats", "stages", "table"):
        by_name[name].add_argument("--rounds", type=int, default=5, help="alternations; medians are reported")
    by_name["raw"].add_argument("--names", nargs="+", default=["lung", "cardiac", "cxr_gate"], help="bundles")
    by_name["raw"].add_argument("--batches", nargs="+", type=int, default=[1, 2, 4, 8, 16, 32, 64])
    by_name["raw"].add_argument("--torch", action="store_true", help="torch on the CPU too")
    by_name["raw"].add_argument("--densenet", action="store_true", help="DenseNet-121 instead of the lung bundle")
    by_name["http"].add_argument("--kinds", nargs="+", default=["png", *SYNTAXES, "wfdb", "check-up"])
    by_name["http"].add_argument("--clients", nargs="+", type=int, default=[1, 8, 32, 64, 128, 256])
    by_name["http"].add_argument("--shares", nargs="*", type=float, default=[0.3, 0.5, 0.7, 0.9], help="open loop")
    by_name["http"].add_argument("--raw-body", action="store_true", help="the file itself instead of multipart")
    by_name["archive"].add_argument("--kinds", nargs="+", choices=["png", *SYNTAXES], default=["png", "jpeg-lossless"])
    by_name["archive"].add_argument("--films", type=int, default=400)
    by_name["archive"].add_argument("--workers", type=int, default=0, help="default: all cores")
    by_name["archive"].add_argument("--ray", action="store_true", help="by Ray, too")
    by_name["train"].add_argument("--steps", type=int, default=4, help="per epoch")
    by_name["train"].add_argument("--threads", nargs="*", type=int, default=[])
    by_name["train"].add_argument("--precisions", nargs="+", choices=["bf16", "fp32"], default=["bf16", "fp32"])
    by_name["profile"].add_argument("--kind", default="png")
    by_name["profile"].add_argument("--native", action="store_true", help="frames of native code too")
    return top


def main(arguments: list[str] | None = None) -> None:
    options, others = parser().parse_known_args(arguments)
    if options.command in WITH_OWN_OPTIONS:
        importlib.import_module(f"benchmarks.{options.command}").main(others)
        return
    if others:
        parser().error(f"unrecognised: {' '.join(others)}")
    report = Report(options.command, options.out)
    command(options, report)()


def command(options: argparse.Namespace, report: Report) -> Callable[[], object]:  # noqa: PLR0911  one for each command
    """The function of a command; modules are imported only when needed, because some need torch."""
    if options.command == "raw":
        from benchmarks import raw  # noqa: PLC0415

        return lambda: raw.run(
            report, names=options.names, batches=options.batches, seconds=options.seconds, with_torch=options.torch,
            densenet=options.densenet,
        )  # fmt: skip
    if options.command == "engine":
        from benchmarks import engine  # noqa: PLC0415

        return lambda: engine.run(report, network=options.network, seconds=options.duration_s, rounds=options.rounds)
    if options.command == "http":
        from benchmarks import over_http  # noqa: PLC0415

        return lambda: over_http.run(
            report, network=options.network, kinds=options.kinds, clients=options.clients, shares=options.shares,
            seconds=options.seconds, raw=options.raw_body,
        )  # fmt: skip
    if options.command == "archive":
        from benchmarks import archive  # noqa: PLC0415

        return lambda: archive.run(
            report, kinds=options.kinds, films=options.films, workers=options.workers, seconds=options.seconds,
            with_ray=options.ray,
        )  # fmt: skip
    if options.command == "train":
        from benchmarks import train  # noqa: PLC0415

        return lambda: train.run(report, steps=options.steps, precisions=options.precisions, threads=options.threads)
    if options.command == "profile":
        from benchmarks import profiling  # noqa: PLC0415

        return lambda: profiling.run(
            report, network=options.network, kind=options.kind, seconds=options.seconds, native=options.native
        )
    if options.command == "stages":
        from benchmarks import stages  # noqa: PLC0415

        return lambda: stages.run(report, network=options.network, seconds=options.seconds, rounds=options.rounds)
    if options.command == "formats":
        from benchmarks import formats  # noqa: PLC0415

        return lambda: formats.run(report, seconds=options.seconds, rounds=options.rounds)
    if options.command == "decode":
        from benchmarks import decode  # noqa: PLC0415

        return lambda: decode.run(report, seconds=options.seconds)
    from benchmarks import table  # noqa: PLC0415

    return lambda: table.run(report, rounds=options.rounds, seconds=options.seconds)


if __name__ == "__main__":
    main()

"""The verbs `judge`, for runs that something else made, and `verify` and `show`, for results that are there."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from optsweep.address import tracking_address
from optsweep.cli.parser import Parser, say_json
from optsweep.errors import UserError


def judge(arguments: Sequence[str]) -> None:
    """Judge the runs of a CSV or of an MLflow experiment."""
    options = _parser().parse_args(arguments)
    from optsweep import api
    from optsweep.report.judged.write import plain

    report = api.judge(
        options.source,
        out=options.out,
        tracking_uri=options.tracking_uri,
        arm=options.arm,
        metric=options.metric,
        seed=options.seed,
        step=options.step,
        at=_step(options.at),
        baseline=options.baseline,
        against_previous=options.against == "previous",
        arms=tuple(name for name in (options.arms or "").split(",") if name),
        sigma=options.sigma,
        mean_of=options.mean_of,
        per_step=options.per_step,
        one_sided=options.one_sided,
        restarts=options.restarts,
        unpaired=options.unpaired,
        higher_is_better=options.higher_is_better,
        delta=options.delta,
        names=options.names,
        where=tuple(_condition(text) for text in options.where),
    )
    say_json(plain(report)) if options.json else print(report.summary)


def verify(arguments: Sequence[str]) -> None:
    """Run a share of a sweep's trials again; exit code 1 where they don't agree."""
    parser = Parser("optsweep verify", description="Run a random share of a sweep's trials again and compare.")
    parser.add_argument("results", type=Path, metavar="RESULTS.JSON", help="of a sweep's report")
    parser.add_argument("--share", type=float, default=0.1, help="of the trials (default: 0.1)")
    parser.add_argument("--seed", type=int, default=0, help="draws them (default: 0)")
    parser.add_argument(
        "--tolerance", type=float, help="relative difference of a loss that still agrees (default: 1e-3)"
    )
    parser.add_argument("--json", action="store_true", help="for machines")
    options = parser.parse_args(arguments)
    from optsweep import api
    from optsweep.launch.verify import plain

    found = api.verify(options.results, options.share, options.seed, options.tolerance)
    say_json(plain(found)) if options.json else print(found.summary)
    if not found.agree:
        raise SystemExit(1)


def show(arguments: Sequence[str]) -> None:
    """Print the verdict of a sweep again."""
    parser = Parser("optsweep show", description="Print the verdict of a sweep again; --json: optsweep docs own-model.")
    parser.add_argument("sweep", metavar="NAME", help="of a sweep, or a results.json")
    parser.add_argument("--json", action="store_true", help="for machines, best settings included")
    parser.add_argument("--tracking-uri")
    options = parser.parse_args(arguments)
    from optsweep import api
    from optsweep.report.results import as_json
    from optsweep.result.result import summary

    result = api.load(options.sweep, tracking_uri=options.tracking_uri)
    print(as_json(summary(result)), end="") if options.json else print(f"\n{result}")


def _parser() -> Parser:
    parser = Parser("optsweep judge", description="Judge runs that something else made: see optsweep docs judge.")
    add = parser.add_argument
    add("source", metavar="RUNS", help="a CSV (also a W&B export of the table or of a chart), or mlflow:EXPERIMENT")
    add("--arm", required=True, metavar="COLUMN", help="who is compared")
    add("--metric", required=True, metavar="COLUMN", help="what is compared; lower is better")
    add("--seed", metavar="COLUMN", help="numbers an arm's runs; the same in several arms pairs them")
    add("--step", metavar="COLUMN", help="rows are points of curves")
    add("--at", metavar="STEP", help="the step that counts, or last (default: the last that all arms have)")
    add("--baseline", metavar="ARM", help="whom the others are held against (default: the first arm)")
    add("--against", choices=["previous"], help="hold each arm against the one before")
    add("--arms", metavar="A,B,…", help="which arms, in this order (default: all, as they appear)")
    add("--sigma", type=float, help="SD of a run, taken as known: z tests")
    add("--mean-of", metavar="COLUMN", help="rows are means of so many runs; needs --sigma")
    add("--per-step", type=float, default=0.0, metavar="LOSS", help="what a step more lowers the loss by")
    add("--one-sided", action="store_true", help="ask only whether the candidate is better")
    add("--restarts", action="store_true", help="where a run's steps begin again, another run begins")
    add("--unpaired", action="store_true", help="equal seeds of two arms are not the same seed")
    add("--higher-is-better", action="store_true")
    add("--delta", type=float, help="a difference too small to matter")
    add("--names", metavar="PATTERN", help="of the runs' names; its named groups are columns")
    add("--where", action="append", default=[], metavar="COLUMN=VALUE", help="only such rows")
    add("--out", type=Path, help="folder (default: reports/NAME)")
    add("--tracking-uri", default=tracking_address())
    add("--json", action="store_true", help="for machines; all numbers are in the report's results.json")
    return parser


def _step(text: str | None) -> float | str | None:
    """A number, or last."""
    if text in (None, "last"):
        return text
    try:
        return float(str(text))
    except ValueError:
        raise UserError(f"--at: {text} is not allowed; give a step, or last") from None


def _condition(text: str) -> tuple[str, str]:
    column, equals, value = text.partition("=")
    if not (column and equals):
        raise UserError(f"--where: {text} is not allowed; give COLUMN=VALUE")
    return column, value

"""The verbs of the command line: their arguments, and how their results look on a terminal."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.table import Table

from optsweep.address import tracking_address
from optsweep.cli.parser import Parser, say_json
from optsweep.config.arm import Arm
from optsweep.errors import UserError


def report(arguments: Sequence[str]) -> None:
    """Write the report of one or several sweeps again."""
    parser = Parser("optsweep report", description="Write the report of one or several sweeps again.")
    parser.add_argument("--storage", default=Arm.storage)
    parser.add_argument("--tracking-uri", default=tracking_address())
    parser.add_argument("sweeps", nargs="+", metavar="NAME")
    parser.add_argument("--out", type=Path, help="folder (default: reports/NAME)")
    parser.add_argument("--pdf", action="store_true", help="figures/*.pdf too, with their fonts embedded")
    options = parser.parse_args(arguments)
    from optsweep import api

    out = options.out or api.REPORTS / "+".join(options.sweeps)
    try:
        print(api.report(options.tracking_uri, options.sweeps, out, storage=options.storage, pdf=options.pdf).summary)
    except ValueError as error:
        raise UserError(str(error)) from None
    except OSError as error:
        raise UserError(f"--out: {out} can't be written ({error})") from None


def status(arguments: Sequence[str]) -> None:
    """How far a sweep is."""
    parser = Parser("optsweep status", description="How far a sweep is, who is at work, and the last error.")
    parser.add_argument("sweep", metavar="NAME")
    parser.add_argument("--storage", default=Arm.storage)
    parser.add_argument("--json", action="store_true", help="for machines")
    options = parser.parse_args(arguments)
    from optsweep import api
    from optsweep.launch.slurm.told import lines_of
    from optsweep.launch.status import plain, status_table

    try:
        found = api.status(options.storage, options.sweep)
    except UserError:  # its jobs may wait in a queue
        for line in lines_of(options.sweep) if not options.json else ():
            print(line)
        raise
    if options.json:
        say_json(plain(options.sweep, found))
        return
    console = Console(highlight=False, markup=False, emoji=False)
    console.print(status_table(options.sweep, found.phases))
    for line in (*found.lines(), *lines_of(options.sweep)):
        console.print(line, soft_wrap=True)


def suggest(arguments: Sequence[str]) -> None:
    """Suggested values of an arm."""
    parser = Parser(
        "optsweep suggest",
        usage="optsweep suggest [--json] KEY=VALUE …",
        description="Suggested learning rates, warm-up and weight decay with their sources; keys as of a sweep.",
    )
    parser.add_argument("--json", action="store_true", help="for machines")
    options, overrides = parser.parse_known_args(arguments)
    from optsweep import api
    from optsweep.config.compose import check_overrides, compose
    from optsweep.config.door import arm_of

    check_overrides(overrides)
    arm = arm_of(compose([*overrides, "sweep.name=suggest"]))
    found = api.suggest(arm)
    if options.json:
        say_json({"facts": asdict(found.facts), "suggestions": [asdict(s) for s in found.suggestions]})
        return
    title = f"{arm.optimizer.name} + {arm.schedule.name} on {arm.task.name}"
    table = Table(title=title, title_justify="left", show_lines=True)
    for column in ("what", "value", "range", "how", "source"):
        table.add_column(column, overflow="fold")
    for s in found.suggestions:
        reach = f"{s.low:.3g} – {s.high:.3g}" if s.low != s.high else ""
        table.add_row(s.key, f"{s.value:.3g}", reach, s.arithmetic, s.source + (f" ({s.note})" if s.note else ""))
    Console(markup=False, emoji=False).print(table)
    known = ", ".join(f"{key} {value}" for key, value in asdict(found.facts).items() if value not in (None, "", False))
    sys.stdout.write(f"task facts: {known}\n")


def retry(arguments: Sequence[str]) -> Sequence[str] | None:
    """Free what was given up, and go on with the sweep's own command, where it is known whole."""
    parser = Parser("optsweep retry", description="Run again what a sweep has given up.")
    options = _of_sweep(parser, arguments)
    from optsweep import api

    freed = api.retry(options.storage, options.tracking_uri, options.sweep)
    print(f"sweep {options.sweep}: {freed.failures} failures no longer count")
    if freed.failures and not freed.arguments:
        print("the sweep's command runs what they had ended")
    return freed.arguments if freed.failures and freed.arguments else None


def sync(arguments: Sequence[str]) -> Sequence[str] | None:
    """Deliver what waits, and write the report by the sweep's own command, where that is known whole."""
    parser = Parser("optsweep sync", description="Deliver trials that wait for the tracking store, and report.")
    options = _of_sweep(parser, arguments)
    from optsweep import api

    try:
        synced = api.sync(options.storage, options.tracking_uri, options.sweep)
    except ValueError as error:
        raise UserError(str(error)) from None
    trials = "1 trial was" if synced.trials == 1 else f"{synced.trials} trials were"
    print(f"sweep {options.sweep}: {trials} delivered")
    if not synced.complete:
        print("its own command goes on with what is left to train")
    elif synced.arguments:
        return synced.arguments
    else:
        print(api.report(options.tracking_uri, [options.sweep], storage=options.storage).summary)
    return None


def _of_sweep(parser: Parser, arguments: Sequence[str]) -> Namespace:
    """Which sweep is meant, in which stores."""
    parser.add_argument("sweep", metavar="NAME")
    parser.add_argument("--storage", default=Arm.storage)
    parser.add_argument("--tracking-uri", default=tracking_address())
    return parser.parse_args(arguments)

"""The verbs `work` and `move`: a sweep over several machines, and from files to servers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from optsweep.address import tracking_address
from optsweep.cli.parser import Parser
from optsweep.config.arm import Arm


def work(arguments: Sequence[str]) -> None:
    """Train for a sweep that another process plans."""
    parser = Parser("optsweep work", description="Further workers for a sweep, on any machine that reaches its stores.")
    parser.add_argument("sweep", metavar="NAME", help="of a sweep whose own command runs, or ran, elsewhere")
    parser.add_argument("--storage", default=Arm.storage, help="of the studies: the sweep's tracking.storage")
    parser.add_argument("--tracking-uri", default=tracking_address(), help="of the runs: the sweep's tracking.uri")
    parser.add_argument("--workers", type=int, help="(default: one per trainer.threads cores, or per GPU)")
    where = "where the folder of its tracking.checkpoints is mounted here (default: where it is there)"
    parser.add_argument("--checkpoints", type=Path, metavar="FOLDER", help=where)
    options = parser.parse_args(arguments)
    from optsweep.launch.elsewhere.helper import work_elsewhere

    folder = options.checkpoints and options.checkpoints.expanduser().absolute()
    work_elsewhere(
        options.storage, options.tracking_uri, options.sweep, options.workers, _say, checkpoints=folder or None
    )


def move(arguments: Sequence[str]) -> None:
    """Take a sweep to other stores."""
    does = "Take a sweep that nobody works on to other stores, where its command goes on."
    parser = Parser("optsweep move", description=does)
    parser.add_argument("sweep", metavar="NAME")
    parser.add_argument("--storage", default=Arm.storage, help="where its studies are")
    parser.add_argument("--tracking-uri", default=tracking_address(), help="where its runs are")
    parser.add_argument("--to-storage", required=True, help="a database: sqlite:///PATH, postgresql+psycopg://…")
    parser.add_argument("--to-tracking-uri", required=True, help="an MLflow server, or a database")
    options = parser.parse_args(arguments)
    from optsweep.launch.moving import BothStores
    from optsweep.launch.moving import move as moved

    source = BothStores(options.storage, options.tracking_uri)
    moved(options.sweep, source, BothStores(options.to_storage, options.to_tracking_uri), _say)


def _say(line: str) -> None:
    print(line, flush=True)
